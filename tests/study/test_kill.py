"""What is left when processes die at the worst moment, or work on one study at once."""

from __future__ import annotations

import collections
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from nnas_core.errors import EnvironmentFailure, ExitCode
from nnas_core.study.coordinator import run_study
from nnas_core.study.store import StudyStore
from tests.study import child
from tests.study.conftest import Spawn

KILLS = 25
TRIALS = 500


def done(log: Path) -> list[str]:
    """The trials that were reported as finished: number, architecture, value."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removeprefix("done ") for line in lines if line.startswith("done ")]


@pytest.mark.kill
@pytest.mark.slow
def test_a_study_killed_25_times_is_the_study_that_was_never_killed(url: str, tmp_path: Path, spawn: Spawn) -> None:
    log = tmp_path / "log"
    rng = np.random.default_rng()  # other moments in every run
    cut_short = 0
    for _ in range(KILLS):
        before = len(done(log))
        process = spawn("run", url, log, TRIALS)
        begin = time.monotonic()
        # half of them die while they start, take over and replay, half of them between and in trials
        begun = rng.random() < 0.5
        while begun and len(done(log)) == before and process.poll() is None:
            assert time.monotonic() < begin + 30, "the study does not go on"
            time.sleep(0.002)
        late = begin + 0.2 if not begun else time.monotonic()
        while time.monotonic() < late + rng.uniform(0, 0.2):
            time.sleep(0.001)
        process.kill()
        cut_short += process.wait() == -signal.SIGKILL
    assert cut_short >= KILLS - 5  # or the campaign was too small to hit anything
    final = spawn("run", url, log, TRIALS)
    _, stderr = final.communicate(timeout=60)
    assert (final.returncode, stderr) == (0, "")

    with StudyStore.open(url) as store:
        trials = store.trials(store.study("study"))
        killed = child.history(store)
    stored = [f"{t.number} {t.architecture.canonical} {t.value}" for t in trials]
    reported = done(log)
    assert set(reported) <= set(stored)  # nothing that was reported is lost
    assert not [line for line, count in collections.Counter(reported).items() if count > 1]
    assert {trial.state for trial in trials} == {"succeeded", "failed"}  # nothing is stuck
    finished = set()
    for line in log.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "done":
            finished.add(rest.split()[1])
        else:
            assert rest not in finished, "an architecture was evaluated again after its trial was reported"
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()

    with StudyStore.open(f"sqlite:///{tmp_path}/quiet.db") as store:
        study = store.create_study(child.settings())
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=TRIALS)
        assert killed == child.history(store)


@pytest.mark.kill
def test_eight_processes_create_one_store_at_once(url: str, spawn: Spawn) -> None:
    processes = [spawn("create", url, f"study{number}") for number in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 8
    with StudyStore.open(url) as store:
        assert sorted(study.name for study in store.studies()) == [f"study{number}" for number in range(8)]
    folder = Path(url.removeprefix("sqlite:///")).parent
    assert [file.name for file in folder.iterdir()] == ["nnas.db"]


@pytest.mark.kill
def test_eight_processes_create_one_study_at_once_and_seven_are_told(url: str, spawn: Spawn) -> None:
    processes = [spawn("create", url, "one") for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = sorted((process.communicate(timeout=60)[1], process.returncode) for process in processes)
    path = url.removeprefix("sqlite:///")
    message = f"{path}: a study named 'one' exists already\n"
    assert ends == [("", 0)] + [(message, ExitCode.USAGE)] * 7


@pytest.mark.kill
def test_a_second_coordinator_is_refused_until_the_first_is_dead(store: StudyStore, url: str, spawn: Spawn) -> None:
    study = store.create_study(child.settings())
    first = spawn("hang", url)
    assert first.stdout is not None
    assert first.stdout.readline() == "evaluating\n"
    assert (store.owner(study) or "").startswith(f"process {first.pid} on ")

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
    while store.owner(study) is not None:
        assert time.monotonic() < deadline, "the dead process still counts as the owner"
        time.sleep(0.001)
    owned = store.acquire(study)
    assert owned.recovered == 1
    assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2)]
    owned.release("interrupted")
