"""``bayes``: what it finds, and its proposals against dense formulas."""

from __future__ import annotations

import collections
import itertools
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
from nnas_core.tuners._gaussian import Kernel, Prior, bent
from nnas_core.tuners.bayes import BayesTuner
from tests.tuners.trial_loops import distance, run_trials, tell

Floats = NDArray[np.float64]


def covariance(kernel: Kernel, rows: Rows, others: Rows) -> Floats:
    """Of architectures of a space in which all keys have the same candidates, counted one by one."""
    same = np.array([[int((a == b).sum()) for b in others] for a in rows])
    if not kernel.pooled:
        return kernel.of_equal[same]
    counted = [[collections.Counter(row.tolist()) for row in some] for some in (rows, others)]
    common = np.array([[(a & b).total() for b in counted[1]] for a in counted[0]])
    return kernel.of_equal[(4 - kernel.pooled) * same + kernel.pooled * common]


def layers(keys: int, candidates: int) -> SearchSpace:
    """LayerChoices only."""
    names = [f"op{index}" for index in range(candidates)]
    return SearchSpace.from_json({f"layer{key:03}": {"_type": "layer_choice", "_value": names} for key in range(keys)})


def tuner_of(space: SearchSpace, **arguments: Any) -> BayesTuner:
    tuner = BayesTuner(**arguments)
    tuner.update_search_space(space.to_json())
    return tuner


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
        looked += shared.equal.shape[1]
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
    kernel, noise = prior.kernel, prior.noise
    weights = np.linalg.solve(covariance(kernel, rows, rows) + noise * np.eye(len(rows)), scores)
    mean, scale = covariance(kernel, every, rows) @ weights, scores @ weights / len(rows)
    best = (covariance(kernel, given, rows) @ weights)[: len(rows)].max()
    across = covariance(kernel, every, given)
    among = covariance(kernel, given, given) + noise * np.eye(len(given))
    left = kernel.prior - np.einsum("ng,gn->n", across, np.linalg.solve(among, across.T))
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
