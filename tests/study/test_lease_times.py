"""A process that works on a study is heard of every few seconds; one that was silent for a minute has lost it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, Interrupted, NnasWarning
from nnas_core.study import coordinator
from nnas_core.study.cooperation import run_shared
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.storage import leases
from nnas_core.study.storage.heartbeat import Heartbeat
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.program_fork_server import until
from tests.study.test_exclusive_session import change_owner
from tests.study.trial_objective import evaluate

LONG_AGO = "2020-01-01T00:00:00+00:00"


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def expires(store: StudyStore) -> datetime:
    with closing(sqlite3.connect(store.where)) as connection:
        return datetime.fromisoformat(connection.execute("SELECT expires FROM owners").fetchone()[0])


def left_s(text: timedelta) -> str:
    """The time so long from now, as a lease has it."""
    return (leases.now() + text).isoformat(timespec="milliseconds")


def test_a_lease_lasts_a_minute_and_is_renewed_five_times_in_it() -> None:
    assert timedelta(minutes=1) == leases.TERM
    assert Heartbeat(lambda: None, leases.TERM)._every_s <= 15


def test_an_owner_is_heard_of_while_it_does_something_else(
    store: StudyStore, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TERM", timedelta(seconds=0.1))
    with store.acquire(study):
        begin = expires(store)
        until(lambda: expires(store) > begin, "the lease is not renewed")


def test_a_heart_that_cannot_write_beats_on_and_stops_when_it_is_told() -> None:
    beats: list[int] = []

    def renew() -> None:
        beats.append(1)
        raise EnvironmentFailure("locked")

    heart = Heartbeat(renew, timedelta(milliseconds=5))
    heart.start()
    heart.start()
    until(lambda: len(beats) > 2, "it does not beat on")
    heart.stop()
    count = len(beats)
    assert not heart._thread.is_alive()
    assert len(beats) == count


def test_a_process_of_this_machine_that_lives_and_is_silent_has_lost_it_too(
    store: StudyStore, study: StudyRecord
) -> None:
    session = store.acquire(study)
    parent = os.getppid()
    change_owner(store, pid=parent, pid_start=leases._process_start(parent))
    with pytest.raises(EnvironmentFailure, match=f"in use by process {parent} on"):
        store.acquire(study)
    change_owner(store, expires=LONG_AGO)
    store.acquire(study).release("interrupted")
    with pytest.raises(EnvironmentFailure, match="'study' was taken over by"):
        session.read_control()  # which its loop does every second
    session.heart.stop()


def test_an_error_says_when_the_owner_was_heard_of_and_until_when_that_counts(
    store: StudyStore, study: StudyRecord
) -> None:
    with store.acquire(study):
        change_owner(store, host="pod-a", expires=left_s(timedelta(seconds=20)))
        until_then = f"{expires(store):%H:%M:%S}"
        with pytest.raises(EnvironmentFailure) as caught:
            store.acquire(study)
    assert "on pod-a since 2" in caught.value.message
    assert caught.value.message.endswith(f"heard of 40 s ago, and given up at {until_then} UTC if it stays silent")
    assert caught.value.hint == "wait until it has ended, or give `wait` to do so here, or choose another `study` name"


# ---- waiting


def waiting(store: StudyStore, deed: Any, **how: Any) -> RunSettings:
    """A run that waits, during which something happens once."""
    asked: list[int] = []

    def should_stop() -> int | None:
        asked.append(1)
        return deed() if len(asked) == 1 else None  # type: ignore[no-any-return]

    return RunSettings(Limits(2), wait=True, should_stop=should_stop, **how)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_LOOK_S", 0.001)


@pytest.mark.parametrize("run", [run_study, run_shared])
def test_who_waits_gets_the_study_when_its_owner_is_given_up(store: StudyStore, study: StudyRecord, run: Any) -> None:
    session = store.acquire(study)
    change_owner(store, host="pod-a")
    settings = waiting(store, lambda: change_owner(store, expires=LONG_AGO))
    with pytest.warns(NnasWarning, match=r"^waits for study 'study': in use by process \d+ on pod-a since .* silent$"):
        run(store, study, study_programs.tuner_of(study), evaluate, settings)
    assert [trial.number for trial in store.trials(study)] == [0, 1]
    session.heart.stop()


def test_who_waits_gets_the_study_when_its_owner_gives_it_back(store: StudyStore, study: StudyRecord) -> None:
    session = store.acquire(study)
    settings = waiting(store, lambda: session.release("interrupted") or None)
    with pytest.warns(NnasWarning, match="^waits for study"):
        result = run_study(store, study, study_programs.tuner_of(study), evaluate, settings)
    assert result.finished == 2


def test_a_signal_ends_the_waiting(store: StudyStore, study: StudyRecord) -> None:
    tuner, settings = study_programs.tuner_of(study), waiting(store, lambda: 15)
    with (
        store.acquire(study),
        pytest.warns(NnasWarning, match="^waits for study"),
        pytest.raises(Interrupted, match="study 'study' was interrupted; its 0 finished trials are stored"),
    ):
        run_study(store, study, tuner, evaluate, settings)


def test_nobody_waits_for_processes_that_share_it_to_share_it(store: StudyStore, study: StudyRecord) -> None:
    session = store.join(study)
    session.set_limits({"trials": 2, "duration_s": None, "concurrency": 1})
    settings = RunSettings(Limits(2), wait=True)
    assert run_shared(store, study, study_programs.tuner_of(study), evaluate, settings).evaluated == 2
    session.release("finished")


# ---- what a dead process left


def test_everybody_says_the_same_of_a_trial_whose_owner_is_dead(store: StudyStore, study: StudyRecord) -> None:
    session = store.acquire(study)
    session.trials.start(study.settings.space.at(0))

    def said() -> tuple[str, ...]:
        status = store.status(study)
        one = next(name for name, count in status.counts.items() if count)
        filtered = [state for state in ("waiting", "running") if store.trials(study, state=state)]
        return (status.study.state, one, *filtered, store.trials(study)[0].state, store.trial(study, 0).state)

    assert said() == ("running", "running", "running", "running", "running")
    change_owner(store, pid=2**22 + 1)
    assert said() == ("interrupted", "waiting", "waiting", "waiting", "waiting")
    session.heart.stop()


def test_a_trial_of_one_dead_process_among_living_ones_waits(store: StudyStore, study: StudyRecord) -> None:
    sessions = [store.join(study) for _ in range(2)]
    for place, session in enumerate(sessions):
        session.set_limits({"trials": 5, "duration_s": None, "concurrency": 1})
        with session.turn(3):
            session.news(None)
            session.trials.start(study.settings.space.at(place))
    with closing(sqlite3.connect(store.where, isolation_level=None)) as connection:
        connection.execute("UPDATE joiners SET pid=? WHERE claim=?", [2**22 + 1, sessions[0].lease_key])
    assert [trial.state for trial in store.trials(study)] == ["waiting", "running"]
    counts = store.status(study).counts
    assert (counts["waiting"], counts["running"]) == (1, 1)
    for session in sessions:
        session.release("interrupted")


def test_only_who_was_silent_for_long_is_said_to_be_so(store: StudyStore, study: StudyRecord) -> None:
    with store.acquire(study):
        assert store.status(study).silent is None
        change_owner(store, host="pod-a", expires=left_s(timedelta(seconds=44)))
        assert (store.status(study).silent or "").startswith("heard of 16 s ago, and given up at ")
    assert store.status(study).silent is None
