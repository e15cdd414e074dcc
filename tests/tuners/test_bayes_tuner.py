"""``bayes``: the model against the dense formulas over explicit features, and what the tuner finds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from nnas_core.errors import UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.encoding import Codes
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._coordinates import Coordinates, Rows, equal
from nnas_core.tuners._feasibility import Feasibility
from nnas_core.tuners._gaussian import BENDS, Kernel, Posterior, Prior, bent
from nnas_core.tuners.bayes import BayesTuner
from tests.tuners.trial_loops import distance, run_trials, tell

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
        for found in (model.predicted(equal(self.ROWS, self.OTHERS)), model.predicted_of_all()):
            np.testing.assert_allclose(found[0], mean, atol=1e-9)
            np.testing.assert_allclose(found[1] / model.scale, variance, atol=1e-9)

    def test_the_scale_is_the_likeliest(self) -> None:
        model = Posterior(Kernel.of_pairs(4, 0.5), 0.1)
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
        mean, variance = model.predicted(equal(self.ROWS[:6], self.OTHERS))
        model.condition(self.ROWS)
        model.learn(self.VALUES[:6])
        found = model.predicted(equal(self.ROWS, self.OTHERS))
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
                    covariance = kernel.of_equal[equal(rows, rows)] + noise * np.eye(12)
                    # The integral over scales of normal(0, scale * covariance) / scale, but for a constant
                    quadratic = scores @ np.linalg.solve(covariance, scores)
                    density = -0.5 * np.linalg.slogdet(covariance)[1] - 6 * np.log(quadratic) + slopes
                    densities[place, noise, power] = float(np.exp(density))
        drawer = Drawer()
        Prior.drawn(kernels, equal(rows, rows), values, drawer)
        chances = np.array(list(densities.values()))
        np.testing.assert_allclose(drawer.chances, chances / chances.sum(), rtol=1e-6)
        for drawn in (0, 17, len(densities) - 1):
            drawer.drawn = drawn
            found = Prior.drawn(kernels, equal(rows, rows), values, drawer)
            place, noise, power = list(densities)[drawn]
            assert found == Prior(kernels[place], noise, power)

    def test_what_acts_together_is_found(self) -> None:
        rng = np.random.default_rng(1)
        rows = rng.integers(3, size=(150, 4))
        added, paired = rng.normal(size=(4, 3)), rng.normal(size=(4, 4, 3, 3))
        alone = np.array([sum(added[key, one] for key, one in enumerate(row)) for row in rows])
        both = np.array([sum(paired[i, j, row[i], row[j]] for i in range(4) for j in range(i)) for row in rows])
        kernels = Kernel.all(4)
        every = equal(rows, rows)
        found = [Prior.drawn(kernels, every, values, rng) for values in (alone, both, rng.normal(size=150))]
        assert found[0] == Prior(kernels[0], 1e-6, 1.0)
        assert kernels.index(found[1].kernel) >= 2
        assert found[1].noise < 0.03
        assert found[2].noise == 0.3


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


def test_it_climbs_to_the_optimum_in_a_space_that_cannot_be_listed() -> None:
    """Of 390,625 architectures what adds up is known after 33 trials, but no draw finds the best."""
    space = layers(8, 5)
    value = objective(0, 8, 5, 0.0)
    tried = run_trials(tuner_of(space), space, value, 60)
    best = np.random.default_rng(0).normal(size=(8, 5)).max(axis=1).sum()
    assert max(map(value, tried)) == pytest.approx(best)
    assert len({one.canonical for one in tried}) == 60


def test_a_climb_ends_where_no_neighbour_promises_more() -> None:
    """The proposal has a higher gain than each of its neighbours, computed apart."""
    space = layers(10, 4)
    tuner = tuner_of(space, num_init=12)
    value = objective(1, 10, 4, 0.0)
    tried = run_trials(tuner, space, value, 12)
    proposed = space.parse(tuner.generate_parameters(12))
    around = [one for one in space.neighbours(proposed) if one not in tried]
    found = improvements(space, tuner._prior, tried, list(map(value, tried)), [], [proposed, *around])
    assert found[0] == found.max()


@pytest.mark.parametrize("pairs", [0.0, 3.0])
def test_kernels_are_chosen_again_as_values_come(pairs: float) -> None:
    space = layers(6, 3)
    value = objective(2, 6, 3, pairs)
    tuner = tuner_of(space, num_init=4)
    chosen = []
    for number in range(40):
        architecture = space.parse(tuner.generate_parameters(number))
        if number > 4:
            chosen.append(tuner._fitted)
        tell(tuner, number, architecture, value(architecture))
    # An eighth more, and one
    assert sorted(set(chosen)) == [5, 6, 7, 8, 10, 12, 14, 16, 19, 22, 25, 29, 33, 38]
    if pairs:
        assert tuner._kernels.index(tuner._prior.kernel) > 0
    else:
        assert tuner._prior == Prior(tuner._kernels[0], 1e-6, 1.0)  # what adds up, without noise


def test_it_learns_what_makes_trials_fail() -> None:
    space = layers(5, 4)
    value = objective(0, 5, 4, 0.0)

    def or_none(architecture: Architecture) -> float | None:
        first, second, *_ = architecture.indices().values()
        return None if first == (0,) or second == (0,) else value(architecture)

    tried = run_trials(tuner_of(space), space, or_none, 60)
    failed = [or_none(one) is None for one in tried]
    assert sum(failed[:20]) >= 4  # 7 of 16 at random
    of_all = [or_none(space.at(number)) for number in range(space.size)]
    reached = [or_none(one) for one in tried].index(max(found for found in of_all if found is not None))
    assert reached < 60
    assert sum(failed[20:reached]) <= 6  # of what is left nothing is better, but for what fails


def test_failures_at_random_do_not_mislead_it() -> None:
    space = layers(5, 4)
    found = 0
    for seed in range(3):
        value, rng = objective(seed, 5, 4, 0.0), np.random.default_rng(seed)
        values: dict[Architecture, float | None] = {}

        def or_none(one: Architecture, value: Any = value, rng: Any = rng, values: Any = values) -> float | None:
            values[one] = None if rng.random() < 0.3 else value(one)
            found: float | None = values[one]
            return found

        run_trials(tuner_of(space, seed=seed), space, or_none, 50)
        every = sorted((value(space.at(number)) for number in range(space.size)), reverse=True)
        best = max(one for one in values.values() if one is not None)
        found += best >= every[3]  # the best ones may have failed
    assert found >= 2


@pytest.mark.parametrize("starts", [1, 6])
def test_the_start_counts_trials_whether_they_succeed_or_not(starts: int) -> None:
    space = layers(8, 5)
    tuner = tuner_of(space, num_init=starts)
    begun: list[int] = []
    best = tuner._best
    tuner._best = lambda: (begun.append(1), best())[1]  # type: ignore[method-assign, func-returns-value]
    for number in range(8):
        architecture = space.parse(tuner.generate_parameters(number))
        assert len(begun) == max(0, number + 1 - starts)
        tell(tuner, number, architecture, None if number % 2 else 1.0 + number)


def test_what_it_costs_is_bounded_with_a_thousand_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    gains = BayesTuner._gains

    def counted(tuner: BayesTuner, shared: Any) -> Floats:
        nonlocal looked
        looked += shared.shape[1]
        return gains(tuner, shared)

    monkeypatch.setattr(BayesTuner, "_gains", counted)
    space = layers(1000, 3)
    tuner = tuner_of(space, num_init=30)
    tried = run_trials(tuner, space, objective(0, 1000, 3, 0.0), 30)
    proposal = space.parse(tuner.generate_parameters(len(tried)))
    assert 5_000 < looked < 16_000
    assert min(distance(proposal, one) for one in tried) > 0


def improvements(
    space: SearchSpace,
    prior: Prior,
    tried: list[Architecture],
    values: list[float],
    running: list[Architecture],
    asked: list[Architecture],
) -> Floats:
    """Log of the expected improvement under a prior, from dense formulas and SciPy's normal distribution."""
    coordinates = Coordinates(Codes(space))

    def rows_of(ones: list[Architecture]) -> Rows:
        return coordinates.rows([Codes(space).parse(one.parameters()) for one in ones])

    rows, given, every = rows_of(tried), rows_of([*tried, *running]), rows_of(asked)
    scores = bent(np.array(values), prior.power)[0]
    of_equal, noise = prior.kernel.of_equal, prior.noise
    weights = np.linalg.solve(of_equal[equal(rows, rows)] + noise * np.eye(len(rows)), scores)
    mean, scale = of_equal[equal(every, rows)] @ weights, scores @ weights / len(rows)
    best = (of_equal[equal(given, rows)] @ weights)[: len(rows)].max()
    shared = of_equal[equal(every, given)]
    covariance = of_equal[equal(given, given)] + noise * np.eye(len(given))
    left = prior.kernel.prior - np.einsum("ng,gn->n", shared, np.linalg.solve(covariance, shared.T))
    deviation = np.sqrt(scale * np.maximum(left, 1e-16))
    z = (mean - best) / deviation
    found: Floats = np.log(np.maximum(deviation * (norm.pdf(z) + z * norm.cdf(z)), 1e-300))
    return found


