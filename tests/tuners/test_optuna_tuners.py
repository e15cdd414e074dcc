"""Tuners that ask Optuna's samplers: the sampler is plain Optuna's, and hears what the tuner hears."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nnas_core.errors import NnasWarning
from nnas_core.randomness import derive_seed
from nnas_core.space.architecture import Architecture
from nnas_core.space.encoding import Codes
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._optuna import OptunaTuner
from nnas_core.tuners.cmaes import CmaesTuner
from nnas_core.tuners.gp import GpTuner
from nnas_core.tuners.nsga2 import Nsga2Tuner
from nnas_core.tuners.tpe import TpeTuner
from tests.tuners.sample_spaces import ALL_KINDS, layers
from tests.tuners.trial_loops import distance, run_trials, tell

EVERY: list[type[OptunaTuner]] = [CmaesTuner, GpTuner, Nsga2Tuner, TpeTuner]
SPACE = {f"key{number}": layers(5) for number in range(6)}
READ = SearchSpace.from_json(SPACE)
SMALL = SearchSpace.from_json(ALL_KINDS)


def make(kind: type[OptunaTuner], space: dict[str, Any] = SPACE, **args: Any) -> OptunaTuner:
    tuner = kind(**args)
    tuner.update_search_space(space)
    return tuner


def states(tuner: OptunaTuner) -> list[tuple[TrialState, list[float] | None]]:
    """What the sampler knows: state and values of all trials."""
    return [(trial.state, trial.values) for trial in tuner._study.trials]


def indices(architecture: Architecture) -> list[int]:
    return [decision[0] for decision in architecture.indices().values()]


def badness(architecture: Architecture) -> float:
    """Zero at the candidates 0, 1, 2, 3, 4, 0."""
    return float(sum(abs(one - key % 5) for key, one in enumerate(indices(architecture))))


# ---- the sampler is Optuna's


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize(
    ("kind", "args", "sampler"),
    [
        (TpeTuner, {}, lambda seed: optuna.samplers.TPESampler(seed=seed)),
        (
            TpeTuner,
            {"n_startup_trials": 4, "n_ei_candidates": 7, "multivariate": False},
            lambda seed: optuna.samplers.TPESampler(
                n_startup_trials=4, n_ei_candidates=7, multivariate=False, seed=seed
            ),
        ),
        (
            Nsga2Tuner,
            {"population_size": 10, "mutation_prob": 0.3, "crossover_prob": 0.8, "swapping_prob": 0.4},
            lambda seed: optuna.samplers.NSGAIISampler(
                population_size=10, mutation_prob=0.3, crossover_prob=0.8, swapping_prob=0.4, seed=seed
            ),
        ),
        (GpTuner, {"n_startup_trials": 6}, lambda seed: optuna.samplers.GPSampler(n_startup_trials=6, seed=seed)),
    ],
    ids=["tpe", "tpe with arguments", "nsga2", "gp"],
)
def test_proposals_are_those_of_a_plain_study_until_it_repeats_itself(
    kind: type[OptunaTuner],
    args: dict[str, Any],
    sampler: Callable[[int], optuna.samplers.BaseSampler],
    mode: str,
) -> None:
    """Driven by hand on the same categories, with the same values, up to its first architecture that is known."""
    name = kind.name
    seed = derive_seed(3, "tuner", name, "sampler") % 2**32
    study = optuna.create_study(sampler=sampler(seed), direction=StudyDirection[mode.upper()])
    space: dict[str, BaseDistribution] = {str(place): CategoricalDistribution([0, 1, 2, 3, 4]) for place in range(6)}
    by_hand: list[list[int]] = []
    for _ in range(12 if kind is GpTuner else 40):
        trial = study.ask(space)
        proposed = [trial.params[str(place)] for place in range(6)]
        if proposed in by_hand:
            break
        by_hand.append(proposed)
        study.tell(trial, float(sum(abs(one - key % 5) for key, one in enumerate(proposed))))
    ours = run_trials(make(kind, seed=3, optimize_mode=mode, **args), READ, badness, trials=len(by_hand))
    assert len(by_hand) > args.get("n_startup_trials", 10)
    assert [indices(one) for one in ours] == by_hand


def test_cmaes_asks_scores_of_plain_cmaes() -> None:
    """On 30 floats: each key takes the highest of its five, and what is known is told again."""
    seed = derive_seed(3, "tuner", "cmaes", "sampler") % 2**32
    sampler = optuna.samplers.CmaEsSampler(seed=seed, popsize=8, warn_independent_sampling=False)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    names = [[f"{place}.{index}" for index in range(5)] for place in range(6)]
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in itertools.chain(*names)}
    by_hand: list[list[int]] = []
    while len(by_hand) < 60:  # seven generations
        trial = study.ask(space)
        proposed = [int(np.argmax([trial.params[name] for name in key])) for key in names]
        if proposed not in by_hand:
            by_hand.append(proposed)
        study.tell(trial, float(sum(abs(one - key % 5) for key, one in enumerate(proposed))))
    tuner = make(CmaesTuner, seed=3, optimize_mode="minimize", popsize=8)
    assert [indices(one) for one in run_trials(tuner, READ, badness, trials=60)] == by_hand


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (CmaesTuner, {}),
        (CmaesTuner, {"use_separable_cma": True}),
        pytest.param(GpTuner, {}, marks=pytest.mark.slow),
        pytest.param(GpTuner, {"deterministic_objective": True}, marks=pytest.mark.slow),
        (Nsga2Tuner, {"population_size": 10}),
        (TpeTuner, {}),
    ],
    ids=["cmaes", "separable cmaes", "gp", "deterministic gp", "nsga2", "tpe"],
)
def test_the_sampler_learns(kind: type[OptunaTuner], args: dict[str, Any]) -> None:
    """The last trials are better than uniform draws, each key of which is 1.2 to 2 away."""
    uniform = sum(sum(abs(one - key % 5) for one in range(5)) / 5 for key in range(6))
    assert uniform == pytest.approx(2.0 + 1.4 + 1.2 + 1.4 + 2.0 + 2.0)
    trials, last = (24, 12) if kind is GpTuner else (100, 25)
    found = run_trials(make(kind, optimize_mode="minimize", **args), READ, badness, trials=trials)
    assert math.fsum(map(badness, found[-last:])) / last < 0.7 * uniform


# ---- what the sampler hears


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_values_failures_and_running_trials_reach_the_sampler(kind: type[OptunaTuner], mode: str) -> None:
    tuner = make(kind, optimize_mode=mode)
    proposed = [READ.parse(tuner.generate_parameters(number)) for number in range(4)]
    tell(tuner, 2, proposed[2], 0.25)
    tell(tuner, 0, proposed[0], None)
    tell(tuner, 1, proposed[1], -3.0)
    assert states(tuner) == [
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, [-3.0]),
        (TrialState.COMPLETE, [0.25]),
        (TrialState.RUNNING, None),
    ]
    assert [one.name.lower() for one in tuner._study.directions] == [mode]


@pytest.mark.parametrize("kind", EVERY)
def test_imported_trials_reach_the_sampler(kind: type[OptunaTuner]) -> None:
    tuner = make(kind, ALL_KINDS)
    known = [SMALL.at(number) for number in (0, 10, 71)]
    tuner.import_data([{"parameter": one.parameters(), "value": float(place)} for place, one in enumerate(known)])
    assert states(tuner) == [(TrialState.COMPLETE, [float(place)]) for place in range(3)]
    decoded = [tuner._encoding.decode(trial.params) for trial in tuner._study.trials]
    assert decoded == [Codes(SMALL).read(one.parameters()) for one in known]


@pytest.mark.parametrize("kind", EVERY)
def test_an_imported_trial_without_a_value_is_not_proposed_and_not_told(kind: type[OptunaTuner]) -> None:
    tuner = make(kind, ALL_KINDS)
    with pytest.warns(NnasWarning, match="imported value None is not a finite number"):
        tuner.import_data([{"parameter": SMALL.at(5).parameters(), "value": None}])
    assert states(tuner) == []
    assert SMALL.at(5) not in run_trials(tuner, SMALL, lambda one: 0.0, trials=0)
    assert Codes(SMALL).read(SMALL.at(5).parameters()) not in tuner._unseen


def test_the_first_generation_counts_what_was_imported() -> None:
    """With as many as a generation has, the next proposal is a child: of equal parents, their own genes."""
    space = {f"key{number}": layers(5) for number in range(40)}
    read = SearchSpace.from_json(space)
    tuner = make(Nsga2Tuner, space, population_size=2, mutation_prob=0.0)
    parents = [read.at(0), read.at(read.size - 1)]
    tuner.import_data([{"parameter": one.parameters(), "value": 1.0} for one in parents])
    child = indices(read.parse(tuner.generate_parameters(0)))
    assert set(child) == {0, 4}


def test_a_result_for_another_architecture_than_the_proposed_one_is_told_as_its_own() -> None:
    """As when a study goes on that another version began: the old ids, but what was tried then."""
    tuner = make(TpeTuner)
    proposed = READ.parse(tuner.generate_parameters(0))
    other = next(READ.neighbours(proposed))
    tell(tuner, 0, other, 2.0)
    assert states(tuner) == [(TrialState.FAIL, None), (TrialState.COMPLETE, [2.0])]
    assert tuner._encoding.decode(tuner._study.trials[1].params) == Codes(READ).read(other.parameters())


@pytest.mark.parametrize("kind", EVERY)
def test_a_proposal_that_is_known_ends_and_another_one_comes(kind: type[OptunaTuner]) -> None:
    """It fails, or where the sampler needs its value to go on, has the value that is known."""
    space = {"a": layers(2), "b": layers(2)}
    read = SearchSpace.from_json(space)
    tuner = make(kind, space)
    found = run_trials(tuner, read, lambda one: float(sum(indices(one))))
    assert len(set(found)) == 4
    told = states(tuner)
    assert len(told) > 4
    values = single_values(told)
    assert values.count(None) == (0 if kind.retells else len(told) - 4)
    codes = [tuner._encoding.decode(trial.params) for trial in tuner._study.trials]
    assert all(value in (None, float(sum(code))) for code, value in zip(codes, values, strict=True))


def single_values(told: list[tuple[TrialState, list[float] | None]]) -> list[float | None]:
    """The single values of trials."""
    return [None if values is None else values[0] for _, values in told]


def test_where_the_sampler_stays_at_what_is_known_a_neighbour_of_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TpeTuner, "tries", 1)
    tuner = make(TpeTuner, SPACE, n_startup_trials=1)
    asked = Codes(READ).read(READ.at(7).parameters())
    tuner.import_data([{"parameter": READ.at(7).parameters(), "value": 1.0}] * 2)
    monkeypatch.setattr(tuner._encoding, "decode", lambda parameters: asked)  # a sampler that has converged
    found = [READ.parse(tuner.generate_parameters(number)) for number in range(12)]
    assert {distance(one, READ.at(7)) for one in found} == {1}
    assert len(set(found)) == 12
    for one in map(READ.at, range(READ.size)):
        if distance(one, READ.at(7)) == 1:
            tuner._unseen.see(Codes(READ).read(one.parameters()))
    assert distance(READ.parse(tuner.generate_parameters(12)), READ.at(7)) > 1


# ---- several objectives


def test_metrics_and_costs_are_objectives_of_nsga2() -> None:
    tuner = make(Nsga2Tuner, objectives={"seconds": "minimize", "recall": "maximize"})
    parameters = tuner.generate_parameters(0)
    tuner.receive_trial_result(0, parameters, 0.5, metrics={"recall": 0.25}, cost={"seconds": 8, "flops": 1.0})
    tuner.trial_end(0, True)
    assert states(tuner) == [(TrialState.COMPLETE, [0.5, 0.25, 8.0])]  # by name, behind the study's own
    assert [one.name for one in tuner._study.directions] == ["MAXIMIZE", "MAXIMIZE", "MINIMIZE"]


def test_imported_objectives_are_told_too() -> None:
    tuner = make(Nsga2Tuner, objectives={"seconds": "minimize"})
    tuner.import_data([{"parameter": READ.at(1).parameters(), "value": 0.5, "cost": {"seconds": 3.0}}])
    assert states(tuner) == [(TrialState.COMPLETE, [0.5, 3.0])]


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({}, "metrics: none; costs: none"),
        ({"metrics": {"f1": 1.0, "auc": 1.0}, "cost": {"flops": 2.0}}, "metrics: auc, f1; costs: flops"),
        ({"cost": {"seconds": math.nan}}, "metrics: none; costs: seconds"),
    ],
    ids=["nothing", "others", "no number"],
)
def test_a_trial_that_lacks_an_objective_fails_with_a_warning(given: dict[str, Any], there: str) -> None:
    tuner = make(Nsga2Tuner, objectives={"seconds": "minimize"})
    parameters = tuner.generate_parameters(0)
    with pytest.warns(
        NnasWarning, match=f"^nsga2 counts trials as failed, which have no objective 'seconds'; .*{there}"
    ):
        tuner.receive_trial_result(0, parameters, 0.5, **given)
    tuner.trial_end(0, True)
    assert states(tuner) == [(TrialState.FAIL, None)]


def test_nsga2_finds_the_front_of_two_objectives() -> None:
    """Of 2^12 bit strings: the number of ones, and of zeros before the first one; the front has 13 points."""
    space = {f"bit{number:02}": layers(2) for number in range(12)}
    read = SearchSpace.from_json(space)
    tuner = make(Nsga2Tuner, space, objectives={"leading": "maximize"}, population_size=20)
    found = set()
    for number in range(400):
        architecture = read.parse(tuner.generate_parameters(number))
        bits = indices(architecture)
        leading = next((place for place, bit in enumerate(bits) if bit), 12)
        tuner.receive_trial_result(number, architecture.parameters(), sum(bits), cost={"leading": leading})
        tuner.trial_end(number, True)
        found.add((sum(bits), leading))
    front = {(ones, 12 - ones) for ones in range(13)}
    drawn = np.random.default_rng(0).integers(2, size=(400, 12)).tolist()
    by_chance = {(sum(bits), next((place for place, bit in enumerate(bits) if bit), 12)) for bits in drawn} & front
    assert len(found & front) > len(by_chance) + 2
