"""Rows that hold what nobody wrote there: each is named, the others are read, and nobody works on with them."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nnas_core.errors import InputError
from nnas_core.execution.engine import TrialResult
from nnas_core.study.coordinator import run_study
from nnas_core.study.opening import create_tuner
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.tuner_log import read_calls
from nnas_core.tuners.random import RandomTuner
from tests.study.known_studies import make
from tests.study.postgres_server import Server

KINDS: dict[str, object] = {
    "a blob": b"\xff\x00\xfe",
    "NULL": None,
    "a text": "abc",
    "no text": "",
    "a huge integer": 2**63 - 1,
    "a negative one": -7,
    "a float": 0.125,
    "infinity": float("inf"),
    "no JSON": "{",
    "a JSON array": "[1, 2]",
    "other types inside": '{"folder": 5, "trials": "x", "duration_s": [], "files": 3, "k": null, "a": {"_type": 7}}',
    "NaN inside": '{"accuracy": NaN, "trials": Infinity}',
    "a number of 5000 digits inside": '{"accuracy": ' + "9" * 5000 + "}",
    "deep JSON": "[" * 100_000,
    "a lone surrogate": '{"\\ud800": 1}',
    "bytes that are no UTF-8": b"\xed\xa0\x80",
    "an escape": "\x1b[31m",
    "a state": "succeeded",
    "no state": "exploded",
    "a far time": "9999-12-31T23:59:59.999+00:00",
    "a time without a zone": "2026-01-01T00:00:00",
}

ROWS = {
    "studies": "name = 'first'",
    "trials": "number = 1",
    "intermediates": "number = 1",
    "repeats": "1",
    "retries": "1",
    "owners": "1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two studies; the first has a row in every table."""
    path = tmp_path_factory.mktemp("rows") / "nnas.db"
    with StudyStore.open(f"sqlite:///{path}") as store:
        study = make(store, intermediate=True)
        store.retry(study)
        with store.acquire(study) as session:
            session.trials.start(study.settings.space.at(5), repeated=[0])
        make(store, "second")
    with closing(sqlite3.connect(path)) as connection, connection:  # one that has died
        gone = "claim = '0123456789abcdef', host = 'elsewhere', expires = '2020-01-01T00:00:00+00:00'"
        connection.execute(f"UPDATE owners SET {gone} WHERE study_id = 1")
    return path


@pytest.fixture(scope="module")
def spoilt(place: Path) -> Iterator[sqlite3.Connection]:
    """A connection that stores anything anywhere, at once."""
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA foreign_keys=OFF")
        yield connection


def said(store: StudyStore) -> str:
    """What is said of a database when all of it is read."""
    damage = Damage(store.where)
    for study in store.studies(damage):
        for read in (store.status, store.trials, store.intermediates):
            read(study, damage=damage)
        try:
            with store._database.read() as connection:
                read_calls(connection, store.where, study)
        except InputError as error:
            damage.add_error(error)
    try:
        damage.refuse()
    except InputError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def opened(place: Path) -> Iterator[StudyStore]:
    """The store in that database."""
    with StudyStore.open(f"sqlite:///{place}") as store:
        yield store


@pytest.mark.parametrize("table", ROWS)
def test_whatever_a_column_holds_its_row_is_named(table: str, opened: StudyStore, spoilt: sqlite3.Connection) -> None:
    assert said(opened) == ""
    (rowid,) = spoilt.execute(f"SELECT rowid FROM {table} WHERE {ROWS[table]}").fetchone()
    columns = [row[1] for row in spoilt.execute(f"PRAGMA table_info({table})")]
    before = spoilt.execute(f"SELECT * FROM {table} WHERE rowid = ?", [rowid]).fetchone()
    wrong = []
    for column, was in zip(columns, before, strict=True):
        for kind, value in KINDS.items():
            if ("inside" in kind or kind == "deep JSON") and not str(was).startswith("{"):
                continue  # for columns of JSON
            held = "CAST(? AS TEXT)" if kind.endswith("UTF-8") else "?"
            with suppress(sqlite3.IntegrityError):  # a column that must not be NULL
                spoilt.execute(f"UPDATE {table} SET {column} = {held} WHERE rowid = ?", [value, rowid])
                there = value if (table, column) in (("studies", "id"), ("owners", "study_id")) else rowid
                text = said(opened)
                named = "study 'first'" if column not in ("id", "study_id", "name") else "damaged"
                if named not in text and value != was and not (table == "owners" and _may_be(column, kind)):
                    wrong.append(f"{column}, {kind}: {text or 'nothing is said'}")
                spoilt.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [was, there])
    assert wrong == []
    assert said(opened) == ""


