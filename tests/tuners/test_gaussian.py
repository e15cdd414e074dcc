"""The Gaussian process of ``bayes`` against the dense formulas over explicit features."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnas_core.tuners._coordinates import Pools, equal
from nnas_core.tuners._gaussian import BENDS, Kernel, Posterior, Prior, bent

Floats = NDArray[np.float64]

shared = Pools().shared


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


class Drawer(np.random.Generator):
    """Remembers what it is to draw from, and draws what it is told."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self.drawn = 0

    def choice(self, a: Any, **arguments: Any) -> Any:
        self.chances: Floats = arguments["p"]
        assert a == len(self.chances)
        return self.drawn


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
        model = Posterior(Kernel.of_pairs(4, share), noise, self.OTHERS)
        model.condition(self.ROWS)
        model.learn(self.VALUES)
        for found in (model.predicted(shared(self.ROWS, self.OTHERS)), model.predicted_of_all()):
            np.testing.assert_allclose(found[0], mean, atol=1e-9)
            np.testing.assert_allclose(found[1] / model.scale, variance, atol=1e-9)

    def test_the_scale_is_the_likeliest(self) -> None:
        model = Posterior(Kernel.of_pairs(4, 0.5), 0.1)
        model.condition(self.ROWS)
        model.learn(self.VALUES)
        given = features(self.ROWS, 3, 0.5)
        among = given @ given.T + 0.1 * np.eye(12)

        def log_density(scale: float) -> float:
            """Of a normal distribution, written out."""
            quadratic = self.VALUES @ np.linalg.solve(scale * among, self.VALUES)
            return float(-0.5 * (quadratic + np.linalg.slogdet(scale * among)[1] + 12 * np.log(2 * np.pi)))

        best = log_density(model.scale)
        assert best > max(log_density(model.scale * 1.01), log_density(model.scale / 1.01))

    def test_rows_that_come_one_by_one_or_leave_again_make_the_same_model(self) -> None:
        grown, whole = (Posterior(Kernel.of_pairs(4, 0.5), 0.1, self.OTHERS) for _ in range(2))
        for rows in (self.ROWS[:3], self.ROWS[[0, 1, 2, 7, 8]], self.ROWS[:5], self.ROWS):
            grown.condition(rows)
        whole.condition(self.ROWS)
        for model in (grown, whole):
            model.learn(self.VALUES)
        np.testing.assert_allclose(grown.predicted_of_all(), whole.predicted_of_all(), atol=1e-12)

    def test_rows_without_values_change_variances_only(self) -> None:
        model = Posterior(Kernel.of_pairs(4, 0.5), 0.1)
        model.condition(self.ROWS[:6])
        model.learn(self.VALUES[:6])
        mean, variance = model.predicted(shared(self.ROWS[:6], self.OTHERS))
        model.condition(self.ROWS)
        model.learn(self.VALUES[:6])
        found = model.predicted(shared(self.ROWS, self.OTHERS))
        np.testing.assert_allclose(found[0], mean, atol=1e-12)
        assert (found[1] < variance).all()

    def test_a_product_is_a_sum_over_all_sets_of_places(self) -> None:
        """Each set adds its share where all of its decisions are equal; the mean size of a set is the order."""
        order, width = 1.5, 4
        chance = order / width
        sizes = range(width + 1)
        shares = [math.comb(width, size) * chance**size * (1 - chance) ** (width - size) for size in sizes]
        expected = [
            1
            + sum(
                share * math.comb(same, size) / math.comb(width, size)
                for size, share in zip(sizes, shares, strict=True)
            )
            for same in sizes
        ]
        np.testing.assert_allclose(Kernel.of_products(width, order).of_equal, expected)
        assert sum(size * share for size, share in zip(sizes, shares, strict=True)) == pytest.approx(order)

    def test_priors_are_drawn_as_often_as_their_densities_say(self) -> None:
        """Written out: the normal density of what the values become, times the slopes of that, over all scales."""
        rows, values = self.ROWS, np.exp(2 * self.VALUES)
        kernels = Kernel.all(4)
        densities = {}
        for place, kernel in enumerate(kernels):
            for noise in (1e-6, 1e-3, 0.03, 0.1, 0.3):
                for power in BENDS:
                    scores, slopes = bent(values, power)
                    among = kernel.of_equal[equal(rows, rows)] + noise * np.eye(12)
                    # The integral over scales of normal(0, scale * covariance) / scale, but for a constant
                    quadratic = scores @ np.linalg.solve(among, scores)
                    density = -0.5 * np.linalg.slogdet(among)[1] - 6 * np.log(quadratic) + slopes
                    densities[place, noise, power] = float(np.exp(density))
        drawer = Drawer()
        Prior.drawn(kernels, shared(rows, rows), values, drawer)
        chances = np.array(list(densities.values()))
        np.testing.assert_allclose(drawer.chances, chances / chances.sum(), rtol=1e-6)
        for drawn in (0, 17, len(densities) - 1):
            drawer.drawn = drawn
            found = Prior.drawn(kernels, shared(rows, rows), values, drawer)
            place, noise, power = list(densities)[drawn]
            assert found == Prior(kernels[place], noise, power)

    def test_what_acts_together_is_found(self) -> None:
        rng = np.random.default_rng(1)
        rows = rng.integers(3, size=(150, 4))
        added, paired = rng.normal(size=(4, 3)), rng.normal(size=(4, 4, 3, 3))
        alone = np.array([sum(added[key, one] for key, one in enumerate(row)) for row in rows])
        both = np.array([sum(paired[i, j, row[i], row[j]] for i in range(4) for j in range(i)) for row in rows])
        kernels = Kernel.all(4)
        every = shared(rows, rows)
        found = [Prior.drawn(kernels, every, values, rng) for values in (alone, both, rng.normal(size=150))]
        assert found[0] == Prior(kernels[0], 1e-6, 1.0)
        assert kernels.index(found[1].kernel) >= 2
        assert found[1].noise < 0.03
        assert found[2].noise == 0.3
