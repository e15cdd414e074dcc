"""Processes that run one study together: what each takes, what the tuners hear, and what becomes of the dead."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, InputError, Interrupted, NnasWarning
from nnas_core.execution.engine import TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.cooperation import SharedResult, run_shared
from nnas_core.study.limits import Limits, TrialRules
from nnas_core.study.opening import join_study
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.trial_writer import Evaluator
from tests.study import known_studies, study_programs
from tests.study.program_fork_server import until
from tests.study.simulated_sharing import change, check_calls, during, join, leave_after, lose_contact
from tests.study.trial_objective import additive, evaluate


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return join_study(store, study_programs.settings())


# ---- together


def test_one_alone_has_the_study_that_a_coordinator_has(
    store: StudyStore, study: StudyRecord, undisturbed: list[tuple[Any, ...]]
) -> None:
    result = join(store, study, trials=60)
    assert study_programs.history(store) == undisturbed[:60]
    assert (result.evaluated, result.others, result.reason) == (60, 0, "trials")
    assert result.whole is not None
    assert (result.whole.finished, result.whole.best) == (60, store.best(study))
    assert store.study("study").state == "finished"


def test_the_tuners_of_all_propose_what_one_would_have_proposed(store: StudyStore, study: StudyRecord) -> None:
    def others() -> None:  # a second one that ends 20 trials while the first has one, and in it a third
        with pytest.raises(Interrupted):
            join(store, study, during(7, another), trials=60, **leave_after(20))

    def another() -> None:
        with pytest.raises(Interrupted):
            join(store, study, trials=60, **leave_after(9))

    result = join(store, study, during(12, others), trials=60)
    assert result.evaluated == 60 - 20 - 9
    check_calls(store, beside=True)
    with StudyStore.open(f"sqlite:///{store.where}") as again:  # and a coordinator's tuner repeats them without a word
        assert join(again, study, trials=61).evaluated == 1
    check_calls(store, beside=True)


def test_who_finds_nothing_to_begin_leaves_the_end_to_the_others(store: StudyStore, study: StudyRecord) -> None:
    seen: list[SharedResult] = []
    result = join(store, study, during(9, lambda: seen.append(join(store, study, trials=10))), trials=10)
    (other,) = seen
    assert (other.evaluated, other.others, other.reason, other.whole) == (0, 1, "trials", None)
    assert (result.evaluated, result.others) == (10, 0)
    assert result.whole is not None
    assert store.status(study).counts["succeeded"] + store.status(study).counts["failed"] == 10


def test_the_number_of_trials_of_the_first_holds_for_all(store: StudyStore, study: StudyRecord) -> None:
    result = join(store, study, during(2, lambda: join(store, study, trials=500)), trials=12)
    assert result.others == 0
    assert len(store.trials(study)) == 12
    assert result.evaluated == 3
    assert store.status(study).limits["trials"] == 12


def test_limits_that_are_changed_meanwhile_are_heeded(store: StudyStore, study: StudyRecord) -> None:
    def more() -> None:
        store.update_limits(study, {"trials": 8})
        join(store, study, trials=5)

    join(store, study, during(2, more), trials=5)
    assert len(store.trials(study)) == 8


def test_a_space_is_tried_once_by_all_together(store: StudyStore) -> None:
    study = join_study(store, replace(study_programs.settings("random"), space=known_studies.SPACE))

    def small(architecture: Architecture) -> TrialResult:
        return TrialResult(additive(architecture))

    def beside(architecture: Architecture) -> TrialResult:
        seen.append(
            run_shared(store, study, study_programs.tuner_of(study), small, study_programs.run_settings(trials=None))
        )
        return small(architecture)

    seen: list[SharedResult] = []
    result = run_shared(store, study, study_programs.tuner_of(study), beside)
    assert (result.reason, result.evaluated, seen[0].reason, seen[0].evaluated) == ("exhausted", 1, "exhausted", 11)
    assert sorted(trial.architecture.canonical for trial in store.trials(study)) == sorted(
        known_studies.SPACE.at(place).canonical for place in range(12)
    )


def test_others_see_who_works_on_it_and_cannot_disturb(store: StudyStore, study: StudyRecord) -> None:
    me = rf"process {os.getpid()} on .* since 2[^ ]*"
    heard = r", heard of \d s ago, and given up at \d\d:\d\d:\d\d UTC if it stays silent$"

    def alone() -> None:
        with pytest.raises(EnvironmentFailure, match=f"'study' is in use by {me}{heard}") as caught:
            store.acquire(study)
        assert caught.value.hint == (
            "wait until it has ended, or give `wait` to do so here, or choose another `study` name"
        )
        join(store, study, during(0, together), trials=3)

    def together() -> None:
        with pytest.raises(EnvironmentFailure, match=f"'study' is in use by {me} and 1 more process{heard}"):
            store.delete_study(study)
        with pytest.raises(EnvironmentFailure, match=f"'study' is in use by {me} and 1 more process{heard}"):
            store.import_results(study, [])
        status = store.status(study)
        assert status.in_use_by == store.in_use_by(study)
        assert (status.study.state, status.counts["running"]) == ("running", 2)

    join(store, study, during(0, alone), trials=3)
    assert store.in_use_by(study) is None
    store.acquire(study).release("finished")


def test_a_study_that_is_asked_to_stop_is_left_by_all(store: StudyStore, study: StudyRecord) -> None:
    reasons: list[str] = []

    def ask() -> None:
        store.request_stop(study)
        reasons.append(join(store, study, trials=30).reason)

    result = join(store, study, during(2, ask), trials=30)
    assert (reasons, result.reason, result.others) == (["stopped"], "stopped", 0)
    assert len(store.trials(study)) == 3
    assert store.study("study").state == "interrupted"
    assert join(store, study, trials=5).reason == "trials"  # the next to begin was not asked


# ---- settings and owners


def test_who_comes_later_finds_the_study_of_the_same_settings(store: StudyStore, study: StudyRecord) -> None:
    assert join_study(store, study_programs.settings()).id == study.id
    with pytest.raises(InputError, match="study 'study' was made with other settings") as caught:
        join_study(store, study_programs.settings(seed=1, config={"epochs": 2}))
    assert list(caught.value.problems) == ["seed: 0 before, 1 now", "epochs: 1 before, 2 now"]


def test_a_study_with_an_owner_cannot_be_joined(store: StudyStore, study: StudyRecord) -> None:
    with (
        store.acquire(study),
        pytest.raises(EnvironmentFailure, match=rf"'study' is in use by process {os.getpid()} on "),
    ):
        join(store, study)
    assert store.trials(study) == []


def test_what_a_dead_coordinator_left_is_taken_and_it_writes_no_more(store: StudyStore, study: StudyRecord) -> None:
    lost = store.acquire(study)
    trial = lost.trials.start(study.settings.space.at(0))
    with closing(sqlite3.connect(store.where, isolation_level=None)) as connection:
        connection.execute("UPDATE owners SET host='elsewhere', expires='2020-01-01T00:00:00+00:00'")
    begun: list[tuple[int, int]] = []

    def too_late() -> None:
        with pytest.raises(EnvironmentFailure, match=f"'study' was taken over by process {os.getpid()} on "):
            lost.trials.succeed(trial, 99.0, {}, {}, 0.0)

    with pytest.warns(NnasWarning, match="does not repeat its proposals"):  # the tuner was not asked for that one
        join(store, study, during(0, too_late), trials=2, on_start=lambda *numbers: begun.append(numbers))
    assert begun == [(0, 1)]
    assert [(one.number, one.attempt) for one in store.trials(study)] == [(0, 2), (1, 1)]
    assert store.trial(study, 0).value == additive(trial.architecture)


def test_a_coordinator_goes_on_where_joiners_ended(
    store: StudyStore, study: StudyRecord, undisturbed: list[tuple[Any, ...]]
) -> None:
    join(store, study, trials=20)
    study_programs.run_study(
        store, study, study_programs.tuner_of(study), evaluate, study_programs.run_settings(trials=40)
    )
    join(store, study, trials=60)
    assert study_programs.history(store) == undisturbed[:60]


def test_a_study_that_was_deleted_cannot_be_joined(store: StudyStore, study: StudyRecord) -> None:
    store.delete_study(study)
    with pytest.raises(EnvironmentFailure, match="study 'study' was deleted meanwhile"):
        join(store, study)


# ---- those who leave, and those who die


def test_a_signal_gives_the_trial_back_at_once(store: StudyStore, study: StudyRecord) -> None:
    def stopped() -> None:
        raise Interrupted(15, "interrupted")

    with pytest.raises(Interrupted, match="'study' was interrupted; its 4 finished trials are stored") as caught:
        join(store, study, during(4, stopped), trials=10)
    assert caught.value.hint == "run the command again with `join` to go on"
    assert [(trial.number, trial.attempt) for trial in store.trials(study, state="waiting")] == [(4, 2)]
    assert store.study("study").state == "interrupted"
    assert join(store, study, trials=10, rules=TrialRules(attempts=1)).evaluated == 6  # it was no loss
    check_calls(store, beside=False)


def test_the_trial_of_one_that_left_is_taken_by_the_others(store: StudyStore, study: StudyRecord) -> None:
    def leaving() -> None:
        with pytest.raises(RuntimeError, match="a bug"):
            join(store, study, during(2, broken), trials=6)

    def broken() -> None:
        raise RuntimeError("a bug")

    result = join(store, study, during(1, leaving), trials=6)
    assert result.evaluated == 4
    assert [(trial.number, trial.attempt) for trial in store.trials(study) if trial.attempt > 1] == [(4, 2)]
    check_calls(store, beside=True)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22 + 1}, id="no such process"),
        pytest.param({"pid_start": "1"}, id="the number belongs to another process"),
        pytest.param({"host": "elsewhere", "expires": "2020-01-01T00:00:00+00:00"}, id="lease over"),
    ],
)
def test_the_trial_of_a_dead_one_is_taken_and_its_late_result_refused(
    store: StudyStore, study: StudyRecord, changes: dict[str, Any]
) -> None:
    begun: list[tuple[int, int]] = []

    def seem_dead() -> None:
        change(store, **changes)
        with pytest.raises(Interrupted):
            join(store, study, trials=8, on_start=lambda *numbers: begun.append(numbers), **leave_after(3))
        assert [(trial.attempt, trial.state) for trial in store.trials(study)][2:] == [
            (2, "succeeded"),
            (1, "succeeded"),
            (1, "succeeded"),
        ]

    def other(architecture: Architecture) -> TrialResult:
        result = evaluation(architecture)
        return replace(result, value=result.value + 1000) if len(store.trials(study)) == 5 else result

    evaluation = during(2, seem_dead)
    with pytest.warns(NnasWarning, match="^trial 2 was given to another process, as if this one had died; "):
        result = join(store, study, other, trials=8)
    assert begun == [(2, 1)]
    assert result.evaluated == 8 - 3
    assert all(trial.value == additive(trial.architecture) for trial in store.trials(study, state="succeeded"))
    check_calls(store, beside=False)


def test_one_that_only_seemed_dead_gives_way_to_a_coordinator(store: StudyStore, study: StudyRecord) -> None:
    def taken_over() -> None:
        lose_contact(store)
        sessions.append(store.acquire(study))

    sessions: list[Any] = []
    with pytest.raises(EnvironmentFailure, match=f"'study' is in use by process {os.getpid()} on "):
        join(store, study, during(1, taken_over), trials=5)
    assert sessions[0].recovered == 1
    assert [trial.state for trial in store.trials(study)] == ["succeeded", "waiting"]
    sessions[0].release("interrupted")


def test_a_trial_whose_processes_die_again_and_again_fails(store: StudyStore, study: StudyRecord) -> None:
    rules = TrialRules(attempts=2)

    def first() -> None:
        lose_contact(store)
        with pytest.warns(NnasWarning, match="trial 0 was given"):
            join(store, study, during(0, second), trials=3, rules=rules)

    def second() -> None:
        lose_contact(store)
        join(store, study, trials=3, rules=rules)

    with pytest.warns(NnasWarning, match="trial 0 was given"):
        join(store, study, during(0, first), trials=3, rules=rules)
    trial = store.trial(study, 0)
    assert (trial.state, trial.attempt, trial.error) == ("failed", 2, "the process that evaluated it was lost 2 times")
    assert trial.finished is not None
    check_calls(store, beside=False)


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"boot": "another/pid:[1]"}])
def test_one_that_cannot_be_seen_from_here_keeps_its_lease(
    store: StudyStore, study: StudyRecord, changes: dict[str, Any]
) -> None:
    def beside() -> None:
        change(store, **changes)  # the machines of a cluster may all have one name
        assert join(store, study, trials=4).others == 1

    result = join(store, study, during(1, beside), trials=4)
    assert result.evaluated == 2
    assert {trial.attempt for trial in store.trials(study)} == {1}


def test_a_result_waits_for_a_store_that_is_busy(url: str, study: StudyRecord) -> None:
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    asked = iter(range(100))

    def lock() -> None:
        other.execute("BEGIN EXCLUSIVE")

    def should_stop() -> None:
        if other.in_transaction and next(asked) == 1:
            other.execute("ROLLBACK")

    message = r"locked for 0\.01 s by .*; the result of trial 2 waits"
    with (
        closing(other),
        StudyStore.open(url, busy_timeout_s=0.01) as store,
        pytest.warns(NnasWarning, match=message),
    ):
        assert join(store, study, during(2, lock), trials=4, should_stop=should_stop).evaluated == 4


def test_a_signal_ends_the_wait_for_the_store(url: str, study: StudyRecord) -> None:
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)

    def lock() -> None:
        other.execute("BEGIN EXCLUSIVE")

    with (
        closing(other),
        StudyStore.open(url, busy_timeout_s=0.01) as store,
        pytest.warns(NnasWarning, match="the result of trial 2 waits"),
        pytest.raises(Interrupted, match="its 2 finished trials are stored"),
    ):
        join(store, study, during(2, lock), trials=4, should_stop=lambda: 15 if other.in_transaction else None)


def test_the_claim_is_renewed_while_a_trial_runs(store: StudyStore, study: StudyRecord) -> None:
    def expires() -> str:
        with closing(sqlite3.connect(store.where)) as connection:
            return str(connection.execute("SELECT expires FROM joiners").fetchone()[0])

    def wait() -> None:
        before = expires()
        until(lambda: expires() > before, "the claim is not renewed")

    join(store, study, during(1, wait), trials=2, term=timedelta(seconds=0.1))
    assert len(store.trials(study)) == 2


def test_the_end_is_interrupted_where_the_trial_of_a_dead_one_is_left(store: StudyStore, study: StudyRecord) -> None:
    left = store.join(study)
    left.set_limits({"trials": 5, "duration_s": None, "concurrency": 1})
    trial = left.trials.start(study.settings.space.at(0), by=Evaluator("lost"))
    with store.join(study) as other:
        other.set_limits(Limits().to_json())
        change(store, pid=2**22 + 1)
        other.renew()
        assert not other.release("finished")
    assert not left.holds(trial)
    assert [one.state for one in store.trials(study)] == ["waiting"]
    assert store.study("study").state == "interrupted"
