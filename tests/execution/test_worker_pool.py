"""Workers that evaluate one architecture after the other: kept, replaced, cancelled, and side by side."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, UserCodeError
from nnas_core.execution import pool, protocol
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Failed, Finished, Intermediate, Report
from nnas_core.execution.pool import WorkerPool
from tests.execution.pool_worker import Deeds
from tests.execution.process_checks import ends, job, lives, pid_in, until_gone
from tests.study.known_studies import SPACE
from tests.study.program_fork_server import until

PATIENCE_S = 60.0

Make = Callable[..., WorkerPool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A pool whose trial ``i`` does the ``i``-th of the given deeds of ``pool_worker``."""
    made: list[WorkerPool] = []

    def engine(*deeds: str, prepare: str | None = None, **settings: Any) -> WorkerPool:
        assert all(hasattr(Deeds, deed) for deed in deeds)
        do = {SPACE.at(place).canonical: deed for place, deed in enumerate(deeds)}
        setting = {"folder": str(tmp_path), "do": do, "prepare": prepare}
        settings = {"folder": tmp_path / "logs", "grace_s": 0.2, **settings}
        made.append(WorkerPool("tests.execution.pool_worker", setting, LocalSettings(**settings)))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def finished(report: Report) -> Finished:
    """A report that is one."""
    assert isinstance(report, Finished), report
    assert report.seconds >= 0
    return report


def pid_of(report: Report) -> int:
    """The process that evaluated."""
    return int(finished(report).result.cost["pid"])


def failed(report: Report) -> tuple[int, int, str, bool]:
    """A failure, without its time."""
    assert isinstance(report, Failed), report
    assert report.seconds >= 0
    return report.number, report.attempt, report.message, report.lost


def begun(engine: WorkerPool, path: Path) -> int:
    """The process of a trial that says so in a file; waits for that."""
    until(lambda: engine.poll(0.05) == [] and path.exists(), "no trial begins")
    return pid_in(path)


def one_by_one(engine: WorkerPool, *numbers: int) -> list[Report]:
    """Give each job when the one before has ended."""
    found = []
    for number in numbers:
        engine.submit(job(number))
        found += ends(engine, 1)
    return found


def test_a_worker_is_kept_through_trials_that_fail(make: Make, tmp_path: Path) -> None:
    engine = make("fine", "fails", "nan", "values", "breaks", "fine")
    found = one_by_one(engine, 0, 1, 2, 3, 4, 5)
    assert failed(found[1]) == (1, 1, "it does not work", False)
    assert failed(found[2]) == (2, 1, "metric is not a finite number: nan", False)
    assert failed(found[4]) == (4, 1, "no such layer", False)
    assert pid_of(found[0]) == pid_of(found[3]) == pid_of(found[5])
    assert pid_of(found[0]) != os.getpid()
    assert finished(found[0]).result.metrics == {"gpu": -1.0}
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["worker-0.log"]


def test_what_comes_of_a_job_that_was_given_up_is_passed_over(make: Make) -> None:
    engine = make("fine", "fine")
    (late,) = one_by_one(engine, 0)
    (worker,) = engine._workers
    worker.reported(finished(late))  # of no job
    worker.job = job(1)
    worker.reported(finished(late))  # of another one
    assert (worker.found, worker.job) == ([], job(1))
    worker.reported(Failed(1, 1, "at last", 0.0))
    assert (worker.found, worker.job) == ([Failed(1, 1, "at last", 0.0)], None)


def test_numbers_come_over_to_the_bit_and_in_order(make: Make) -> None:
    engine = make("values")
    engine.submit(job(0, 3))
    heard: list[Report] = []
    end = finished(ends(engine, 1, heard.append)[0])
    # what is not finite keeps its place, as NaN
    assert str(heard[:-1]) == str(
        [Intermediate(0, 3, place, value) for place, value in enumerate([0.1, math.nan, 0.1 + 0.2, math.nan, 1e-300])]
    )
    assert (end.number, end.attempt, end.result.value) == (0, 3, 1 / 3)


def test_the_fault_of_a_user_comes_over_whole(make: Make) -> None:
    report = one_by_one(make("breaks"), 0)[0]
    assert isinstance(report, Failed)
    error = report.error
    assert error is not None
    assert (error.message, error.where, error.hint, error.problems) == (
        "no such layer",
        "model.py:3",
        "mend it",
        ("one",),
    )


