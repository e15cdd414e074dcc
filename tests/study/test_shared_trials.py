"""Trials of processes that run one study together: several at once, stopped, failed, proposed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnas_core.assessors.base import Assessor
from nnas_core.errors import Interrupted, NnasWarning, NoResultError, UserCodeError
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report, TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.cooperation import run_shared
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import join_study
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.random import RandomTuner
from tests.study import study_programs
from tests.study.simulated_sharing import calls, check_calls, during, join, leave_after, lose_contact
from tests.study.trial_objective import additive, evaluate


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return join_study(store, study_programs.settings())


# ---- trials that fail


def test_without_any_result_only_the_last_one_says_so(store: StudyStore) -> None:
    study = join_study(store, study_programs.settings("random"))

    def infinite(architecture: Architecture) -> TrialResult:
        return TrialResult(float("inf"))

    def beside(architecture: Architecture) -> TrialResult:
        assert join(store, study, infinite, trials=1).whole is None
        return infinite(architecture)

    with pytest.raises(NoResultError, match="all 1 finished trials of study 'study' failed"):
        join(store, study, beside, trials=1)


def test_each_counts_its_own_failures(store: StudyStore, study: StudyRecord) -> None:
    def bad(architecture: Architecture) -> TrialResult:
        return TrialResult(float("nan"))

    def others() -> None:
        with pytest.raises(NoResultError, match="2 trials of this run failed"):
            join(store, study, bad, rules=TrialRules(max_failures=2))

    result = join(store, study, during(1, others), trials=6, rules=TrialRules(max_failures=2))
    assert (result.evaluated, store.status(study).counts["failed"]) == (4, 2)


def test_a_broken_model_ends_its_process_and_leaves_the_trial(store: StudyStore, study: StudyRecord) -> None:
    def broken(architecture: Architecture) -> TrialResult:
        raise UserCodeError("no such layer", where="model.py")

    with pytest.raises(UserCodeError, match="no such layer"):
        join(store, study, broken)
    assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2)]


# ---- engines


class Scripted(Engine):
    """Reports two values of each trial, then its result; the first attempt of trial 1 loses its process."""

    def __init__(self, slots: int, deed: Callable[[int], object] = lambda number: None) -> None:
        super().__init__()
        self._slots = slots
        self._deed = deed
        self._jobs: list[Job] = []
        self.at_once: list[int] = []
        self.cancelled: list[tuple[int, int]] = []

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, timeout_s: float) -> list[Report]:
        reports: list[Report] = []
        self.at_once.append(len(self._jobs))
        for job in self._jobs:
            key = job.number, job.attempt
            reports += [Intermediate(*key, place, job.number + place / 2) for place in range(2)]
            if key == (1, 1):
                reports.append(Failed(*key, "killed by signal 9", 0.0, lost=True))
            else:
                reports.append(Finished(*key, TrialResult(additive(job.architecture)), 2.0))
        deeds, self._jobs = self._jobs, []
        for job in deeds:
            self._deed(job.number)
        return reports

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        self.cancelled.append((number, attempt))


class Heard(Assessor):
    """Ends nothing, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, list[float]]] = []
        self.ended: list[int] = []

    def assess_trial(self, trial_number: int, history: list[float]) -> bool:
        self.heard.append((trial_number, history))
        return True

    def trial_end(self, trial_number: int, succeeded: bool) -> None:
        self.ended.append(trial_number)


def test_one_process_may_have_several_trials_at_once(store: StudyStore, study: StudyRecord) -> None:
    engine = Scripted(3)
    again: list[tuple[int, int, str]] = []
    result = run_shared(
        store,
        study,
        study_programs.tuner_of(study),
        engine,
        study_programs.run_settings(
            trials=10, concurrency=3, on_retry=lambda trial, why: again.append((trial.number, trial.attempt, why))
        ),
    )
    assert (result.evaluated, max(engine.at_once)) == (10, 3)
    assert again == [(1, 2, "killed by signal 9")]
    assert store.intermediates(study) == {number: [number, number + 0.5] for number in range(10)}
    check_calls(store, beside=True)


