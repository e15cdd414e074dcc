"""Processes of a study are killed at random moments; what must hold afterwards, whatever was hit."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from nnas_core.execution.engine import TrialFailed
from nnas_core.study.storage.rows import change_study
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.tables import studies, trials
from tests.study import study_programs
from tests.study.conftest import Fork
from tests.study.program_fork_server import Forked, has_mark, marked, new_mark, until

__all__ = [
    "check_attempts",
    "check_log",
    "check_proposals",
    "check_results",
    "create_at_once",
    "end_soon",
    "kill_coordinators",
    "kill_workers",
    "lines",
]

MOST_WAIT_S = 10.0
"""How long a process may be left after the death of the one that it worked for."""


def lines(log: Path, word: str) -> list[str]:
    """What is in the log after that word, a line each."""
    text = log.read_text().splitlines() if log.exists() else []
    return [line.partition(" ")[2] for line in text if line.startswith(word + " ")]


def create_at_once(fork: Fork, url: str, folder: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """A process for each name creates a study, all at one moment; what they said, and their codes."""
    gate = folder / "gate"
    os.mkfifo(gate)
    processes = [fork("create", url, name, gate) for name in names]
    until(lambda: all(process.out == "ready\n" for process in processes), "they do not begin")
    opened = os.open(gate, os.O_RDWR)
    ends = [(process.wait(), process.err) for process in processes]
    os.close(opened)
    return [(err, code) for code, err in ends]


# ---- killing


def kill_coordinators(fork: Fork, url: str, log: Path, trials: int, kills: int, *workers: object) -> int:
    """Begin a study, kill its coordinator and go on with it, again and again; how many kills came before the end.

    Half of the coordinators die while they start, take over and replay, half of them between and in trials.

    Args:
        fork: starts the coordinators.
        url: of the store.
        log: where they log.
        trials: that the study shall have.
        kills: how many.
        workers: further arguments of ``study_programs.run_workers``; none: trials run in the coordinator itself.
    """
    program = "run_workers" if workers else "run"
    rng = np.random.default_rng()  # other moments in every run
    cut_short = 0
    starts = 0.05
    for _ in range(kills):
        before = len(lines(log, "done"))
        mark = new_mark()
        process = fork(program, url, log, trials, *workers, mark=mark)
        begin = time.monotonic()
        if rng.random() < 0.5:
            moment = rng.uniform(0, 1.2 * starts)  # much later, and few kills were needed to its end
        else:
            _until_done(process, log, before + 1)
            starts = 0.8 * starts + 0.2 * (time.monotonic() - begin)
            _until_done(process, log, before + int(rng.integers(1, 6)))
            moment = time.monotonic() - begin + rng.uniform(0, 0.01)
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        cut_short += process.kill() == -signal.SIGKILL
        assert process.err == ""
        _until_gone(mark)
    process = fork(program, url, log, trials, *workers, mark=mark)
    assert (process.wait(), process.err) == (0, "")
    assert marked(mark) == []
    return cut_short


def kill_workers(fork: Fork, url: str, log: Path, kills: int, kind: str, folder: Path) -> tuple[int, int]:
    """Run a study by two workers at once, and kill them and their supervisors; how many of each.

    The study ends soon after the last kill.
    """
    mark = new_mark()
    process = fork("run_workers", url, log, 10_000, kind, folder, mark=mark)
    rng = np.random.default_rng()
    killed = collections.Counter[bool]()
    while killed.total() < kills:
        until(lambda: process.ended() or marked(mark), "no worker is started")
        assert not process.ended(), f"the study ended: {process.err}"
        supervisor = killed.total() % 4 == 3
        victim = _victim(marked(mark), supervisor, rng)
        if victim is not None and _kill(victim, mark):
            killed[supervisor] += 1
            _wait_a_moment(process, log, rng)
    with StudyStore.open(url) as store:
        end_soon(store, 4)
    assert (process.wait(), process.err) == (0, "")
    assert marked(mark) == []
    return killed[False], killed[True]


def end_soon(store: StudyStore, more: int) -> None:
    """Let the study that runs have so many more trials; none begins between the count and the write of the limit."""
    study = store.study("study")
    with store._database.write() as connection:
        query = select(func.count()).where(trials.c.study_id == study.id)
        limit = int(connection.execute(query).scalar_one()) + more
        before = connection.execute(select(studies.c.limits).where(studies.c.id == study.id)).scalar_one()
        change_study(connection, store.where, study, limits={**before, "trials": limit})


def _until_gone(mark: str) -> None:
    until(lambda: not marked(mark), "workers outlive their coordinator", MOST_WAIT_S)


def _until_done(process: Forked, log: Path, trials: int) -> None:
    until(lambda: process.ended(0.002) or len(lines(log, "done")) >= trials, "the study does not go on")


def _victim(pids: list[int], supervisor: bool, rng: np.random.Generator) -> int | None:
    """One of the processes, a supervisor or a worker; None if none of them is."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if (b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()) == supervisor:
                found.append(pid)
    return int(rng.choice(found)) if found else None


