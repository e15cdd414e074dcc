"""What architectures are asked for: limits that each must meet, and numbers that shall be large or small.

parameters<=1e6      a Constraint: NAME<=VALUE or NAME>=VALUE
macs:min             an Objective: NAME, NAME:max or NAME:min
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from nnas_core._listing import shortened
from nnas_core.errors import UsageError

__all__ = ["COSTS", "Constraint", "Objective", "constraints_of", "nothing_reports", "objectives_of"]

COSTS = ("parameters", "macs", "latency_ms", "memory_mib")
"""Costs that nnas itself measures of a model, before it is trained."""

_LIMIT = re.compile(r"\s*(?P<name>[^<>=]*[^<>=\s])\s*(?P<sense><=|>=)\s*(?P<bound>[^<>=\s]+)\s*")

_LONGEST_NAME = 100


@dataclass(frozen=True, order=True)
class Constraint:
    """A limit of a number that is measured of an architecture.

    Attributes:
        name: of a cost or a metric.
        is_most: True for ``<=``, False for ``>=``; both ends are allowed.
        bound: finite.
    """

    name: str
    is_most: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Reads ``NAME<=VALUE`` or ``NAME>=VALUE``; spaces around the parts do not matter.

        Raises:
            UsageError: it is something else.
        """
        match = _LIMIT.fullmatch(text)
        bound = _number(match["bound"]) if match is not None else None
        if match is None or bound is None or len(match["name"]) > _LONGEST_NAME:
            raise UsageError(
                f"`constraint` {shortened(text, 80)!r} is no limit",
                hint="give NAME<=VALUE or NAME>=VALUE, as in 'parameters<=1e6'",
            )
        return cls(match["name"], match["sense"] == "<=", bound)

    @property
    def exact_bound(self) -> Fraction:
        """The bound as it was written: 0.3 is three tenths."""
        return Fraction(repr(self.bound))

    def holds(self, value: float) -> bool:
        """Returns true if a number is within the limit; one that is not finite never is."""
        return math.isfinite(value) and (value <= self.bound if self.is_most else value >= self.bound)

    def excess(self, value: float) -> float:
        """Returns by how much a number is beyond the limit, in parts of the bound; 0 if it is not."""
        if self.holds(value):
            return 0.0
        return abs(value - self.bound) / max(abs(self.bound), 1e-12) if math.isfinite(value) else math.inf

    def __str__(self) -> str:
        whole = self.bound.is_integer() and abs(self.bound) < 1e15
        return f"{self.name}{'<=' if self.is_most else '>='}{int(self.bound) if whole else repr(self.bound)}"


@dataclass(frozen=True)
class Objective:
    """A number that is to be made large or small.

    Attributes:
        name: of a cost or a metric.
        is_min: True where smaller is better; None: as ``towards`` says.
    """

    name: str
    is_min: bool | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Reads ``NAME``, ``NAME:max`` or ``NAME:min``.

        Raises:
            UsageError: it is something else.
        """
        name, colon, mode = text.rpartition(":")
        name = name.strip() if colon else text.strip()
        if not 0 < len(name) <= _LONGEST_NAME or (colon and mode.strip() not in ("min", "max")):
            raise UsageError(
                f"`objective` {shortened(text, 80)!r} is no objective",
                hint="give NAME, NAME:max or NAME:min, as in macs:min",
            )
        return cls(name, mode.strip() == "min" if colon else None)

    def towards(self, metric: str | None, mode: str, costs: Collection[str] = ()) -> Objective:
        """Returns the objective with its direction.

        Without one, the study's own metric, which is also called ``value``, has that of the study; of others a loss or
        a cost is to be small, and a metric large.

        Args:
            metric: the study's own.
            mode: ``"maximize"`` or ``"minimize"``: which values of it are better.
            costs: names of those besides ``COSTS``.
        """
        if self.is_min is not None:
            return self
        if self.name in (metric, "value"):
            return Objective(self.name, mode == "minimize")
        return Objective(self.name, self.name in (*COSTS, *costs, "loss", "seconds"))

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is; a number times it is to be large."""
        return -1 if self.is_min else 1

    def __str__(self) -> str:
        return self.name if self.is_min is None else f"{self.name}:{'min' if self.is_min else 'max'}"


def constraints_of(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Returns the constraints that texts are, in one order, each once.

    Raises:
        UsageError: one is none, or no number can meet two of them.
    """
    found = sorted({Constraint.parse(text) for text in texts})
    for low in found:
        for high in found:
            if low.name == high.name and high.is_most and not low.is_most and low.bound > high.bound:
                raise UsageError(f"`constraint`: no number meets both {low} and {high}", hint="leave one out")
    return tuple(found)


def objectives_of(texts: Iterable[str]) -> tuple[Objective, ...]:
    """Returns the objectives that texts are, in their order.

    Raises:
        UsageError: one is none, or is named twice.
    """
    found = tuple(map(Objective.parse, texts))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"`objective` {name!r} is named twice", hint="leave one out")
    return found


def nothing_reports(what: str, name: str, known: Collection[str] | Mapping[str, object]) -> UsageError:
    """Describes a name that nothing reports; the hint has the closest of those that there are.

    Args:
        what: the parameter that has the name: ``constraint`` or ``objective``.
        name: of a cost or a metric.
        known: all names that there are.
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    names = ", ".join(near or sorted(known)) or "no name"
    return UsageError(
        f"`{what}`: nothing reports {shortened(name, 80)!r}", hint=f"{'did you mean' if near else 'there are'} {names}"
    )


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "x"))
    except (ValueError, OverflowError):
        return None
    return value + 0.0 if math.isfinite(value) else None