def test_two_workers_run_at_the_same_time(make: Make) -> None:
    engine = make("meets_1", "meets_2")
    for number in (0, 1):
        engine.submit(job(number))
    found = sorted(map(finished, ends(engine, 2)), key=lambda report: report.number)
    assert [report.result.value for report in found] == [1.0, 2.0]  # each has waited for the other
    assert pid_of(found[0]) != pid_of(found[1])


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("leaves", "worker ended (exit 3): last words"),
        ("raises", "worker ended (exit 1): LookupError: a bug"),
        ("babbles", "killed by signal 15 (SIGTERM)"),
        ("dies", "killed by signal 9 (out of memory?)"),
    ],
)
def test_a_worker_that_ends_loses_its_trial_and_is_replaced(make: Make, deed: str, message: str) -> None:
    engine = make("fine", deed, "fine")
    found = one_by_one(engine, 0, 1, 2)
    assert failed(found[1]) == (1, 1, message, True)
    assert pid_of(found[0]) != pid_of(found[2])
    assert not lives(pid_of(found[0]))


@pytest.mark.kill
def test_another_attempt_survives_what_killed_the_first(make: Make) -> None:
    engine = make("dies")
    engine.submit(job(0))
    assert failed(ends(engine, 1)[0])[3]
    engine.submit(job(0, 2))
    end = finished(ends(engine, 1)[0])
    assert (end.attempt, end.result.value) == (2, 2.0)


@pytest.mark.kill
def test_a_worker_that_is_killed_while_it_waits_costs_nothing(make: Make, tmp_path: Path) -> None:
    engine = make("fine", "waits")
    pid = pid_of(one_by_one(engine, 0)[0])
    os.kill(pid, signal.SIGKILL)
    until_gone(pid)
    while engine._workers:  # until the pool has seen it
        assert engine.poll(0.05) == []
    engine.submit(job(1))
    (tmp_path / "go").touch()
    assert finished(ends(engine, 1)[0]).result.value == 3.0


# ---- workers that cannot work


def test_a_worker_that_cannot_load_ends_the_study_and_says_why(make: Make) -> None:
    engine = make("fine", prepare="user's fault")
    engine.submit(job(0))
    with pytest.raises(UserCodeError, match=r"^model\.py:3: no such layer\n  one$") as caught:
        ends(engine, 1)
    assert caught.value.hint == "mend it"


@pytest.mark.parametrize(("deed", "prepare"), [("fine", "no memory"), ("impossible", None)])
def test_what_the_machine_cannot_do_ends_the_study(make: Make, deed: str, prepare: str | None) -> None:
    engine = make(deed, prepare=prepare)
    engine.submit(job(0))
    with pytest.raises(EnvironmentFailure, match=r"^here: no memory$") as caught:
        ends(engine, 1)
    assert caught.value.hint == "buy some"


def test_a_worker_that_ends_while_it_loads_loses_its_trial(make: Make) -> None:
    engine = make("fine", prepare="leaves")
    assert failed(one_by_one(engine, 0)[0]) == (0, 1, "worker ended (exit 3): last words", True)


