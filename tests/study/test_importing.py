"""Imported trials are events in the stored order of the tuner's calls: resuming repeats them where they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnas_core.assessors.base import Assessor
from nnas_core.errors import EnvironmentFailure, NnasWarning
from nnas_core.execution.engine import TrialResult
from nnas_core.study.coordinator import run_study
from nnas_core.study.importing import GivenResult
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner
from nnas_core.tuners.evolution import EvolutionTuner
from nnas_core.tuners.random import RandomTuner
from tests.study import study_programs


class Listening(RandomTuner):
    """A random tuner that remembers what it is told, in order."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.heard: list[tuple[Any, ...]] = []

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **more: Any) -> None:
        self.heard.append(("told", parameter_id, value))
        super().receive_trial_result(parameter_id, parameters, value)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        self.heard.append(("imported", [entry["value"] for entry in data]))
        super().import_data(data)


def given(study: StudyRecord, *places: int) -> list[GivenResult]:
    """Results of architectures of the space, by their numbers, each with its number as value."""
    space = study.settings.space
    return [GivenResult(space.at(place), float(place), {"value": place}, {"parts": 6}) for place in places]


def succeed(architecture: Any) -> TrialResult:
    """An evaluation that never fails."""
    return TrialResult(-1.0)


def test_imported_trials_are_told_where_they_came_among_the_others(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    assert store.import_results(study, given(study, 100, 200)).imported == 2
    run_study(store, study, Listening(), succeed, study_programs.run_settings(trials=4))
    assert store.import_results(study, given(study, 300)).imported == 1
    assert store.import_results(study, given(study, 400)).imported == 1
    tuner = Listening()
    run_study(store, study, tuner, succeed, study_programs.run_settings(trials=7))
    told = [("told", number, -1.0) for number in range(3)]
    assert tuner.heard == [("imported", [100.0, 200.0]), *told[:2], ("imported", [300.0, 400.0]), told[2]]
    assert [trial.number for trial in store.trials(study)] == list(range(7))


@pytest.mark.parametrize("repeats", [False, True])
def test_a_study_with_imported_trials_that_is_interrupted_is_the_one_that_never_was(
    repeats: bool, tmp_path: Path
) -> None:
    args = {"population": 6, "sample": 3, "repeats": repeats}
    histories = []
    for parts in ((60,), (5, 6, 20, 60)):
        with StudyStore.open(f"sqlite:///{tmp_path}/{len(parts)}.db") as store:
            study = create_study(store, study_programs.settings("evolution", tuner_args=args))
            store.import_results(study, given(study, *range(500, 510)))
            for trials in parts:
                run_study(
                    store,
                    study,
                    study_programs.tuner_of(study),
                    study_programs.evaluate,
                    study_programs.run_settings(trials=trials),
                )
            histories.append(study_programs.history(store))
    assert histories[0] == histories[1]


def test_evolution_goes_on_from_what_was_imported(store: StudyStore) -> None:
    """With a whole population imported, the first proposal is a mutant of one of it: it differs at one key."""
    study = create_study(store, study_programs.settings("evolution", tuner_args={"population": 4, "sample": 4}))
    best = study.settings.space.at(3)
    store.import_results(study, given(study, 0, 1, 2, 3))
    run_study(store, study, EvolutionTuner(population=4, sample=4), succeed, study_programs.run_settings(trials=5))
    mutant, parent = store.trial(study, 4).architecture.indices(), best.indices()
    assert sum(mutant[key] != parent[key] for key in parent) == 1


def test_a_proposal_of_an_imported_architecture_is_answered_and_no_trial(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))

    class First(Listening):
        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
            return study.settings.space.at(parameter_id).parameters()

    store.import_results(study, given(study, 0))
    tuner = First()
    run_study(store, study, tuner, succeed, study_programs.run_settings(trials=2))
    assert tuner.heard == [("imported", [0.0]), ("told", 0, 0.0), ("told", 1, -1.0)]
    again = First()
    run_study(store, study, again, succeed, study_programs.run_settings(trials=3))
    assert again.heard == [*tuner.heard, ("told", 2, -1.0)]


def test_metrics_and_costs_go_to_tuners_that_take_them(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    store.import_results(study, given(study, 7))
    got: list[dict[str, Any]] = []

    class Costly(RandomTuner):
        def receive_trial_result(
            self, parameter_id: int, parameters: dict[str, Any], value: float, cost: Any = None
        ) -> None:
            super().receive_trial_result(parameter_id, parameters, value)

        def import_data(self, data: list[dict[str, Any]]) -> None:
            got.extend(data)

    run_study(store, study, Costly(), succeed, study_programs.run_settings(trials=2))
    parameter = study.settings.space.at(7).parameters()
    assert got == [{"parameter": parameter, "value": 7.0, "cost": {"parts": 6.0}}]


def test_a_tuner_that_learns_nothing_from_imports_is_warned_of(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    store.import_results(study, given(study, 7))

    class Deaf(RandomTuner):
        import_data = Tuner.import_data

    with pytest.warns(NnasWarning, match=r"tuner 'random' does not learn from imported trials \(it has no import_data"):
        run_study(store, study, Deaf(), succeed, study_programs.run_settings(trials=2))


def test_an_assessor_learns_from_what_imported_trials_reported(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    space = study.settings.space
    store.import_results(study, [GivenResult(space.at(3), 0.5, intermediate=(0.25, 0.375))])
    heard: list[tuple[Any, ...]] = []

    class Listener(Assessor):
        def assess_trial(self, number: int, history: Any) -> bool:
            heard.append((number, list(history)))
            return True

        def trial_end(self, number: int, success: bool) -> None:
            heard.append((number, success))

    run_study(
        store,
        study,
        RandomTuner(),
        succeed,
        study_programs.run_settings(trials=1, rules=TrialRules(assessor=Listener())),
    )
    assert heard == [(0, [0.25]), (0, [0.25, 0.375]), (0, True)]


def test_an_owner_that_only_seemed_dead_cannot_write_after_an_import(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    session = store.acquire(study)
    from nnas_core.study.storage import leases

    leases.release(session.lease)
    store.import_results(study, given(study, 0))
    with pytest.raises(EnvironmentFailure, match="was taken over by"):
        session.trials.start(study.settings.space.at(1))
