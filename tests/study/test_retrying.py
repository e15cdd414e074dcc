"""Trials that failed get another chance, and the tuner learns of it at the same point whenever the study is resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, InputError, NoResultError
from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.cooperation import run_shared
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import TrialRules
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.evolution import EvolutionTuner
from tests.study import known_studies, study_programs
from tests.study.test_exclusive_session import change_owner
from tests.study.trial_objective import additive


class Noting(EvolutionTuner):
    """Evolution, which notes each call."""

    def __init__(self) -> None:
        super().__init__(population=10, sample=3, seed=0)
        self.calls: list[tuple[Any, ...]] = []

    def generate_parameters(self, parameter_id: int) -> dict[str, Any]:
        found = super().generate_parameters(parameter_id)
        self.calls.append(("proposed", parameter_id, str(found)))
        return found

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: float, **also: Any) -> None:
        self.calls.append(("value", parameter_id, value))
        super().receive_trial_result(parameter_id, parameters, value)

    def trial_end(self, parameter_id: int, success: bool) -> None:
        self.calls.append(("end", parameter_id, success))
        super().trial_end(parameter_id, success)

    def import_data(self, data: list[Any]) -> None:
        self.calls.append(("imported", [one["value"] for one in data]))
        super().import_data(data)


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def failing(numbers: set[int]) -> Callable[[Architecture], TrialResult]:
    """An evaluation of which some, counted from 0, fail."""
    count = iter(range(1000))

    def evaluate(architecture: Architecture) -> TrialResult:
        if next(count) in numbers:
            raise TrialFailed("no such module")
        return TrialResult(additive(architecture))

    return evaluate


def go_on(store: StudyStore, study: StudyRecord, trials: int, fail: set[int] = frozenset(), **how: Any) -> Noting:  # type: ignore[assignment]
    tuner = Noting()
    run_study(store, study, tuner, failing(fail), study_programs.run_settings(trials=trials, **how))
    return tuner


def states(store: StudyStore, study: StudyRecord) -> list[tuple[str, int]]:
    return [(trial.state, trial.attempt) for trial in store.trials(study)]


def test_failed_trials_run_before_new_ones_and_keep_their_numbers(store: StudyStore, study: StudyRecord) -> None:
    go_on(store, study, 5, {1, 3})
    assert store.study("study").state == "finished"
    assert [state for state, _ in states(store, study)].count("failed") == 2
    assert store.retry(study) == [1, 3]
    assert store.study("study").state == "interrupted"  # there is something left to do
    done, waiting = ("succeeded", 1), ("waiting", 2)
    assert states(store, study) == [done, waiting, done, waiting, done]
    go_on(store, study, 6)
    assert states(store, study) == [("succeeded", 2 if n in (1, 3) else 1) for n in range(6)]
    assert store.retry(study) == []
    assert store.study("study").state == "finished"
    assert all(trial.value == additive(trial.architecture) for trial in store.trials(study))
    assert store.status(study).counts["failed"] == 0


def test_the_tuner_hears_of_another_chance_where_it_came_also_when_it_is_resumed(
    store: StudyStore, study: StudyRecord
) -> None:
    go_on(store, study, 20, {1, 3})
    store.retry(study, [3])
    told = go_on(store, study, 25).calls
    failed, imported = told.index(("end", 3, False)), told.index(("imported", [store.trial(study, 3).value]))
    assert failed < imported
    assert told[imported + 1][:2] == ("proposed", 20)
    again = go_on(store, study, 30).calls
    assert again[: len(told)] == told  # no warning that proposals are others: warnings are errors here
    assert store.trial(study, 1).state == "failed"


def test_a_second_failure_is_one_more_and_can_be_retried_too(store: StudyStore, study: StudyRecord) -> None:
    go_on(store, study, 3, {1})
    store.retry(study)
    told = go_on(store, study, 4, {0}).calls
    assert states(store, study)[1] == ("failed", 2)
    assert [call for call in told if call[0] == "imported"] == []
    store.retry(study)
    go_on(store, study, 4)
    assert states(store, study)[1] == ("succeeded", 3)
    assert go_on(store, study, 5).calls.count(("imported", [store.trial(study, 1).value])) == 1


def test_a_run_can_begin_with_those_that_failed(store: StudyStore, study: StudyRecord) -> None:
    go_on(store, study, 3, {1})
    tuner = Noting()
    settings = replace(study_programs.run_settings(trials=3), retry_failed=True)
    result = run_study(store, study, tuner, failing(set()), settings)
    assert (result.finished, result.failed) == (3, 0)


def test_processes_that_share_the_study_take_them_up_too(store: StudyStore, study: StudyRecord) -> None:
    go_on(store, study, 4, {0, 2})
    store.retry(study)
    result = run_shared(store, study, Noting(), failing(set()), study_programs.run_settings(trials=5))
    assert result.whole is not None
    assert (result.evaluated, result.whole.finished, result.whole.failed) == (3, 5, 0)
    again = Noting()
    run_shared(store, study, again, failing(set()), study_programs.run_settings(trials=6))
    values = [[store.trial(study, number).value] for number in (0, 2)]
    assert [call[1] for call in again.calls if call[0] == "imported"] == values


def test_each_of_them_hears_what_the_others_made_of_a_retried_trial(store: StudyStore, study: StudyRecord) -> None:
    go_on(store, study, 4, {0, 2})
    store.retry(study)
    mine, others = Noting(), Noting()
    settings = study_programs.run_settings(trials=5)
    begun: list[int] = []

    def evaluate(architecture: Architecture) -> TrialResult:
        begun.append(1)
        if len(begun) == 1:  # while trial 0 runs here, trials 2 and 4 run there
            run_shared(store, study, others, failing(set()), settings)
        return TrialResult(additive(architecture))

    run_shared(store, study, mine, evaluate, settings)
    assert len(begun) == 1
    values = {number: store.trial(study, number).value for number in (0, 2)}
    assert [call[1] for call in mine.calls if call[0] == "imported"] == [[values[2]], [values[0]]]


def test_a_process_that_only_seemed_dead_does_not_write_over_it(store: StudyStore) -> None:
    study = known_studies.make(store)
    lost = store.acquire(study)
    change_owner(store, host="elsewhere", expires="2020-01-01T00:00:00+00:00")
    store.retry(study)
    with pytest.raises(EnvironmentFailure, match="'first' was taken over by"):
        lost.trials.start(study.settings.space.at(7))
    lost.heart.stop()


def test_only_trials_that_ended_without_a_value_are_tried_again(store: StudyStore) -> None:
    study = known_studies.make(store)
    with pytest.raises(InputError, match="not trials of study 'first' that failed or were stopped") as caught:
        store.retry(study, [2, 0, 9])
    assert caught.value.problems == ("trial 0: it is succeeded", "trial 9: there is none")
    assert store.trial(study, 2).state == "failed"
    with store.acquire(study), pytest.raises(EnvironmentFailure, match="'first' is in use by process"):
        store.retry(study)
    assert store.retry(study) == [2]
    assert store.retry(study) == []


# ---- runs of which nothing comes


def test_a_study_in_which_all_fail_alike_ends_soon(store: StudyStore, study: StudyRecord) -> None:
    def evaluate(architecture: Architecture) -> TrialResult:
        raise TrialFailed(f"no file data-{additive(architecture):g}.npz at 0x7f{int(additive(architecture))}")

    with pytest.raises(
        NoResultError, match=r"^study 'study' ends: 3 trials failed alike, and none has succeeded\n"
    ) as caught:
        run_study(store, study, Noting(), evaluate, study_programs.run_settings(trials=100))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("trial 0: no file data-")
    assert caught.value.hint == (
        "mend the trials and go on with `resume`; `nnas study retry study` tries those again that failed; "
        "`max_failures` allows for more"
    )
    assert len(store.trials(study)) == 3
    assert store.study("study").state == "interrupted"


@pytest.mark.parametrize(
    ("reasons", "rules"),
    [
        pytest.param("abcabcabc", TrialRules(), id="for many reasons"),
        pytest.param("aabaabaab", TrialRules(), id="never three in a row"),
        pytest.param("aaaaaaaaa", TrialRules(max_alike=None), id="allowed"),
        pytest.param(".aaaaaaaa", TrialRules(), id="after a success"),
    ],
)
def test_other_studies_go_on(store: StudyStore, study: StudyRecord, reasons: str, rules: TrialRules) -> None:
    left = iter(reasons)

    def evaluate(architecture: Architecture) -> TrialResult:
        reason = next(left, ".")
        if reason == ".":
            return TrialResult(1.0)
        raise TrialFailed(reason)

    result = run_study(store, study, Noting(), evaluate, study_programs.run_settings(trials=10, rules=rules))
    assert result.finished == 10
