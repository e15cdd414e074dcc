"""Architectures drawn uniformly within bounds of what they cost.

A small space is listed once, and every draw is a look-up. In a large one architectures are drawn until one fits; what
cannot be drawn that way is found out at the beginning, so that no draw runs without end or leaves the bounds.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nnas_core.errors import NnasWarning, NoResultError
from nnas_core.mutables.cost import FlopMeter
from nnas_core.random_state import torch_generator
from nnas_core.space.choice import Choice, Decision
from nnas_core.space.costs import CostTable

__all__ = [
    "AddedCosts",
    "BoundedDraw",
    "Drawn",
    "Interval",
    "MeasuredCosts",
    "Population",
]

Interval = tuple[float, float]
"""Lowest and highest cost, both allowed; infinite where there is no limit."""

Drawn: TypeAlias = Any
"""Architectures as one kind of population holds them: something that has a length and can be indexed."""

_UNITS = {"flops": "FLOPs", "params": "parameters"}

_REMEMBERED = 100_000
"""Architectures whose measured FLOPs are kept, so that memory has a limit."""


def _uniform(choice: Choice, generator: torch.Generator | None) -> Decision:
    """One of the decisions of a choice, each equally likely."""
    count = len(choice.candidates)
    if choice.n_chosen is None:
        chosen = torch.rand(count, generator=generator, device="cpu") < 0.5
        return tuple(index for index, value in enumerate(chosen.tolist()) if value)
    return tuple(sorted(torch.randperm(count, generator=generator, device="cpu")[: choice.n_chosen].tolist()))


class Population(ABC):
    """The architectures of a space, a few at a time, and their costs.

    Attributes:
        size: how many there are; of those that differ in cost, where the others can be ignored.
        listed_up_to: the size up to which all of them are looked at.
        block: how many are drawn at a time, at most.
        looks: architectures to look at for each of ``tries``, where the space is larger than that.
    """

    size: int
    listed_up_to: int
    block: int
    looks: float

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self.choices = choices

    @abstractmethod
    def at(self, numbers: NDArray[np.int64]) -> Drawn:
        """The architectures of numbers below ``size``, as something that has a length and can be indexed."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator | None) -> Drawn:
        """``count`` architectures, each equally likely."""

    @abstractmethod
    def of(self, decisions: Mapping[str, Decision]) -> Drawn:
        """One architecture, as if it were drawn."""

    @abstractmethod
    def costs(self, name: str, drawn: Drawn, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """The costs of those of ``drawn`` that ``which`` names."""

    @abstractmethod
    def limits(self, name: str) -> tuple[int, int] | None:
        """Return the least and the most that an architecture can cost, if that is known."""

    @abstractmethod
    def decisions(self, one: Any, generator: torch.Generator | None) -> dict[str, Decision]:
        """An architecture that was drawn, as decisions of all keys."""


class AddedCosts(Population):
    """Costs add up over LayerChoices: arrays of positions ``[N, K]``. Nothing else has to be drawn to know them."""

    listed_up_to = 65_536
    block = 4_096
    looks = 1.0

    def __init__(self, choices: Mapping[str, Choice], tables: Mapping[str, CostTable]) -> None:
        super().__init__(choices)
        self._tables = tables
        self._keys = [key for key, choice in choices.items() if choice.kind == "layer_choice"]
        self._sizes = np.array([choices[key].size for key in self._keys], dtype=np.int64)
        self.size = math.prod(self._sizes.tolist())

    def at(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        positions = np.empty((len(numbers), len(self._keys)), dtype=np.int64)
        for column, size in enumerate(self._sizes):
            numbers, positions[:, column] = np.divmod(numbers, size)
        return positions

    def draw(self, count: int, generator: torch.Generator | None) -> NDArray[np.int64]:
        shape = (count, len(self._keys))
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        return (drawn.numpy() * self._sizes).astype(np.int64)

    def of(self, decisions: Mapping[str, Decision]) -> NDArray[np.int64]:
        return np.array([[decisions[key][0] for key in self._keys]], dtype=np.int64).reshape(1, len(self._keys))

    def costs(self, name: str, drawn: Drawn, which: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._tables[name].of_many(drawn[which])

    def limits(self, name: str) -> tuple[int, int]:
        return self._tables[name].limits

    def decisions(self, one: NDArray[np.int64], generator: torch.Generator | None) -> dict[str, Decision]:
        positions = dict(zip(self._keys, one.tolist(), strict=True))
        return {
            key: (positions[key],) if key in positions else _uniform(choice, generator)
            for key, choice in self.choices.items()
        }


class MeasuredCosts(Population):
    """FLOPs do not add up: each architecture is run, and remembered. Lists of decisions by key."""

    listed_up_to = 500
    block = 1
    looks = 0.05

    def __init__(self, choices: Mapping[str, Choice], params: CostTable, meter: FlopMeter) -> None:
        super().__init__(choices)
        self._params = params
        self._meter = meter
        self._known: dict[tuple[Decision, ...], int] = {}
        self.size = math.prod(choice.size for choice in choices.values())

    def at(self, numbers: NDArray[np.int64]) -> list[dict[str, Decision]]:
        return [self._number(number) for number in numbers.tolist()]

    def _number(self, number: int) -> dict[str, Decision]:
        decisions = {}
        for key, choice in self.choices.items():
            number, own = divmod(number, choice.size)
            decisions[key] = choice.decision(own)
        return decisions

    def draw(self, count: int, generator: torch.Generator | None) -> list[dict[str, Decision]]:
        return [{key: _uniform(choice, generator) for key, choice in self.choices.items()} for _ in range(count)]

    def of(self, decisions: Mapping[str, Decision]) -> list[dict[str, Decision]]:
        return [dict(decisions)]

    def costs(self, name: str, drawn: Drawn, which: NDArray[np.int64]) -> NDArray[np.int64]:
        cost = self._params.of if name == "params" else self._flops
        return np.array([cost(drawn[index]) for index in which.tolist()], dtype=np.int64)

    def _flops(self, decisions: Mapping[str, Decision]) -> int:
        known = tuple(decisions.values())
        if known not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[known] = self._meter.measure(decisions)
        return self._known[known]

    def limits(self, name: str) -> tuple[int, int] | None:
        return self._params.limits if name == "params" else None

    def decisions(self, one: dict[str, Decision], generator: torch.Generator | None) -> dict[str, Decision]:
        return one


class BoundedDraw:
    """Draws from a population within bounds.

    Args:
        population: to draw from.
        bounds: name of a cost -> lowest and highest.
        bins: of the first of ``bounds``.
        tries: draws until one is in the bin that was picked.

    Raises:
        NoResultError: no architecture is within the bounds, or none, or too few, of those looked at are.
    """

    def __init__(self, population: Population, bounds: Mapping[str, Interval], bins: int, tries: int) -> None:
        self._population = population
        self._bounds = bounds
        self._bins = bins
        self._tries = tries
        self._members: dict[int, NDArray[np.int64]] = {}
        for name, (low, high) in bounds.items():
            least, most = population.limits(name) or (0, math.inf)
            if high < least or low > most:
                raise NoResultError(
                    f"no architecture has {_range(low, high)} {_UNITS[name]}, they have {_range(least, most)}",
                    hint="widen the bounds",
                )
        self._edges = (0.0, math.inf)
        listed = population.size <= population.listed_up_to
        looked = population.size if listed else max(1, int(tries * population.looks))
        costs = self._look(looked, listed)
        inside = np.flatnonzero(~np.isnan(costs))
        asked = " and ".join(f"{_range(*ends)} {_UNITS[name]}" for name, ends in bounds.items())
        if not len(inside):
            if listed:
                raise NoResultError(
                    f"none of the {looked:,} architectures that differ in cost has {asked}", hint="widen the bounds"
                )
            raise NoResultError(
                f"none of {looked:,} random architectures has {asked}", hint="widen the bounds, or raise tries"
            )
        self._edges = self._ends(costs[inside])
        places = self._places(costs[inside])
        counts = np.bincount(places, minlength=bins)
        enough = counts > 0
        if not listed:  # all tries of a draw may miss its bin: in fewer than one of 10^9 draws
            enough &= (counts >= min(3, looked)) & ((1 - counts / looked) ** tries < 1e-9)
        self._usable = np.flatnonzero(enough).tolist()
        if not self._usable:
            raise NoResultError(
                f"only {len(inside)} of {looked:,} random architectures have {asked}, too few to draw from",
                hint="widen the bounds, take fewer bins, or raise tries",
            )
        if listed:
            self._members = {place: inside[places == place] for place in self._usable}
        if len(self._usable) < bins and self._edges[0] < self._edges[1]:
            lacks = "hold no architecture" if listed else f"hold none, or too few, of {looked:,} random architectures"
            warnings.warn(
                f"{bins - len(self._usable)} of {bins} bins of {_range(*self._edges)} {_UNITS[self._binned]} "
                f"{lacks}; draws come from the other {len(self._usable)}",
                NnasWarning,
                stacklevel=2,
            )

    def has(self, decisions: Mapping[str, Decision]) -> bool:
        """True if an architecture is within the bounds."""
        return not bool(np.isnan(self._costs(self._population.of(decisions))[0]))

    @property
    def _binned(self) -> str:
        return next(iter(self._bounds))

    def _look(self, count: int, listed: bool) -> NDArray[np.float64]:
        generator = torch_generator(0, "bounded", "looks")  # of its own: a resumed search looks at the same again
        block = self._population.block
        costs = []
        for start in range(0, count, block):
            size = min(block, count - start)
            if listed:
                drawn = self._population.at(np.arange(start, start + size))
            else:
                drawn = self._population.draw(size, generator)
            costs.append(self._costs(drawn))
        return np.concatenate(costs)

    def _costs(self, drawn: Drawn) -> NDArray[np.float64]:
        """Return the costs that the bins divide, nan outside the bounds; parameters first: they are known at once."""
        costs = np.zeros(len(drawn))
        for name in sorted(self._bounds, reverse=True):
            low, high = self._bounds[name]
            which = np.flatnonzero(~np.isnan(costs))
            own = self._population.costs(name, drawn, which)
            costs[which] = np.where((low <= own) & (own <= high), own, np.nan)
        return costs

    def _ends(self, seen: NDArray[np.float64]) -> Interval:
        """The range that is divided: the bounds, or where they have no limit, that of the space."""
        low, high = self._bounds[self._binned]
        least, most = self._population.limits(self._binned) or (seen.min().item(), seen.max().item())
        return (least if low == -math.inf else low), (most if high == math.inf else high)

    def _places(self, costs: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bins of costs within the bounds; the first and the last also hold what lies beyond their outer ends."""
        low, high = self._edges
        if low >= high:
            return np.zeros(len(costs), dtype=np.int64)
        return np.clip(np.floor((costs - low) * self._bins / (high - low)), 0, self._bins - 1).astype(np.int64)

    def draw(self, generator: torch.Generator | None) -> dict[str, Decision]:
        """A bin, each equally likely, and one of its architectures, each equally likely.

        Raises:
            NoResultError: ``tries`` architectures are not in the bin.
        """
        place = self._usable[_below(len(self._usable), generator)]
        if self._members:
            members = self._members[place]
            number = _below(len(members), generator)
            return self._population.decisions(self._population.at(members[number : number + 1])[0], generator)
        tried, block = 0, min(16, self._population.block)
        while tried < self._tries:
            drawn = self._population.draw(min(block, self._tries - tried), generator)
            costs = self._costs(drawn)
            inside = np.flatnonzero(~np.isnan(costs))
            found = inside[self._places(costs[inside]) == place]
            if len(found):
                return self._population.decisions(drawn[found[0]], generator)
            tried += len(drawn)
            block = min(2 * block, self._population.block)
        raise NoResultError(
            f"none of {tried:,} random architectures is in bin {place + 1} of {self._bins} of "
            f"{_range(*self._edges)} {_UNITS[self._binned]}",
            hint="widen the bounds, take fewer bins, or raise tries",
        )


def _below(count: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(count, (), generator=generator, device="cpu"))


def _range(low: float, high: float) -> str:
    if low == -math.inf:
        return "any number of" if high == math.inf else f"at most {high:,.10g}"
    if high == math.inf:
        return f"at least {low:,.10g}"
    return f"{low:,.10g} to {high:,.10g}" if low < high else f"{low:,.10g}"
