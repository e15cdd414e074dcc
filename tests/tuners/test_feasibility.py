"""The probability of success: against draws from the prior, and what it makes of rules and of chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from nnas_core.tuners._coordinates import equal
from nnas_core.tuners._feasibility import Feasibility
from nnas_core.tuners._gaussian import Kernel

KERNEL = Kernel.of_pairs(5, 0.25)


@pytest.mark.parametrize("amplitude", [1.0, 8.0, 64.0])
def test_probabilities_and_evidence_are_those_of_draws_from_the_prior(amplitude: float) -> None:
    rng = np.random.default_rng(2)
    rows, others = rng.integers(3, size=(5, 5)), rng.integers(3, size=(3, 5))
    succeeded = np.array([True, False, True, True, False])
    every = np.concatenate([rows, others])
    covariance = amplitude * KERNEL.of_equal[equal(every, every)] + 1e-9 * np.eye(8)
    drawn = np.linalg.cholesky(covariance) @ rng.normal(size=(8, 400_000))
    weights = norm.cdf(np.where(succeeded, 1, -1)[:, None] * drawn[:5]).prod(axis=0)
    found = Feasibility(KERNEL, amplitude, equal(rows, rows), succeeded)
    assert found.log_evidence == pytest.approx(math.log(weights.mean()), abs=0.03)
    process = (norm.cdf(drawn[5:]) * weights).mean(axis=1) / weights.mean()
    alone = 1 / (6 * math.comb(5, 3))  # the integral of p^3 (1 - p)^2
    trust = weights.mean() / (weights.mean() + alone)
    chance = np.exp(found.log_chance(equal(rows, others)))
    np.testing.assert_allclose(chance, trust * process + (1 - trust) * 4 / 7, atol=0.01)


def test_a_rule_is_learned() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 3))
    rows = rng.integers(3, size=(500, 5))
    cost = weights[np.arange(5), rows].sum(axis=1)
    succeeded = cost < np.quantile(cost, 0.3)
    found = Feasibility.likeliest(Kernel.all(5), equal(rows[:80], rows[:80]), succeeded[:80])
    assert found.trust > 0.999
    chance = np.exp(found.log_chance(equal(rows[:80], rows[80:])))
    assert ((chance > 0.5) == succeeded[80:]).mean() > 0.9


def test_failures_at_random_teach_nothing_about_architectures() -> None:
    trusts, spreads = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = rng.integers(3, size=(160, 5))
        found = Feasibility.likeliest(Kernel.all(5), equal(rows[:60], rows[:60]), rng.random(60) < 0.7)
        chance = np.exp(found.log_chance(equal(rows[:60], rows[60:])))
        trusts.append(found.trust)
        spreads.append(chance.max() / chance.min())
        assert found.rate == pytest.approx(0.7, abs=0.2)
    assert np.median(trusts) < 0.5
    assert np.median(spreads) < 1.6


def test_where_all_fail_what_is_unlike_them_is_likelier_to_succeed() -> None:
    rows = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    found = Feasibility(Kernel.of_pairs(3, 0.0), 64.0, equal(rows, rows), np.zeros(3, dtype=bool))
    near, far = np.exp(found.log_chance(equal(rows, np.array([[0, 1, 1], [2, 2, 2]]))))
    assert near < far < 1
