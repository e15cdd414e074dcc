"""Local search, against its paper (arXiv:2005.02960, Algorithm 1) and what nnas adds to it."""

from __future__ import annotations

import collections
import itertools
import math
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials
from nnas_core.tuners.local_search import LocalSearchTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers
from tests.tuners.trial_loops import distance, run_trials, tell

SMALL = SearchSpace.from_json(ALL_KINDS)
WIDE = SearchSpace.from_json({f"key{number}": layers(3) for number in range(20)})
"""Every architecture has 40 neighbours; two random ones differ at 13 +- 2 keys."""


def make(space: SearchSpace = WIDE, **args: Any) -> LocalSearchTuner:
    tuner = LocalSearchTuner(**args)
    tuner.update_search_space(space.to_json())
    return tuner


def propose(tuner: LocalSearchTuner, numbers: range) -> list[Architecture]:
    return [WIDE.parse(tuner.generate_parameters(number)) for number in numbers]


# ---- a climb


@pytest.mark.parametrize("starts", [1, 4])
def test_a_climb_begins_at_the_best_of_the_random_ones(starts: int) -> None:
    values = [0.0, 3.0, 1.0, 2.0][-starts:]
    counter = itertools.count()
    proposed = run_trials(
        make(num_init=starts), WIDE, lambda one: (values + [0.0] * 40)[next(counter)], trials=starts + 40
    )
    assert all(distance(one, other) > 3 for one, other in itertools.combinations(proposed[:starts], 2))
    best = proposed[values.index(max(values))]
    assert set(proposed[starts:]) == set(WIDE.neighbours(best))


def test_it_goes_on_from_the_first_neighbour_that_is_better() -> None:
    tuner = make(num_init=1)
    start, *others = propose(tuner, range(1))
    tell(tuner, 0, start, 1.0)
    for number, value in ((1, 0.5), (2, 1.0), (3, 1.1)):
        others += propose(tuner, range(number, number + 1))
        tell(tuner, number, others[-1], value)
    assert {distance(one, start) for one in others} == {1}
    assert {distance(one, others[-1]) for one in propose(tuner, range(4, 20))} == {1}


def test_it_goes_on_from_the_best_of_all_neighbours_where_all_are_tried() -> None:
    tuner = make(num_init=1, query_full_neighbourhood=True)
    (start,) = propose(tuner, range(1))
    tell(tuner, 0, start, 1.0)
    neighbours = []
    for number in range(1, 41):
        neighbours += propose(tuner, range(number, number + 1))
        tell(tuner, number, neighbours[-1], {5: 1.5, 17: 3.0, 30: 2.0}.get(number, 0.0))
    assert set(neighbours) == set(WIDE.neighbours(start))
    following = propose(tuner, range(41, 41 + 38))  # of the other decision at the key that changed one is known
    assert set(following) == set(WIDE.neighbours(neighbours[16])) - {start, *neighbours}


@pytest.mark.parametrize("full", [False, True])
def test_a_new_climb_begins_where_no_neighbour_is_better(full: bool) -> None:
    tuner = make(num_init=3, query_full_neighbourhood=full)
    best: list[Architecture] = []

    def value(architecture: Architecture) -> float:
        best[:] = best or [architecture]
        return 1.0 if architecture == best[0] else 0.0

    proposed = run_trials(tuner, WIDE, value, trials=3 + 40 + 3)
    assert set(proposed[3:43]) == set(WIDE.neighbours(proposed[0]))
    assert min(distance(one, other) for one in proposed[43:] for other in proposed[:43]) > 2


def test_the_smallest_is_the_best_where_the_metric_is_minimized() -> None:
    counter = itertools.count()
    tuner = make(num_init=3, optimize_mode="minimize")
    proposed = run_trials(tuner, WIDE, lambda one: [2.0, -1.0, 0.0, 5.0][min(next(counter), 3)], trials=43)
    assert set(proposed[3:]) == set(WIDE.neighbours(proposed[1]))


def test_every_neighbour_is_the_first_equally_often() -> None:
    space = SearchSpace.from_json({"layer": layers(5), "any": inputs(3, None), "two": inputs(4, 2)})
    start = space.at(0)
    counts: collections.Counter[Architecture] = collections.Counter()
    for seed in range(660):
        tuner = make(space, num_init=1, seed=seed)
        tuner.import_data([{"parameter": start.parameters(), "value": 1.0}])
        counts[space.parse(tuner.generate_parameters(0))] += 1
    assert len(counts) == 4 + 3 + 2 * 2
    assert sum((count - 60) ** 2 / 60 for count in counts.values()) < 29.588  # 99.9 %, 10 degrees of freedom


