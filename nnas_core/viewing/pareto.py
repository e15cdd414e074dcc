"""The trials that no other one beats in two numbers at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["front_of"]


def front_of(points: Sequence[tuple[float, float]], signs: tuple[int, int]) -> list[int]:
    """The indices of the points on the Pareto front, the best first number first; of equal points the first.

    Args:
        points: pairs of finite numbers.
        signs: 1 where larger is better, -1 where smaller is.
    """
    order = sorted(range(len(points)), key=lambda one: tuple(-s * x for s, x in zip(signs, points[one], strict=True)))
    front: list[int] = []
    best = -math.inf
    for index in order:
        second = signs[1] * points[index][1]
        if second > best:
            front.append(index)
            best = second
    return front