def _kill(pid: int, mark: str) -> bool:
    """Kill a process, if it still is the one that was meant."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not has_mark(pid, mark):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True


def _wait_a_moment(process: Forked, log: Path, rng: np.random.Generator) -> None:
    """Until some trials have ended, so that the study goes on, or a moment only."""
    if rng.random() < 0.5:
        _until_done(process, log, len(lines(log, "done")) + int(rng.integers(1, 4)))
    time.sleep(rng.uniform(0, 0.05))


# ---- checking


def check_log(store: StudyStore, log: Path) -> None:
    """What was reported is stored, once; nothing that was reported is evaluated again."""
    stored = [f"{t.number} {t.architecture.canonical} {t.value}" for t in store.trials(store.study("study"))]
    reported = lines(log, "done")
    assert set(reported) <= set(stored)
    assert not [line for line, count in collections.Counter(reported).items() if count > 1]
    finished = set()
    for line in log.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "done":
            number, canonical, _ = rest.split()
            finished |= {canonical, f"#{number}"}
        elif word == "begin":
            assert rest not in finished, "an architecture was evaluated again after its trial was reported"


def check_results(store: StudyStore) -> None:
    """Every trial has ended with what its architecture gives, no architecture is there twice, nobody owns the study."""
    study = store.study("study")
    trials = store.trials(study)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len({trial.architecture.canonical for trial in trials}) == len(trials)
    for trial in trials:
        try:
            expected: tuple[str, float | None, str | None] = (
                "succeeded",
                study_programs.evaluate(trial.architecture).value,
                None,
            )
        except TrialFailed as failure:
            expected = "failed", None, failure.message
        assert (trial.state, trial.value, trial.error) == expected
    assert store.in_use_by(study) is None
    assert study.state == "finished"


def check_attempts(store: StudyStore, log: Path, kills: int) -> None:
    """Of a study whose workers were killed: each trial was reported, and every attempt that was lost is counted."""
    trials = store.trials(store.study("study"))
    assert len(lines(log, "done")) == len(trials)
    begun_again = lines(log, "again")
    assert sum(trial.attempt - 1 for trial in trials) == len(begun_again)
    assert kills / 5 <= len(begun_again) <= kills  # fewer, and the kills hit nothing
    assert {line.partition(" ")[2] for line in begun_again} == {"killed by signal 9 (out of memory?)"}


def check_proposals(store: StudyStore) -> list[str]:
    """A fresh tuner that hears what is stored, in its order, proposes what was proposed; what it proposes next."""
    study = store.study("study")
    tuner = study_programs.tuner_of(study)
    space = study.settings.space
    tuner.update_search_space(space.to_json())
    trials = {trial.number: trial for trial in store.trials(study)}
    asked: dict[int, tuple[int, object]] = {}
    with store.acquire(study) as session:
        _, events = session.news(None)
        session.release("finished")
    assert [event.kind for event in events].count("proposed") == len(trials)  # this tuner repeats nothing
    for event in events:
        trial = trials[event.number]
        if event.kind == "proposed":
            parameters = tuner.generate_parameters(len(asked))
            assert space.parse(parameters) == trial.architecture
            asked[event.number] = len(asked), parameters
        else:
            parameter_id, parameters = asked[event.number]
            if trial.value is not None:
                tuner.receive_trial_result(parameter_id, parameters, trial.value)
            tuner.trial_end(parameter_id, trial.state == "succeeded")
    return [architecture.canonical for architecture in study_programs.next_proposals(tuner, study)]