def test_huge_choices_are_searched_by_single_changes() -> None:
    space = SearchSpace.from_json(
        {f"any{number}": inputs(100, None) for number in range(50)}
        | {f"half{number}": inputs(80, 40) for number in range(50)}
    )
    proposed = run_trials(make(space, num_init=1), space, lambda one: 0.0, trials=40)
    start = proposed[0].indices()
    for one in proposed[1:]:
        changed = [(key, set(d) ^ set(start[key])) for key, d in one.indices().items() if d != start[key]]
        ((key, candidates),) = changed
        assert len(candidates) == (1 if key.startswith("any") else 2)


# ---- the whole algorithm


RUGGED = np.random.default_rng(7).random((4,) * 4)  # 256 architectures, about 256 / 13 local optima
RUGGED_SPACE = SearchSpace.from_json({f"key{number}": layers(4) for number in range(4)})


def rugged(architecture: Architecture) -> float:
    """A value without structure but for a slope, so that there are many local optima."""
    place = tuple(decision[0] for decision in architecture.indices().values())
    return float(RUGGED[place]) + sum(place) / 8


def algorithm_1(rng: np.random.Generator, starts: int, full: bool, trials: int) -> float:
    """White et al., Algorithm 1, with restarts, for ``rugged``."""
    known: dict[tuple[int, ...], float] = {}

    def query(place: tuple[int, ...]) -> float:
        if place not in known:
            if len(known) == trials:
                raise StopIteration
            known[place] = float(RUGGED[place]) + sum(place) / 8
        return known[place]

    try:
        while True:
            drawn: list[tuple[int, ...]] = []
            while len(drawn) < starts:
                place = tuple(rng.integers(0, 4, 4).tolist())
                if place not in known:
                    query(place)
                    drawn.append(place)
            at = max(drawn, key=query)
            while True:
                steps = [(key, step) for key in range(4) for step in range(1, 4)]
                neighbours = []
                for index in rng.permutation(12):
                    key, step = steps[index]
                    neighbours.append((*at[:key], (at[key] + step) % 4, *at[key + 1 :]))
                    if query(neighbours[-1]) > query(at) and not full:
                        break
                best = max(neighbours, key=query)
                if query(best) <= query(at):
                    break
                at = best
    except StopIteration:
        return max(known.values())


@pytest.mark.parametrize(("starts", "full"), [(1, True), (5, False)])
def test_it_finds_what_algorithm_1_finds(starts: int, full: bool) -> None:
    """Two samples of 150 searches each; their means differ by less than 3.3 standard errors."""
    rng = np.random.default_rng(0)
    theirs = [algorithm_1(rng, starts, full, 50) for _ in range(150)]
    ours = [
        max(
            map(
                rugged,
                run_trials(
                    make(RUGGED_SPACE, num_init=starts, query_full_neighbourhood=full, seed=seed),
                    RUGGED_SPACE,
                    rugged,
                    trials=50,
                ),
            )
        )
        for seed in range(150)
    ]
    error = math.sqrt((np.var(theirs) + np.var(ours)) / 150)
    assert abs(np.mean(theirs) - np.mean(ours)) < 3.3 * error


# ---- failed trials, trials at the same time, the same calls again


def test_more_random_ones_are_drawn_where_all_of_a_start_fail() -> None:
    counter = itertools.count()
    proposed = run_trials(make(num_init=2), WIDE, lambda one: 1.0 if next(counter) == 5 else None, trials=46)
    assert all(distance(one, other) > 3 for one, other in itertools.combinations(proposed[:6], 2))
    assert set(proposed[6:]) == set(WIDE.neighbours(proposed[5]))


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("starts", [1, 10, 500])
def test_every_architecture_comes_once_and_then_none(starts: int, full: bool, at_a_time: int) -> None:
    tuner = make(SMALL, num_init=starts, query_full_neighbourhood=full)
    values: dict[Architecture, float | None] = {
        SMALL.at(number): number * 31 % 17 if number % 5 else None for number in range(ALL_KINDS_SIZE)
    }
    proposed = run_trials(tuner, SMALL, values.__getitem__, at_a_time=at_a_time)
    assert len(proposed) == len(set(proposed)) == ALL_KINDS_SIZE
    for number in range(3):
        with pytest.raises(NoMoreTrials):
            tuner.generate_parameters(number)


def test_a_space_of_one_architecture_ends() -> None:
    space = SearchSpace.from_json({"a": layers(1), "b": inputs(3, 3)})
    assert len(run_trials(make(space), space, lambda one: 1.0)) == 1


