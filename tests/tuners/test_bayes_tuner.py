"""``bayes``: the model against the dense formulas over explicit features, and what the tuner finds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnas_core.errors import UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.bayes import BayesTuner, Kernel, Posterior, coordinates, normal_scores
from tests.tuners.trial_loops import distance, run_trials

Floats = NDArray[np.float64]


def layers(keys: int, candidates: int) -> SearchSpace:
    """LayerChoices only."""
    names = [f"op{index}" for index in range(candidates)]
    return SearchSpace.from_json({f"layer{key:03}": {"_type": "layer_choice", "_value": names} for key in range(keys)})


def tuner_of(space: SearchSpace, **arguments: Any) -> BayesTuner:
    tuner = BayesTuner(**arguments)
    tuner.update_search_space(space.to_json())
    return tuner


def features(rows: NDArray[np.int64], levels: int, share: float) -> Floats:
    """One indicator a decision and a pair of decisions, scaled so that weights of variance 1 make the model."""
    width = rows.shape[1]
    found = []
    for row in rows:
        one = [float(value == level) for value in row for level in range(levels)]
        two = [
            float(row[first] == a and row[second] == b)
            for first, second in itertools.combinations(range(width), 2)
            for a, b in itertools.product(range(levels), repeat=2)
        ]
        scales = np.sqrt((1 - share) / width), np.sqrt(2 * share / (width * (width - 1)))
        found.append([1.0, *(scales[0] * np.array(one)), *(scales[1] * np.array(two))])
    return np.array(found)


class TestModel:
    RNG = np.random.default_rng(0)
    ROWS = RNG.integers(3, size=(12, 4))
    OTHERS = RNG.integers(3, size=(7, 4))
    VALUES = RNG.normal(size=12)

    @pytest.mark.parametrize(("share", "noise"), [(0.0, 0.3), (0.5, 0.03), (0.9, 0.1)])
    def test_mean_and_variance_are_those_of_bayesian_regression_on_the_features(
        self, share: float, noise: float
    ) -> None:
        given, asked = (features(rows, 3, share) for rows in (self.ROWS, self.OTHERS))
        precision = given.T @ given / noise + np.eye(given.shape[1])  # equation 2.8 of Rasmussen and Williams
        mean = asked @ np.linalg.solve(precision, given.T @ self.VALUES / noise)
        variance = np.einsum("kf,fk->k", asked, np.linalg.solve(precision, asked.T))
        model = Posterior(Kernel(4, share, noise), self.OTHERS)
        model.condition(self.ROWS)
        model.learn(self.VALUES)
        found = model.mean_and_variance(self.OTHERS)
        np.testing.assert_allclose(found[0], mean, atol=1e-9)
        np.testing.assert_allclose(found[1] / model.scale, variance, atol=1e-9)
        for beta in (0.0, 2.0):
            bounds = mean + beta * np.sqrt(model.scale * variance)
            np.testing.assert_allclose(model.bounds(self.OTHERS, beta), bounds, atol=1e-9)
            np.testing.assert_allclose(model.bounds_of_all(beta), bounds, atol=1e-9)

    def test_the_scale_is_the_likeliest(self) -> None:
        model = Posterior(Kernel(4, 0.5, 0.1))
        model.condition(self.ROWS)
        model.learn(self.VALUES)
        given = features(self.ROWS, 3, 0.5)
        covariance = given @ given.T + 0.1 * np.eye(12)

        def log_density(scale: float) -> float:
            """Of a normal distribution, written out."""
            quadratic = self.VALUES @ np.linalg.solve(scale * covariance, self.VALUES)
            return float(-0.5 * (quadratic + np.linalg.slogdet(scale * covariance)[1] + 12 * np.log(2 * np.pi)))

        best = log_density(model.scale)
        assert best > max(log_density(model.scale * 1.01), log_density(model.scale / 1.01))
        constant = best - Kernel(4, 0.5, 0.1).log_likelihood(self.ROWS, self.VALUES)
        assert constant == pytest.approx(-6 - 6 * np.log(2 * np.pi))

    def test_rows_that_come_one_by_one_or_leave_again_make_the_same_model(self) -> None:
        grown, whole = (Posterior(Kernel(4, 0.5, 0.1), self.OTHERS) for _ in range(2))
        for rows in (self.ROWS[:3], self.ROWS[[0, 1, 2, 7, 8]], self.ROWS[:5], self.ROWS):
            grown.condition(rows)
        whole.condition(self.ROWS)
        for model in (grown, whole):
            model.learn(self.VALUES)
        np.testing.assert_allclose(grown.bounds_of_all(2.0), whole.bounds_of_all(2.0), atol=1e-12)

    def test_rows_without_values_change_variances_only(self) -> None:
        model = Posterior(Kernel(4, 0.5, 0.1))
        model.condition(self.ROWS[:6])
        model.learn(self.VALUES[:6])
        mean, variance = model.mean_and_variance(self.OTHERS)
        model.condition(self.ROWS)
        model.learn(self.VALUES[:6])
        found = model.mean_and_variance(self.OTHERS)
        np.testing.assert_allclose(found[0], mean, atol=1e-12)
        assert (found[1] < variance).all()

    def test_pairs_are_found_to_matter_where_they_do(self) -> None:
        rng = np.random.default_rng(1)
        rows = rng.integers(3, size=(150, 4))
        added, paired = rng.normal(size=(4, 3)), rng.normal(size=(4, 4, 3, 3))
        alone = np.array([sum(added[key, one] for key, one in enumerate(row)) for row in rows])
        both = np.array([sum(paired[i, j, row[i], row[j]] for i in range(4) for j in range(i)) for row in rows])
        # ranks bend what adds up, which a few pairs make good
        assert Kernel.most_likely(rows, normal_scores(alone.tolist())).share <= 0.25
        assert Kernel.most_likely(rows, normal_scores(both.tolist())).share >= 0.75


def test_scores_are_quantiles_of_a_normal_distribution() -> None:
    quantile = NormalDist().inv_cdf
    expected = np.array([quantile(0.125), quantile(0.875), quantile(0.5), quantile(0.5)])
    np.testing.assert_allclose(normal_scores([-3.0, 1e9, 2.0, 2.0]), expected / expected.std())
    assert normal_scores([7.0, 7.0, 7.0]).tolist() == [0.0, 0.0, 0.0]


def test_decisions_of_every_kind_have_their_coordinates() -> None:
    space = SearchSpace.from_json(
        {
            "any": {"_type": "input_choice", "_value": {"candidates": ["a", "b", "c"], "n_chosen": None}},
            "fixed": {"_type": "layer_choice", "_value": ["x"]},
            "op": {"_type": "layer_choice", "_value": ["x", "y", "z"]},
            "two": {"_type": "input_choice", "_value": {"candidates": ["a", "b", "c"], "n_chosen": 2}},
        }
    )
    tuner = tuner_of(space)
    document = {"any": ["a", "c"], "fixed": "x", "op": "z", "two": ["b", "c"]}
    code = tuner._codes.parse(document)
    assert coordinates(space, [code]).tolist() == [[1, 0, 1, 2, 0, 1, 1]]


# ---- what it finds


def objective(seed: int, keys: int, candidates: int, pairs: float) -> Callable[[Architecture], float]:
    """Normal weights of decisions, and of pairs of them at neighbouring keys."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(keys, candidates))
    two = pairs * rng.normal(size=(keys - 1, candidates, candidates))

    def value(architecture: Architecture) -> float:
        chosen = [decision[0] for decision in architecture.indices().values()]
        return float(
            sum(one[key, index] for key, index in enumerate(chosen))
            + sum(two[key, first, second] for key, (first, second) in enumerate(itertools.pairwise(chosen)))
        )

    return value


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize("pairs", [0.0, 1.0])
def test_it_finds_the_best_of_1024_architectures_in_80_trials(pairs: float, mode: str) -> None:
    space = layers(5, 4)
    sign = 1.0 if mode == "maximize" else -1.0
    found = 0
    for seed in range(5):
        value = objective(seed, 5, 4, pairs)
        tried = run_trials(tuner_of(space, seed=seed, optimize_mode=mode), space, value, 80)
        best = max(sign * value(space.at(number)) for number in range(space.size))
        found += max(sign * value(one) for one in tried) == best
    assert found >= 4  # at random it is 5 * 80 / 1024 of them


