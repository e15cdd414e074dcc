"""Regularized evolution, against its paper (arXiv:1802.01548, Algorithm 1) and what nnas adds to it."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials, Tuner
from nnas_core.tuners.evolution import EvolutionTuner
from nnas_core.tuners.random import RandomTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers

SPACE = SearchSpace.from_json(ALL_KINDS)


def make(space: dict[str, Any] = ALL_KINDS, **args: Any) -> EvolutionTuner:
    tuner = EvolutionTuner(**args)
    tuner.update_search_space(space)
    return tuner


def propose(tuner: Tuner, number: int = 0) -> Architecture:
    return SPACE.parse(tuner.generate_parameters(number))


def tell(tuner: Tuner, architecture: Architecture, value: float) -> None:
    tuner.receive_trial_result(0, architecture.parameters(), value)
    tuner.trial_end(0, True)


def distance(one: Architecture, other: Architecture) -> int:
    """At how many keys two architectures differ."""
    return sum(one[key] != other[key] for key in one)


def test_another_space_begins_with_an_empty_population() -> None:
    tuner = make(population=2, sample=1, seed=0)
    for number in range(2):
        tell(tuner, propose(tuner, number), 1.0)
    tuner.update_search_space({"op": layers(3)})
    assert len(tuner._population) == 0
    assert tuner.generate_parameters(2)


# ---- ageing, sampling, mutation


def test_the_best_of_the_living_is_the_parent_and_the_oldest_dies() -> None:
    tuner = make(population=3, sample=200, repeats=True)  # so many draws find the best
    old, second, third = (propose(tuner) for _ in range(3))
    for architecture, value in ((old, 9.0), (second, 2.0), (third, 1.0)):
        tell(tuner, architecture, value)
    for _ in range(20):
        assert distance(propose(tuner), old) == 1
    tell(tuner, SPACE.at(0), 0.0)  # the oldest dies, although it is the best
    for _ in range(20):
        assert distance(propose(tuner), second) == 1
    tell(tuner, SPACE.at(71), 1.5)
    for _ in range(20):
        assert distance(propose(tuner), SPACE.at(71)) == 1


def test_the_smallest_is_the_best_where_the_metric_is_minimized() -> None:
    tuner = make(population=3, sample=200, repeats=True, optimize_mode="minimize")
    members = [SPACE.at(0), SPACE.at(40), SPACE.at(71)]
    for architecture, value in zip(members, (3.0, -1.0, 2.0), strict=True):
        tell(tuner, architecture, value)
    assert {distance(propose(tuner), SPACE.at(40)) for _ in range(20)} == {1}


def test_a_sample_is_drawn_with_replacement() -> None:
    """The best of two is missed by both draws in (1/2)^2 of all cases; never, without replacement."""
    tuner = make({"layer": layers(3), "one": inputs(3, 1)}, population=2, sample=2, repeats=True)
    space = SearchSpace.from_json({"layer": layers(3), "one": inputs(3, 1)})
    best, worst = space.at(0), space.at(4)  # they differ at both keys
    tell(tuner, worst, 0.0)
    tell(tuner, best, 1.0)
    of_worst = 0
    for _ in range(4000):
        child = space.parse(tuner.generate_parameters(0))
        if distance(child, best) == 1 and distance(child, worst) == 1:
            continue  # of either
        of_worst += distance(child, worst) == 1
    # a quarter have the worst as parent, half of whose children are not also children of the best
    assert abs(of_worst - 500) < 4 * math.sqrt(4000 * 1 / 8 * 7 / 8)


def test_keys_and_then_decisions_are_equally_likely() -> None:
    tuner = make(population=1, sample=1, repeats=True)
    tell(tuner, SPACE.at(0), 1.0)
    counts = collections.Counter(propose(tuner) for _ in range(6000))
    expected: dict[Architecture, float] = {}
    for neighbour in map(SPACE.at, range(SPACE.size)):
        if distance(neighbour, SPACE.at(0)) != 1:
            continue
        key = next(key for key in neighbour if neighbour[key] != SPACE.at(0)[key])
        expected[neighbour] = 6000 / 4 / (SPACE[key].size - 1)  # four keys have more than one decision
    assert set(counts) == set(expected)
    chi_square = sum((counts[one] - expected[one]) ** 2 / expected[one] for one in expected)
    assert len(expected) == 8
    assert chi_square < 24.322  # 99.9 % with 7 degrees of freedom (Abramowitz and Stegun, table 26.8)


def test_failed_trials_never_enter_the_population() -> None:
    tuner = make(population=2, sample=1, repeats=True)
    tell(tuner, SPACE.at(0), 1.0)
    for number in range(30):  # these are still random
        tuner.generate_parameters(number)
        tuner.trial_end(number, False)
    tell(tuner, SPACE.at(0), 1.0)
    for number in range(30):
        assert distance(propose(tuner, number), SPACE.at(0)) == 1
        tuner.trial_end(number, False)


# ---- without repeats


@pytest.mark.parametrize("population", [1, 5, 72, 1000])
def test_every_architecture_comes_once_and_then_none(population: int) -> None:
    tuner = make(population=population, sample=3, seed=population)
    proposed = set()
    for number in range(ALL_KINDS_SIZE):
        architecture = propose(tuner, number)
        SPACE.validate(architecture)
        proposed.add(architecture)
        if number % 5:
            tell(tuner, architecture, float(number % 7))
        else:
            tuner.trial_end(number, False)
    assert len(proposed) == ALL_KINDS_SIZE
    for number in range(3):
        with pytest.raises(NoMoreTrials):
            tuner.generate_parameters(number)


def test_a_child_is_one_mutation_from_a_member_while_there_are_new_ones() -> None:
    tuner = make(population=4, sample=2)
    members: collections.deque[Architecture] = collections.deque(maxlen=4)
    for number in range(30):
        architecture = propose(tuner, number)
        if number >= 4:
            assert min(distance(architecture, member) for member in members) == 1
        tell(tuner, architecture, float(number % 3))
        members.append(architecture)


def test_repeats_are_proposed_where_they_are_allowed() -> None:
    tuner = make(population=2, sample=2, repeats=True)
    proposed = []
    for number in range(200):  # of 72: the letter of the paper does not end
        proposed.append(propose(tuner, number))
        tell(tuner, proposed[-1], 1.0)
    assert len(set(proposed)) < 200


# ---- the whole algorithm


def additive(architecture: Architecture) -> float:
    """One optimum: the sum over the keys of the decision's number, in units of the largest."""
    return sum(sum(index + 1 for index in d) / 3 for d in architecture.indices().values())