def unfinished(late: float) -> tuple[LocalSearchTuner, Architecture, Architecture]:
    """One neighbour of an optimum of 1.0 is late, the next climb has begun at 0.0: tuner, late one, new start."""
    tuner = make(num_init=1)
    (start,) = propose(tuner, range(1))
    tell(tuner, 0, start, 1.0)
    neighbours = propose(tuner, range(1, 41))
    for number, neighbour in enumerate(neighbours[1:], start=2):
        tell(tuner, number, neighbour, 0.0)
    (other,) = propose(tuner, range(41, 42))
    assert distance(other, start) > 3
    tell(tuner, 41, other, 0.0)
    tell(tuner, 1, neighbours[0], late)
    return tuner, neighbours[0], other


def test_a_late_result_that_is_better_than_its_optimum_joins_the_next_climb() -> None:
    tuner, late, _ = unfinished(2.0)
    assert {distance(one, late) for one in propose(tuner, range(42, 60))} == {1}


def test_a_late_result_that_is_not_better_than_its_optimum_changes_nothing() -> None:
    tuner, _, other = unfinished(0.5)
    assert {distance(one, other) for one in propose(tuner, range(42, 60))} == {1}


def test_a_late_failure_changes_nothing() -> None:
    tuner = make(num_init=1)
    first, second = propose(tuner, range(2))
    tell(tuner, 1, second, 0.0)
    tell(tuner, 0, first, None)
    assert {distance(one, second) for one in propose(tuner, range(2, 20))} == {1}


def test_results_of_what_it_did_not_propose_are_known() -> None:
    """As when a study is resumed that another version began."""
    tuner = make(SMALL)
    tell(tuner, 5, SMALL.at(3), 1.0)
    tell(tuner, 6, SMALL.at(4), None)
    assert set(run_trials(tuner, SMALL, lambda one: 0.0)) == {
        SMALL.at(number) for number in range(ALL_KINDS_SIZE) if number != 3
    }


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_equal_seeds_and_results_propose_equally(at_a_time: int) -> None:
    def proposals(seed: int) -> list[Architecture]:
        return run_trials(make(RUGGED_SPACE, seed=seed), RUGGED_SPACE, rugged, trials=150, at_a_time=at_a_time)

    assert proposals(3) == proposals(3) != proposals(4)


# ---- data of elsewhere, arguments


def test_the_best_of_imported_trials_is_a_start() -> None:
    tuner = make(num_init=3)
    known = [WIDE.sample(np.random.default_rng(number)) for number in range(3)]
    tuner.import_data(
        [{"parameter": one.parameters(), "value": value} for one, value in zip(known, (1, 5.0, 2.0), strict=True)]
    )
    assert {distance(one, known[1]) for one in propose(tuner, range(40))} == {1}


@pytest.mark.parametrize("seed", range(5))
def test_a_known_neighbour_that_is_better_costs_no_trial(seed: int) -> None:
    """The second climb meets what the first one knows before all 56 unseen neighbours of its start are tried."""
    space = SearchSpace.from_json({"a": layers(30), "b": layers(30)})
    optimum = space.at(17)
    tuner = make(space, num_init=1, seed=seed)
    tuner.import_data([{"parameter": optimum.parameters(), "value": 2.0}])
    proposed = run_trials(tuner, space, lambda one: 1.0 if distance(one, optimum) == 1 else 0.0, trials=58 + 1 + 56)
    start, following = proposed[58], proposed[59:]
    assert set(proposed[:58]) == set(space.neighbours(optimum))
    assert distance(start, following[0]) == 1
    assert any(distance(start, one) == 2 for one in following)  # of the third climb


def test_imported_trials_without_a_value_are_only_known() -> None:
    tuner = make(SMALL, num_init=1)
    with pytest.warns(NnasWarning, match="imported value nan is not a finite number: the trial only counts as known"):
        tuner.import_data([{"parameter": SMALL.at(0).parameters(), "value": math.nan}])
    proposed = run_trials(tuner, SMALL, lambda one: 1.0)
    assert set(proposed) == {SMALL.at(number) for number in range(1, ALL_KINDS_SIZE)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_init": 0}, "local-search: num_init must be a whole number of at least 1, not 0"),
        ({"num_init": "3"}, "local-search: num_init must be a whole number of at least 1, not '3'"),
        ({"query_full_neighbourhood": 1}, "local-search: query_full_neighbourhood must be true or false, not 1"),
        ({"optimize_mode": "max"}, "local-search: optimize_mode must be maximize or minimize, not 'max'"),
    ],
)
def test_arguments_are_checked(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LocalSearchTuner(**args)