def test_trials_at_once_are_those_of_each_process_until_somebody_changes_them(
    store: StudyStore, study: StudyRecord
) -> None:
    def beside(number: int) -> None:
        if number == 1:
            run_shared(
                store,
                study,
                study_programs.tuner_of(study),
                other,
                study_programs.run_settings(trials=9, concurrency=3),
            )

    def change(number: int) -> None:
        if len(store.trials(study)) == 5:
            left.append(store.status(study).left_s)
            store.update_limits(study, {"trials": 14, "concurrency": 2})

    left: list[float | None] = []
    other = Scripted(4, change)
    ours = Scripted(4, beside)
    run_shared(store, study, study_programs.tuner_of(study), ours, study_programs.run_settings(trials=9))
    assert other.at_once == [3, 2, 2, 2, 2, 1]  # trials 2 to 13
    assert ours.at_once == [1, 1, 1]  # trials 0 and 1, and that again
    assert len(store.trials(study)) == 14
    assert left[0] == 8 * 2.0 / 4  # one has ended, four run


def test_an_assessor_hears_what_trials_elsewhere_reported(store: StudyStore, study: StudyRecord) -> None:
    ours, theirs = Heard(), Heard()

    def beside(number: int) -> None:
        if number == 2:
            other = Scripted(1)
            with pytest.raises(Interrupted):
                run_shared(
                    store,
                    study,
                    study_programs.tuner_of(study),
                    other,
                    study_programs.run_settings(rules=TrialRules(assessor=theirs), **leave_after(2)),
                )

    engine = Scripted(1, beside)
    run_shared(
        store,
        study,
        study_programs.tuner_of(study),
        engine,
        study_programs.run_settings(trials=6, rules=TrialRules(assessor=ours)),
    )
    assert theirs.ended == [0, 1, 3, 4]
    assert ours.ended == [0, 1, 3, 4, 2, 5]
    assert [values for number, values in ours.heard if number == 3] == [[3.0], [3.0, 3.5]]


def test_reports_of_a_trial_that_others_have_taken_end_it_here(store: StudyStore, study: StudyRecord) -> None:
    class Endless(Scripted):
        def poll(self, timeout_s: float) -> list[Report]:
            if not self._jobs or self.cancelled:
                return super().poll(timeout_s)
            lose_contact(store)
            with store.join(study) as other, other.turn(3):
                pass
            (job,) = self._jobs
            return [Intermediate(job.number, job.attempt, 0, 1.0)]

    engine = Endless(1)
    with pytest.warns(NnasWarning, match="trial 0 was given to another process"):
        run_shared(store, study, study_programs.tuner_of(study), engine, study_programs.run_settings(trials=3))
    assert engine.cancelled == [(0, 1)]
    assert [(trial.number, trial.attempt, trial.state) for trial in store.trials(study)] == [
        (0, 2, "succeeded"),
        (1, 2, "succeeded"),
        (2, 1, "succeeded"),
    ]


def test_a_tuner_that_repeats_itself_is_repeated_by_all(store: StudyStore) -> None:
    class Twice(RandomTuner):
        """Proposes everything twice."""

        def __init__(self) -> None:
            super().__init__(seed=3)
            self._kept: list[dict[str, Any]] = []

        def generate_parameters(self, parameter_id: int) -> dict[str, Any]:
            if parameter_id % 2 == 0:
                self._kept.append(super().generate_parameters(parameter_id))
            return self._kept[-1]

    study = join_study(store, study_programs.settings("random"))

    def others() -> None:
        with pytest.raises(Interrupted):
            run_shared(store, study, Twice(), evaluate, study_programs.run_settings(trials=8, **leave_after(3)))

    run_shared(store, study, Twice(), during(2, others), study_programs.run_settings(trials=8))
    whole = RandomTuner(seed=3)
    whole.update_search_space(study.settings.space.to_json())
    expected = [study.settings.space.parse(whole.generate_parameters(number)) for number in range(8)]
    assert [trial.architecture for trial in store.trials(study)] == expected
    orders = [order for order, _, _ in calls(store)]
    assert orders == list(range(len(orders)))
