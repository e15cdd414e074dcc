"""Random search: uniform, without repeats, to the last architecture."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from nnas_core.errors import ArchitectureError
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials
from nnas_core.tuners.random import RandomTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers

SMALL = {"layer": layers(3), "any": inputs(2, None), "one": inputs(2, 1)}  # 24 architectures
CHI_SQUARE_23 = 49.728  # 99.9 % quantile with 23 degrees of freedom (Abramowitz and Stegun, table 26.8)


def make(seed: int = 0, space: dict[str, Any] = ALL_KINDS) -> RandomTuner:
    tuner = RandomTuner(seed=seed)
    tuner.update_search_space(space)
    return tuner


def test_each_architecture_is_equally_likely_at_each_position() -> None:
    space = SearchSpace.from_json(SMALL)
    counts: list[collections.Counter[str]] = [collections.Counter() for _ in range(24)]
    for seed in range(720):
        tuner = make(seed, SMALL)
        for position, counted in enumerate(counts):
            proposed = tuner.generate_parameters(position)
            if position in (0, 5, 13, 23):
                counted[space.parse(proposed).canonical] += 1
    for counted in (counts[position] for position in (0, 5, 13, 23)):
        assert len(counted) == 24
        assert sum((count - 30) ** 2 / 30 for count in counted.values()) < CHI_SQUARE_23


def test_every_architecture_comes_once_and_then_none() -> None:
    tuner = make()
    space = SearchSpace.from_json(ALL_KINDS)
    proposed = {space.parse(tuner.generate_parameters(number)) for number in range(ALL_KINDS_SIZE)}
    assert len(proposed) == ALL_KINDS_SIZE
    for number in range(3):
        with pytest.raises(NoMoreTrials):
            tuner.generate_parameters(number)


def test_several_are_proposed_at_once_and_fewer_at_the_end() -> None:
    tuner = make()
    assert len(tuner.generate_multiple_parameters(list(range(70)))) == 70
    assert len(tuner.generate_multiple_parameters(list(range(70, 140)))) == 2


def test_equal_seeds_propose_equally_whatever_the_results() -> None:
    one, other, third = make(1), make(1), make(2)
    first = []
    for number in range(40):
        first.append(one.generate_parameters(number))
        one.receive_trial_result(number, first[-1], float(number))
        one.trial_end(number, True)
    assert [other.generate_parameters(number) for number in range(40)] == first
    assert [third.generate_parameters(number) for number in range(40)] != first


def test_imported_architectures_are_not_proposed() -> None:
    space = SearchSpace.from_json(ALL_KINDS)
    tuner = make()
    known = [space.at(number) for number in range(0, ALL_KINDS_SIZE, 2)]
    tuner.import_data([{"parameter": one.parameters(), "value": 1.0} for one in known])
    proposed = [space.parse(tuner.generate_parameters(number)) for number in range(ALL_KINDS_SIZE // 2)]
    assert not set(known) & set(proposed)
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(36)


def test_imported_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="missing keys: 'any', 'none', 'one', 'only', 'two'"):
        make().import_data([{"parameter": {"layer": "op0"}, "value": 1.0}])


def test_a_space_of_10_to_the_60_is_sampled() -> None:
    tuner = make(space={f"key{number}": layers(1000) for number in range(20)})
    proposed = {str(tuner.generate_parameters(number)) for number in range(100)}
    assert len(proposed) == 100


def test_what_is_given_comes_first_and_only_once() -> None:
    space = SearchSpace.from_json(ALL_KINDS)
    first = [space.at(7), space.at(3), space.at(7)]
    tuner = RandomTuner(seed=1, first=[first[0].masks(), first[1].names(), first[2].parameters()])
    tuner.update_search_space(ALL_KINDS)
    proposed = [space.parse(tuner.generate_parameters(number)) for number in range(ALL_KINDS_SIZE)]
    assert proposed[:2] == first[:2]
    assert len(set(proposed)) == ALL_KINDS_SIZE
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(ALL_KINDS_SIZE)


def test_what_is_given_must_fit_the_space() -> None:
    tuner = RandomTuner(first=[{"unknown": 0}])
    with pytest.raises(ArchitectureError, match="does not fit"):
        tuner.update_search_space(ALL_KINDS)