def _may_be(column: str, kind: str) -> bool:
    """A lease has no checksum: what fits its column is believed, and a number is a text there."""
    if column in ("token", "pid", "expires"):
        return False
    if kind == "NULL":
        return column == "claim"
    return column == "study_id" or kind not in ("a blob", "bytes that are no UTF-8")


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """A copy of the database to be spoilt."""
    return Path(shutil.copy(place, tmp_path / "nnas.db"))


def flipped(path: Path, table: str, column: str, value: object, where: str = "number = 1 AND study_id = 1") -> None:
    """Write what nobody of ours wrote."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", [value])


def test_a_value_that_could_be_another_is_told_by_its_checksum(copy: Path) -> None:
    flipped(copy, "trials", "value", 0.8125)
    with StudyStore.open(f"sqlite:///{copy}") as store:
        study = store.study("first")
        with pytest.raises(
            InputError, match=r"damaged: rows are not .*\n  study 'first', trial 1: its checksum is that"
        ):
            store.trials(study)
        damage = Damage(store.where)
        assert [trial.number for trial in store.trials(study, damage=damage)] == [0, 2, 3, 4]
        assert store.top(study, 1, damage)[0].value == 0.5
        assert store.status(study, damage).counts["succeeded"] == 2
        assert len(store.trials(store.study("second"))) == 4


@pytest.mark.parametrize(("table", "where"), [("trials", "number = 1 AND study_id = 1"), ("repeats", "study_id = 1")])
def test_a_study_with_a_damaged_row_is_not_gone_on_with(copy: Path, table: str, where: str) -> None:
    flipped(copy, table, "told_order", 77, where)
    tuner = create_tuner(RandomTuner, {}, name="random", seed=0, optimize_mode="maximize")
    with StudyStore.open(f"sqlite:///{copy}") as store:
        study = store.study("first")
        with pytest.raises(InputError, match=r"are not as they were written\n  study 'first', "):
            run_study(store, study, tuner, lambda architecture: TrialResult(1.0))


def test_a_row_that_is_missing_is_told(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM trials WHERE number = 2 AND study_id = 2")
        connection.execute("DELETE FROM retries")
    with StudyStore.open(f"sqlite:///{copy}") as store:
        with pytest.raises(InputError, match="study 'second': trial 2 is missing"):
            store.trials(store.study("second"))
        with (
            pytest.raises(InputError, match="study 'second': trial 2 is missing"),
            store._database.read() as connection,
        ):
            read_calls(connection, store.where, store.study("second"))
        with (
            pytest.raises(InputError, match="study 'first': call of the tuner 5 is missing"),
            store._database.read() as connection,
        ):
            read_calls(connection, store.where, store.study("first"))


def test_a_checksum_of_another_row_is_told(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection, connection:
        other = "(SELECT checksum FROM trials WHERE number = 0 AND study_id = 1)"
        connection.execute(f"UPDATE trials SET checksum = {other} WHERE number = 1")
    with StudyStore.open(f"sqlite:///{copy}") as store:
        assert "study 'first', trial 1: its checksum" in said(store)


def test_every_flipped_bit_of_the_values_is_told(copy: Path) -> None:
    """As a disk would do it: in the file, in rows of trials; wherever it is, something is said, or nothing changed."""
    content = copy.read_bytes()
    with StudyStore.open(f"sqlite:///{copy}") as store:
        before = [trial.to_json() for study in store.studies() for trial in store.trials(study)]
    rng = random.Random(0)
    text = b'{"accuracy":'
    places = [place for place in range(len(content)) if content[place : place + len(text)] == text]
    for _ in range(30):
        place = rng.choice(places) + rng.randrange(-60, 60)
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.randrange(8)
        copy.write_bytes(spoilt)
        try:
            with StudyStore.open(f"sqlite:///{copy}") as store:
                after = [trial.to_json() for study in store.studies() for trial in store.trials(study)]
        except InputError:
            continue
        assert after == before


def test_postgresql_has_checksums_too(postgres_server: Server, schema: str) -> None:
    with StudyStore.open(postgres_server.url(schema)) as store:
        make(store, intermediate=True)
        with closing(postgres_server.connect(schema)) as connection:
            connection.execute("UPDATE trials SET metrics = '{\"accuracy\": 0.8125}' WHERE number = 1")
            connection.execute("UPDATE intermediates SET value = 0.875 WHERE number = 3")
        damage = Damage(store.where)
        assert len(store.trials(store.study("first"), damage=damage)) == 3
        assert sorted(store.intermediates(store.study("first"), damage)) == [0, 1, 2]
    with pytest.raises(InputError, match=r"trial 1: its checksum (.|\n)*trial 3, intermediate value 0: its checksum"):
        damage.refuse()
