"""Proposals and results in a study with constraints and objectives, whatever tuner it has."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from nnas_core import schema
from nnas_core.errors import NnasWarning, NoResultError, UsageError
from nnas_core.execution.engine import TrialResult
from nnas_core.plugins import registry
from nnas_core.space.architecture import Architecture
from nnas_core.space.costs import CostTable
from nnas_core.space.goals import constraints_of
from nnas_core.space.region import Region, TableCosts
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.coordinator import run_study
from nnas_core.study.csv_results import results_csv
from nnas_core.study.exporting import results_json, write_optuna_study
from nnas_core.study.importing import GivenResult
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.opening import create_study, open_study
from nnas_core.study.pareto import front_of
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner
from tests.tuners.sample_spaces import layers

SPACE = SearchSpace.from_json({"a": layers(4), "b": layers(4)})
COSTS = TableCosts({"size": CostTable(0, {"a": (0, 1, 2, 3), "b": (0, 10, 20, 30)})})


class Stubborn(Tuner):
    """Proposes in order, and heeds no region; notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def update_search_space(self, search_space: Any) -> None:
        self.space = SearchSpace.from_json(search_space)

    def generate_parameters(self, parameter_id: int, **kwargs: object) -> Any:
        return self.space.at((parameter_id * 5) % self.space.size).parameters()

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: float, **kwargs: Any) -> None:
        self.told.append((parameter_id, value, kwargs.get("objectives")))

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        self.told.append((parameter_id, success))


def described(**config: list[str]) -> StudySettings:
    """A study of ``SPACE``."""
    return StudySettings("s", SPACE, "stubborn", config=config)


def measure(architecture: Architecture) -> TrialResult:
    """The numbers of an architecture: the sum of what is chosen, and its cost."""
    (a,), (b,) = architecture.indices().values()
    return TrialResult(float(a + b), {"both": float(a * b)})


def run(store: StudyStore, made: StudySettings, tuner: Tuner, limit: str | None = None, trials: int = 16) -> None:
    """Run such a study."""
    region = None if limit is None else Region(SPACE, constraints_of([limit]), COSTS)
    settings = RunSettings(Limits(trials), costs=COSTS, region=region)
    run_study(store, create_study(store, made), tuner, measure, settings)


def test_what_is_beyond_a_bound_fails_without_a_trial(store: StudyStore) -> None:
    tuner = Stubborn()
    run(store, described(constraint=["size<=12"]), tuner, "size<=12", 5)
    found = store.trials(store.study("s"))
    assert all(trial.cost["size"] <= 12 for trial in found)
    refused = [told[0] for told in tuner.told if told[1:] == (False,)]
    proposed = [SPACE.at((number * 5) % 16) for number in refused]
    assert refused
    assert all(COSTS.of(one)["size"] > 12 for one in proposed)
    assert [trial.architecture for trial in found[:2]] == [SPACE.at(0), SPACE.at(5)]


def tried(store: StudyStore, made: StudySettings, trials: int, *, resume: bool = False) -> list[Architecture]:
    """Run a study with its own tuner, or go on with it; what has been tried then."""
    before = [one for one in made.constraints if one.name == "size"]
    region = Region(SPACE, before, COSTS) if before else None
    with contextlib.suppress(NoResultError):
        settings = RunSettings(Limits(trials), costs=COSTS, region=region)
        run_study(store, *open_study(store, made, resume=resume), measure, settings)
    return [trial.architecture for trial in store.trials(store.study(made.name))]


@pytest.mark.parametrize("tuner", sorted(registry.entries("tuners")))
def test_no_tuner_begins_a_trial_beyond_a_limit(store: StudyStore, tuner: str) -> None:
    arguments = {"bayes": {"num_init": 2}, "evolution": {"population": 3}, "gp": {"n_startup_trials": 4}}
    made = StudySettings("s", SPACE, tuner, arguments.get(tuner, {}), config={"constraint": ["size<=12", "size>=2"]})
    found = tried(store, made, 20)
    inside = {one for one in map(SPACE.at, range(16)) if 2 <= COSTS.of(one)["size"] <= 12}
    assert (set(found), len(found)) == (inside, 5)
    other = replace(made, name="t")
    assert tried(store, other, 2) == found[:2]
    assert tried(store, other, 20, resume=True) == found


@pytest.mark.parametrize("tuner", ["bayes", "evolution", "nsga2", "random"])
def test_tuners_of_several_objectives_look_for_all_of_them(store: StudyStore, tuner: str) -> None:
    arguments = {"bayes": {"num_init": 2}, "evolution": {"population": 3}, "nsga2": {"population_size": 4}}
    made = StudySettings(
        "s", SPACE, tuner, arguments.get(tuner, {}), config={"objective": ["both:max", "size:min", "value:max"]}
    )
    found = tried(store, made, 12)
    assert len(set(found)) == 12
    assert front_of(made, store.trials(store.study("s"))) is not None


