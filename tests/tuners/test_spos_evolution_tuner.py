"""Evolution in rounds, against its paper (arXiv:1904.00420) and the authors' program."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials
from nnas_core.tuners.spos_evolution import SposEvolutionTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers
from tests.tuners.trial_loops import distance, run_trials, tell

SMALL = SearchSpace.from_json(ALL_KINDS)
WIDE = SearchSpace.from_json({f"key{number}": layers(10) for number in range(100)})
"""Random architectures differ at 90 +- 3 keys; a mutation and its parent, with m_prob 0.1, at 9 +- 3."""


def make(space: SearchSpace = WIDE, **args: Any) -> SposEvolutionTuner:
    tuner = SposEvolutionTuner(**args)
    tuner.update_search_space(space.to_json())
    return tuner


def first(architecture: Architecture) -> float:
    """A value that random architectures rarely share: decisions read as digits."""
    return sum((decision[0] / 10.0**place for place, decision in enumerate(architecture.indices().values())), 0.0)


def mixes(child: Architecture, members: list[Architecture]) -> bool:
    """Whether every decision of ``child`` is that of one of two members."""
    return any(
        all(child[key] in (one[key], other[key]) for key in child)
        for one, other in itertools.combinations_with_replacement(members, 2)
    )


# ---- rounds


def test_a_round_is_25_mutations_25_crossovers_and_random_ones_for_the_rest() -> None:
    proposed = run_trials(make(num_population=60), WIDE, first, trials=120)
    members = sorted(proposed[:60], key=first, reverse=True)[:10]
    mutations, crossovers, rest = proposed[60:85], proposed[85:110], proposed[110:]
    nearest = [min(distance(one, member) for member in members) for one in mutations]
    assert max(nearest) < 30
    assert not any(mixes(one, members) for one in mutations)
    assert all(mixes(one, members) for one in crossovers)
    assert min(distance(one, member) for one in rest for member in members) > 60


def test_the_first_round_is_random() -> None:
    proposed = run_trials(make(), WIDE, first, trials=50)
    assert min(distance(one, other) for one, other in itertools.combinations(proposed, 2)) > 60


@pytest.mark.parametrize(
    ("args", "trials"),
    [({}, 1000), ({"max_epochs": 3, "num_population": 6, "num_crossover": 3, "num_mutation": 3}, 18)],
    ids=["of the paper: P 50, T 20", "of NNI, as measured"],
)
def test_it_ends_after_max_epochs_rounds(args: dict[str, Any], trials: int) -> None:
    space = SearchSpace.from_json({f"key{number}": layers(4) for number in range(20)})
    tuner = make(space, **args)
    proposed = run_trials(tuner, space, first)
    assert len(proposed) == len(set(proposed)) == trials
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(trials)


def test_the_best_of_all_rounds_stay_parents() -> None:
    tuner = make(num_select=1, num_population=5, num_mutation=5, num_crossover=0)
    best: list[Architecture] = []

    def value(architecture: Architecture) -> float:
        best[:] = best or [architecture]
        return 1.0 if architecture == best[0] else 0.0

    for number, architecture in enumerate(run_trials(tuner, WIDE, value, trials=50)):
        if number >= 5:
            assert distance(architecture, best[0]) < 40


def test_a_better_one_takes_the_place_of_the_best() -> None:
    tuner = make(num_select=1, num_population=1, num_mutation=1, num_crossover=0, max_epochs=40)
    values = itertools.count()
    proposed = run_trials(tuner, WIDE, lambda one: float(next(values)))
    assert max(distance(one, after) for one, after in itertools.pairwise(proposed)) < 40
    assert distance(proposed[0], proposed[-1]) > 60  # 40 mutations later nothing is left of it


def test_the_smallest_are_the_best_where_the_metric_is_minimized() -> None:
    proposed = run_trials(make(optimize_mode="minimize", num_mutation=0), WIDE, first, trials=75)
    members = sorted(proposed[:50], key=first)[:10]
    assert all(mixes(one, members) for one in proposed[50:])


def test_failed_trials_are_never_parents() -> None:
    tuner = make(num_population=10, num_mutation=10, num_crossover=0)
    good: list[Architecture] = []

    def value(architecture: Architecture) -> float | None:
        good[:] = good or [architecture]
        return 1.0 if architecture == good[0] else None

    proposed = run_trials(tuner, WIDE, value, trials=40)
    assert max(distance(one, good[0]) for one in proposed[10:]) < 40


def test_all_is_random_where_all_trials_fail() -> None:
    proposed = run_trials(make(), WIDE, lambda one: None, trials=100)
    assert min(distance(one, other) for one, other in itertools.combinations(proposed, 2)) > 60


# ---- children


def test_a_key_of_a_mutation_is_drawn_anew_with_m_prob() -> None:
    """Of two decisions half are the present one again: 100 keys change with 0.05 each, and one at least does."""
    space = SearchSpace.from_json({f"key{number}": layers(2) for number in range(100)})
    changes = []
    for seed in range(4):
        tuner = make(space, num_population=100, num_select=1, num_mutation=100, num_crossover=0, seed=seed)
        proposed = run_trials(tuner, space, first, trials=200)
        best = max(proposed[:100], key=first)
        changes += [distance(one, best) for one in proposed[100:]]
    # the mean of a binomial number that is not zero, and four standard errors
    assert abs(np.mean(changes) - 5 / (1 - 0.95**100)) < 4 * math.sqrt(100 * 0.05 * 0.95 / len(changes))


def test_a_crossover_takes_each_decision_from_either_parent_equally_often() -> None:
    tuner = make(num_population=200, num_select=2, num_mutation=0, num_crossover=200)
    proposed = run_trials(tuner, WIDE, first, trials=400)
    one, other = sorted(proposed[:200], key=first, reverse=True)[:2]
    different = [key for key in one if one[key] != other[key]]
    children = proposed[200:]
    assert all(mixes(child, [one, other]) for child in children)
    of_one = [sum(child[key] == one[key] for key in different) for child in children]
    # fair coins: their mean, and their variance too, as the parents change roles; within four standard errors
    variance = len(different) / 4
    assert abs(np.mean(of_one) - len(different) / 2) < 4 * math.sqrt(variance / len(children))
    assert abs(np.var(of_one) - variance) < 4 * variance * math.sqrt(2 / len(children))


def test_mutations_that_change_nothing_make_room_for_random_ones() -> None:
    tuner = make(num_population=5, num_mutation=5, num_crossover=0, m_prob=0.0)
    proposed = run_trials(tuner, WIDE, first, trials=20)
    assert min(distance(one, other) for one, other in itertools.combinations(proposed, 2)) > 60


PLANTED = SearchSpace.from_json({f"key{number}": layers(5) for number in range(8)})


def planted(architecture: Architecture) -> float:
    """The number of decisions that are the right one, 8 at most."""
    return float(sum(d[0] == 4 - number % 5 for number, d in enumerate(architecture.indices().values())))


def program_of_the_authors(rng: np.random.Generator) -> float:
    """``EvolutionSearcher`` of their repository, for ``planted``: 6 rounds of 10, 3 kept, 4 and 4 children."""

    def score(model: tuple[int, ...]) -> int:
        return sum(decision == 4 - number % 5 for number, decision in enumerate(model))

    seen: set[tuple[int, ...]] = set()
    kept: list[tuple[int, ...]] = []

    def legal(model: tuple[int, ...]) -> bool:
        new = model not in seen
        seen.add(model)
        return new

    def mutated() -> tuple[int, ...]:
        model = list(kept[rng.integers(len(kept))])
        for place in range(8):
            if rng.random() < 0.2:
                model[place] = int(rng.integers(5))
        return tuple(model)

    def crossed() -> tuple[int, ...]:
        one, other = kept[rng.integers(len(kept))], kept[rng.integers(len(kept))]
        return tuple(pair[rng.integers(2)] for pair in zip(one, other, strict=True))

    candidates: list[tuple[int, ...]] = []
    for epoch in range(6):
        children: list[tuple[int, ...]] = []
        for make_child in (mutated, crossed) if epoch else ():
            some: list[tuple[int, ...]] = []
            for _ in range(40):
                if len(some) < 4 and legal(child := make_child()):
                    some.append(child)
            children += some
        while len(children) < 10:
            if legal(model := tuple(rng.integers(0, 5, 8).tolist())):
                children.append(model)
        candidates = children
        kept = sorted(kept + candidates, key=score, reverse=True)[:3]
    return float(score(kept[0]))


def test_it_finds_what_the_program_of_the_authors_finds() -> None:
    """Two samples of 80 searches each; their means differ by less than 3.3 standard errors."""
    rng = np.random.default_rng(0)
    args: dict[str, Any] = {"max_epochs": 6, "num_population": 10, "num_select": 3, "m_prob": 0.2}
    theirs = [program_of_the_authors(rng) for _ in range(80)]
    ours = []
    for seed in range(80):
        tuner = make(PLANTED, **args, num_mutation=4, num_crossover=4, seed=seed)
        ours.append(max(map(planted, run_trials(tuner, PLANTED, planted))))
    error = math.sqrt((np.var(theirs) + np.var(ours)) / 80)
    assert abs(np.mean(theirs) - np.mean(ours)) < 3.3 * error
    assert 5 < np.mean(ours) < 8  # the best of 60 random ones has 4.5: binomial numbers of 8 with 1/5


# ---- small spaces, trials at the same time, the same calls again


@pytest.mark.parametrize("at_a_time", [1, 7, 60, 1000])
@pytest.mark.parametrize("population", [1, 9, 50, 500])
def test_every_architecture_comes_once_and_then_none(population: int, at_a_time: int) -> None:
    children = population // 2
    tuner = make(
        SMALL, num_population=population, num_mutation=children, num_crossover=population - children, max_epochs=100
    )
    proposed = run_trials(tuner, SMALL, lambda one: None if "in0" in str(one.names()) else 1.0, at_a_time=at_a_time)
    assert len(proposed) == len(set(proposed)) == ALL_KINDS_SIZE
    for number in range(3):
        with pytest.raises(NoMoreTrials):
            tuner.generate_parameters(number)


def test_a_space_of_one_architecture_ends() -> None:
    space = SearchSpace.from_json({"a": layers(1), "b": inputs(3, 3)})
    assert len(run_trials(make(space), space, lambda one: 1.0)) == 1


def test_a_round_is_made_of_what_is_known_when_it_begins() -> None:
    tuner = make(num_select=1, num_population=4, num_mutation=4, num_crossover=0)
    rounds = [WIDE.parse(tuner.generate_parameters(number)) for number in range(4)]
    for number, value in ((0, 1.0), (1, 0.0), (2, 0.5)):
        tell(tuner, number, rounds[number], value)
    rounds.append(WIDE.parse(tuner.generate_parameters(4)))  # the second round begins
    tell(tuner, 3, rounds[3], 2.0)  # the last of the first round is late
    rounds += [WIDE.parse(tuner.generate_parameters(number)) for number in range(5, 12)]
    assert all(distance(one, rounds[0]) < 40 for one in rounds[4:8])
    assert all(distance(one, rounds[3]) < 40 for one in rounds[8:12])


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_equal_seeds_and_results_propose_equally(at_a_time: int) -> None:
    def proposals(seed: int) -> list[Architecture]:
        return run_trials(make(seed=seed), WIDE, first, trials=130, at_a_time=at_a_time)

    assert proposals(3) == proposals(3) != proposals(4)


# ---- data of elsewhere, arguments


def test_imported_trials_are_among_the_best() -> None:
    tuner = make(num_select=1, num_population=2, num_mutation=2, num_crossover=0)
    known = WIDE.sample(np.random.default_rng(0))
    tuner.import_data([{"parameter": known.parameters(), "value": 100.0}])
    proposed = run_trials(tuner, WIDE, lambda one: 1.0, trials=10)
    assert min(distance(one, known) for one in proposed[:2]) > 60  # the first round is random all the same
    assert max(distance(one, known) for one in proposed[2:]) < 40


def test_what_is_imported_leaves_the_round() -> None:
    tuner = make(SMALL)
    proposed = [SMALL.parse(tuner.generate_parameters(0))]
    others = [one for one in map(SMALL.at, range(ALL_KINDS_SIZE)) if one not in proposed]
    tuner.import_data([{"parameter": one.parameters(), "value": 1.0} for one in others[1:]])
    assert SMALL.parse(tuner.generate_parameters(1)) == others[0]
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(2)


def test_imported_trials_without_a_value_are_only_known() -> None:
    tuner = make(SMALL, num_population=1, num_mutation=1, num_crossover=0, max_epochs=100)
    with pytest.warns(NnasWarning, match="imported value None is not a finite number: the trial only counts as known"):
        tuner.import_data([{"parameter": SMALL.at(0).parameters(), "value": None}])
    proposed = run_trials(tuner, SMALL, lambda one: 1.0)
    assert set(proposed) == {SMALL.at(number) for number in range(1, ALL_KINDS_SIZE)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_epochs": 0}, "spos-evolution: max_epochs must be a whole number of at least 1, not 0"),
        ({"num_select": 0}, "spos-evolution: num_select must be a whole number of at least 1, not 0"),
        ({"num_population": 2.5}, "spos-evolution: num_population must be a whole number of at least 1, not 2.5"),
        ({"num_crossover": -1}, "spos-evolution: num_crossover must be a whole number of at least 0, not -1"),
        ({"num_mutation": True}, "spos-evolution: num_mutation must be a whole number of at least 0, not True"),
        ({"m_prob": 1.5}, "spos-evolution: m_prob=1.5 is out of range"),
        ({"m_prob": math.nan}, "spos-evolution: m_prob=nan is out of range"),
        (
            {"num_population": 40},
            "spos-evolution: num_crossover=25 and num_mutation=25 are more than num_population=40",
        ),
        ({"optimize_mode": "max"}, "spos-evolution: optimize_mode must be maximize or minimize, not 'max'"),
    ],
)
def test_arguments_are_checked(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SposEvolutionTuner(**args)
