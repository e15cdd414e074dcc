"""The normal distribution where logarithms of small numbers are wanted.

Source: Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions", Journal of Global Optimization
13 (1998) (equation 15); Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization",
arXiv:2310.20708 (why its logarithm).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_below", "log_density", "log_improvement"]

_Floats = NDArray[np.float64]

_FAR = -20.0
"""Deviations below which a series is taken: there the formulas would subtract nearly equal numbers, or underflow."""

_LEAST = 1e-8
"""A deviation that counts as none."""

_STEP = 1e-3
"""Between the numbers of the table: straight lines between them are right to 1e-7."""


def log_density(z: _Floats) -> _Floats:
    """``[k]``: of a standard normal variable."""
    return -0.5 * np.square(z) - 0.5 * math.log(2 * math.pi)


def log_below(z: _Floats) -> _Floats:
    """``[k]``: log probability that a standard normal variable is at most ``z``; to 1e-6 far below 0."""
    far = np.square(np.minimum(z, _FAR))
    series = log_density(np.minimum(z, _FAR)) - 0.5 * np.log(far) + np.log1p(-1 / far + 3 / far**2)
    return np.where(z < _FAR, series, np.log(_below(np.maximum(z, _FAR))))


def log_improvement(mean: _Floats, variance: _Floats, best: float) -> _Floats:
    """``[k]``: log E[max(0, value - best)] of normal values.

    With z = (mean - best) / deviation it is log(deviation) + log(density(z) + z * below(z)); the second logarithm is
    read from a table, and is log(z) far above 0. Far below, it is that of density(z) / z^2 * (1 - 3 / z^2 + 15 / z^4),
    to 1e-5.
    """
    deviation = np.sqrt(np.maximum(variance, _LEAST**2))
    z = (mean - best) / deviation
    found = np.interp(z, *_table())
    low, high = np.flatnonzero(z < _FAR), np.flatnonzero(z > -_FAR)
    if len(low):
        far = np.square(z[low])
        found[low] = log_density(z[low]) - np.log(far) + np.log1p(-3 / far + 15 / far**2)
    found[high] = np.log(z[high])
    return np.log(deviation) + found


@functools.cache
def _table() -> tuple[_Floats, _Floats]:
    """``[k]`` each: z, and log(density(z) + z * below(z))."""
    z = np.arange(_FAR, -_FAR + _STEP / 2, _STEP)
    return z, np.log(np.exp(log_density(z)) + z * _below(z))


def _below(z: _Floats) -> _Floats:
    return 0.5 * np.array([math.erfc(one) for one in (z / -math.sqrt(2)).tolist()])
