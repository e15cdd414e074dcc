"""A Gaussian process of values: which kernel they make likely, and what it expects of others.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006 (equations 2.23, 2.24, 2.30
and 5.5); Oh et al., "Combinatorial Bayesian Optimization using the Graph Cartesian Product", arXiv:1902.00448, section
2.2 (products of a kernel a key); Snelson et al., "Warped Gaussian Processes", NeurIPS 2003, with the transformation of
Yeo and Johnson, Biometrika 87 (2000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnas_core.tuners._coordinates import Pools, Rows, Shared

__all__ = ["BENDS", "Kernel", "Posterior", "Prior", "bent"]

_Floats = NDArray[np.float64]

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Of pairs, in the kernels that data choose from."""

_ORDERS = (2.0, 4.0)
"""How many decisions act together on average, in the others."""

_POOLED, _PARTS = (1, 2, 3), 4
"""Of so many parts of what counts as equal, those that are wherever in its pool, in the kernels to choose from."""

_NOISES = (1e-6, 1e-3, 0.03, 0.1, 0.3)
"""From none, but for rounding, to a quarter of the variance."""

BENDS = (-3.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Powers of the transformation of values: 1 leaves them as they are, others pull in low values or high ones."""

_FARTHEST = 1e9
"""What lies farther from the middle than so many times the width of the middle half counts as that far."""

_NO_POOLS = Pools()

_LEAST = 1e-12
"""Of a variance, so that roots and logarithms exist."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """The covariance of the values of two architectures, by how many of M decisions they share.

    It is 1 for what all have in common, and a part of variance 1 that falls with every decision that differs. Where
    keys are pooled, a decision may count in part where it is at another key: then ``m`` is a mean of equal decisions
    and common ones, and may be a fraction.

    Attributes:
        of_equal: ``[M + 1]``: by the number of equal decisions; ``[4 M + 1]`` by quarters where some are pooled.
        pooled: the quarters of the mean that common decisions are.
    """

    of_equal: _Floats
    pooled: int = 0

    def __call__(self, shared: Shared) -> _Floats:
        """``[n, k]``: the covariance of architectures that have ``shared`` in common."""
        if not self.pooled:
            found: _Floats = self.of_equal[shared.equal]
        else:
            found = self.of_equal[(_PARTS - self.pooled) * shared.equal + self.pooled * shared.common]
        return found

    @property
    def width(self) -> int:
        """M."""
        return (len(self.of_equal) - 1) // (_PARTS if self.pooled else 1)

    @property
    def prior(self) -> float:
        """The variance of a value before anything is known, without noise."""
        return float(self.of_equal[-1])

    @classmethod
    def of_pairs(cls, width: int, share: float) -> Kernel:
        """Every decision has a normal weight, and every pair of them at two places.

        With variance ``(1 - share) / M`` of the first and ``2 share / (M (M - 1))`` of the second, m equal decisions
        give ``1 + (1 - share) m / M + share m (m - 1) / (M (M - 1))``.

        Args:
            width: M.
            share: of the variance that belongs to pairs, from 0 to 1.
        """
        same: _Floats = np.arange(width + 1, dtype=np.float64)
        pairs = same * (same - 1) / max(1, width * (width - 1))
        return cls(1 + (1 - share) * same / max(1, width) + share * pairs)

    @classmethod
    def of_squares(cls, width: int, share: float, pooled: int) -> Kernel:
        """As ``of_pairs``, with pairs of a decision and itself: ``1 + (1 - share) m / M + share (m / M)^2``.

        That is a covariance for fractions ``m`` too: sums and products of covariances are.

        Args:
            width: M.
            share: of the variance that belongs to pairs, from 0 to 1.
            pooled: quarters of ``m``.
        """
        same: _Floats = np.arange(_PARTS * width + 1) / (_PARTS * width)
        return cls(1 + (1 - share) * same + share * np.square(same), pooled)

    @classmethod
    def of_products(cls, width: int, order: float, pooled: int = 0) -> Kernel:
        """Every set of decisions has a weight, of whatever number: each decision that differs leaves ``1 - order / M``.

        That product is a sum over all sets of places, of which ``order`` is the mean size, weighted by variance.

        Args:
            width: M.
            order: less than M.
            pooled: quarters of ``m``.
        """
        parts = _PARTS if pooled else 1
        differ: _Floats = width - np.arange(parts * width + 1, dtype=np.float64) / parts
        return cls(1 + (1 - order / width) ** differ, pooled)

    @classmethod
    def all_pooled(cls, width: int) -> list[Kernel]:
        """Those that data choose from besides, where keys are pooled."""
        found: list[Kernel] = []
        for pooled in _POOLED:
            found += [cls.of_squares(width, share, pooled) for share in _SHARES]
            found += [cls.of_products(width, order, pooled) for order in _ORDERS if order < width]
        return found

    @classmethod
    def all(cls, width: int) -> list[Kernel]:
        """Those that data choose from, for ``width`` decisions, by the mean number of decisions that act together."""
        if width < 2:
            return [cls.of_pairs(width, 0.0)]
        found = {1 + share: cls.of_pairs(width, share) for share in _SHARES}
        found |= {order: cls.of_products(width, order) for order in _ORDERS if order < width}
        return [found[order] for order in sorted(found)]


def bent(values: _Floats, power: float) -> tuple[_Floats, float]:
    """Returns values on another scale, of mean 0 and variance 1, and the sum of the logarithms of its slopes.

    The scale is that of Yeo and Johnson, around the median in units of the middle half's width, so neither units nor
    far outliers matter. All are 0 where all are equal.

    Args:
        values: ``[n]``, finite.
        power: one of ``BENDS``, or another one.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    unit = high - low or values.std() or 1.0
    scaled = np.clip((values - middle) / unit, -_FARTHEST, _FARTHEST)
    size = np.log1p(np.abs(scaled))
    powers = np.where(scaled < 0, 2 - power, power)
    found = np.sign(scaled) * np.where(powers == 0, size, np.expm1(powers * size) / np.where(powers == 0, 1, powers))
    deviation = found.std() or 1.0
    slopes = (power - 1) * float((np.sign(scaled) * size).sum()) - len(values) * math.log(deviation)
    return (found - found.mean()) / deviation, slopes


@dataclass(frozen=True)
class Prior:
    """What is assumed of values before any is known.

    Attributes:
        kernel: of their part that decisions explain.
        noise: variance of the rest, where the kernel's part has 1.
        power: of ``bent``: the scale on which they are normal.
    """

    kernel: Kernel
    noise: float
    power: float

    @classmethod
    def drawn(cls, kernels: Sequence[Kernel], shared: Shared, values: _Floats, rng: np.random.Generator) -> Prior:
        """One of those that are possible, each with the probability that the values give it (equation 5.5).

        Before any is known all are equally likely, and so are all scales (of the logarithm of the variance).

        Args:
            kernels: to choose from.
            shared: ``[n, n]``: what they have in common.
            values: ``[n]``.
            rng: draws it.
        """
        bends = [bent(values, power) for power in BENDS]
        scores = np.stack([found for found, _ in bends], axis=1)
        slopes = np.array([found for _, found in bends])
        count = len(values)
        likely = np.empty((len(kernels), len(_NOISES), len(BENDS)))
        for place, kernel in enumerate(kernels):
            roots, vectors = np.linalg.eigh(kernel(shared))
            squares = np.square(vectors.T @ scores)
            for level, noise in enumerate(_NOISES):
                variances = np.maximum(roots, 0) + noise
                scales = np.maximum((squares / variances[:, None]).sum(axis=0) / count, _LEAST)
                likely[place, level] = -0.5 * (count * np.log(scales) + np.log(variances).sum()) + slopes
        chances = np.exp(likely - likely.max()).ravel()
        drawn = int(rng.choice(len(chances), p=chances / chances.sum()))
        chosen, level, bend = (int(place) for place in np.unravel_index(drawn, likely.shape))
        return cls(kernels[chosen], _NOISES[level], BENDS[bend])


class Posterior:
    """Mean and variance of values, given some; rows are added one after the other, at a cost of their number.

    Args:
        kernel: the prior.
        noise: variance of what the kernel does not explain, where all that it does has 1.
        every: ``[N, M]``: architectures whose values are asked for again and again; None for none.
        pools: of keys.
    """

    def __init__(self, kernel: Kernel, noise: float, every: Rows | None = None, pools: Pools = _NO_POOLS) -> None:
        self._kernel = kernel
        self._noise = noise
        self._every = every
        self._pools = pools
        self._rows = np.zeros((0, kernel.width), dtype=np.int64)
        # The inverse of the Cholesky factor of the covariance of the rows, noise included; that times the covariances
        # with ``every``. Both have room for more rows.
        self._inverse = np.zeros((0, 0))
        self._pulls = np.zeros((0, 0 if every is None else len(every)))
        self._whitened = np.zeros(0)

    def condition(self, rows: Rows) -> None:
        """Takes ``rows`` ``[n, M]`` for measured; what they have in common with the rows before is kept."""
        both = min(len(rows), len(self._rows))
        differ = np.flatnonzero((rows[:both] != self._rows[:both]).any(axis=1))
        kept = int(differ[0]) if len(differ) else both
        self._rows = rows
        self._make_room(len(rows), kept)
        shared = self._kernel(self._pools.shared(rows, rows[kept:]))
        for place in range(kept, len(rows)):
            before = self._inverse[:place, :place]
            pull = before @ shared[:place, place - kept]
            root = math.sqrt(max(self._kernel.prior + self._noise - float(pull @ pull), _LEAST))
            self._inverse[place, :place] = -(pull @ before) / root
            self._inverse[place, place] = 1 / root
            if self._every is not None:
                row = self._kernel(self._pools.shared(rows[place : place + 1], self._every))[0]
                self._pulls[place] = (row - pull @ self._pulls[:place]) / root

    def _make_room(self, count: int, kept: int) -> None:
        if count <= len(self._inverse):
            return
        room = 2 * count
        inverse, pulls = np.zeros((room, room)), np.zeros((room, self._pulls.shape[1]))
        inverse[:kept, :kept], pulls[:kept] = self._inverse[:kept, :kept], self._pulls[:kept]
        self._inverse, self._pulls = inverse, pulls

    def learn(self, scores: _Floats) -> None:
        """Gives the first rows their values ``[k]``, ``k <= n``; the others get what the model expects of them.

        So these change no expectation, but variances.
        """
        count = len(scores)
        self._whitened = np.zeros(len(self._rows))
        self._whitened[:count] = self._inverse[:count, :count] @ scores
        self.scale = max(float(self._whitened @ self._whitened) / max(1, count), _LEAST)

    def predicted(self, shared: Shared) -> tuple[_Floats, _Floats]:
        """``[k]`` each: mean and variance of architectures, without noise, at the scale that is likeliest.

        Args:
            shared: ``[n, k]``: what each has in common with the rows.
        """
        count = len(self._rows)
        return self._of(self._inverse[:count, :count] @ self._kernel(shared))

    def predicted_of_all(self) -> tuple[_Floats, _Floats]:
        """``[N]`` each: the same for ``every``."""
        return self._of(self._pulls[: len(self._rows)])

    def _of(self, pulls: _Floats) -> tuple[_Floats, _Floats]:
        mean = self._whitened @ pulls
        variance = self._kernel.prior - np.einsum("nk,nk->k", pulls, pulls)
        return mean, self.scale * np.maximum(variance, 0.0)
