"""What tests of assessors share: trials that report curves, one after the other or in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnas_core import Assessor

__all__ = ["Curves", "ends", "halved", "random_curves"]

Curves = npt.NDArray[np.float64]
"""What trials report: a row a trial, a column a step."""


def random_curves(trials: int, steps: int, seed: int = 0) -> Curves:
    """Rising curves that cross."""
    rng = np.random.default_rng(seed)
    height, speed = rng.uniform(0.2, 1, (2, trials, 1))
    noise: Curves = rng.normal(0, 0.03, (trials, steps))
    return np.asarray(height * (1 - np.exp(-speed * np.arange(1, steps + 1) / 4)) + noise)


def ends(assessor: Assessor, curves: Curves, at_a_time: int = 1) -> list[int]:
    """The step at which each trial was ended, 0: none; those that run at the same time report in turn."""
    found = [0] * len(curves)
    waiting: list[int] = list(range(len(curves)))
    running: dict[int, list[float]] = {}
    while waiting or running:
        while waiting and len(running) < at_a_time:
            running[waiting.pop(0)] = []
        for number, history in list(running.items()):
            history.append(float(curves[number, len(history)]))
            goes_on: Any = assessor.goes_on(number, list(history))
            if not goes_on:
                found[number] = len(history)
            if not goes_on or len(history) == curves.shape[1]:
                del running[number]
                assessor.trial_end(number, goes_on)
    return found


def halved(curves: Curves, rungs: list[int], factor: int) -> list[int]:
    """The step at which each trial ends, 0: none; rung by rung, of trials that run one after the other."""
    found = np.zeros(len(curves), dtype=int)
    reached = np.arange(len(curves))
    for rung in rungs:
        values = curves[reached, rung - 1]
        least = [np.sort(values[:count])[-max(1, count // factor)] for count in range(1, len(values) + 1)]
        found[reached[values < least]] = rung
        reached = reached[values >= least]
    result: list[int] = found.tolist()
    return result
