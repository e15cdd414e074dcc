"""Codes whose costs are within bounds, where costs add up: how many there are, each by its number, and draws of them.

Keys are decided one after the other. What matters of those before is only the sum of their costs, so equal sums are one
state, and the number of ways to go on from each state is counted from the last key backwards. Sums that cannot be kept
within the bounds any more, and those that cannot leave them, need no states. Where there are too many of these, costs
are rounded down to a grid, which lets in a few codes that are not within the bounds: whoever draws looks at each.

Source: Knuth, "The Art of Computer Programming", volume 4A, section 7.2.1.3 (numbers of combinations, from counts of
what is left).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnas_core.space.choice import Choice
from nnas_core.space.costs import CostTable, plain
from nnas_core.space.encoding import Code, Codes, below
from nnas_core.space.goals import Constraint

__all__ = ["Bounded", "Limit"]

_MOST_STEPS = 2_000_000
"""From states to states, of all keys together; more of them, and costs are rounded."""

_PARTS = (8192, 2048, 512, 128, 64, 32, 16, 8, 4, 2, 1)
"""Of what may be spent beyond the cheapest: the grids that costs are rounded to, the finest first."""

_MOST_LISTED = 4096
"""Decisions at one key that are looked at one by one; where there are more, what they cost is not known here."""

_INT64 = 2**62

_DEAD, _FREE = -1, -2
"""Instead of the number of a state: no way is within the bounds, and every way is."""


@dataclass(frozen=True)
class Limit:
    """A constraint on costs that add up."""

    constraint: Constraint
    table: CostTable

    @property
    def slack(self) -> tuple[int, int]:
        """The sign of costs, 1 if they are to be small; and what the sum of all signed costs may be, in units."""
        bound = self.constraint.exact_bound / self.table.unit
        return (1, math.floor(bound)) if self.constraint.is_most else (-1, -math.ceil(bound))


@dataclass(frozen=True)
class _Class:
    """Decisions at one key that cost the same beyond the cheapest.

    Attributes:
        excess: a whole number for each limit.
        members: numbers of the decisions.
    """

    excess: tuple[int, ...]
    members: list[int]


class Bounded:
    """The codes within limits of costs that add up.

    Args:
        codes: of the space.
        limits: that all hold.

    Attributes:
        size: how many codes there are; where not ``exact``, not fewer than there are.
        exact: False if ``at`` may give codes that are not within the limits.
    """

    def __init__(self, codes: Codes, limits: Sequence[Limit]) -> None:
        self._codes = codes
        self.exact = not any(limit.table.shared for limit in limits)
        slacks, rows = [], []
        for limit in limits:
            slack, excess = self._excesses(limit)
            slacks.append(slack)
            rows.append(excess)
        self._free: list[int] = []
        bearing: list[tuple[int, list[_Class]]] = []
        for place in range(len(codes.sizes)):
            columns = [row[place] for row in rows]
            if all(column is None or not any(column) for column in columns):
                self._free.append(place)
            else:
                count = codes.sizes[place]
                bearing.append((place, _classes([column or [0] * count for column in columns])))
        bearing.sort(key=lambda one: -max(map(max, (entry.excess for entry in one[1]))))
        self._bearing = bearing
        self._others = math.prod(codes.sizes[place] for place in self._free)
        self._rests = [
            math.prod(codes.sizes[place] for place, _ in bearing[start:]) for start in range(len(bearing) + 1)
        ]
        self._count(slacks)

    def _excesses(self, limit: Limit) -> tuple[int, list[list[int] | None]]:
        """Returns what may be spent beyond the cheapest, and what each decision at each key spends; None: nothing."""
        table, (sign, slack) = limit.table, limit.slack
        slack -= sign * table.fixed
        if sign < 0:
            slack += sum(size for _, size in table.shared)  # the most that they can add
        spent: list[list[int] | None] = []
        for choice in self._codes.space:
            costs = self._costs_at(choice, table, sign)
            if costs is None:
                spent.append(None)
                continue
            least = min(costs)
            slack -= least
            spent.append([cost - least for cost in costs])
        # what is beyond the slack is all one, and a slack that nothing can spend is no limit
        most = sum(max(row, default=0) for row in spent if row is not None)
        slack = min(slack, most)
        return slack, [row and [min(cost, max(slack, 0) + 1) for cost in row] for row in spent]

    def _costs_at(self, choice: Choice, table: CostTable, sign: int) -> list[int] | None:
        row = table.candidates.get(choice.key)
        if row is None or not any(row):
            return None
        if choice.n_chosen == 1:
            return [sign * cost for cost in row]
        if choice.size <= _MOST_LISTED:
            return [sign * sum(row[index] for index in decision) for decision in choice.decisions()]
        self.exact = False  # the least that any decision there costs is a bound for all
        signed = sorted(sign * cost for cost in row)
        taken = [cost for cost in signed if cost < 0] if choice.n_chosen is None else signed[: choice.n_chosen]
        return [sum(taken)]

    # ---- counting

    def _count(self, slacks: Sequence[int]) -> None:
        self._steps: list[NDArray[np.int64]] = []
        self._ways: list[list[int]] = []
        if any(slack < 0 for slack in slacks):
            self.size = 0
            return
        grids = [1] * len(slacks)
        if max(slacks, default=0) >= _INT64 or not self._walk(slacks, grids):
            rounded = [[max(1, slack // parts) for slack in slacks] for parts in _PARTS]
            # the finer the grid, the more states: the finest that works is between those that do not and those that do
            grids = rounded[bisect.bisect(rounded, False, hi=len(rounded) - 1, key=partial(self._walk, slacks))]
            self._walk(slacks, grids)
        self.exact = self.exact and max(grids, default=1) == 1
        self._backwards()
        self.size = self._others * (self._ways[0][0] if self._ways else 1)

    def _walk(self, slacks: Sequence[int], grids: Sequence[int]) -> bool:
        """Finds all states and the steps between them, with costs in whole ``grids``; false if there are too many."""
        self._steps = []
        slack = np.array([[one // grid] for one, grid in zip(slacks, grids, strict=True)], dtype=np.int64)
        spent = [  # [limits, classes] each
            np.array([[one // grid for one, grid in zip(entry.excess, grids, strict=True)] for entry in classes]).T
            for _, classes in self._bearing
        ]
        rest = [np.zeros_like(slack)]
        for own in reversed(spent):
            rest.append(np.minimum(rest[-1] + own.max(axis=1, keepdims=True), slack + 1))
        rest.reverse()
        states = np.zeros((len(slack), 1), dtype=np.int64)
        work = 0
        for place, own in enumerate(spent):
            work += states.shape[1] * own.shape[1]
            if work > _MOST_STEPS:
                return False
            sums = (states[:, :, None] + own[:, None, :]).reshape(len(slack), -1)
            dead = (sums > slack).any(axis=0)
            free = ~dead & (sums + rest[place + 1] <= slack).all(axis=0)
            steps = np.where(free, _FREE, _DEAD)
            live = ~dead & ~free
            states, number = _distinct(sums[:, live])
            steps[live] = number
            self._steps.append(steps.reshape(-1, own.shape[1]))
        return True

    def _backwards(self) -> None:
        """Counts the ways to go on from each state."""
        after = np.zeros(0, dtype=object)
        self._ways = [[] for _ in self._steps]
        for place in range(len(self._steps) - 1, -1, -1):
            steps, rest = self._steps[place], self._rests[place + 1]
            small = self._rests[place] < _INT64
            lookup = np.array([*after.tolist(), rest, 0], dtype=np.int64 if small else object)  # -2: free, -1: dead
            times = np.array([len(one.members) for one in self._bearing[place][1]], dtype=lookup.dtype)
            after = (lookup[steps] * times).sum(axis=1)
            self._ways[place] = after.tolist()

    def at(self, number: int) -> Code:
        """Returns code ``number``, ``0 <= number < size``; each has one number.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < self.size:
            raise IndexError(f"code {number} of {self.size}")
        code = [0] * len(self._codes.sizes)
        for place in self._free:
            number, code[place] = divmod(number, self._codes.sizes[place])
        state = 0
        for layer, (place, classes) in enumerate(self._bearing):
            if state == _FREE:
                number, code[place] = divmod(number, self._codes.sizes[place])
                continue
            for entry, step in zip(classes, self._steps[layer][state].tolist(), strict=True):
                ways = self._on(layer + 1, step)
                if number < ways * len(entry.members):
                    member, number = divmod(number, ways)
                    code[place], state = entry.members[member], step
                    break
                number -= ways * len(entry.members)
        return tuple(code)

    def _on(self, layer: int, step: int) -> int:
        if step == _DEAD:
            return 0
        return self._rests[layer] if step == _FREE else self._ways[layer][step]

    def draw(self, rng: np.random.Generator) -> Code:
        """Returns one of the codes, each equally likely; there must be one."""
        return self.at(below(rng, self.size))

    # ---- the least

    def least(self, table: CostTable, *, largest: bool = False) -> int | float | None:
        """Returns the smallest cost of the codes, or the largest; None where there are none.

        Args:
            table: of costs that add up; what is shared counts nothing.
            largest: for the largest.
        """
        if not self.size:
            return None
        sign = -1 if largest else 1
        rows = [self._costs_at(choice, table, sign) or [0] for choice in self._codes.space]
        total = sum(min(rows[place]) for place in self._free)
        after: list[int | None] = []
        rest = 0
        for layer in range(len(self._steps) - 1, -1, -1):
            place, classes = self._bearing[layer]
            row = rows[place] if len(rows[place]) > 1 else rows[place] * self._codes.sizes[place]
            own = [min(row[member] for member in entry.members) for entry in classes]
            ends: list[int | None] = [*after, rest, None]
            after = [
                min(
                    (cost + end for cost, step in zip(own, steps, strict=True) if (end := ends[step]) is not None),
                    default=None,
                )
                for steps in self._steps[layer].tolist()
            ]
            rest += min(rows[place])
        found = total + (after[0] or 0 if after else 0)
        return plain(Fraction(table.fixed + sign * found) * table.unit)


def _classes(columns: Sequence[Sequence[int]]) -> list[_Class]:
    """Returns the decisions of a key in groups that cost the same."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, excess in enumerate(zip(*columns, strict=True)):
        found.setdefault(excess, []).append(number)
    return [_Class(excess, members) for excess, members in sorted(found.items())]


def _distinct(sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the different columns, and the number of its own for each column."""
    if not sums.shape[1]:
        return sums, np.zeros(0, dtype=np.int64)
    sides = [int(side) + 1 for side in sums.max(axis=1)]
    if math.prod(sides) < _INT64:  # a column is one number
        flat, number = np.unique(np.ravel_multi_index(tuple(sums), sides), return_inverse=True)
        return np.stack(np.unravel_index(flat, sides)).astype(np.int64), number.reshape(-1)
    order = np.lexsort(sums[::-1])
    ordered = sums[:, order]
    new = np.concatenate([[True], (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)])
    number = np.empty(sums.shape[1], dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return ordered[:, new], number