PLANTED = {f"key{number}": layers(5) for number in range(8)}  # 390,625 architectures


def planted(parameters: dict[str, Any]) -> int:
    """The number of decisions that are the right one, 8 at most."""
    return sum(entry["_idx"] == 4 - number % 5 for number, entry in enumerate(parameters.values()))


def best_of(tuner: Tuner, trials: int) -> int:
    best = 0
    tuner.update_search_space(PLANTED)
    for number in range(trials):
        parameters = tuner.generate_parameters(number)
        value = planted(parameters)
        tuner.receive_trial_result(number, parameters, float(value))
        tuner.trial_end(number, True)
        best = max(best, value)
    return best


def algorithm_1(rng: np.random.Generator, population: int, sample: int, trials: int) -> int:
    """Real et al., Algorithm 1, as it stands there, for ``planted``."""

    def score(model: list[int]) -> int:
        return sum(decision == 4 - number % 5 for number, decision in enumerate(model))

    living: list[tuple[list[int], int]] = []
    history = []
    while len(living) < population:
        model = [int(rng.integers(5)) for _ in range(8)]
        living.append((model, score(model)))
        history.append(living[-1])
    while len(history) < trials:
        candidates: list[tuple[list[int], int]] = []
        while len(candidates) < sample:
            candidates.append(living[int(rng.integers(population))])
        parent = max(candidates, key=lambda member: member[1])
        model = list(parent[0])
        place = int(rng.integers(8))
        model[place] = int(rng.choice([d for d in range(5) if d != model[place]]))
        living.append((model, score(model)))
        history.append(living[-1])
        living.pop(0)
    return max(value for _, value in history)


def test_with_repeats_it_finds_what_algorithm_1_finds() -> None:
    """Two samples of 120 searches each; their means differ by less than 3.3 standard errors."""
    rng = np.random.default_rng(0)
    theirs = [algorithm_1(rng, 10, 3, 100) for _ in range(120)]
    ours = [best_of(EvolutionTuner(population=10, sample=3, repeats=True, seed=seed), 100) for seed in range(120)]
    error = math.sqrt((np.var(theirs) + np.var(ours)) / 120)
    assert abs(np.mean(theirs) - np.mean(ours)) < 3.3 * error
    assert 5 < np.mean(ours) < 8


def test_it_finds_the_planted_optimum_more_often_than_random_search() -> None:
    def found(make_tuner: Callable[[int], Tuner]) -> int:
        return sum(best_of(make_tuner(seed), 300) == 8 for seed in range(40))

    evolution = found(lambda seed: EvolutionTuner(seed=seed))
    random = found(lambda seed: RandomTuner(seed=seed))
    # random search finds it in 40 * 300 / 390,625 = 0.03 of 40; evolution in 25 (0.635 over 400 seeds, +- 3)
    assert evolution >= 16
    assert random == 0


def test_equal_seeds_and_results_propose_equally() -> None:
    def proposals(seed: int) -> list[Architecture]:
        tuner = make(population=5, sample=2, seed=seed)
        made = []
        for number in range(40):
            made.append(propose(tuner, number))
            tell(tuner, made[-1], additive(made[-1]))
        return made

    assert proposals(3) == proposals(3) != proposals(4)


# ---- data of elsewhere, arguments


def test_imported_trials_are_known_and_become_parents() -> None:
    tuner = make(population=2, sample=200)
    known = [SPACE.at(number) for number in (0, 1, 2)]
    tuner.import_data(
        [{"parameter": one.parameters(), "value": value} for one, value in zip(known, (1, 5.0, 2.0), strict=True)]
    )
    for number in range(5):
        child = propose(tuner, number)
        assert distance(child, known[1]) == 1
        assert child not in known


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True])
def test_imported_trials_without_a_finite_value_are_only_known(value: Any) -> None:
    tuner = make(population=1, sample=1)
    with pytest.warns(NnasWarning, match="is not a finite number: the trial only counts as known"):
        tuner.import_data([{"parameter": SPACE.at(0).parameters(), "value": value}])
    proposed = {propose(tuner, number) for number in range(ALL_KINDS_SIZE - 1)}  # still random
    assert SPACE.at(0) not in proposed
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(71)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"population": 0}, "evolution: population must be a whole number of at least 1, not 0"),
        ({"population": 2.5}, "evolution: population must be a whole number of at least 1, not 2.5"),
        ({"sample": True}, "evolution: sample must be a whole number of at least 1, not True"),
        ({"sample": "3"}, "evolution: sample must be a whole number of at least 1, not '3'"),
        ({"repeats": 1}, "evolution: repeats must be true or false, not 1"),
        ({"optimize_mode": "max"}, "evolution: optimize_mode must be maximize or minimize, not 'max'"),
    ],
)
def test_arguments_are_checked(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvolutionTuner(**args)
