"""The machine refuses: a full disk, a lock that stays, no permission. Nothing that was finished is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from nnas_core.errors import EnvironmentFailure, ExitCode
from nnas_core.study.coordinator import run_study
from nnas_core.study.records import TrialRecord
from nnas_core.study.store import StudyStore
from tests.study import child
from tests.study.conftest import Spawn


def integrity(path: str) -> str:
    """What SQLite itself says of the file."""
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def whole(tmp_path: Path) -> list[tuple[Any, ...]]:
    """The history of a study that nothing disturbed."""
    with StudyStore.open(f"sqlite:///{tmp_path}/whole.db") as store:
        study = store.create_study(child.settings())
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=300)
        return child.history(store)


@contextmanager
def disk_of(pages: int) -> Iterator[None]:
    """Let SQLite find its disk full beyond so many pages: the same error as from a disk without space."""

    def limit(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


def test_a_full_disk_loses_nothing_and_the_study_goes_on_after_it(url: str, tmp_path: Path) -> None:
    with StudyStore.open(url) as store:
        study = store.create_study(child.settings())
    done: list[TrialRecord] = []
    pages = Path(url.removeprefix("sqlite:///")).stat().st_size // 4096 + 6
    full = pytest.raises(EnvironmentFailure, match="no space left on the device; nothing that was finished")
    with disk_of(pages), StudyStore.open(url) as store, full:
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=300, on_trial=done.append)
    assert len(done) > 10
    assert integrity(url.removeprefix("sqlite:///")) == "ok"
    with StudyStore.open(url) as store:
        finished = [trial for trial in store.trials(study) if trial.finished is not None]
        assert finished == done
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=300)
        assert child.history(store) == whole(tmp_path)


@pytest.mark.kill
def test_a_file_that_may_not_grow_loses_nothing_either(url: str, tmp_path: Path, spawn: Spawn) -> None:
    with StudyStore.open(url) as store:
        study = store.create_study(child.settings())
    process = spawn("limited", url, 20_000)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.ENVIRONMENT
    assert "nothing that was finished is lost" in stderr
    assert stdout.count("\n") > 10
    assert integrity(url.removeprefix("sqlite:///")) == "ok"
    with StudyStore.open(url) as store:
        finished = [str(trial.number) for trial in store.trials(study) if trial.finished is not None]
        assert finished == stdout.split()
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=300)
        assert child.history(store) == whole(tmp_path)


def test_a_lock_that_stays_ends_the_wait(url: str) -> None:
    with StudyStore.open(url, busy_timeout_s=0.1) as store:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(EnvironmentFailure, match=r"nnas.db: locked for 0.1 s by (process \d+|another)"):
                store.create_study(child.settings())
            other.execute("ROLLBACK")
        store.create_study(child.settings())


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
