"""Plain statistics of an architecture against random ones: its place among them, intervals, the best of several draws.

Source of the place: midranks, as for Wilcoxon's tests. Of the interval: Satterthwaite, "An Approximate Distribution of
Estimates of Variance Components", Biometrics Bulletin 2(6), 1946; the two components as in Cameron, Gelbach and Miller,
"Robust Inference With Multiway Clustering", JBES 29(2), 2011, without the part that is counted twice, which makes it
wider. Of the best of several: Tang et al., "Showing Your Work Doesn't Always Work", arXiv:2004.13705 (the unbiased form
of what Dodge et al., arXiv:1909.03004, propose).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Interval",
    "Place",
    "Summary",
    "expected_best",
    "paired_interval",
    "place_of",
    "student_quantile",
    "summary",
]

_CONFIDENCE = 0.95
"""Of all intervals."""


@dataclass(frozen=True)
class Place:
    """The place of one value among others.

    Attributes:
        better, equal, worse: how many of the others are so.
        rank: 1 is the best; among equal ones the middle of their ranks.
        percentile: 0 to 100: the part of the others that is worse, and half of the equal ones.
    """

    better: int
    equal: int
    worse: int

    @property
    def others(self) -> int:
        """All others."""
        return self.better + self.equal + self.worse

    @property
    def rank(self) -> float:
        """Among itself and the others."""
        return 1 + self.better + self.equal / 2

    @property
    def percentile(self) -> float:
        """What it beats."""
        return 100 * (self.worse + self.equal / 2) / self.others


def place_of(value: float, others: Sequence[float], sign: int) -> Place:
    """Returns the place of a value.

    Args:
        value: of the one.
        others: at least one, all finite.
        sign: 1 where larger is better, -1 where smaller is.
    """
    better = sum(sign * (one - value) > 0 for one in others)
    equal = sum(one == value for one in others)
    return Place(better, equal, len(others) - better - equal)


@dataclass(frozen=True)
class Summary:
    """How numbers are spread: quartiles interpolate linearly.

    Attributes:
        deviation: of a sample (``n - 1``); None of one number.
    """

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float
    mean: float
    deviation: float | None

    def to_json(self) -> dict[str, float | None]:
        """Returns everything."""
        return {
            "minimum": self.minimum,
            "lower_quartile": self.lower_quartile,
            "median": self.median,
            "upper_quartile": self.upper_quartile,
            "maximum": self.maximum,
            "mean": self.mean,
            "deviation": self.deviation,
        }


def summary(values: Sequence[float]) -> Summary:
    """Returns how at least one number is spread."""
    low, first, middle, third, high = (float(one) for one in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(low, first, middle, third, high, statistics.fmean(values), deviation)


# ---- is it better?


@dataclass(frozen=True)
class Interval:
    """A mean with an interval of 95 %.

    Attributes:
        mean: of all differences.
        low, high: of the interval; None where there is one difference only.
        freedom: degrees of freedom of Student's distribution; None as above.
    """

    mean: float
    low: float | None
    high: float | None
    freedom: float | None


def paired_interval(differences: Sequence[Sequence[float]]) -> Interval:
    """Returns the mean of paired differences, and an interval for architectures and seeds that were not tried.

    The variance of the mean is that of the means of the architectures, over their number, plus that of the means of the
    seeds, over theirs; its degrees of freedom are Satterthwaite's. With one seed it is the usual paired t interval over
    the architectures, and says nothing of other seeds.

    Args:
        differences: one row an architecture, one entry a seed; all rows have the same length, at least one.
    """
    table = np.asarray(differences, dtype=np.float64)
    mean = float(table.mean())
    parts = []
    for axis in (1, 0):
        means = table.mean(axis=axis)
        if len(means) > 1:
            parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    if not parts:
        return Interval(mean, None, None, None)
    if variance == 0:
        return Interval(mean, mean, mean, float(min(freedom for _, freedom in parts)))
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    half = student_quantile(0.5 + _CONFIDENCE / 2, freedom) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, freedom)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)


def student_quantile(probability: float, freedom: float) -> float:
    """Returns a quantile of Student's distribution.

    Args:
        probability: 0.5 to below 1.
        freedom: degrees of freedom, at least 1, not necessarily whole.
    """
    low, high = 0.0, 1.0
    while _student(high, freedom) < probability:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _student(value: float, freedom: float) -> float:
    """Returns the distribution function for a value of at least 0: with x = sqrt(freedom) tan(angle) it is smooth."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    end = math.atan(value / math.sqrt(freedom))
    angles = end / 2 * (_NODES + 1)
    return 0.5 + scale * end / 2 * float(_WEIGHTS @ np.cos(angles) ** (freedom - 1))


# ---- the best of several


def expected_best(values: Sequence[float], count: int, sign: int) -> float:
    """Returns what the best of some of the values is on average over all ways to choose so many of them.

    Args:
        values: of architectures drawn at random.
        count: how many a random search would have tried; 1 to all.
        sign: 1 where larger is better, -1 where smaller is.

    Raises:
        ValueError: there are fewer values.
    """
    if not 1 <= count <= len(values):
        raise ValueError(f"{len(values)} values say nothing of the best of {count}")
    worst_first = sorted(values, key=lambda one: sign * one)
    ways = math.comb(len(values), count)
    # the value at a place is the best of those that choose it and no better one; exact shares, then one rounding
    return math.fsum(
        value * (math.comb(place, count - 1) / ways) for place, value in enumerate(worst_first) if place >= count - 1
    )
