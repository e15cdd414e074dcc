"""Architectures as rows of decisions that kernels compare, and the smallest steps between them, many at once.

Source: Odone et al., "Building Kernels from Binary Strings for Image Matching", IEEE Transactions on Image
Processing 14 (2005) (the intersection of histograms is a kernel).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnas_core.space.choice import Choice
from nnas_core.space.encoding import Code, Codes

__all__ = ["Coordinates", "Counts", "Pools", "Rows", "Shared", "Steps", "equal"]

Rows = NDArray[np.int64]
"""``[n, M]``: M decisions of n architectures."""

Counts = NDArray[np.int64]
"""``[n, k]``: how many decisions each of n architectures has in common with each of k."""


@dataclass(frozen=True)
class Shared:
    """What each of n architectures has in common with each of k.

    Attributes:
        equal: ``[n, k]``: equal decisions.
        common: ``[n, k]``: decisions that both have, wherever among the keys of a pool; so ``equal`` where none is.
    """

    equal: Counts
    common: Counts

    def __getitem__(self, part: slice | tuple[slice, int]) -> Shared:
        """Of some of the architectures."""
        return Shared(self.equal[part], self.common[part])


@dataclass(frozen=True)
class Steps:
    """Steps from one row, each of which sets one coordinate or two.

    Attributes:
        keys: ``[k]``: the place of the key at which each is.
        where: ``[k, 2]``: the coordinates that it sets; twice the same where it is one.
        what: ``[k, 2]``: what they are after it.
    """

    keys: NDArray[np.int64]
    where: NDArray[np.int64]
    what: NDArray[np.int64]

    def taken(self, row: Rows, numbers: Sequence[int] | NDArray[np.int64]) -> Rows:
        """``[M]``: ``row`` ``[M]`` after some of the steps, at most one a key."""
        after = row.copy()
        after[self.where[numbers]] = self.what[numbers]
        return after

    def equal(self, row: Rows, others: Rows, before: NDArray[np.int64]) -> Counts:
        """``[n, k]``: with how many coordinates of ``others`` ``[n, M]`` each row agrees that a step leads to.

        Args:
            row: ``[M]``: where the steps begin.
            others: ``[n, M]``.
            before: ``[n]``: with how many of each ``row`` agrees.
        """
        found = before[:, None] + _gained(row, others, self.where[:, 0], self.what[:, 0])
        two = np.flatnonzero(self.where[:, 0] != self.where[:, 1])
        if len(two):
            found[:, two] += _gained(row, others, self.where[two, 1], self.what[two, 1])
        return found


def _gained(row: Rows, others: Rows, where: NDArray[np.int64], what: NDArray[np.int64]) -> Counts:
    """``[n, k]``: 1 where ``others`` agree with what one coordinate becomes, -1 where with what it was."""
    there = others[:, where]
    gained: Counts = (there == what).astype(np.int64) - (there == row[where])
    return gained


class Pools:
    """Keys at which one of the same candidates is chosen: a candidate may do much the same at each of them.

    Args:
        starts: ``[M]``: of each coordinate, where the numbers of its values begin; the same throughout a pool. Each is
            a pool of its own where it is None.
        total: how many such numbers there are.
    """

    def __init__(self, starts: NDArray[np.int64] | None = None, total: int = 0) -> None:
        self._starts = starts
        self._total = total

    def __bool__(self) -> bool:
        return self._starts is not None

    def shared(self, rows: Rows, others: Rows, counts: Counts | None = None) -> Shared:
        """``[n, k]``: what ``rows`` ``[n, M]`` and ``others`` ``[k, M]`` have in common.

        Args:
            rows: ``[n, M]``.
            others: ``[k, M]``.
            counts: of ``rows``, where they are known.
        """
        same = equal(rows, others)
        if self._starts is None:
            return Shared(same, same)
        return Shared(same, _intersection(self.counts(rows) if counts is None else counts, self.counts(others)))

    def after(self, steps: Steps, row: Rows, others: Rows, before: Shared, counts: Counts) -> Shared:
        """``[n, k]``: what ``others`` ``[n, M]`` have in common with each row that a step leads to.

        Args:
            steps: from one row.
            row: ``[M]``: where they begin.
            others: ``[n, M]``.
            before: ``[n]``: what each has in common with ``row``.
            counts: of ``others``.
        """
        same = steps.equal(row, others, before.equal)
        if self._starts is None:
            return Shared(same, same)
        mine = self.counts(row[None])[0]
        comes, goes = mine < counts, mine <= counts  # whether they have another one, and whether mine is one of theirs
        found = before.common[:, None] + self._gained(steps, row, comes, goes, self._starts, 0)
        two = np.flatnonzero(steps.where[:, 0] != steps.where[:, 1])  # at coordinates that are in no pool
        if len(two):
            found[:, two] += self._gained(steps, row, comes, goes, self._starts, 1)[:, two]
        return Shared(same, found)

    @staticmethod
    def _gained(
        steps: Steps, row: Rows, comes: NDArray[np.bool_], goes: NDArray[np.bool_], starts: Rows, which: int
    ) -> Counts:
        where = steps.where[:, which]
        gained: Counts = comes[:, starts[where] + steps.what[:, which]].astype(np.int64)
        return gained - goes[:, starts[where] + row[where]]

    def counts(self, rows: Rows) -> Counts:
        """``[n, total]``: how often each candidate of each pool is chosen; ``[n, 0]`` without pools."""
        if self._starts is None:
            return np.zeros((len(rows), 0), dtype=np.int64)
        places = rows + self._starts + self._total * np.arange(len(rows))[:, None]
        return np.bincount(places.ravel(), minlength=self._total * len(rows)).reshape(len(rows), self._total)


class Coordinates:
    """The decisions that a model knows: at each key one, or in and out of each candidate.

    The choice of one candidate is one coordinate; where any number or k of n are chosen, each candidate is one, 1 for
    in and 0 for out. Keys that leave no choice are left out.

    Args:
        codes: of the space.

    Attributes:
        width: M, the number of coordinates.
        pools: of those at which one of the same candidates is chosen.
    """

    def __init__(self, codes: Codes) -> None:
        self._codes = codes
        self._choices: tuple[Choice, ...] = tuple(codes.space)
        self._plain = [choice.size > 1 and choice.n_chosen == 1 for choice in self._choices]
        widths = [
            0 if choice.size < 2 else 1 if choice.n_chosen == 1 else len(choice.candidates) for choice in self._choices
        ]
        self._starts = list(itertools.accumulate(widths, initial=0))
        self.width = self._starts[-1]
        self._ends = np.cumsum(codes.degrees, dtype=np.int64)  # of each key's steps, in the order of ``neighbour``
        self.pools = self._pools(widths)

    def _pools(self, widths: Sequence[int]) -> Pools:
        """Returns those of keys with the same candidates, in the same order."""
        begin: dict[tuple[str, ...], int] = {}
        starts: list[int] = []
        total = 0
        for choice, plain, width in zip(self._choices, self._plain, widths, strict=True):
            if not plain:
                starts += range(total, total + 2 * width, 2)
                total += 2 * width
                continue
            names = tuple(choice.candidates)
            if names not in begin:
                begin[names] = total
                total += len(names)
            starts.append(begin[names])
        return Pools(np.array(starts), total) if len(begin) < sum(self._plain) else Pools()

    def rows(self, codes: Sequence[Code]) -> Rows:
        """``[n, M]``: the rows of architectures."""
        singles = itertools.chain.from_iterable(itertools.compress(code, self._plain) for code in codes)
        left = iter(np.fromiter(singles, np.int64, len(codes) * sum(self._plain)).reshape(len(codes), -1).T)
        columns: list[Rows] = []
        for place, choice in enumerate(self._choices):
            if choice.size < 2:
                continue
            if self._plain[place]:
                columns.append(next(left)[:, None])
                continue
            numbers = [code[place] for code in codes]
            inside = {number: np.zeros(len(choice.candidates), dtype=np.int64) for number in numbers}
            for number, row in inside.items():  # relatives have most of theirs in common
                row[list(choice.decision(number))] = 1
            columns.append(np.array([inside[number] for number in numbers]).reshape(len(codes), -1))
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(codes), 0), dtype=np.int64)

    def code(self, row: Rows) -> Code:
        """Returns the architecture of a row ``[M]``: the inverse of ``rows``."""
        values = row.tolist()
        code = []
        for choice, plain, start, end in zip(
            self._choices, self._plain, self._starts[:-1], self._starts[1:], strict=True
        ):
            if plain or start == end:
                code.append(values[start] if plain else 0)
            else:
                code.append(choice.number(tuple(index for index, one in enumerate(values[start:end]) if one)))
        return tuple(code)

    def steps(self, row: Rows, numbers: NDArray[np.int64]) -> Steps:
        """Returns steps from a row ``[M]`` by their numbers ``[k]``, which are those of ``Codes.neighbour``."""
        places = np.searchsorted(self._ends, numbers, side="right")
        index = numbers - np.concatenate([[0], self._ends])[places]
        starts = np.array(self._starts)[places]
        where = np.repeat(starts[:, None], 2, axis=1)
        what = np.repeat((index + (index >= row[np.minimum(starts, self.width - 1)]))[:, None], 2, axis=1)
        for place in np.unique(places).tolist():
            if self._plain[place]:
                continue
            mine, choice = places == place, self._choices[place]
            inside = row[self._starts[place] : self._starts[place + 1]]
            if choice.n_chosen is None:
                where[mine] += index[mine, None]
                what[mine] = 1 - inside[index[mine], None]
            else:
                leaves, enters = np.divmod(index[mine], len(choice.candidates) - choice.n_chosen)
                where[mine, 0] += np.flatnonzero(inside)[leaves]
                where[mine, 1] += np.flatnonzero(inside == 0)[enters]
                what[mine] = [0, 1]
        return Steps(places, where, what)


def equal(rows: Rows, others: Rows) -> Counts:
    """``[n, k]``: at how many coordinates ``rows`` ``[n, M]`` and ``others`` ``[k, M]`` agree."""
    found = np.zeros((len(rows), len(others)), dtype=np.float32)  # whole numbers, exact up to 2^24
    for decision in range(int(rows.max(initial=-1)) + 1):
        with np.errstate(invalid="ignore"):  # a flag that another library left; zeros and ones give none
            found += (rows == decision).astype(np.float32) @ (others == decision).astype(np.float32).T
    return found.astype(np.int64)


def _intersection(counts: Counts, others: Counts) -> Counts:
    """``[n, k]``: the sum of the smaller ones of ``counts`` ``[n, C]`` and ``others`` ``[k, C]``."""
    found = np.zeros((len(counts), len(others)), dtype=np.int64)
    for one, other in zip(counts.T, others.T, strict=True):
        found += np.minimum.outer(one, other)
    return found
