"""Successive halving: rungs by hand, a vectorised simulation, Optuna's pruner, and the closed form of random order."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import optuna
import pytest

from nnas_core.assessors.asha import AshaAssessor
from nnas_core.errors import UsageError
from tests.assessors.reported_curves import Curves, ends, halved, random_curves


def constant(values: Any, steps: int) -> Curves:
    """Curves that never change."""
    return np.repeat(np.asarray(values, dtype=float)[:, None], steps, axis=1)


def test_at_a_rung_the_best_part_of_those_that_came_so_far_goes_on() -> None:
    values = [5, 3, 6, 5, 7, 7, 1, 6.5]
    # of 1, 2, ... 8 that came, with factor 3: 1 1 1 1 1 2 2 2 go on; equal values do
    expected = [True, False, True, False, True, True, False, False]
    assessor = AshaAssessor(reduction_factor=3)
    assert [assessor.assess_trial(number, [value]) for number, value in enumerate(values)] == expected


def test_of_nine_the_three_best_go_on_wherever_they_come_last() -> None:
    for value, expected in ((6.5, True), (5.5, False)):
        assessor = AshaAssessor(reduction_factor=3)
        for number, other in enumerate([1, 2, 3, 4, 5, 6, 7, 8]):
            assessor.assess_trial(number, [other])
        assert assessor.assess_trial(8, [value]) is expected


@pytest.mark.parametrize(
    ("arguments", "rungs"),
    [
        ({}, [1, 4, 16, 64, 256]),
        ({"reduction_factor": 3}, [1, 3, 9, 27, 81, 243]),
        ({"min_resource": 5, "reduction_factor": 2}, [5, 10, 20, 40, 80, 160]),
        ({"max_resource": 256}, [1, 4, 16, 64]),
        ({"max_resource": 255}, [1, 4, 16]),
        ({"max_resource": 4}, [1]),
        ({"min_resource": 10, "reduction_factor": 3, "max_resource": 100}, [10, 30]),
    ],
)
def test_trials_are_compared_at_the_rungs_only(arguments: dict[str, int], rungs: list[int]) -> None:
    assessor = AshaAssessor(**arguments)
    for step in range(1, 257):
        assessor.assess_trial(0, [1.0] * step)
    assert [step for step in range(1, 257) if not assessor.assess_trial(1, [0.0] * step)] == rungs


def test_the_value_at_the_rung_counts_and_not_the_best() -> None:
    assessor = AshaAssessor(min_resource=2)
    assert assessor.assess_trial(0, [0, 1])
    assert not assessor.assess_trial(1, [9, 0.9])


def test_a_trial_that_begins_again_leaves_the_rungs_it_had_reached() -> None:
    assessor = AshaAssessor(reduction_factor=2)
    for step in (1, 2, 4):
        assessor.assess_trial(0, [9] * step)
    assessor.assess_trial(0, [1])
    assert assessor.assess_trial(1, [2])
    assert assessor.assess_trial(1, [2, 2])


@pytest.mark.parametrize(("first", "factor", "rungs"), [(1, 4, [1, 4, 16]), (2, 3, [2, 6, 18]), (5, 2, [5, 10, 20])])
@pytest.mark.parametrize("seed", range(4))
def test_a_simulation_ends_the_same_trials_at_the_same_steps(
    first: int, factor: int, rungs: list[int], seed: int
) -> None:
    curves = random_curves(120, 27, seed)
    expected = halved(curves, rungs, factor)
    assert set(expected) == {0, *rungs}
    assert ends(AshaAssessor(first, factor), curves) == expected
    assert ends(AshaAssessor(first, factor, optimize_mode="minimize"), -curves) == expected


@pytest.mark.parametrize(("first", "factor"), [(1, 4), (2, 3)])
def test_optuna_prunes_the_same_trials_at_the_same_steps(first: int, factor: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = random_curves(40, 20)
    pruner = optuna.pruners.SuccessiveHalvingPruner(first, factor)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(0))
    expected = []
    for curve in curves:
        trial = study.ask()
        pruned = 0
        for step, value in enumerate(curve, start=1):
            trial.report(value, step)
            if trial.should_prune():
                pruned = step
                break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, curve[-1])
        expected.append(pruned)
    assert ends(AshaAssessor(first, factor), curves) == expected


def test_of_trials_in_random_order_as_many_go_on_as_the_ranks_say() -> None:
    trials, orders = 81, 300
    rng = np.random.default_rng(0)
    went_on = [ends(AshaAssessor(), constant(rng.permutation(trials), 1)).count(0) for _ in range(orders)]
    # the rank of the n-th among n is uniform, and independent of those before
    chances = [max(1, count // 4) / count for count in range(1, trials + 1)]
    deviation = math.sqrt(sum(one * (1 - one) for one in chances) / orders)
    assert np.mean(went_on) == pytest.approx(sum(chances), abs=4 * deviation)


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_where_curves_do_not_cross_the_best_of_81_is_never_ended(at_a_time: int) -> None:
    quality = np.random.default_rng(1).permutation(81)
    found = ends(AshaAssessor(reduction_factor=3, max_resource=81), constant(quality, 81), at_a_time)
    assert found[int(quality.argmax())] == 0
    assert 54 <= np.count_nonzero(found) < 81  # two of three at least


def test_trials_that_get_worse_and_worse_end_at_once() -> None:
    assert ends(AshaAssessor(), constant(range(20, 0, -1), 4)) == [0, *[1] * 19]


def test_trials_that_get_better_and_better_go_on() -> None:
    assert ends(AshaAssessor(), constant(range(20), 4)) == [0] * 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_resource": 0}, "asha: min_resource must be a whole number of at least 1, not 0"),
        ({"min_resource": 1.0}, "asha: min_resource must be a whole number of at least 1, not 1.0"),
        ({"reduction_factor": 1}, "asha: reduction_factor must be a whole number of at least 2, not 1"),
        ({"reduction_factor": True}, "asha: reduction_factor must be a whole number of at least 2, not True"),
        ({"max_resource": 3}, "asha: max_resource must be a whole number of at least 4, not 3"),
        ({"max_resource": "9"}, "asha: max_resource must be a whole number of at least 4, not '9'"),
        ({"optimize_mode": "up"}, "assessor: optimize_mode must be maximize or minimize, not 'up'"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        AshaAssessor(**arguments)
