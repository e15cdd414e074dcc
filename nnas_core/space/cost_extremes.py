"""The smallest and the largest architectures of a search space, where costs add up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.costs import Candidate, CostTable
from nnas_core.space.search_space import SearchSpace

__all__ = ["extreme"]

_LISTED = 4096
"""Combinations of candidates that are all looked at, where keys share parts; more of them are climbed through."""


def extreme(space: SearchSpace, costs: Sequence[CostTable], *, largest: bool) -> tuple[Architecture, bool]:
    """The architecture that costs least or most; inputs, which cost nothing here, are one each, or all there may be.

    Args:
        space: whose keys the tables have.
        costs: what counts, the first one first; others decide among equals.
        largest: true for the most.

    Returns:
        The architecture; and true if it is certain that none costs less (or more): it is, unless many keys share parts.
    """
    layers = [choice.key for choice in space if choice.kind == "layer_choice"]
    decisions: dict[str, Decision] = {choice.key: (0,) for choice in space}
    for choice in space:
        if choice.kind != "layer_choice":
            count = len(choice.candidates)
            taken = choice.n_chosen if choice.n_chosen is not None else (count if largest else min(1, count))
            decisions[choice.key] = tuple(range(taken))

    exact = True
    for group in _linked(layers, costs):
        counts = [len(space[key].candidates) for key in group]
        cost = _cost_within(group, costs, -1 if largest else 1)
        if math.prod(counts) <= _LISTED:
            best: Sequence[int] = min(itertools.product(*map(range, counts)), key=cost)
        else:
            exact = False
            best = _climbed(counts, cost)
        decisions.update({key: (index,) for key, index in zip(group, best, strict=True)})
    return Architecture(space.choices, decisions), exact


def _linked(keys: Sequence[str], costs: Sequence[CostTable]) -> Iterator[list[str]]:
    """The keys in groups: those of different groups share nothing."""
    group_of = {key: [key] for key in keys}
    for table in costs:
        for users, _ in table.shared:
            merged = list(dict.fromkeys(itertools.chain(*(group_of[key] for key, _ in sorted(users)))))
            group_of.update(dict.fromkeys(merged, merged))
    seen: set[str] = set()
    for key in keys:
        if key not in seen:
            seen.update(group_of[key])
            yield group_of[key]


def _cost_within(
    group: Sequence[str], costs: Sequence[CostTable], sign: int
) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """A function of the positions at those keys: what they cost, and what they share; nobody else shares that."""
    places = {key: place for place, key in enumerate(group)}
    rows = [[table.candidates.get(key, ()) for key in group] for table in costs]
    shared = [
        [
            ([(places[key], index) for key, index in users], size)
            for users, size in table.shared
            if _is_of(users, places)
        ]
        for table in costs
    ]

    def cost(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            sign
            * (
                sum(row[index] for row, index in zip(table, positions, strict=True))
                + sum(size for users, size in parts if any(positions[place] == index for place, index in users))
            )
            for table, parts in zip(rows, shared, strict=True)
        )

    return cost


def _is_of(users: frozenset[Candidate], places: Mapping[str, int]) -> bool:
    return next(iter(users))[0] in places


def _climbed(counts: Sequence[int], cost: Callable[[Sequence[int]], tuple[int, ...]]) -> list[int]:
    """Change one position after another to its best, as long as that helps."""
    positions = [0] * len(counts)
    least = cost(positions)
    while True:
        before = least
        for place, count in enumerate(counts):
            tries = ([*positions[:place], index, *positions[place + 1 :]] for index in range(count))
            positions = min(tries, key=cost)
        least = cost(positions)
        if least == before:
            return positions
