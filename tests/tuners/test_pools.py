"""Keys with the same candidates: what architectures have in common wherever it is, against explicit features."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nnas_core.space.architecture import Architecture
from nnas_core.space.encoding import Codes
from nnas_core.space.goals import Objective
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._coordinates import Coordinates, Pools
from nnas_core.tuners._gaussian import Kernel, Posterior, Prior
from nnas_core.tuners.bayes import BayesTuner
from tests.tuners.sample_spaces import inputs, layers
from tests.tuners.test_bayes_tuner import improvements, tuner_of
from tests.tuners.test_bayes_tuner import layers as equal_layers
from tests.tuners.trial_loops import run_trials

Floats = NDArray[np.float64]

WIDTH, LEVELS = 4, 3
POOLS = Pools(np.zeros(WIDTH, dtype=np.int64), LEVELS)
"""All four keys are one pool."""


def features(rows: NDArray[np.int64], pooled: float) -> Floats:
    """Binary strings: which candidate is at which key, and whether one is chosen at least once, twice, and so on."""
    at = (rows[:, :, None] == np.arange(LEVELS)).astype(float)
    often = at.sum(axis=1)[:, :, None] >= np.arange(1, WIDTH + 1)
    parts = math.sqrt(1 - pooled) * at.reshape(len(rows), -1), math.sqrt(pooled) * often.reshape(len(rows), -1)
    return np.concatenate(parts, axis=1)


def of_pairs(found: Floats, share: float) -> Floats:
    """Those, and the products of any two, scaled so that weights of variance 1 make the model."""
    pairs = (found[:, :, None] * found[:, None]).reshape(len(found), -1)
    one = np.ones((len(found), 1))
    return np.concatenate([one, math.sqrt((1 - share) / WIDTH) * found, math.sqrt(share) / WIDTH * pairs], axis=1)


@pytest.fixture
def codes() -> Codes:
    """Two pools, of three keys and of two, and choices of several inputs, which are in none."""
    space = {f"a{key}": layers(3) for key in range(3)} | {f"b{key}": layers(2) for key in range(2)}
    return Codes(SearchSpace.from_json({**space, "any": inputs(3, None), "two": inputs(4, 2)}))


class TestKernel:
    RNG = np.random.default_rng(0)
    ROWS = RNG.integers(LEVELS, size=(12, WIDTH))
    OTHERS = RNG.integers(LEVELS, size=(7, WIDTH))
    VALUES = RNG.normal(size=12)

    @pytest.mark.parametrize("quarters", [1, 2, 3])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
    def test_mean_and_variance_are_those_of_bayesian_regression_on_the_features(
        self, share: float, quarters: int
    ) -> None:
        noise = 0.1
        given, asked = (of_pairs(features(rows, quarters / 4), share) for rows in (self.ROWS, self.OTHERS))
        precision = given.T @ given / noise + np.eye(given.shape[1])  # equation 2.8 of Rasmussen and Williams
        mean = asked @ np.linalg.solve(precision, given.T @ self.VALUES / noise)
        variance = np.einsum("kf,fk->k", asked, np.linalg.solve(precision, asked.T))
        model = Posterior(Kernel.of_squares(WIDTH, share, quarters), noise, self.OTHERS, POOLS)
        model.condition(self.ROWS[:5])
        model.condition(self.ROWS)
        model.learn(self.VALUES)
        for found in (model.predicted(POOLS.shared(self.ROWS, self.OTHERS)), model.predicted_of_all()):
            np.testing.assert_allclose(found[0], mean, atol=1e-9)
            np.testing.assert_allclose(found[1] / model.scale, variance, atol=1e-9)

    @pytest.mark.parametrize("quarters", [1, 2, 3])
    def test_products_are_exponentials_of_the_features(self, quarters: int) -> None:
        one, other = (features(rows, quarters / 4) for rows in (self.ROWS, self.OTHERS))
        expected = 1 + np.exp(math.log(1 - 2.0 / WIDTH) * (WIDTH - one @ other.T))
        found = Kernel.of_products(WIDTH, 2.0, quarters)(POOLS.shared(self.ROWS, self.OTHERS))
        np.testing.assert_allclose(found, expected)

    def test_all_have_variance_one_beside_what_all_share(self) -> None:
        kernels = Kernel.all_pooled(6)
        assert [kernel.pooled for kernel in kernels] == [1] * 7 + [2] * 7 + [3] * 7
        assert {(kernel.prior, kernel.width) for kernel in kernels} == {(2.0, 6)}

    def test_what_counts_wherever_it_is_is_found_and_nothing_else(self) -> None:
        rng = np.random.default_rng(1)
        rows = rng.integers(LEVELS, size=(100, WIDTH))
        pooled, alone = rng.normal(size=(LEVELS, WIDTH + 1)), rng.normal(size=(WIDTH, LEVELS))
        counts = (rows[:, :, None] == np.arange(LEVELS)).sum(axis=1)
        kernels = [*Kernel.all(WIDTH), *Kernel.all_pooled(WIDTH)]
        drawn = [
            Prior.drawn(kernels, POOLS.shared(rows, rows), values, rng)
            for values in (pooled[np.arange(LEVELS), counts].sum(axis=1), alone[np.arange(WIDTH), rows].sum(axis=1))
        ]
        assert drawn[0].kernel.pooled == 3
        assert drawn[1] == Prior(kernels[0], 1e-6, 1.0)


class TestPools:
    def test_are_of_keys_where_one_of_the_same_candidates_is_chosen(self, codes: Codes) -> None:
        rng = np.random.default_rng(0)
        some = [codes.sample(rng) for _ in range(30)]
        coordinates = Coordinates(codes)
        rows = coordinates.rows(some)
        found = coordinates.pools.shared(rows, rows)
        for place, one in enumerate(rows.tolist()):
            for other_place, other in enumerate(rows.tolist()):
                alone = sum(one[key] == other[key] for key in (3, 4, 5, 8, 9, 10, 11))
                pooled = sum(
                    (collections.Counter(one[keys]) & collections.Counter(other[keys])).total()
                    for keys in (slice(0, 3), slice(6, 8))
                )
                assert found.common[place, other_place] == alone + pooled
                assert found.equal[place, other_place] == sum(np.equal(one, other))

    def test_steps_change_what_is_in_common(self, codes: Codes) -> None:
        rng = np.random.default_rng(1)
        coordinates = Coordinates(codes)
        pools = coordinates.pools
        others = coordinates.rows([codes.sample(rng) for _ in range(20)])
        for _ in range(10):
            row = coordinates.rows([codes.sample(rng)])[0]
            steps = coordinates.steps(row, np.arange(codes.degree))
            after = np.array([steps.taken(row, [number]) for number in range(codes.degree)])
            found = pools.after(steps, row, others, pools.shared(others, row[None])[:, 0], pools.counts(others))
            expected = pools.shared(others, after)
            assert found.common.tolist() == expected.common.tolist()
            assert found.equal.tolist() == expected.equal.tolist()

    def test_there_are_none_without_keys_that_have_the_same_candidates(self) -> None:
        space = SearchSpace.from_json({"a": layers(2), "b": layers(3), "c": inputs(2, None), "d": inputs(2, None)})
        coordinates = Coordinates(Codes(space))
        assert not coordinates.pools
        rows = coordinates.rows(list(Codes(space).all()))
        found = coordinates.pools.shared(rows, rows)
        assert found.common is found.equal
        assert not tuner_of(space)._pooled


def test_it_finds_what_depends_on_how_often_candidates_are_chosen() -> None:
    """Of 6,561 architectures with 45 different numbers of the candidates, one of them the best."""
    space = equal_layers(8, 3)
    weights = np.random.default_rng(3).normal(size=(3, 3))

    def of_counts(counts: Floats | tuple[int, ...]) -> float:
        return float(np.sqrt(counts) @ weights @ np.sqrt(counts))

    def value(architecture: Architecture) -> float:
        return of_counts(np.bincount([one for (one,) in architecture.indices().values()], minlength=3))

    tuner = tuner_of(space, num_init=10)
    tried = run_trials(tuner, space, value, 24)
    best = max(of_counts(counts) for counts in itertools.product(range(9), repeat=3) if sum(counts) == 8)
    assert max(map(value, tried)) == pytest.approx(best)
    assert tuner._prior.kernel.pooled == 3


@pytest.mark.parametrize("listed", [True, False])
def test_proposals_have_the_highest_improvement_where_keys_are_pooled(
    listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all in a space that is listed; of the neighbours where it climbs."""
    if not listed:
        monkeypatch.setattr("nnas_core.tuners.bayes._MOST_LISTED", 0)
    space = equal_layers(5, 3)
    effects = np.random.default_rng(0).normal(size=(3, 6))

    def value(architecture: Architecture) -> float:
        counts = np.bincount([one for (one,) in architecture.indices().values()], minlength=3)
        return float(effects[np.arange(3), counts].sum())

    tuner = tuner_of(space, num_init=30)
    tried = run_trials(tuner, space, value, 30)
    proposed = space.parse(tuner.generate_parameters(30))
    assert tuner._prior.kernel.pooled
    every = map(space.at, range(space.size)) if listed else [proposed, *space.neighbours(proposed)]
    left = [one for one in every if one not in tried]
    found = improvements(space, tuner._prior, tried, list(map(value, tried)), [], left)
    assert found[left.index(proposed)] == pytest.approx(found.max(), abs=1e-6)


def test_several_objectives_are_learned_without_pools() -> None:
    space = equal_layers(4, 3)
    for several in (False, True):
        tuner = BayesTuner()
        if several:
            tuner.aim_at([Objective("accuracy", False), Objective("macs", True)])
        tuner.update_search_space(space.to_json())
        assert bool(tuner._pooled) != several
