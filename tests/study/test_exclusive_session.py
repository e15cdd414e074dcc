"""A study has one owner; a dead one is replaced, a replaced one cannot write any more."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs


def change_owner(store: StudyStore, **values: Any) -> None:
    """Make the owner's row say something else."""
    columns = ", ".join(f"{name}=?" for name in values)
    with closing(sqlite3.connect(store.where, isolation_level=None)) as connection:
        connection.execute(f"UPDATE owners SET {columns}", list(values.values()))


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def test_a_study_is_owned_once(store: StudyStore, study: StudyRecord) -> None:
    session = store.acquire(study)
    with pytest.raises(EnvironmentFailure, match=f"'study' is in use by process {os.getpid()} on .* since 2"):
        store.acquire(study)
    assert store.study("study").state == "running"
    session.release("finished")
    assert store.study("study").state == "finished"
    store.acquire(study).release("interrupted")


def test_another_study_of_the_store_is_free(store: StudyStore, study: StudyRecord) -> None:
    other = store.create_study(replace(study_programs.settings(), name="other"))
    with store.acquire(study), store.acquire(other):
        assert {one.state for one in store.studies()} == {"running"}


def test_without_a_name_the_study_that_is_worked_on_is_meant(store: StudyStore, study: StudyRecord) -> None:
    other = store.create_study(replace(study_programs.settings(), name="other"))
    for running in (False, True):
        with pytest.raises(UsageError, match="there are several studies"):
            store.find(None, running=running)
    with store.acquire(other):
        assert store.find(None, running=True).name == "other"
        with pytest.raises(UsageError, match="there are several studies"):
            store.find(None)
        with store.acquire(study), pytest.raises(UsageError, match="several studies are running") as caught:
            store.find(None, running=True)
    assert caught.value.problems == ("study", "other")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22 + 1}, id="no such process"),
        pytest.param({"pid_start": "1"}, id="the number belongs to another process"),
        pytest.param({"boot": "another/pid:[1]"}, id="the machine rebooted"),
        pytest.param({"claim": "0" * 16}, id="an earlier claim of this process"),
        pytest.param({"host": "elsewhere", "expires": "2020-01-01T00:00:00+00:00"}, id="lease over"),
    ],
)
def test_a_dead_owner_is_replaced_and_its_trials_wait_again(
    store: StudyStore, study: StudyRecord, changes: dict[str, Any]
) -> None:
    lost = store.acquire(study)
    trial = lost.trials.start(study.settings.space.at(0))
    change_owner(store, **changes)
    session = store.acquire(study)
    assert session.recovered == 1
    assert [(one.state, one.attempt) for one in store.trials(study)] == [("waiting", 2)]

    with pytest.raises(EnvironmentFailure, match=r"'study' was taken over by process .* is not stored"):
        lost.trials.succeed(trial, 1.0, {}, {}, 0.0)
    with pytest.raises(EnvironmentFailure, match="'study' was taken over by process"):
        lost.trials.start(study.settings.space.at(1))
    with pytest.raises(EnvironmentFailure, match="'study' was taken over by process"):
        lost.release("finished")
    assert [one.value for one in store.trials(study)] == [None]
    assert store.study("study").state == "running"
    session.release("interrupted")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "elsewhere"}, id="another machine"),
        pytest.param({"boot": "{boot}/pid:[1]"}, id="another container of this machine"),
    ],
)
def test_an_owner_that_cannot_be_seen_from_here_keeps_its_lease(
    store: StudyStore, study: StudyRecord, changes: dict[str, Any]
) -> None:
    session = store.acquire(study)
    with closing(sqlite3.connect(store.where)) as connection:
        boot, expires = connection.execute("SELECT boot, expires FROM owners").fetchone()
    change_owner(store, **{name: text.format(boot=boot.split("/")[0]) for name, text in changes.items()})
    with pytest.raises(EnvironmentFailure, match="'study' is in use by process"):
        store.acquire(study)
    change_owner(store, expires="2020-01-01T00:00:00+00:00")
    session.trials.start(study.settings.space.at(0))  # every write renews the lease
    with closing(sqlite3.connect(store.where)) as connection:
        assert connection.execute("SELECT expires FROM owners").fetchone()[0] >= expires
    with pytest.raises(EnvironmentFailure, match="'study' is in use by process"):
        store.acquire(study)


def test_the_result_of_a_lost_attempt_comes_too_late(store: StudyStore, study: StudyRecord) -> None:
    with store.acquire(study) as session:
        lost = session.trials.start(study.settings.space.at(0))
    with store.acquire(study) as session:
        with pytest.raises(EnvironmentFailure, match="attempt 1 of trial 0 comes too late"):
            session.trials.succeed(lost, 1.0, {}, {}, 0.0)
        again = session.trials.restart(store.trial(study, 0))
        assert again.attempt == 2
        session.trials.succeed(again, 2.0, {}, {}, 0.0)
        with pytest.raises(EnvironmentFailure, match="attempt 2 of trial 0 comes too late"):
            session.trials.succeed(again, 3.0, {}, {}, 0.0)  # a result counts once
    assert store.trial(study, 0).value == 2.0


def test_nothing_is_written_after_the_release(store: StudyStore, study: StudyRecord) -> None:
    session = store.acquire(study)
    session.release("finished")
    with pytest.raises(EnvironmentFailure, match="'study' was taken over by another process"):
        session.trials.start(study.settings.space.at(0))


def test_what_runs_at_the_release_waits(store: StudyStore, study: StudyRecord) -> None:
    with store.acquire(study) as session:
        session.trials.start(study.settings.space.at(0))
    assert store.study("study").state == "interrupted"
    assert [(one.state, one.attempt) for one in store.trials(study)] == [("waiting", 2)]


def test_an_error_text_of_any_kind_can_be_stored(store: StudyStore, study: StudyRecord) -> None:
    with store.acquire(study) as session:
        trial: TrialRecord = session.trials.start(study.settings.space.at(0))
        session.trials.fail(trial, "\ud800 \0 é" + "x" * 20_000, 0.0)
    stored = store.trial(study, 0).error
    assert stored is not None
    assert stored.startswith("\\ud800 \\0 éxxx")
    assert len(stored) < 10_100
