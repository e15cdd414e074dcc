"""Logarithms of the normal distribution, against SciPy."""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx, log_ndtr

from nnas_core.tuners._normal import log_below, log_density, log_improvement

FAR = np.array([30.0, 3.0, 0.5, 0.0, -0.5, -0.7654, -3.0, -10.0, -19.9, -20.1, -25.0, -37.0, -100.0, -1e4])


def test_probabilities_and_densities() -> None:
    np.testing.assert_allclose(log_below(FAR), log_ndtr(FAR), rtol=1e-6, atol=1e-15)
    np.testing.assert_allclose(np.exp(log_density(np.array([0.0, 1.0]))), [0.3989422804014327, 0.24197072451914337])


def test_the_expected_improvement_is_the_mean_of_draws() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 2.0, size=1_000_000)
    for best in (-1.0, 0.5, 3.0, 7.0):
        found = float(np.exp(log_improvement(np.array([1.0]), np.array([4.0]), best))[0])
        gains = np.maximum(drawn - best, 0)
        assert abs(found - gains.mean()) < 4 * gains.std() / 1000


def test_it_is_exact_where_there_is_next_to_none() -> None:
    below = FAR[FAR < 0]
    # density(z) + z * below(z), with the scaled complementary error function, which keeps its digits to -1e4
    scaled = np.log1p(below * np.sqrt(np.pi / 2) * erfcx(-below / np.sqrt(2)))[below > -50]
    expected = (log_density(below)[below > -50] + scaled) + np.log(3.0)
    found = log_improvement(3.0 * below + 1, np.full(len(below), 9.0), 1.0)
    np.testing.assert_allclose(found[below > -50], expected, rtol=1e-6)
    assert (np.diff(found) < 0).all()


def test_without_variance_it_is_what_the_mean_is_better() -> None:
    found = np.exp(log_improvement(np.array([3.0, 1.0]), np.zeros(2), 2.0))
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-12)
