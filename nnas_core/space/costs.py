"""What architectures cost where costs add up: parameters, multiply-adds, latencies of a table."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nnas_core.space.choice import Decision

__all__ = ["Candidate", "CostTable", "latency_costs", "plain"]

_LARGEST = 10**308

_PICOSECONDS = 10**9
"""In a millisecond: latencies are whole numbers of them, so that sums are exact, in any order."""

Candidate = tuple[str, int]
"""A key, and the position of a candidate there."""


@dataclass(frozen=True)
class CostTable:
    """The cost of every architecture, where costs add up.

    An architecture costs ``fixed``, plus the entry of each chosen candidate, plus the size of each shared part that
    any chosen candidate uses.

    Attributes:
        fixed: what every architecture costs.
        candidates: key -> what each candidate brings that no other candidate has; keys that cost nothing may be absent.
        shared: who uses a part that several candidates have, and its size.
        unit: what the whole numbers here are to be multiplied by.
    """

    fixed: int
    candidates: Mapping[str, tuple[int, ...]]
    shared: tuple[tuple[frozenset[Candidate], int], ...] = ()
    unit: Fraction = Fraction(1)

    def of(self, decisions: Mapping[str, Decision]) -> int:
        """Returns the cost of one architecture, in units.

        Args:
            decisions: key -> chosen indices, as ``Architecture.indices`` gives them; keys that are no part of
                ``candidates`` may be left out.
        """
        chosen = {(key, index) for key in self.candidates for index in decisions[key]}
        own = sum(self.candidates[key][index] for key, index in chosen)
        return self.fixed + own + sum(size for users, size in self.shared if not chosen.isdisjoint(users))

    def value(self, decisions: Mapping[str, Decision]) -> int | float:
        """Returns the cost of one architecture, as people have it: a whole number where it is one."""
        return plain(self.of(decisions) * self.unit)

    def of_many(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the costs ``[N]`` in units, of architectures with one candidate a LayerChoice.

        Args:
            positions: ``[N, K]``, in the order of ``candidates``.
        """
        flat, starts, users = self._arrays
        own: NDArray[np.int64] = flat[starts + positions].sum(axis=1, dtype=np.int64) + self.fixed
        for columns, places, size in users:
            own += size * (positions[:, columns] == places).any(axis=1)
        return own

    @functools.cached_property
    def _arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[tuple[list[int], list[int], int]]]:
        keys = list(self.candidates)
        flat = np.array(list(itertools.chain(*self.candidates.values())), dtype=np.int64)
        starts = np.cumsum([0, *map(len, self.candidates.values())][:-1] if keys else [], dtype=np.int64)
        users = []
        for group, size in self.shared:
            ordered = sorted(group)
            users.append(([keys.index(key) for key, _ in ordered], [index for _, index in ordered], size))
        return flat, starts, users

    @property
    def limits(self) -> tuple[int, int]:
        """No architecture costs less units than the first, or more than the second; exact where nothing is shared.

        Only for tables of keys where one candidate is chosen.
        """
        least = self.fixed + sum(min(costs) for costs in self.candidates.values())
        most = self.fixed + sum(max(costs) for costs in self.candidates.values())
        return least, most + sum(size for _, size in self.shared)


def plain(value: Fraction) -> int | float:
    """Returns a cost as people have it: a whole number where it is one; infinity where no number is as large."""
    if abs(value) > _LARGEST:
        return math.inf if value > 0 else -math.inf
    return value.numerator if value.denominator == 1 else float(value)


def latency_costs(latencies: Mapping[str, Sequence[float | Fraction]], fixed: Fraction = Fraction(0)) -> CostTable:
    """Returns the milliseconds of architectures, rounded to picoseconds.

    Args:
        latencies: of all candidates, key by key, from ``read_milliseconds``.
        fixed: what every architecture takes besides.
    """
    rows = {key: tuple(round(Fraction(value) * _PICOSECONDS) for value in row) for key, row in latencies.items()}
    return CostTable(round(fixed * _PICOSECONDS), rows, unit=Fraction(1, _PICOSECONDS))
