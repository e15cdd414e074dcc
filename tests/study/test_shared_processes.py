"""Real processes that run one study together, some of which are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nnas_core.study.storage.store import StudyStore
from tests.study import kill_campaigns
from tests.study.conftest import Fork
from tests.study.kill_campaigns import lines
from tests.study.program_fork_server import Forked, until
from tests.study.simulated_sharing import check_calls

TRIAL_S = 0.05
"""Of a trial where processes are killed."""


def check_ends(log: Path) -> None:
    """Somebody was the last to leave, and together they ended every trial that was reported."""
    ends = [line.split() for line in lines(log, "left")]
    assert min(int(others) for _, others, _ in ends) == 0  # and one that came when all had left was it again
    assert {reason for _, _, reason in ends} == {"trials"}
    assert sum(int(evaluated) for evaluated, _, _ in ends) == len(lines(log, "done"))


def check_together(fork: Fork, url: str, log: Path, processes: int, trials: int, seconds: float) -> None:
    """Let processes begin and end a study together, and look at all that they left."""
    started = [fork("join", url, log, trials, seconds) for _ in range(processes)]
    assert [(process.wait(), process.err) for process in started] == [(0, "")] * processes
    with StudyStore.open(url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        check_calls(store, beside=True)
    assert len(lines(log, "done")) == len(lines(log, "begin")) == trials
    check_ends(log)


def test_eight_processes_create_a_study_and_end_each_trial_once(url: str, tmp_path: Path, fork: Fork) -> None:
    check_together(fork, url, tmp_path / "log", 8, 120, 0.01)


@pytest.mark.postgresql
def test_six_processes_do_so_in_postgresql(postgres_url: str, tmp_path: Path, fork: Fork) -> None:
    check_together(fork, postgres_url, tmp_path / "log", 6, 90, 0.02)


@pytest.mark.kill
def test_a_signal_gives_the_trial_to_the_others_and_so_does_a_kill(url: str, tmp_path: Path, fork: Fork) -> None:
    log = tmp_path / "log"
    first = fork("join", url, log, 4, 1000)
    until(lambda: lines(log, "begin"), "the first does not begin")
    second = fork("join", url, log, 4, 1000)
    until(lambda: len(lines(log, "begin")) == 2, "the second does not begin")
    with StudyStore.open(url) as store:
        study = store.study("study")
        os.kill(first.pid, signal.SIGTERM)
        assert first.wait() != 0
        assert "study 'study' was interrupted; its 0 finished trials are stored\n" in first.err
        assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2), ("running", 1)]
        second.kill()
        assert store.in_use_by(study) is None
        third = fork("join", url, log, 4)
        assert (third.wait(), third.err) == (0, "")
        assert [(trial.number, trial.attempt) for trial in store.trials(study)] == [(0, 2), (1, 2), (2, 1), (3, 1)]
        kill_campaigns.check_results(store)


def kill_some(fork: Fork, url: str, log: Path, kills: int) -> None:
    """Five processes run a study, and one of them is killed at a random moment and replaced, again and again.

    The study ends soon after the last kill.
    """
    rng = np.random.default_rng()  # other moments in every run
    processes: list[Forked] = [fork("join", url, log, 10_000, TRIAL_S) for _ in range(5)]
    for _ in range(kills):
        wanted = len(lines(log, "done")) + int(rng.integers(0, 4))
        until(lambda wanted=wanted: len(lines(log, "done")) >= wanted, "the study does not go on")
        time.sleep(rng.uniform(0, 0.05))
        place = int(rng.integers(len(processes)))
        assert not processes[place].ended(), f"the study ended: {processes[place].err}"
        processes[place].kill()
        assert processes[place].err == ""
        processes[place] = fork("join", url, log, 10_000, TRIAL_S)
    with StudyStore.open(url) as store:
        study = store.study("study")
        # one that came when all others have ended would begin anew, with limits of its own
        until(lambda: (store.in_use_by(study) or "").endswith(" and 4 more processes"), "the last one does not join")
        kill_campaigns.end_soon(store, 20)
    assert [(process.wait(), process.err) for process in processes] == [(0, "")] * 5


@pytest.mark.kill
@pytest.mark.slow
def test_a_study_of_five_of_which_20_are_killed_loses_no_trial_and_counts_none_twice(
    url: str, tmp_path: Path, fork: Fork
) -> None:
    log = tmp_path / "log"
    kill_some(fork, url, log, 20)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    with StudyStore.open(url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        check_calls(store, beside=True)
        assert len(store.trials(store.study("study"))) == store.status(store.study("study")).limits["trials"]


@pytest.mark.postgresql
@pytest.mark.kill
@pytest.mark.slow
def test_the_same_in_postgresql(postgres_url: str, tmp_path: Path, fork: Fork) -> None:
    log = tmp_path / "log"
    kill_some(fork, postgres_url, log, 12)
    with StudyStore.open(postgres_url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        check_calls(store, beside=True)
        assert len(store.trials(store.study("study"))) == store.status(store.study("study")).limits["trials"]
