"""The grid: every architecture once, a reflected Gray code over the decisions (Knuth, volume 4A, 7.2.1.1)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from nnas_core.errors import ArchitectureError, UsageError
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials
from nnas_core.tuners.grid import GridTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers
from tests.tuners.trial_loops import distance, run_trials, tell

SPACE = SearchSpace.from_json(ALL_KINDS)


def make(space: dict[str, Any] = ALL_KINDS, **args: Any) -> GridTuner:
    tuner = GridTuner(**args)
    tuner.update_search_space(space)
    return tuner


def decisions(space: dict[str, Any], trials: int) -> list[str]:
    """The numbers of the decisions, a digit a key, of layer choices."""
    tuner = make(space)
    made = (tuner.generate_parameters(number) for number in range(trials))
    return ["".join(str(entry["_idx"]) for entry in parameters.values()) for parameters in made]


def test_keys_of_two_follow_the_reflected_binary_code() -> None:
    space = {f"key{number}": layers(2) for number in range(3)}
    assert decisions(space, 8) == ["000", "001", "011", "010", "110", "111", "101", "100"]


def test_keys_of_three_follow_the_reflected_ternary_code() -> None:
    assert decisions({"a": layers(3), "b": layers(3)}, 9) == ["00", "01", "02", "12", "11", "10", "20", "21", "22"]


@pytest.mark.parametrize(
    "space",
    [
        ALL_KINDS,
        {"a": layers(3), "b": layers(5), "c": layers(2), "d": layers(7)},
        {"a": layers(1), "b": inputs(4, None), "c": layers(1)},
        {"a": inputs(5, 2), "b": inputs(5, 3)},
        {"a": layers(1)},
    ],
    ids=["all kinds", "odd and even", "between single ones", "subsets", "one architecture"],
)
def test_every_architecture_comes_once_a_single_key_from_the_one_before(space: dict[str, Any]) -> None:
    read = SearchSpace.from_json(space)
    tuner = make(space)
    proposed = run_trials(tuner, read, lambda one: 0.0)
    assert len(proposed) == len(set(proposed)) == read.size
    assert {distance(one, after) for one, after in itertools.pairwise(proposed)} <= {1}
    for number in range(3):
        with pytest.raises(NoMoreTrials):
            tuner.generate_parameters(number)


def test_a_space_of_1000_keys_starts_at_once() -> None:
    space = {f"key{number:03}": inputs(70, None) if number % 2 else layers(7) for number in range(1000)}
    read = SearchSpace.from_json(space)
    proposed = run_trials(make(space), read, lambda one: 0.0, trials=10)
    assert len(set(proposed)) == 10
    assert {distance(one, after) for one, after in itertools.pairwise(proposed)} == {1}


def test_the_order_goes_on_beyond_64_bits() -> None:
    space = {"a": layers(2), "b": inputs(100, None), "c": layers(3)}
    tuner, read = make(space), SearchSpace.from_json(space)
    tuner._position = 3 * 2**100 - 2  # nobody can wait for it
    proposed = run_trials(tuner, read, lambda one: 0.0, trials=5)
    # the half of a's first decision ends with all of b chosen; the second half goes back from there
    digits = [(one.indices()["a"], len(one.indices()["b"]), one.indices()["c"]) for one in proposed]
    assert digits == [
        ((0,), 100, (1,)),
        ((0,), 100, (0,)),
        ((1,), 100, (0,)),
        ((1,), 100, (1,)),
        ((1,), 100, (2,)),
    ]


def test_architectures_of_elsewhere_are_passed_over() -> None:
    every = run_trials(make(), SPACE, lambda one: 0.0)
    known = {*every[:3], *every[10:12], every[-1]}
    tuner = make()
    tuner.import_data([{"parameter": one.parameters(), "value": None} for one in known])
    assert run_trials(tuner, SPACE, lambda one: 0.0) == [one for one in every if one not in known]


def test_results_of_what_it_did_not_propose_are_passed_over_too() -> None:
    """As when a study is resumed that another version began."""
    every = run_trials(make(), SPACE, lambda one: 0.0)
    tuner = make()
    tell(tuner, 0, every[1], 1.0)
    assert run_trials(tuner, SPACE, lambda one: 0.0) == [every[0], *every[2:]]


def test_seeds_results_and_failures_do_not_matter() -> None:
    every = run_trials(make(), SPACE, lambda one: 0.0)
    assert run_trials(make(seed=5, optimize_mode="minimize"), SPACE, lambda one: None, at_a_time=9) == every


def test_several_are_proposed_at_once_and_fewer_at_the_end() -> None:
    tuner = make()
    assert len(tuner.generate_multiple_parameters(list(range(70)))) == 70
    assert len(tuner.generate_multiple_parameters(list(range(70, 140)))) == ALL_KINDS_SIZE - 70


def test_imported_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="missing keys: 'any', 'none', 'one', 'only', 'two'"):
        make().import_data([{"parameter": {"layer": "op0"}, "value": 1.0}])


def test_the_mode_is_checked() -> None:
    with pytest.raises(UsageError, match="grid: optimize_mode must be maximize or minimize, not 'best'"):
        GridTuner(optimize_mode="best")