def test_it_climbs_in_a_space_that_cannot_be_listed() -> None:
    space = layers(20, 4)  # 10^12 architectures
    value = objective(0, 20, 4, 0.0)
    tried = run_trials(tuner_of(space), space, value, 150)
    parts = np.random.default_rng(0).normal(size=(20, 4))  # those of the objective
    assert max(map(value, tried)) > parts.max(axis=1).sum() - 2 * parts.std(axis=1).mean()  # random ones are 10 away
    assert len({one.canonical for one in tried}) == 150


def test_it_learns_what_makes_trials_fail() -> None:
    space = layers(5, 4)
    value = objective(0, 5, 4, 0.0)

    def or_none(architecture: Architecture) -> float | None:
        first, second, *_ = architecture.indices().values()
        return None if first == (0,) or second == (0,) else value(architecture)

    tried = run_trials(tuner_of(space), space, or_none, 100)
    failed = [or_none(one) is None for one in tried]
    assert sum(failed[:20]) >= 4  # 7 of 16 at random
    assert sum(failed[40:]) <= 6
    of_all = [or_none(space.at(number)) for number in range(space.size)]
    assert max(or_none(one) or -np.inf for one in tried) == max(found for found in of_all if found is not None)


def test_what_it_costs_is_bounded_with_a_thousand_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    between = Kernel.between

    def counted(kernel: Kernel, rows: Any, others: Any) -> Floats:
        nonlocal compared
        compared += rows.size * len(others)
        return between(kernel, rows, others)

    monkeypatch.setattr(Kernel, "between", counted)
    space = layers(1000, 3)
    tuner = tuner_of(space, num_init=30)
    tried = run_trials(tuner, space, objective(0, 1000, 3, 0.0), 30)
    compared = 0
    proposal = space.parse(tuner.generate_parameters(len(tried)))
    assert 0 < compared < (1000 + 30 * 250) * 30 * 1000 * 1.1  # candidates and steps, trials, keys
    assert min(distance(proposal, one) for one in tried) > 0


