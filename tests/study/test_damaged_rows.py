"""Rows that hold what nobody wrote there: each is named, the others are read, and nobody works on with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nnas_core.errors import InputError
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.tuner_log import read_calls
from tests.study.known_studies import make

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
    return path


@pytest.fixture(scope="module")
def spoilt(place: Path) -> Iterator[sqlite3.Connection]:
    """A connection that stores anything anywhere, at once."""
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA foreign_keys=OFF")
        yield connection


def said(url: str) -> str:
    """What is said of a database when all of it is read; every way to read names the same rows."""
    with StudyStore.open(url) as store:
        damage = Damage(store.where)
        for study in store.studies(damage):
            with suppress(InputError):
                store.status(study, damage)
            for read in (store.trials, store.intermediates):
                read(study, damage=damage)
            try:
                store.holders(study)
                with store._database.read() as connection:
                    read_calls(connection, store.where, study)
            except InputError as error:
                damage.add_error(error)
    try:
        damage.refuse()
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("table", ROWS)
def test_whatever_a_column_holds_its_row_is_named(table: str, place: Path, spoilt: sqlite3.Connection) -> None:
    url = f"sqlite:///{place}"
    assert said(url) == ""
    (rowid,) = spoilt.execute(f"SELECT rowid FROM {table} WHERE {ROWS[table]}").fetchone()
    columns = [row[1] for row in spoilt.execute(f"PRAGMA table_info({table})")]
    before = spoilt.execute(f"SELECT * FROM {table} WHERE rowid = ?", [rowid]).fetchone()
    wrong = []
    for column, was in zip(columns, before, strict=True):
        for kind, value in KINDS.items():
            held = "CAST(? AS TEXT)" if kind.endswith("UTF-8") else "?"
            with suppress(sqlite3.IntegrityError):  # a column that must not be NULL
                spoilt.execute(f"UPDATE {table} SET {column} = {held} WHERE rowid = ?", [value, rowid])
                there = value if column == "id" else rowid
                text = said(url)
                named = "study 'first'" if column not in ("id", "study_id", "name") else "damaged"
                if named not in text and value != was and not (table == "owners" and _may_be(column, value)):
                    wrong.append(f"{column}, {kind}: {text or 'nothing is said'}")
                spoilt.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [was, there])
    assert wrong == []
    assert said(url) == ""


def _may_be(column: str, value: object) -> bool:
    """A lease has no checksum: what fits its column is believed."""
    if column in ("study_id", "token", "pid"):
        return True
    return value is None if column == "claim" else isinstance(value, str)