def test_a_worker_that_cannot_be_started_is_told(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make("fine")
    files = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", str(tmp_path / "python"))
        with pytest.raises(EnvironmentFailure, match="cannot start: no such directory"):
            engine.submit(job(0))
    assert set(os.listdir("/proc/self/fd")) == files
    pipes = iter([os.pipe()])
    monkeypatch.setattr(protocol.os, "pipe", lambda: next(pipes, None) or os.close(-1))
    with pytest.raises(EnvironmentFailure, match=r"^a pipe: cannot open: Bad file descriptor$"):
        engine.submit(job(0))
    assert set(os.listdir("/proc/self/fd")) == files


# ---- ends from outside


def test_a_trial_that_is_cancelled_ends_at_its_next_step_and_its_worker_goes_on(make: Make, tmp_path: Path) -> None:
    engine = make("waits", "fine")
    engine.submit(job(0, 2))

    def cancel(report: Report) -> None:
        if isinstance(report, Intermediate):
            engine.cancel(0, 1, "an attempt that was")
            engine.cancel(1, 1, "nobody")
            engine.cancel(0, 2, "not good enough")
            engine.cancel(0, 2, "again")

    assert failed(ends(engine, 1, cancel)[0]) == (0, 2, "not good enough", False)
    assert pid_of(one_by_one(engine, 1)[0]) == pid_in(tmp_path / "waits")


def test_a_word_to_cancel_that_comes_too_late_ends_no_other_trial(make: Make, tmp_path: Path) -> None:
    engine = make("waits", "fine", "waits")
    engine.submit(job(0))
    until(lambda: engine.poll(0.05) == [Intermediate(0, 1, 0, 0.5)], "nothing comes")
    (tmp_path / "go").touch()
    assert engine._workers[0].channel.incoming.wait(PATIENCE_S)  # its result is on the way
    engine.cancel(0, 1, "too late")
    found = [*ends(engine, 1), *one_by_one(engine, 1, 2)]
    assert [finished(report).result.value for report in found] == [3.0, 1.0, 3.0]


def test_a_trial_whose_worker_still_loads_is_cancelled_at_once(make: Make, tmp_path: Path) -> None:
    engine = make("hangs", "fine", prepare="waits")
    engine.submit(job(0))
    engine.cancel(0, 1, "no longer needed")
    assert engine.poll(PATIENCE_S) == [Failed(0, 1, "no longer needed", 0.0)]
    engine.submit(job(1))
    (tmp_path / "prepared").touch()
    assert finished(ends(engine, 1)[0]).result.value == 1.0
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["worker-0.log"]


@pytest.mark.kill
def test_a_trial_that_does_not_hear_that_it_is_cancelled_is_ended(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CANCEL_S", 0.1)
    engine = make("hangs")
    engine.submit(job(0))
    pid = begun(engine, tmp_path / "hangs")
    engine.cancel(0, 1, "not good enough")
    assert failed(ends(engine, 1)[0]) == (0, 1, "not good enough", False)
    assert not lives(pid)


@pytest.mark.kill
def test_a_trial_that_takes_too_long_is_ended_and_the_time_begins_when_its_worker_has_loaded(
    make: Make, tmp_path: Path
) -> None:
    engine = make("fine", "hangs", "meets_1", "meets_2", prepare="waits")
    engine.submit(job(0, timeout_s=0.1))
    assert engine.poll(0.2) == []
    (tmp_path / "prepared").touch()
    while not (found := engine.poll(0.05)):
        pass  # whether 0.1 s are enough for it, nobody knows
    assert found[0].number == 0
    engine.submit(job(1, timeout_s=0.5))
    assert failed(ends(engine, 1)[0]) == (1, 1, "timed out after 0.5 s", False)


@pytest.mark.kill
def test_a_worker_that_answers_while_it_is_ended_gets_no_other_trial(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CANCEL_S", 0.1)
    engine = make("late", "fine", gpus=("4",), grace_s=0.5)
    engine.submit(job(0))
    begun(engine, tmp_path / "late")
    engine.cancel(0, 1, "not good enough")
    first = finished(ends(engine, 1)[0])  # it was first
    assert not lives(pid_of(first))
    assert first.result.value == 4.0
    second = finished(one_by_one(engine, 1)[0])
    assert pid_of(second) != pid_of(first)
    assert (first.result.metrics, second.result.metrics) == ({"gpu": 4.0}, {"gpu": 4.0})


@pytest.mark.kill
def test_a_pool_that_is_closed_leaves_nothing(make: Make, tmp_path: Path) -> None:
    engine = make("hangs", "fine")
    engine.submit(job(0))
    pids = [begun(engine, tmp_path / "hangs"), pid_of(one_by_one(engine, 1)[0])]
    files = len(os.listdir("/proc/self/fd"))
    engine.close()
    assert not any(lives(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) < files
    engine.close()


# ---- GPUs


@pytest.mark.kill
def test_each_worker_has_a_gpu_of_its_own_which_its_successor_gets(make: Make) -> None:
    engine = make("meets_1", "meets_2", "dies", "fine", "waits", gpus=("6", "2"))
    assert engine.slots == 2
    for number in (0, 1):
        engine.submit(job(number))
    found = {report.number: finished(report).result.metrics["gpu"] for report in ends(engine, 2)}
    assert sorted(found.values()) == [2.0, 6.0]
    engine.submit(job(4))
    engine.submit(job(2))
    assert failed(ends(engine, 1)[0])[3]
    engine.submit(job(2, 2))
    dead = {finished(report).result.metrics["gpu"] for report in ends(engine, 1)}
    engine.cancel(4, 1, "enough")
    ends(engine, 1)
    engine.submit(job(3))
    living = {finished(report).result.metrics["gpu"] for report in ends(engine, 1)}
    assert dead | living <= {2.0, 6.0}
