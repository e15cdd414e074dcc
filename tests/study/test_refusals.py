"""The machine refuses: a full disk, a lock that stays, no permission. Nothing that was finished is lost."""

from __future__ import annotations

import inspect
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from nnas_core.errors import EnvironmentFailure, ExitCode
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage.database import HowToOpen
from nnas_core.study.storage.records import TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.conftest import ROOT, Fork, Spawn
from tests.study.kill_campaigns import lines
from tests.study.program_fork_server import until


def integrity(path: str) -> str:
    """What SQLite itself says of the file."""
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@contextmanager
def disk_of(pages: int) -> Iterator[None]:
    """Let SQLite find its disk full beyond so many pages: the same error as from a disk without space."""

    def limit(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


def test_a_full_disk_loses_nothing_and_the_study_goes_on_after_it(url: str, undisturbed: list[tuple[Any, ...]]) -> None:
    with StudyStore.open(url) as store:
        study = store.create_study(study_programs.settings())
    done: list[TrialRecord] = []
    pages = Path(url.removeprefix("sqlite:///")).stat().st_size // 4096 + 6
    full = pytest.raises(EnvironmentFailure, match="no space left on the device; nothing that was finished")
    with disk_of(pages), StudyStore.open(url) as store, full:
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=study_programs.LONGEST, on_trial=done.append),
        )
    assert len(done) > 10
    assert integrity(url.removeprefix("sqlite:///")) == "ok"
    with StudyStore.open(url) as store:
        finished = [trial for trial in store.trials(study) if trial.finished is not None]
        assert finished == done
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=study_programs.LONGEST),
        )
        assert study_programs.history(store) == undisturbed


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[int | None]:
    """A file system of its own at ``folder``, in a name space of mounts that ends with the process whose number it is.

    None where this process may not mount one.
    """
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder)
    script = '"$@" && echo mounted && exec cat'
    keeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *mount],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert keeper.stdout is not None
    try:
        yield keeper.pid if keeper.stdout.readline() == "mounted\n" else None
    finally:
        keeper.communicate()


@pytest.mark.kill
def test_a_disk_that_is_really_full_loses_nothing(
    tmp_path: Path, spawn: Spawn, undisturbed: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 256) as keeper:
        through: tuple[str, ...] = ()
        ballast: object = 120_000
        if keeper is not None:
            through = ("nsenter", f"--target={keeper}", "--mount", "env", f"--chdir={ROOT}")
            ballast = folder / "ballast"
            Path(f"/proc/{keeper}/root{ballast}").write_bytes(bytes(100_000))
        process = spawn("full_disk", f"sqlite:///{folder}/nnas.db", ballast, through=through)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    found = json.loads(stdout)
    what = "the disk does not read or write (disk I/O error)" if keeper is None else "no space left on the device"
    assert found["said"] == f"{folder}/nnas.db: {what}; nothing that was finished is lost"
    assert 10 < len(found["done"]) < study_programs.LONGEST
    assert found["stored"] == found["done"]
    assert [tuple(trial) for trial in found["history"]] == undisturbed


@pytest.mark.kill
def test_a_file_that_may_not_grow_loses_nothing_either(
    url: str, spawn: Spawn, undisturbed: list[tuple[Any, ...]]
) -> None:
    with StudyStore.open(url) as store:
        study = store.create_study(study_programs.settings())
    process = spawn("limited", url, 20_000)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.ENVIRONMENT
    assert "nothing that was finished is lost" in stderr
    assert stdout.count("\n") > 10
    assert integrity(url.removeprefix("sqlite:///")) == "ok"
    with StudyStore.open(url) as store:
        finished = [str(trial.number) for trial in store.trials(study) if trial.finished is not None]
        assert finished == stdout.split()
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=study_programs.LONGEST),
        )
        assert study_programs.history(store) == undisturbed


