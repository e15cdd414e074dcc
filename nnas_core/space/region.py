"""The architectures that a study or a search may try: those that meet all constraints whose numbers are known before.

Costs that add up are counted, and drawn within the bounds, exactly (``bounded.py``). Others are measured, an
architecture at a time: what is drawn of the first is kept if it meets these too, so that draws stay uniform.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from nnas_core.errors import NoResultError
from nnas_core.randomness import generator
from nnas_core.space.architecture import Architecture
from nnas_core.space.bounded import Bounded, Limit
from nnas_core.space.choice import Decision
from nnas_core.space.cost_extremes import extreme
from nnas_core.space.costs import CostTable
from nnas_core.space.encoding import Code, Codes
from nnas_core.space.goals import Constraint
from nnas_core.space.search_space import SearchSpace

__all__ = ["KnownCosts", "Region", "TableCosts", "shown"]

_REMEMBERED = 100_000
"""Architectures whose measured numbers are kept, so that memory has a limit."""

_TRIES, _MEASURED = 10_000, 300
"""Draws in a row that may fall outside, where costs are looked up in tables, and where they are measured."""

_STEPS = 200
"""Of a walk from a draw that falls outside to the bounds."""

_MOST_MEASURED = 20_000
"""Architectures that are all measured, where neither draws nor walks lead to one within the bounds."""

_LISTED = 100_000
"""Architectures of a region that are counted one by one, where they cannot be counted otherwise."""


class KnownCosts(ABC):
    """Numbers of architectures that are known before these are trained.

    Attributes:
        names: of the costs.
        tables: those of them that add up, by name.
    """

    names: Sequence[str]
    tables: Mapping[str, CostTable]

    @abstractmethod
    def measured(self, decisions: Mapping[str, Decision], names: Collection[str]) -> Mapping[str, float]:
        """Measures costs of one architecture that do not add up; one that cannot be measured is NaN.

        Args:
            decisions: key -> chosen indices.
            names: which, and no others are asked for.
        """

    def of(self, architecture: Architecture, names: Collection[str] | None = None) -> dict[str, float]:
        """Returns costs of an architecture by name: those named, or all."""
        wanted = self.names if names is None else [name for name in self.names if name in names]
        decisions = architecture.indices()
        found: dict[str, float] = {name: self.tables[name].value(decisions) for name in wanted if name in self.tables}
        others = [name for name in wanted if name not in self.tables]
        return {**found, **(self.measured(decisions, others) if others else {})}


class TableCosts(KnownCosts):
    """Costs that all add up.

    Args:
        tables: by name.
    """

    def __init__(self, tables: Mapping[str, CostTable]) -> None:
        self.tables = tables
        self.names = list(tables)

    def measured(self, decisions: Mapping[str, Decision], names: Collection[str]) -> Mapping[str, float]:
        """Measures nothing: there are no others."""
        return {}


class Region:
    """The architectures of a space that meet constraints.

    Args:
        space: of all.
        constraints: on ``costs``.
        costs: numbers that are known before an architecture is trained.

    Attributes:
        codes: of the space.
        constraints, costs: as given.

    Raises:
        NoResultError: no architecture meets the constraints; the smallest value that one can have is named.
    """

    def __init__(self, space: SearchSpace, constraints: Sequence[Constraint], costs: KnownCosts) -> None:
        self.codes = Codes(space)
        self.constraints = tuple(constraints)
        self.costs = costs
        self._limits = [Limit(one, costs.tables[one.name]) for one in constraints if one.name in costs.tables]
        self._ends = [(limit.table, *limit.slack) for limit in self._limits]
        self._others = [one for one in constraints if one.name not in costs.tables]
        self._names = sorted({one.name for one in self._others})
        self._measured: dict[Code, bool] = {}
        self._listed: list[Code] | None = None  # all, where draws do not find any
        for limit in self._limits:
            self._check_alone(limit)
        self._bounded = Bounded(self.codes, self._limits)
        self._check_together()

    def __deepcopy__(self, memo: object) -> Region:
        """Returns the region itself: the copy of a mutator stays within the same limits of the same model."""
        return self

    # ---- what is in it

    @property
    def size(self) -> int | None:
        """How many architectures there are, exact; None where that is not known."""
        return self._bounded.size if self._is_exact else None

    @property
    def at_most(self) -> int:
        """No region has more architectures than this: those that meet the constraints whose costs add up."""
        return self._bounded.size

    @property
    def _is_exact(self) -> bool:
        return self._bounded.exact and not self._others

    def __contains__(self, code: Code) -> bool:
        """Returns true if an architecture meets all constraints."""
        return self.may_have(code) and (not self._others or self._meets_others(code))

    def may_have(self, code: Code) -> bool:
        """Returns false if costs that add up are beyond their bounds, which is known without a measurement."""
        if not self._limits:
            return True
        decisions = self.codes.decisions(code)
        return all(sign * table.of(decisions) <= slack for table, sign, slack in self._ends)

    def _meets_others(self, code: Code) -> bool:
        if code not in self._measured:
            if len(self._measured) >= _REMEMBERED:
                self._measured.clear()
            self._measured[code] = not self._excess(code)
        return self._measured[code]

    def _excess(self, code: Code) -> float:
        """Returns by how much measured costs are beyond their bounds; 0 if they are not."""
        found = self.costs.measured(self.codes.decisions(code), self._names)
        return sum(one.excess(found.get(one.name, math.nan)) for one in self._others)

    # ---- draws

    def draw(self, rng: np.random.Generator) -> Code:
        """Returns one of its architectures, each equally likely.

        Where a few hundred draws meet the constraints that add up and none meets those that are measured, it is the end
        of a walk along neighbours from the draw that came nearest; where that leads nowhere, and there are no more than
        thousands of architectures, all of them are looked at.

        Raises:
            NoResultError: none was found.
        """
        if self._is_exact:
            return self._bounded.draw(rng)
        if self._listed:
            return self._listed[int(rng.integers(len(self._listed)))]
        nearest: tuple[float, Code] | None = None
        for _ in range(_MEASURED if self._others else _TRIES):
            code = self._bounded.draw(rng)
            if not self.may_have(code):
                continue
            excess = 0.0 if self._measured.get(code) else self._excess(code)
            if not excess:
                return code
            if nearest is None or excess < nearest[0]:
                nearest = excess, code
        if nearest is not None:
            return self._walked(*nearest, rng)
        return self._of_all(rng, None)

    def _walked(self, excess: float, code: Code, rng: np.random.Generator) -> Code:
        """Returns an architecture within the bounds, steps to neighbours away from one that is not."""
        for _ in range(_STEPS if self._listed is None else 0):
            other = self.codes.mutate(code, rng)
            if not self.may_have(other):
                continue
            beyond = self._excess(other)
            if not beyond:
                return other
            if beyond <= excess:
                excess, code = beyond, other
        return self._of_all(rng, code)

    def _of_all(self, rng: np.random.Generator, nearest: Code | None) -> Code:
        """Returns an architecture within the bounds, of all, if these are few."""
        if self._bounded.size > _MOST_MEASURED:
            raise self._nobody("none of the architectures that were looked at", nearest)
        self._listed = list(self.all())
        if not self._listed:
            raise self._nobody("no architecture")
        return self._listed[int(rng.integers(len(self._listed)))]

    def all(self) -> Iterator[Code]:
        """Returns each of its architectures once, in an order of no meaning; there may be very many."""
        for number in range(self._bounded.size):
            code = self._bounded.at(number)
            if self._is_exact or code in self:
                yield code

    def counted(self) -> tuple[int, bool]:
        """Returns how many architectures there are, and true if that is exact.

        Few are counted one by one where nothing else is exact; of many, draws say about how many.
        """
        if self._is_exact:
            return self._bounded.size, True
        if self._bounded.size <= (_LISTED if not self._others else _LISTED // 100):
            return sum(1 for _ in self.all()), True
        rng = generator(0, "region", "count")
        tries = _MEASURED if self._others else _TRIES
        inside = sum(self._bounded.draw(rng) in self for _ in range(tries))
        return self._bounded.size * inside // tries, False

    # ---- nothing in it

    def _check_alone(self, limit: Limit) -> None:
        one, table = limit.constraint, limit.table
        largest = not one.is_most
        value: float
        if len(table.candidates) == len([key for key in table.candidates if self.codes.space[key].n_chosen == 1]):
            architecture, exact = extreme(self.codes.space, [table], largest=largest)
            value = table.value(architecture.indices())
        else:
            found = Bounded(self.codes, ()).least(table, largest=largest)
            value, exact = (0 if found is None else found), True
        if not one.holds(value) and (exact or self._is_beyond(limit)):
            word = ("largest" if largest else "smallest") + ("" if exact else " that was found")
            raise NoResultError(
                f"no architecture has {one}: the {word} is {shown(value)}",
                hint=f"{'raise' if one.is_most else 'lower'} the bound",
            )

    def _is_beyond(self, limit: Limit) -> bool:
        return not Bounded(self.codes, [limit]).size

    def _check_together(self) -> None:
        if not self._bounded.size:
            raise self._nobody("no architecture")
        if not self._is_exact:
            self.draw(generator(0, "region", "check"))

    def _all_values(self, one: Constraint) -> list[float]:
        """Returns what a measured cost is, of all architectures that meet those that add up."""
        codes = (self._bounded.at(number) for number in range(self._bounded.size))
        decisions = (self.codes.decisions(code) for code in codes if self.may_have(code))
        return [self.costs.measured(each, [one.name]).get(one.name, math.nan) for each in decisions]

    def _nobody(self, who: str, nearest: Code | None = None) -> NoResultError:
        """Describes that nobody meets the constraints: the best that each can be while the others hold."""
        problems = []
        for limit in self._limits if len(self.constraints) > 1 else ():
            others = [other for other in self._limits if other is not limit]
            value = Bounded(self.codes, others).least(limit.table, largest=not limit.constraint.is_most)
            if value is not None:
                end = "smallest" if limit.constraint.is_most else "largest"
                problems.append(f"{limit.constraint}: the {end} is {shown(value)} where the others hold")
        for one in self._others if nearest is None and self._listed is not None else ():
            best = min(self._all_values(one), key=one.excess)
            problems.append(f"{one}: the {'smallest' if one.is_most else 'largest'} is {shown(best)}")
        if nearest is not None:
            found = self.costs.measured(self.codes.decisions(nearest), self._names)
            problems += [f"{one}: nearest was {shown(found.get(one.name, math.nan))}" for one in self._others]
        asked = " and ".join(map(str, self.constraints))
        return NoResultError(f"{who} has {asked}", problems=problems, hint="move the bounds")


def shown(value: float) -> str:
    """A number as people read it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