def test_with_beta_0_it_proposes_what_is_predicted_best() -> None:
    space = layers(3, 3)
    tuner = tuner_of(space, num_init=10, beta=0.0)
    value = objective(3, 3, 3, 0.0)
    tried = run_trials(tuner, space, value, 10)
    rows = coordinates(space, [tuner._codes.parse(one.parameters()) for one in tried])
    scores = normal_scores([value(one) for one in tried])
    kernel = Kernel.most_likely(rows, scores)
    given = kernel.between(rows, rows) + kernel.noise * np.eye(10)
    left = [one for number in range(space.size) if (one := space.at(number)) not in tried]
    every = coordinates(space, [tuner._codes.parse(one.parameters()) for one in left])
    predicted = kernel.between(every, rows) @ np.linalg.solve(given, scores)
    assert space.parse(tuner.generate_parameters(10)) == left[int(predicted.argmax())]


def test_a_trial_that_runs_shrinks_the_bounds_of_its_likes_and_changes_no_expectation() -> None:
    space = layers(4, 4)
    tuner = tuner_of(space, num_init=8, beta=2.0)
    value = objective(0, 4, 4, 0.0)
    tried = run_trials(tuner, space, value, 8)
    together = [space.parse(tuner.generate_parameters(8 + number)) for number in range(4)]
    rows, others, every = (
        coordinates(space, [tuner._codes.parse(one.parameters()) for one in ones])
        for ones in (tried, together, [space.at(number) for number in range(space.size)])
    )
    scores = normal_scores([value(one) for one in tried])
    kernel = Kernel.most_likely(rows, scores)
    known = kernel.between(rows, rows) + kernel.noise * np.eye(8)
    mean = kernel.between(every, rows) @ np.linalg.solve(known, scores)
    scale = scores @ np.linalg.solve(known, scores) / 8
    for number, proposed in enumerate(together):
        given = np.concatenate([rows, others[:number]])
        shared = kernel.between(every, given)
        covariance = kernel.between(given, given) + kernel.noise * np.eye(len(given))
        left = kernel.prior - np.einsum("ng,gn->n", shared, np.linalg.solve(covariance, shared.T))
        bounds = mean + 2.0 * np.sqrt(scale * left)
        bounds[[place for place in range(space.size) if space.at(place) in [*tried, *together[:number]]]] = -np.inf
        assert proposed == space.at(int(bounds.argmax()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_init": 0}, "bayes: num_init"),
        ({"beta": -1.0}, "bayes: beta"),
        ({"optimize_mode": "best"}, "bayes: optimize_mode"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BayesTuner(**arguments)
