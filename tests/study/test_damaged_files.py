"""Files that are no study database are refused with a reason, and left as they are."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure, InputError, NnasWarning, UsageError
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage import sqlite
from nnas_core.study.storage.database import HowToOpen
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound database with a study of 40 trials."""
    path = tmp_path_factory.mktemp("sound") / "nnas.db"
    with StudyStore.open(f"sqlite:///{path}") as store:
        study = store.create_study(study_programs.settings("random"))
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=40),
        )
    return path.read_bytes()


def foreign() -> bytes:
    """A database of another program."""
    with tempfile.TemporaryDirectory() as folder:
        with closing(sqlite3.connect(f"{folder}/things.db")) as connection:
            connection.execute("create table things (name)")
        return Path(folder, "things.db").read_bytes()


def with_version(content: bytes, version: int) -> bytes:
    """The header's user_version stands at offset 60 (https://www.sqlite.org/fileformat2.html)."""
    return content[:60] + version.to_bytes(4, "big") + content[64:]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "not a study database: the file is empty"),
    "text": (lambda content: b"trial,value\n1,0.5\n" * 100, "not a study database"),
    "short text": (lambda content: b"hello\n", "not a study database"),
    "picture": (lambda content: b"\x89PNG\r\n\x1a\n" + bytes(5000), "not a study database"),
    "zeros": (lambda content: bytes(len(content)), "not a study database"),
    "first 50 bytes": (lambda content: content[:50], "not a study database"),
    "first page": (lambda content: content[:4096], r"the study database is damaged \(.*malformed"),
    "first half": (lambda content: content[: len(content) // 2], r"the study database is damaged \("),
    "zeroed pages": (
        lambda content: content[:4096] + bytes(len(content) - 4096),
        r"the study database is damaged \(",
    ),
    "foreign": (lambda content: foreign(), "not a study database: an SQLite file of another program"),
    "version 0": (
        lambda content: with_version(content, 0),
        r"the study database is damaged \(its tables are of version 0, which there never was\)",
    ),
    "newer": (
        lambda content: with_version(content, 5),
        r"made by a newer nnas: its tables are of version 5, this is nnas \S+ which knows 4",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_study_database_is_refused_and_left_alone(
    damage: str, content: bytes, tmp_path: Path
) -> None:
    spoil, message = DAMAGES[damage]
    path = tmp_path / "nnas.db"
    path.write_bytes(spoil(content))
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"nnas.db: {message}"):
        StudyStore.open(f"sqlite:///{path}")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory, a file is needed"):
        StudyStore.open(f"sqlite:///{tmp_path}")


def test_a_missing_file_is_only_created_where_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nnas\.db: no such file"):
        StudyStore.open(f"sqlite:///{tmp_path}/nnas.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"absent/nnas\.db: cannot create: no such directory"):
        StudyStore.open(f"sqlite:///{tmp_path}/absent/nnas.db")


def test_the_journal_of_a_file_that_is_gone_is_not_applied_to_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "nnas.db-journal").write_bytes(b"old")
    with pytest.raises(InputError, match=r"the file is gone but its journal nnas\.db-journal is there"):
        StudyStore.open(f"sqlite:///{tmp_path}/nnas.db")


def test_a_journal_left_by_a_crash_is_applied(content: bytes, tmp_path: Path) -> None:
    path, copy = tmp_path / "nnas.db", tmp_path / "copy.db"
    path.write_bytes(content)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")  # writes pages before the transaction ends
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE trials SET value=0, error=hex(zeroblob(3000))")
        for name in ("", "-journal"):  # what a crash would leave
            Path(f"{copy}{name}").write_bytes(Path(f"{path}{name}").read_bytes())
        connection.execute("ROLLBACK")
    assert copy.read_bytes() != content
    with StudyStore.open(f"sqlite:///{copy}") as store:
        assert all(trial.value != 0 for trial in store.trials(store.study("study")))


def test_the_database_is_made_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # what a FAT file system says

    monkeypatch.setattr(os, "link", refuse)
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        store.create_study(study_programs.settings())
    assert [file.name for file in tmp_path.iterdir()] == ["nnas.db"]


def test_of_two_that_create_the_database_the_quicker_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, link, calls = f"sqlite:///{tmp_path}/nnas.db", os.link, 0

    def be_slower(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # at the last moment another process has made the database, and a study in it
            with StudyStore.open(url) as quicker:
                quicker.create_study(study_programs.settings())
        link(source, target)

    monkeypatch.setattr(os, "link", be_slower)
    with StudyStore.open(url) as store:
        assert [study.name for study in store.studies()] == ["study"]
    assert calls == 2
    assert [file.name for file in tmp_path.iterdir()] == ["nnas.db"]


def test_a_writer_shuts_out_other_writers_from_its_start_a_reader_does_not(tmp_path: Path) -> None:
    database = sqlite.open_file(str(tmp_path / "nnas.db"), HowToOpen(True, 0.0))
    with closing(sqlite3.connect(tmp_path / "nnas.db", isolation_level=None, timeout=0.0)) as other:
        with database.write(), pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute("BEGIN IMMEDIATE")
        with database.read():
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
    database.close()


def test_a_new_database_has_the_journal_and_the_marks_it_should(tmp_path: Path) -> None:
    StudyStore.open(f"sqlite:///{tmp_path}/nnas.db").close()
    with closing(sqlite3.connect(tmp_path / "nnas.db")) as connection:
        marks = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "application_id", "user_version", "integrity_check")
        ]
    assert marks == ["delete", 0x6E6E6173, 4, "ok"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nnas.db", "storage 'nnas.db' is not a database URL"),
        ("mysql://host/nnas", "studies cannot be stored in 'mysql'"),
        ("sqlite://", "storage 'sqlite://' does not name a file"),
        ("sqlite:///:memory:", "storage 'sqlite:///:memory:' does not name a file"),
        ("sqlite:///nnas.db?mode=ro", r"storage 'sqlite:///nnas.db\?mode=ro' does not name a file"),
    ],
)
def test_a_url_that_names_no_file_is_a_usage_error(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyStore.open(url)


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/fast tmpfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/nnas.db", None),
        ("/home/me/nnas.db", "nfs4"),
        ("/homes/nnas.db", None),
        ("/home/me/fast/nnas.db", None),
        ("/mnt/my share/nnas.db", "cifs"),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(path: str, kind: str | None) -> None:
    assert sqlite.network_filesystem(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "network_filesystem", lambda path: "nfs4")  # no test machine has one
    with pytest.warns(NnasWarning, match=r"nnas.db is on a network file system \(nfs4\)"):
        StudyStore.open(f"sqlite:///{tmp_path}/nnas.db").close()