def test_a_lock_that_stays_ends_the_wait(url: str) -> None:
    with StudyStore.open(url, busy_timeout_s=0.1) as store:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(EnvironmentFailure, match=r"nnas.db: locked for 0.1 s by (process \d+|another)"):
                store.create_study(study_programs.settings())
            other.execute("ROLLBACK")
        store.create_study(study_programs.settings())


def test_a_file_that_is_locked_while_it_is_opened_is_waited_for_too(url: str) -> None:
    StudyStore.open(url).close()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EnvironmentFailure, match=r"nnas.db: locked for 0.1 s by "):
            StudyStore.open(url, busy_timeout_s=0.1)


@pytest.mark.kill
def test_a_folder_without_permission_is_named_before_anything_is_tried(url: str, tmp_path: Path, spawn: Spawn) -> None:
    tmp_path.chmod(0o555)
    process = spawn("unprivileged", url)
    _, stderr = process.communicate(timeout=60)
    tmp_path.chmod(0o755)
    assert (process.returncode, stderr) == (
        ExitCode.ENVIRONMENT,
        f"{tmp_path}/nnas.db: cannot create: permission denied\n",
    )


@pytest.mark.kill
def test_a_file_without_permission_is_named(url: str, tmp_path: Path, spawn: Spawn) -> None:
    StudyStore.open(url).close()
    (tmp_path / "nnas.db").chmod(0o444)
    process = spawn("unprivileged", url)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (
        ExitCode.ENVIRONMENT,
        f"{tmp_path}/nnas.db: cannot write: permission denied for the file or its folder\n",
    )


@pytest.mark.kill
def test_a_study_that_another_program_locks_for_2_s_waits(
    url: str, tmp_path: Path, fork: Fork, undisturbed: list[tuple[Any, ...]]
) -> None:
    log = tmp_path / "log"
    run = fork("run", url, log, 60)
    until(lambda: len(lines(log, "done")) >= 20, "the study does not begin")
    holder = fork("hold", url, 2)
    assert (run.wait(), run.err, holder.wait(), holder.out) == (0, "", 0, "holding\n")
    with StudyStore.open(url) as store:
        assert study_programs.history(store) == undisturbed[:60]


def test_other_writers_are_waited_for_a_minute_unless_something_else_is_said() -> None:
    assert inspect.signature(StudyStore.open).parameters["busy_timeout_s"].default == 60
    assert HowToOpen().busy_timeout_s == 60


@pytest.mark.kill
@pytest.mark.slow
def test_a_study_that_another_program_locks_for_too_long_ends_and_goes_on_then(
    url: str, tmp_path: Path, fork: Fork, undisturbed: list[tuple[Any, ...]]
) -> None:
    log = tmp_path / "log"
    trials = 100
    run = fork("run", url, log, trials, 9)
    until(lambda: len(lines(log, "done")) >= 20, "the study does not begin")
    holder = fork("hold", url, 12)
    until(lambda: holder.out == "holding\n", "nobody locks the study")
    with StudyStore.open(url, busy_timeout_s=0) as store:
        before = study_programs.history(store)  # whoever only reads is not held up
    time.sleep(5)
    latecomer = fork("create", url, "other", "", 9)  # of the 12 s, 7 are left for this one

    assert run.wait() == ExitCode.ENVIRONMENT
    assert run.err == f"{tmp_path}/nnas.db: locked for 9 s by process {holder.pid}\n"
    assert (holder.wait(), latecomer.wait(), latecomer.err) == (0, 0, "")
    assert integrity(f"{tmp_path}/nnas.db") == "ok"
    with StudyStore.open(url) as store:
        assert sorted(study.name for study in store.studies()) == ["other", "study"]
        study = store.study("study")
        assert (study.state, store.in_use_by(study)) == ("interrupted", None)
        after = study_programs.history(store)
        assert [trial for trial in after if trial[1] != "waiting"] == [
            trial for trial in before if trial[1] != "running"
        ]
        assert {trial[1] for trial in after} <= {"succeeded", "failed", "waiting"}
    assert fork("run", url, log, trials).wait() == 0
    with StudyStore.open(url) as store:
        assert study_programs.history(store) == undisturbed[:trials]
