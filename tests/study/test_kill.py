"""What is left when processes die at the worst moment, or work on one study at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, ExitCode
from nnas_core.study.storage.store import StudyStore
from tests.study import kill_campaigns, study_programs
from tests.study.conftest import Fork, Spawn
from tests.study.program_fork_server import until

KILLS = 50
TRIALS = 250


def intact(url: str) -> str:
    """What SQLite itself says of the file."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.mark.kill
@pytest.mark.slow
def test_a_study_killed_50_times_is_the_study_that_was_never_killed(
    url: str, tmp_path: Path, fork: Fork, undisturbed: list[tuple[Any, ...]]
) -> None:
    log = tmp_path / "log"
    cut_short = kill_campaigns.kill_coordinators(fork, url, log, TRIALS, KILLS)
    assert cut_short >= KILLS - 5  # or the campaign was too small to hit anything
    assert intact(url) == "ok"
    with StudyStore.open(url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        assert study_programs.history(store) == undisturbed[:TRIALS]


@pytest.mark.kill
@pytest.mark.slow
def test_workers_end_with_a_coordinator_that_is_killed_and_the_next_one_goes_on(
    url: str, tmp_path: Path, fork: Fork
) -> None:
    log = tmp_path / "log"
    cut_short = kill_campaigns.kill_coordinators(fork, url, log, 60, 10, "workers", tmp_path / "logs")
    assert cut_short >= 5
    assert intact(url) == "ok"
    with StudyStore.open(url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        assert kill_campaigns.check_proposals(store) == kill_campaigns.lines(log, "next")


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("workers", 50), ("commands", 20)])
def test_a_study_whose_workers_are_killed_loses_no_trial_and_counts_none_twice(
    url: str, tmp_path: Path, fork: Fork, kind: str, kills: int
) -> None:
    log = tmp_path / "log"
    killed = kill_campaigns.kill_workers(fork, url, log, kills, kind, tmp_path / "logs")
    assert min(killed) > 0  # workers and supervisors
    assert intact(url) == "ok"
    with StudyStore.open(url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        assert kill_campaigns.check_proposals(store) == kill_campaigns.lines(log, "next")
        kill_campaigns.check_attempts(store, log, kills)


@pytest.mark.kill
def test_eight_processes_create_one_store_at_once(url: str, tmp_path: Path, fork: Fork) -> None:
    names = [f"study{number}" for number in range(8)]
    assert kill_campaigns.create_at_once(fork, url, tmp_path, names) == [("", 0)] * 8
    with StudyStore.open(url) as store:
        assert sorted(study.name for study in store.studies()) == names
    assert intact(url) == "ok"
    assert [file.name for file in tmp_path.iterdir() if "nnas.db" in file.name] == ["nnas.db"]


@pytest.mark.kill
def test_eight_processes_create_one_study_at_once_and_seven_are_told(url: str, tmp_path: Path, fork: Fork) -> None:
    ends = kill_campaigns.create_at_once(fork, url, tmp_path, ["one"] * 8)
    message = f"{tmp_path}/nnas.db: a study named 'one' exists already\n"
    assert sorted(ends) == [("", 0)] + [(message, ExitCode.USAGE)] * 7


@pytest.mark.kill
def test_a_second_coordinator_is_refused_until_the_first_is_dead(store: StudyStore, url: str, spawn: Spawn) -> None:
    study = store.create_study(study_programs.settings())
    first = spawn("hang", url)
    assert first.stdout is not None
    assert first.stdout.readline() == "evaluating\n"
    assert (store.in_use_by(study) or "").startswith(f"process {first.pid} on ")

    second = spawn("hang", url)
    _, stderr = second.communicate(timeout=60)
    assert second.returncode == ExitCode.ENVIRONMENT
    assert f"study 'study' is in use by process {first.pid} on " in stderr

    with pytest.raises(EnvironmentFailure, match=f"'study' is in use by process {first.pid} on .* since 2"):
        store.acquire(study)
    assert [trial.state for trial in store.trials(study)] == ["running"]

    first.kill()
    # not waited for: a zombie is as dead as can be
    deadline = time.monotonic() + 10
    while store.in_use_by(study) is not None:
        assert time.monotonic() < deadline, "the dead process still counts as the owner"
        time.sleep(0.001)
    session = store.acquire(study)
    assert session.recovered == 1
    assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2)]
    session.release("interrupted")


@pytest.mark.kill
def test_a_dead_coordinator_whose_children_live_holds_nobody_up(store: StudyStore, url: str, fork: Fork) -> None:
    study = store.create_study(study_programs.settings())
    first = fork("hang", url, 2)  # they have its open files
    until(lambda: first.out == "evaluating\n", "it does not begin")
    children = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == first.pid]
    assert len(children) == 2
    processes = [os.pidfd_open(pid) for pid in children]
    first.kill()
    try:
        with store.acquire(study) as session:
            assert session.recovered == 1
            trial = session.trials.restart(store.trials(study, state="waiting")[0])
            session.trials.succeed(trial, 1.0, {}, {}, 0.0)
        assert [trial.value for trial in store.trials(study)] == [1.0]
    finally:
        for process in processes:
            signal.pidfd_send_signal(process, signal.SIGKILL)  # fails if it did not outlive its parent
            os.close(process)


def parent_of(stat: Path) -> int:
    """The number of a process's parent; -1 if it has ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1
