"""Pareto sets and hypervolumes, against counting and by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.pareto import front_of, hypervolume, undominated
from nnas_core.study.storage.records import StudySettings, TrialRecord
from tests.tuners.sample_spaces import layers

SPACE = SearchSpace.from_json({"op": layers(9)})


def settings(**config: list[str]) -> StudySettings:
    """Of a study with such goals."""
    return StudySettings("s", SPACE, "random", config=config)


def trial(number: int, accuracy: float, macs: float, **more: object) -> TrialRecord:
    """One that succeeded."""
    record = TrialRecord(number, "succeeded", 1, SPACE.at(number), accuracy, {"accuracy": accuracy}, {"macs": macs})
    return TrialRecord(**{**vars(record), **more})


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_hypervolume_is_the_share_of_a_grid(width: int) -> None:
    rng = np.random.default_rng(width)
    side = 6
    points = rng.integers(0, side + 1, (7, width)).astype(float)
    cells = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * width, indexing="ij"), axis=-1).reshape(-1, width)
    covered = (cells[:, None, :] < points[None]).all(axis=2).any(axis=1).sum()
    assert hypervolume(points, np.zeros(width)) == pytest.approx(covered)


def test_the_volume_of_many_points_in_many_coordinates_takes_no_time() -> None:
    points = np.random.default_rng(0).random((60, 5))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # nobody beats another
    samples = np.random.default_rng(1).random((4000, 5))
    share = (samples[:, None, :] < points[None]).all(axis=2).any(axis=1).mean()
    began = time.process_time()
    assert hypervolume(points, np.zeros(5)) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))
    assert time.process_time() - began < 5  # cut into slices alone, minutes


def test_what_is_below_the_reference_adds_nothing() -> None:
    reference = np.array([1.0, 1.0])
    assert hypervolume(np.array([[0.0, 9.0], [2.0, 3.0]]), reference) == 2.0
    assert hypervolume(np.zeros((0, 2)), reference) == 0.0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_nobody_beats_the_undominated(width: int) -> None:
    points = np.random.default_rng(width).integers(0, 5, (60, width)).astype(float)
    beaten = [any((other >= one).all() and (other > one).any() for other in points) for one in points]
    assert undominated(points).tolist() == [not one for one in beaten]


def test_a_front_is_of_trials_that_succeeded_and_meet_the_constraints() -> None:
    found = [
        trial(0, 0.9, 100),
        trial(1, 0.8, 50),
        trial(2, 0.7, 60),
        trial(3, 0.99, 10, feasible=False),
        trial(4, 0.99, 10, state="failed"),
        trial(5, 0.2, 120),
    ]
    front = front_of(settings(objective=["accuracy:max", "macs:min"]), found)
    assert front is not None
    assert front.to_json() == {
        "objectives": [
            {"name": "accuracy", "mode": "max", "reference": 0.2},
            {"name": "macs", "mode": "min", "reference": 120.0},
        ],
        "pareto": [{"number": 0, "values": [0.9, 100]}, {"number": 1, "values": [0.8, 50]}],
        "hypervolume": pytest.approx(0.1 * 20 + 0.6 * 70),
    }


def test_one_objective_or_no_trial_makes_no_front() -> None:
    assert front_of(settings(objective=["accuracy:max"]), [trial(0, 0.9, 100)]) is None
    assert front_of(settings(objective=["accuracy:max", "macs:min"]), []) is None
    assert front_of(settings(), [trial(0, 0.9, 100)]) is None
