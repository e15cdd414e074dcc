"""Ranks stand for values where it must not matter what these measure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks"]


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Returns the rank of each value, from -1 for the lowest to 1 for the highest; equal ones share the mean of theirs.

    Args:
        values: finite, at least one; the rank of a single one is 0.
    """
    ordered = np.sort(values)
    twice = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    found: NDArray[np.float64] = (twice - len(values)) / max(len(values) - 1, 1)
    return found