def test_after_some_refusals_a_draw_from_the_region_is_tried(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = Stubborn()
    monkeypatch.setattr("nnas_core.study.proposals._MOST_REFUSED", 1)
    run(store, described(constraint=["size>=33"]), tuner, "size>=33", 1)
    (trial,) = store.trials(store.study("s"))
    assert trial.architecture == SPACE.at(15)
    assert tuner.told == [(0, False), (1, 6.0, None), (1, True)]


def test_a_study_that_finds_nothing_more_within_the_constraints_ends_with_what_it_has(store: StudyStore) -> None:
    class Lost(Stubborn):
        def generate_parameters(self, parameter_id: int, **kwargs: object) -> Any:
            if parameter_id == 3:
                raise NoResultError("draws within the constraints were all tried before")
            return super().generate_parameters(parameter_id)

    with pytest.warns(NnasWarning, match="draws within the constraints were all tried before; no other trial begins"):
        run(store, described(), Lost())
    assert len(store.trials(store.study("s"))) == 3


def test_what_only_a_trial_tells_is_told_as_a_failure_and_never_wins(store: StudyStore) -> None:
    tuner = Stubborn()
    made = described(constraint=["both<=2"])
    run(store, made, tuner)
    study = store.study("s")
    found = store.trials(study)
    assert [trial.feasible for trial in found] == [trial.metrics["both"] <= 2 for trial in found]
    best = store.best(study)
    assert best is not None
    assert best.metrics["both"] <= 2
    assert best.value == max(trial.value or 0 for trial in found if trial.feasible)
    told = {one[0]: one[1] for one in tuner.told if len(one) == 2}
    assert [told[trial.number] for trial in found] == [trial.feasible for trial in found]


def test_nobody_within_is_said_with_what_came_nearest(store: StudyStore) -> None:
    with pytest.raises(NoResultError, match="none of the 16 trials of study 's' that succeeded has both<=-1") as error:
        run(store, described(constraint=["both<=-1"]), Stubborn())
    assert error.value.problems == ("both<=-1: nearest was 0, of trial 0",)


def test_the_first_trial_says_that_a_name_is_unknown(store: StudyStore) -> None:
    with pytest.raises(UsageError, match="`objective`: nothing reports 'boht'") as error:
        run(store, described(objective=["boht:max"]), Stubborn())
    assert error.value.hint == "did you mean both"


def test_the_first_objective_is_the_value_and_all_are_told_as_large(store: StudyStore) -> None:
    tuner = Stubborn()
    run(store, described(objective=["both:max", "size:min"]), tuner, trials=3)
    assert [trial.value for trial in store.trials(store.study("s"))] == [0, 1, 4]
    assert [told[1:] for told in tuner.told if len(told) == 3] == [
        (0.0, [0.0, -0.0]),
        (1.0, [1.0, -11.0]),
        (4.0, [4.0, -22.0]),
    ]


def test_goals_of_a_stored_study_are_checked() -> None:
    with pytest.raises(UsageError, match="`constraint` must be a list of texts, not 5"):
        StudySettings("s", SPACE, "random", config={"constraint": 5})


def test_a_tuner_for_one_objective_is_refused_before_the_study_is_made(store: StudyStore) -> None:
    made = StudySettings("s", SPACE, "grid", config={"objective": ["a:min", "b:min"]})
    with pytest.raises(UsageError, match="tuner 'grid' serves one objective, not 2"):
        open_study(store, made, resume=False)
    assert store.studies() == []


def test_an_imported_trial_without_all_objectives_teaches_nothing(store: StudyStore) -> None:
    made = described(objective=["both:max", "size:min"])
    study = store.create_study(made)
    store.import_results(
        study, [GivenResult(SPACE.at(5), 9.0), GivenResult(SPACE.at(6), 8.0, {"both": 2}, {"size": 1})]
    )
    imported: list[Any] = []

    class Learner(Stubborn):
        def import_data(self, data: list[Any]) -> None:
            imported.extend(data)

    run_study(store, study, Learner(), measure, RunSettings(Limits(3), costs=COSTS))
    assert [one["objectives"] for one in imported] == [[2.0, -1.0]]
    front = front_of(made, store.trials(study))
    assert front is not None
    assert 0 not in [trial.number for trial in front.trials]


def test_exports_say_what_is_beyond_the_constraints(store: StudyStore, tmp_path: Path) -> None:
    made = described(constraint=["both<=2"], objective=["value:max", "size:min"])
    run(store, made, Stubborn(), trials=6)
    study = store.study("s")
    trials = store.trials(study)
    beyond = [trial.number for trial in trials if trial.metrics["both"] > 2]
    assert 0 < len(beyond) < 6
    document = results_json(trials, {})
    assert [int(str(one["id"])) for one in document if one.get("feasible") is False] == beyond
    assert [one["cost"] for one in document] == [trial.cost for trial in trials]
    assert schema.problems("results", document) == []
    assert results_csv(trials, SPACE).splitlines()[:2] == ["id,a,b,reward,both,size", "0,op0,op0,0.0,0.0,0.0"]
    url = f"sqlite:///{tmp_path}/optuna.db"
    write_optuna_study(url, study, trials, {}, storage="sqlite:///other.db")
    theirs = optuna.load_study(study_name="s", storage=url)
    assert [trial.values for trial in theirs.trials] == [[trial.value, trial.cost["size"]] for trial in trials]
    front = front_of(made, trials)
    assert front is not None
    assert {trial.number for trial in theirs.best_trials} == {trial.number for trial in front.trials}
