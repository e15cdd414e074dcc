"""Hyperband: the brackets of the paper's Algorithm 1, the trials that each gets, and successive halving in each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnas_core.assessors.hyperband import HyperbandAssessor
from nnas_core.errors import UsageError
from tests.assessors.reported_curves import ends, halved, random_curves

# max_resource, min_resource, reduction_factor; the first rungs, R * eta**-s, and ceil((s_max + 1) / (s + 1) * eta**s)
BRACKETS = [
    ((81, 1, 3), [1, 3, 9, 27, 0], [81, 34, 15, 8, 5]),
    ((100, 1, 3), [1, 4, 11, 33, 0], [81, 34, 15, 8, 5]),
    ((20, 1, 2), [1, 3, 5, 10, 0], [16, 10, 7, 5, 5]),  # 1.25, 2.5
    ((64, 1, 4), [1, 4, 16, 0], [64, 22, 8, 4]),
    ((90, 10, 3), [10, 30, 0], [9, 5, 3]),
    ((100, 10, 3), [11, 33, 0], [9, 5, 3]),
    ((3, 1, 3), [1, 0], [3, 2]),
]


def first_rungs(setting: tuple[int, int, int], trials: int) -> list[int]:
    """The first rung of the bracket of each trial, 0: it has none.

    Each trial is worse than all before, so all but the first of a bracket end at its first rung.
    """
    worse = np.repeat(-np.arange(trials, dtype=float)[:, None], setting[0], axis=1)
    return ends(HyperbandAssessor(*setting), worse)


@pytest.mark.parametrize(("setting", "rungs", "shares"), BRACKETS)
def test_brackets_get_their_shares_of_the_trials(setting: Any, rungs: list[int], shares: list[int]) -> None:
    round_of = sum(shares)
    found = first_rungs(setting, 2 * round_of)[round_of:]  # the first of a bracket cannot be told
    assert [found.count(rung) for rung in rungs] == shares


def test_every_part_of_a_study_has_the_shares_too() -> None:
    shares = np.array([81, 34, 15, 8, 5])
    found = np.array(first_rungs((81, 1, 3), 286)[143:])
    counts = np.cumsum(found[:, None] == [1, 3, 9, 27, 0], axis=0)
    expected = np.arange(1, 144)[:, None] * shares / 143
    assert np.abs(counts - expected).max() < 1


def test_the_bracket_of_a_trial_depends_on_its_number_only() -> None:
    worse = -np.arange(60.0)
    forwards, backwards = HyperbandAssessor(27), HyperbandAssessor(27)
    for number in range(59, -1, -1):
        backwards.assess_trial(number, [worse[number]])
    for number in range(60):
        forwards.assess_trial(number, [worse[number]])
    assert [forwards.assess_trial(number, [-60.0]) for number in range(60, 160)] == [
        backwards.assess_trial(number, [-60.0]) for number in range(60, 160)
    ]


@pytest.mark.parametrize(("steps", "rungs"), [(27, [1, 3, 9]), (50, [2, 6, 17])])  # 1.85, 5.56, 16.7
@pytest.mark.parametrize("seed", range(3))
def test_each_bracket_halves_its_own_trials(seed: int, steps: int, rungs: list[int]) -> None:
    round_of = 27 + 12 + 6 + 4
    firsts = np.array(first_rungs((steps, 1, 3), 2 * round_of)[round_of:] * 4)  # it begins anew after each round
    curves = random_curves(len(firsts), steps, seed)
    expected = np.zeros(len(firsts), dtype=int)
    for place, first in enumerate(rungs):
        expected[firsts == first] = halved(curves[firsts == first], rungs[place:], 3)
    assert ends(HyperbandAssessor(steps), curves) == expected.tolist()
    assert ends(HyperbandAssessor(steps, optimize_mode="minimize"), -curves) == expected.tolist()


def test_where_curves_do_not_cross_the_best_of_81_is_never_ended() -> None:
    for seed in range(20):
        quality = np.random.default_rng(seed).permutation(81).astype(float)
        found = ends(HyperbandAssessor(81), np.repeat(quality[:, None], 81, axis=1), at_a_time=4)
        assert found[int(quality.argmax())] == 0
        assert 20 <= np.count_nonzero(found) < 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_resource": 2}, "hyperband: max_resource must be a whole number of at least 3, not 2"),
        (
            {"max_resource": 19, "min_resource": 10, "reduction_factor": 2},
            "hyperband: max_resource must be .* 20, not 19",
        ),
        ({"max_resource": None}, "hyperband: max_resource must be a whole number of at least 3, not None"),
        ({"max_resource": 9, "min_resource": 0}, "hyperband: min_resource must be a whole number of at least 1, not 0"),
        ({"max_resource": 9, "reduction_factor": 1}, "hyperband: reduction_factor must be .* at least 2, not 1"),
        ({"max_resource": 9, "optimize_mode": ""}, "assessor: optimize_mode must be maximize or minimize, not ''"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        HyperbandAssessor(**arguments)
