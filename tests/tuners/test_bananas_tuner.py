"""Bayesian optimization with an ensemble of networks, against its paper (arXiv:1910.11858) and what nnas adds to it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.bananas import BananasTuner, Ensemble, features, thompson
from nnas_core.tuners.random import RandomTuner
from tests.tuners.sample_spaces import ALL_KINDS, inputs, layers
from tests.tuners.trial_loops import distance, run_trials, tell

SPACE = SearchSpace.from_json(ALL_KINDS)

ONE: dict[str, Any] = {"num_best": 1, "batch_size": 1, "num_candidates": 1}
"""One candidate, made from the best: nothing is left to choose."""

CHAIN = {f"key{number}": layers(4) for number in range(8)}
CHAIN_SPACE = SearchSpace.from_json(CHAIN)


def make(space: dict[str, Any] = CHAIN, **arguments: Any) -> BananasTuner:
    tuner = BananasTuner(**{"epochs": 40, **arguments})
    tuner.update_search_space(space)
    return tuner


def planted(architecture: Architecture) -> float:
    """How many keys have candidate 2."""
    return float(sum(decision == (2,) for decision in architecture.indices().values()))


def pairs(architecture: Architecture) -> float:
    """How many neighbouring keys have the same candidate, of which a sum over keys says nothing."""
    decisions = list(architecture.indices().values())
    return float(sum(one == other for one, other in itertools.pairwise(decisions)))


# ---- encodings


def test_the_adjacency_encoding_is_which_candidates_are_chosen() -> None:
    """In ``ALL_KINDS`` the keys with more than one decision are: any of 2, layer of 3, one of 2, two of 3."""
    assert SPACE.keys == ("any", "layer", "none", "one", "only", "two")
    assert features(SPACE, (3, 2, 0, 1, 0, 1), 1) == [(0, 0), (0, 1), (1, 2), (2, 1), (3, 0), (3, 2)]
    assert features(SPACE, (0, 0, 0, 0, 0, 2), 1) == [(1, 0), (2, 0), (3, 1), (3, 2)]  # none of any


def test_the_path_encoding_adds_candidates_of_keys_that_follow_each_other() -> None:
    space = SearchSpace.from_json({"a": layers(3), "b": layers(2), "c": inputs(3, 2)})
    single = [(0, 2), (1, 0), (2, 0), (2, 1)]
    double = [(0, 2, 0), (1, 0, 0), (1, 0, 1)]
    triple = [(0, 2, 0, 0), (0, 2, 0, 1)]
    assert features(space, (2, 0, 0), 1) == single
    assert features(space, (2, 0, 0), 2) == single + double
    assert features(space, (2, 0, 0), 3) == single + double + triple
    assert features(space, (2, 0, 0), 9) == single + double + triple


@pytest.mark.parametrize("length", [1, 2, 3])
def test_architectures_have_different_encodings(length: int) -> None:
    codes = [tuple(SPACE[key].number(one) for key, one in SPACE.at(index).indices().items()) for index in range(72)]
    assert len({tuple(features(SPACE, code, length)) for code in codes}) == 72


def test_only_paths_tell_a_value_of_pairs_from_noise() -> None:
    """With 400 architectures known, predictions for 400 others correlate with the truth, or do not."""
    rng = np.random.default_rng(0)
    codes = [tuple(code) for code in rng.integers(4, size=(800, 8)).tolist()]
    truth = np.array([sum(one == other for one, other in itertools.pairwise(code)) for code in codes], dtype=float)
    found = []
    for length in (1, 2):
        active = [set(features(CHAIN_SPACE, code, length)) for code in codes]
        columns = sorted(set().union(*active))
        encoded = np.array([[float(one in of_code) for one in columns] for of_code in active])
        ensemble = Ensemble(2, [len(columns), 1], np.random.default_rng(1))  # linear
        ensemble.fit(encoded[:400], truth[:400], 300, 0.03)
        found.append(float(np.corrcoef(ensemble.predict(encoded[400:]).mean(0), truth[400:])[0, 1]))
    assert abs(found[0]) < 0.2  # its standard error is 0.05
    assert found[1] > 0.9


# ---- the ensemble


def test_predictions_are_those_of_networks_written_once_more() -> None:
    rng = np.random.default_rng(3)
    ensemble = Ensemble(2, [3, 4, 1], rng)
    ensemble.parameters[:] = rng.standard_normal(len(ensemble.parameters))
    x = rng.standard_normal(3)
    first, second = ensemble.parameters[:32].reshape(2, 4, 4), ensemble.parameters[32:].reshape(2, 5)
    expected = []
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        hidden = [max(0.0, sum(x[i] * one[i][j] for i in range(3)) + one[3][j]) for j in range(4)]
        expected.append(sum(hidden[j] * other[j] for j in range(4)) + other[4])
    assert ensemble.predict(x[None])[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(4)
    ensemble = Ensemble(3, [5, 4, 3, 1], rng)
    ensemble.parameters += 0.3 * rng.standard_normal(len(ensemble.parameters))
    x, y = rng.standard_normal((7, 5)), rng.standard_normal(7)

    def loss() -> float:
        return float(np.abs(ensemble.predict(x) - y).mean(axis=1).sum())

    gradient = ensemble.gradient(x, y)
    for place in range(len(gradient)):
        value, ends = ensemble.parameters[place], []
        for step in (1e-6, -1e-6):
            ensemble.parameters[place] = value + step
            ends.append(loss())
        ensemble.parameters[place] = value
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)
    assert np.count_nonzero(gradient) > len(gradient) / 2


def test_training_follows_adam() -> None:
    """Two steps of the algorithm of arXiv:1412.6980, the second with half of the rate of the first."""
    ensemble = Ensemble(1, [2, 1], np.random.default_rng(5))
    x, y = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([3.0, -1.0, 2.0])
    weights = ensemble.parameters.tolist()
    m, v = [0.0] * 3, [0.0] * 3
    for step, rate in ((1, 0.1), (2, 0.05)):
        errors = [sum(w * one for w, one in zip(weights, [*row, 1.0], strict=True)) for row in x.tolist()]
        signs = [math.copysign(1.0, error - target) for error, target in zip(errors, y.tolist(), strict=True)]
        for i in range(3):
            g = sum(sign * [*row, 1.0][i] for sign, row in zip(signs, x.tolist(), strict=True)) / 3
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
            weights[i] -= rate * (m[i] / (1 - 0.9**step)) / (math.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
    ensemble.fit(x, y, 2, 0.1)
    assert ensemble.parameters.tolist() == pytest.approx(weights, rel=1e-5)


def test_networks_learn_what_they_are_shown_and_differ_elsewhere() -> None:
    rng = np.random.default_rng(6)
    x = rng.integers(0, 2, size=(60, 12)).astype(float)
    y = np.sin(x @ rng.standard_normal(12))
    ensemble = Ensemble(5, [12, 20, 20, 1], rng)
    before = np.abs(ensemble.predict(x) - y).mean()
    ensemble.fit(x, y, 400, 0.01)
    assert np.abs(ensemble.predict(x) - y).mean() < 0.1 * before
    assert ensemble.predict(1 - x).std(axis=0).mean() > 3 * ensemble.predict(x).std(axis=0).mean()


def test_draws_have_the_mean_and_the_deviation_of_the_predictions() -> None:
    predictions = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    rng = np.random.default_rng(7)
    drawn = np.array([thompson(predictions, rng) for _ in range(20000)])
    # (1, 2, 6): mean 3, variance (4 + 1 + 9) / 2; (0, 0, 3): mean 1, variance (1 + 1 + 4) / 2
    for column, (mean, variance) in enumerate([(3.0, 7.0), (1.0, 3.0)]):
        assert abs(drawn[:, column].mean() - mean) < 4 * math.sqrt(variance / 20000)
        assert abs(drawn[:, column].var() / variance - 1) < 4 * math.sqrt(2 / 20000)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / math.sqrt(20000)  # independent


def test_a_single_network_is_believed() -> None:
    assert thompson(np.array([[1.0, -2.0]]), np.random.default_rng(0)).tolist() == [1.0, -2.0]


# ---- searching


@pytest.mark.parametrize(
    ("encoding", "value"),
    [("adjacency", planted), ("path", planted), ("path", pairs)],
    ids=["sum", "sum, paths", "pairs"],
)
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_more_than_random_does(encoding: str, value: Any, seed: int) -> None:
    random = RandomTuner(seed=seed)
    random.update_search_space(CHAIN)
    found = [value(one) for one in run_trials(make(encoding=encoding, seed=seed), CHAIN_SPACE, value, trials=80)]
    drawn = [value(one) for one in run_trials(random, CHAIN_SPACE, value, trials=80)]
    assert max(found) > max(drawn)
    assert np.mean(found[-20:]) > np.mean(drawn) + 1.5


def test_only_the_order_of_values_matters() -> None:
    def proposals(of: Any) -> list[Architecture]:
        return run_trials(make(), CHAIN_SPACE, lambda one: float(of(planted(one))), trials=25)

    assert proposals(lambda value: 1e9 * value - 3) == proposals(lambda value: value) == proposals(np.exp)


@pytest.mark.parametrize("num_init", [2, 5])
def test_the_first_are_random_and_then_they_are_near_to_the_best(num_init: int) -> None:
    tuner = make(num_init=num_init, **ONE)
    first = run_trials(tuner, CHAIN_SPACE, planted, trials=num_init)
    best = max(first, key=planted)
    assert min(distance(one, other) for one, other in itertools.combinations(first, 2)) > 1
    for number in range(num_init, num_init + 3):
        assert distance(CHAIN_SPACE.parse(tuner.generate_parameters(number)), best) == 1


def test_failed_trials_do_not_count_as_the_first() -> None:
    tuner = make(num_init=2, **ONE)
    for number in range(10):
        tell(tuner, number, CHAIN_SPACE.parse(tuner.generate_parameters(number)), None)
    tell(tuner, 10, CHAIN_SPACE.at(0), 1.0)
    tell(tuner, 11, CHAIN_SPACE.at(4**8 - 1), 0.0)
    assert distance(CHAIN_SPACE.parse(tuner.generate_parameters(12)), CHAIN_SPACE.at(0)) == 1


def test_a_batch_is_proposed_whatever_comes_meanwhile() -> None:
    def batch(value: float) -> list[Architecture]:
        tuner = make(num_init=2, batch_size=4)
        run_trials(tuner, CHAIN_SPACE, planted, trials=2)
        found = []
        for number in range(2, 8):
            found.append(CHAIN_SPACE.parse(tuner.generate_parameters(number)))
            tell(tuner, number, found[-1], value * number)
        return found

    low, high = batch(-1.0), batch(1.0)
    assert low[:4] == high[:4]
    assert low[4:] != high[4:]


def test_what_was_chosen_and_is_then_imported_is_not_proposed() -> None:
    tuner, other = (make(num_init=2, batch_size=4) for _ in range(2))
    for one in (tuner, other):
        run_trials(one, CHAIN_SPACE, planted, trials=2)
    batch = [CHAIN_SPACE.parse(other.generate_parameters(number)) for number in range(2, 6)]
    assert CHAIN_SPACE.parse(tuner.generate_parameters(2)) == batch[0]
    tuner.import_data([{"parameter": batch[1].parameters(), "value": 0.0}])
    with pytest.warns(NnasWarning, match="imported value nan is not a finite number"):
        tuner.import_data([{"parameter": batch[2].parameters(), "value": math.nan}])
    assert CHAIN_SPACE.parse(tuner.generate_parameters(3)) == batch[3]


def test_a_candidate_is_unknown_where_a_mutation_leads_to_what_is_known() -> None:
    """All neighbours of the best are known, so each candidate is two mutations away from it."""
    tuner = make(num_init=2, **ONE)
    best = CHAIN_SPACE.at(12345)
    data = [{"parameter": one.parameters(), "value": 0.0} for one in CHAIN_SPACE.neighbours(best)]
    tuner.import_data([{"parameter": best.parameters(), "value": 1.0}, *data])
    assert [distance(CHAIN_SPACE.parse(tuner.generate_parameters(number)), best) for number in range(3)] == [2, 2, 2]


def test_imported_trials_stand_for_the_random_ones() -> None:
    tuner = make(num_init=3, **ONE)
    best = CHAIN_SPACE.at(1000)
    known = [(best, 2.0), (CHAIN_SPACE.at(5), 1.0), (CHAIN_SPACE.at(60000), 0.0)]
    tuner.import_data([{"parameter": one.parameters(), "value": value} for one, value in known])
    assert distance(CHAIN_SPACE.parse(tuner.generate_parameters(0)), best) == 1


@pytest.mark.parametrize("name", ["num_ensemble", "layers", "width", "epochs"])
def test_a_larger_number_changes_what_is_proposed_once_it_is_trained(name: str) -> None:
    found = [run_trials(make(CHAIN, **{name: number}), CHAIN_SPACE, planted, trials=20) for number in (3, 4)]
    assert found[0][:10] == found[1][:10]
    assert found[0][10:] != found[1][10:]


@pytest.mark.parametrize(
    "arguments", [{"learning_rate": 0.02}, {"encoding": "path"}, {"num_candidates": 50}, {"num_best": 2}]
)
def test_an_argument_changes_what_is_proposed_once_it_is_trained(arguments: dict[str, Any]) -> None:
    found = [run_trials(make(**given), CHAIN_SPACE, planted, trials=20) for given in ({}, arguments)]
    assert found[0][:10] == found[1][:10]
    assert found[0][10:] != found[1][10:]


def test_longer_paths_change_what_is_proposed() -> None:
    found = [
        run_trials(make(encoding="path", path_length=length), CHAIN_SPACE, planted, trials=20) for length in (2, 3)
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoding": "paths"}, "bananas: encoding must be adjacency or path, not 'paths'"),
        ({"path_length": 1}, "bananas: path_length must be a whole number of at least 2, not 1"),
        ({"num_init": 1}, "bananas: num_init must be a whole number of at least 2, not 1"),
        ({"batch_size": 0}, "bananas: batch_size must be a whole number of at least 1, not 0"),
        ({"num_ensemble": 0}, "bananas: num_ensemble must be a whole number of at least 1, not 0"),
        ({"batch_size": 20, "num_candidates": 19}, "bananas: num_candidates must be a whole number of at least 20"),
        ({"num_best": 0}, "bananas: num_best must be a whole number of at least 1, not 0"),
        ({"layers": 0}, "bananas: layers must be a whole number of at least 1, not 0"),
        ({"width": 0}, "bananas: width must be a whole number of at least 1, not 0"),
        ({"epochs": 0}, "bananas: epochs must be a whole number of at least 1, not 0"),
        ({"learning_rate": 0.0}, "bananas: learning_rate=0.0 is out of range"),
        ({"optimize_mode": "max"}, "bananas: optimize_mode must be maximize or minimize, not 'max'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        BananasTuner(**arguments)
