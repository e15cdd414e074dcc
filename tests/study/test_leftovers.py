"""Files that processes leave which are killed while they make a database: the next one deletes them, and no others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure
from nnas_core.study.storage.backup import back_up
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.temporary import temporary_beside
from tests.study.known_studies import make


def killed_in(target: Path, at: str) -> None:
    """A child that makes the database, and is killed when it calls that function of ``os``."""
    if (pid := os.fork()) == 0:
        try:
            setattr(os, at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            StudyStore.open(f"sqlite:///{target}")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.kill
@pytest.mark.parametrize("at", ["link", "unlink"])
def test_what_a_killed_maker_left_is_deleted_by_the_next(tmp_path: Path, at: str) -> None:
    killed_in(tmp_path / "nnas.db", at)
    assert len(names(tmp_path)) == (1 if at == "link" else 2)
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        make(store)
        assert names(tmp_path) == ["nnas.db"]


def test_files_that_others_make_or_that_only_look_like_them_stay(tmp_path: Path) -> None:
    target = tmp_path / "nnas.db"
    others = [".nnas.db.tmp", ".other.db.0123456789abcdef.tmp", ".nnas.db.0123456789abcdefg.tmp", "nnas.db.tmp"]
    for name in others:
        (tmp_path / name).touch()
    with temporary_beside(target) as ours:
        StudyStore.open(f"sqlite:///{target}").close()
        assert names(tmp_path) == sorted([*others, ours.name, "nnas.db"])
    assert names(tmp_path) == sorted([*others, "nnas.db"])


def test_a_journal_without_its_file_and_a_leftover_copy_are_deleted(tmp_path: Path) -> None:
    StudyStore.open(f"sqlite:///{tmp_path}/nnas.db").close()
    for name in (".nnas.db.0123456789abcdef.tmp-journal", ".copy.db.0123456789abcdef.tmp"):
        (tmp_path / name).touch()
    StudyStore.open(f"sqlite:///{tmp_path}/nnas.db").close()
    back_up(f"sqlite:///{tmp_path}/nnas.db", str(tmp_path / "copy.db"))
    assert names(tmp_path) == ["copy.db", "nnas.db"]


def test_a_pipe_that_is_named_so_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".nnas.db.0123456789abcdef.tmp")
    StudyStore.open(f"sqlite:///{tmp_path}/nnas.db").close()
    assert names(tmp_path) == ["nnas.db"]


# ---- gone while it is in use


def test_a_file_that_is_deleted_in_use_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "nnas.db"
    with StudyStore.open(f"sqlite:///{path}") as store:
        study = make(store)
        path.unlink()
        for use in (lambda: store.acquire(study), lambda: make(store, "other")):
            with pytest.raises(EnvironmentFailure, match=r"nnas\.db: the file was deleted or moved away while it was"):
                use()
    assert names(tmp_path) == []


def test_a_file_that_is_deleted_between_two_connections_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "nnas.db"
    with StudyStore.open(f"sqlite:///{path}") as store:
        make(store)
        store.close()  # as a pool does with connections
        path.unlink()
        with pytest.raises(EnvironmentFailure, match="the file was deleted or moved away"):
            store.studies()
    assert names(tmp_path) == []
