"""Median stopping: the rule of the paper by hand, and a vectorised simulation of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from nnas_core.assessors.medianstop import MedianstopAssessor
from nnas_core.errors import UsageError
from tests.assessors.reported_curves import Curves, ends, random_curves

# running averages: 1, 2, 3 - 3, 3, 5 - 2, 4; so the medians are 2, 3, and 3 (the worse of 3 and 5)
COMPLETE = [[1, 3, 5], [3, 3, 9], [2, 6]]

VERDICTS = [
    ([1.9], False),
    ([2], True),
    ([2, 2.9], False),
    ([2, 3], True),
    ([3, 0], True),
    ([2.9, 2.9, 2.9], False),
    ([3, 0, 0], True),
    ([0, 0, 3], True),
    ([0, 0, 0, 0], True),  # nobody came so far
]


def fed(**arguments: Any) -> MedianstopAssessor:
    """One that knows the complete trials."""
    assessor = MedianstopAssessor(**arguments)
    for number, history in enumerate(COMPLETE):
        assessor.assess_trial(number, [assessor.sign * value for value in history])
        assessor.trial_end(number, True)
    return assessor


@pytest.mark.parametrize(("history", "goes_on"), VERDICTS)
def test_a_trial_ends_when_its_best_value_is_strictly_worse_than_the_median(history: Any, goes_on: bool) -> None:
    assert fed().assess_trial(3, history) is goes_on


@pytest.mark.parametrize(("history", "goes_on"), VERDICTS)
def test_where_less_is_better_the_median_of_two_is_the_larger(history: Any, goes_on: bool) -> None:
    assert fed(optimize_mode="minimize").assess_trial(3, [-value for value in history]) is goes_on


def test_before_any_trial_succeeded_every_one_goes_on() -> None:
    assert MedianstopAssessor().assess_trial(0, [-1e300])


def test_a_trial_that_did_not_succeed_does_not_count() -> None:
    assessor = MedianstopAssessor()
    assessor.assess_trial(0, [5])
    assessor.trial_end(0, False)
    assert assessor.assess_trial(1, [1])


def test_before_start_step_no_trial_ends() -> None:
    assessor = fed(start_step=3)
    assert [assessor.assess_trial(3, [0] * step) for step in (1, 2, 3)] == [True, True, False]


def test_what_came_before_start_step_counts_for_the_averages() -> None:
    assessor = MedianstopAssessor(start_step=2)
    for step in (1, 2):
        assessor.assess_trial(0, [0, 10][:step])
    assessor.trial_end(0, True)
    assert [assessor.assess_trial(1, [1, best]) for best in (4.9, 5)] == [False, True]


def simulated(curves: Curves, start_step: int) -> list[int]:
    """The step at which each trial ends, one trial after the other; 0: none."""
    averages = np.cumsum(curves, axis=1) / np.arange(1, curves.shape[1] + 1)
    best = np.maximum.accumulate(curves, axis=1)
    found, complete = [], np.zeros(len(curves), dtype=bool)
    for number in range(len(curves)):
        worse = np.zeros(curves.shape[1], dtype=bool)
        if complete.any():
            worse = best[number] < np.quantile(averages[complete], 0.5, axis=0, method="lower")
        worse[: max(start_step - 1, 0)] = False
        complete[number] = not worse.any()
        found.append(0 if complete[number] else int(worse.argmax()) + 1)
    return found


@pytest.mark.parametrize("start_step", [0, 1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_a_simulation_ends_the_same_trials_at_the_same_steps(seed: int, start_step: int) -> None:
    curves = random_curves(100, 20, seed)
    expected = simulated(curves, start_step)
    assert ends(MedianstopAssessor(start_step), curves) == expected
    assert ends(MedianstopAssessor(start_step, "minimize"), -curves) == expected
    assert 20 < np.count_nonzero(expected) < 90


@pytest.mark.parametrize("given", [-1, 1.5, True, "3"])
def test_a_start_step_that_is_none_is_refused(given: Any) -> None:
    message = f"medianstop: start_step must be a whole number of at least 0, not {given!r}"
    with pytest.raises(UsageError, match=re.escape(message)):
        MedianstopAssessor(given)


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="assessor: optimize_mode must be maximize or minimize, not 'max'"):
        MedianstopAssessor(optimize_mode="max")