def test_trials_that_run_count_with_what_is_expected_of_them() -> None:
    """Each proposal has the highest expected improvement of those that are left, given those before it."""
    space = layers(4, 4)
    tuner = tuner_of(space, num_init=8)
    value = objective(0, 4, 4, 1.0)
    tried = run_trials(tuner, space, value, 8)
    together = [space.parse(tuner.generate_parameters(8 + number)) for number in range(4)]
    for number, proposed in enumerate(together):
        known = [*tried, *together[:number]]
        left = [one for place in range(space.size) if (one := space.at(place)) not in known]
        found = improvements(space, tuner._prior, tried, list(map(value, tried)), together[:number], left)
        assert found[left.index(proposed)] == pytest.approx(found.max(), abs=1e-6)


@pytest.mark.parametrize("keys", [4, 8])
def test_the_improvement_counts_with_the_probability_of_success(keys: int) -> None:
    """Of all that are left in a small space; against the neighbours of the proposal in a large one."""
    space = layers(keys, 4)
    tuner = tuner_of(space, num_init=24)
    value = objective(0, keys, 4, 0.0)
    fails = {(0,), (1,)}
    tried = run_trials(tuner, space, lambda one: None if one.indices()["layer000"] in fails else value(one), 24)
    proposed = space.parse(tuner.generate_parameters(24))
    every = map(space.at, range(space.size)) if keys == 4 else [proposed, *space.neighbours(proposed)]
    left = [one for one in every if one not in tried]
    good = [one for one in tried if one.indices()["layer000"] not in fails]
    found = improvements(space, tuner._prior, good, list(map(value, good)), [], left)
    codes = Codes(space)
    coordinates = Coordinates(codes)
    ended, rows = (coordinates.rows([codes.parse(one.parameters()) for one in ones]) for ones in (tried, left))
    judged = Feasibility.likeliest(
        Kernel.all(coordinates.width)[::2], equal(ended, ended), np.array([one in good for one in tried])
    )
    gains = found + judged.log_chance(equal(ended, rows))
    assert gains[left.index(proposed)] == pytest.approx(gains.max(), abs=1e-6)
    assert judged.trust > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_init": 0}, "bayes: num_init"),
        ({"optimize_mode": "best"}, "bayes: optimize_mode"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BayesTuner(**arguments)
