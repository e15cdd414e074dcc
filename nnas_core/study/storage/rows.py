"""Rows are written with a checksum, and read whatever became of them: one that is not as it was written is named.

A database says nothing of a bit that a disk has turned, and SQLite stores a text where a number belongs. So each row
that is read here is looked at: each column must hold what it is for, and the checksum must be that of all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Float, Row, Table, Update, bindparam, func, select, update

from nnas_core.errors import InputError
from nnas_core.study.storage import tables
from nnas_core.study.storage.column_kinds import CLAIM, CONTROL, KINDS, LEASE, Columns, misfits, shown
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, digest_of

__all__ = [
    "Damage",
    "change",
    "change_study",
    "check_control",
    "check_lease",
    "note_gaps",
    "note_strays",
    "noting",
    "seal_all",
    "sealed",
    "sound",
    "sound_row",
]

_MOST_SHOWN = 20


class Damage:
    """Collects rows that are not as they were written, so that the others can be used.

    Args:
        where: the database.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, name: str, problems: Iterable[str]) -> None:
        """Notes what is wrong with a row; ``name`` says which."""
        self._found += [f"{name}: {problem}" for problem in problems]

    def add_error(self, error: InputError) -> None:
        """Notes what was refused whole."""
        self._found += error.problems or [error.message]

    def refuse(self) -> None:
        """Does nothing where all is well.

        Raises:
            InputError: rows are damaged; each is named.
        """
        if not self._found:
            return
        found = list(dict.fromkeys(self._found))
        more = len(found) - _MOST_SHOWN
        raise InputError(
            "the study database is damaged: rows are not as they were written",
            where=self._where,
            problems=found[:_MOST_SHOWN] + ([f"and {more} more"] if more > 0 else []),
            hint="restore a copy of it; what is sound `nnas study export` writes, for a study in another file",
        )


def check_lease(row: Columns, where: str, study: str) -> None:
    """Makes sure that a lease can be read; it has no checksum, as it is written every few seconds.

    Raises:
        InputError: it cannot.
    """
    damage = Damage(where)
    kinds = {name: kind for name, kind in CLAIM.items() if name in row}
    damage.add(f"study {study!r}, its lease", misfits(kinds if row["claim"] is None else {**kinds, **LEASE}, row))
    damage.refuse()


def check_control(row: Mapping[str, object], where: str, study: str) -> None:
    """Makes sure that what others ask of a running study can be read; its checksum is looked at with the whole row.

    Raises:
        InputError: it cannot.
    """
    damage = Damage(where)
    damage.add(f"study {study!r}", misfits(CONTROL, row))
    damage.refuse()


@contextmanager
def noting(where: str, damage: Damage | None) -> Iterator[Damage]:
    """Gives the block what collects damaged rows: ``damage``, or if that is None, one that refuses at the end.

    Raises:
        InputError: rows are damaged, and ``damage`` is None.
    """
    noted = Damage(where) if damage is None else damage
    yield noted
    if damage is None:
        noted.refuse()


# ---- checksums


@dataclass(frozen=True)
class _Shape:
    """What is the same for all rows of a table.

    Attributes:
        names: of the columns, in their order, without that of the checksum.
        fits: tell whether a column may hold a value.
        floats: the places of columns of floats.
        checksum: its place among all columns.
    """

    names: tuple[str, ...]
    fits: tuple[Callable[[object], bool], ...]
    floats: tuple[int, ...]
    checksum: int


@cache
def _shape(table: str) -> _Shape:
    columns = list(tables.metadata.tables[table].columns)
    place = next(place for place, column in enumerate(columns) if column.name == "checksum")
    del columns[place]
    names = tuple(column.name for column in columns)
    floats = tuple(place for place, column in enumerate(columns) if isinstance(column.type, Float))
    return _Shape(names, tuple(KINDS[table][name].fits for name in names), floats, place)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr).encode


def _checksum(table: str, values: list[object]) -> str:
    """Returns the checksum of the values of all columns, in their order."""
    for place in _shape(table).floats:
        value = values[place]
        if isinstance(value, (int, float)):  # as the database gives it back: 1 as 1.0, and -0.0 as 0.0
            values[place] = float(value) + 0.0
    try:
        text = _encode([table, values])
    except (ValueError, TypeError, RecursionError):
        return ""  # of nothing that we write
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _checksum_of(table: str, row: Columns) -> str:
    return _checksum(table, [row[name] for name in _shape(table).names])


def sealed(table: Table, row: Mapping[str, object]) -> dict[str, object]:
    """Returns a whole row with its checksum, as it is to be inserted; what is not given is NULL, or the default."""
    whole: dict[str, object] = {}
    for column in table.columns:
        default = _DEFAULTS.get((table.name, column.name))
        whole[column.name] = row.get(column.name, default)
    return {**whole, "checksum": _checksum_of(table.name, whole)}


_DEFAULTS: Mapping[tuple[str, str], object] = {
    ("studies", "limits"): {},
    ("studies", "stop_requested"): 0,
    ("trials", "losses"): 0,
    ("trials", "kill_requested"): 0,
}
"""What a new row has where nothing is given."""


def change(connection: Connection, table: Table, row: Row[Any], changes: Mapping[str, object]) -> None:
    """Writes changes of a row that was read in the same transaction and is sound."""
    values: dict[str, object] = {f"new_{name}": value for name, value in changes.items()}
    values.update((f"key_{column.name}", getattr(row, column.name)) for column in table.primary_key)
    values["new_checksum"] = _checksum_of(table.name, {**row._mapping, **changes})
    connection.execute(_change_statement(table, tuple(changes)), values)


def change_study(connection: Connection, where: str, study: StudyRecord, **changes: object) -> Row[Any] | None:
    """Writes changes of the row of a study.

    Returns:
        The row as it was; None if the study is no more.

    Raises:
        InputError: it is damaged.
    """
    rows = connection.execute(select(tables.studies).where(tables.studies.c.id == study.id)).all()
    row = sound_row(tables.studies, rows, None, where)
    if row is not None:
        change(connection, tables.studies, row, changes)
    return row


@cache
def _change_statement(table: Table, names: tuple[str, ...]) -> Update:
    this = [column == bindparam(f"key_{column.name}") for column in table.primary_key]
    return update(table).where(*this).values({name: bindparam(f"new_{name}") for name in (*names, "checksum")})


def seal_all(connection: Connection) -> None:
    """Gives every row a checksum of what it holds: those that an older nnas wrote have none."""
    for name in KINDS:
        table = tables.metadata.tables[name]
        statement = _change_statement(table, ())
        keys = [column.name for column in table.primary_key]
        for some in connection.execute(select(table)).partitions(1000):
            connection.execute(
                statement,
                [
                    {f"key_{key}": getattr(row, key) for key in keys}
                    | {"new_checksum": _checksum_of(name, row._mapping)}
                    for row in some
                ],
            )


# ---- reading


def sound(table: Table, rows: Iterable[Row[Any]], study: str | None, damage: Damage) -> Iterator[Row[Any]]:
    """Yields the rows that are as they were written; the others are named in ``damage``.

    Args:
        table: whose whole rows they are.
        rows: from ``select(table)``.
        study: whose they are; None: they are studies themselves.
        damage: gets what is wrong with the others.
    """
    name, shape = table.name, _shape(table.name)
    for row in rows:
        values: list[object] = list(row)
        stored = values.pop(shape.checksum)
        if not all(fits(value) for fits, value in zip(shape.fits, values, strict=True)):
            problems = misfits(KINDS[name], row._mapping)
        elif table is tables.trials and (found := _contradictions(row)):
            problems = found
        elif stored != _checksum(name, values):
            problems = ["its checksum is that of other values: one of them was changed since it was written"]
        else:
            yield row
            continue
        damage.add(_name(table, row, study), problems)


def sound_row(table: Table, rows: Iterable[Row[Any]], study: str | None, where: str) -> Row[Any] | None:
    """Returns the first of rows, None if there is none.

    Args:
        table, rows, study: as for ``sound``.
        where: the database, for errors.

    Raises:
        InputError: it is damaged.
    """
    damage = Damage(where)
    row = next(sound(table, rows, study, damage), None)
    damage.refuse()
    return row


def note_gaps(what: str, numbers: Sequence[int], study: str, damage: Damage, *, first: int = 0) -> None:
    """Notes rows that are missing, where none is damaged: numbers have no gaps.

    Args:
        what: they are numbers of.
        numbers: of the rows that were read, ascending.
        study: whose they are.
        damage: what was found so far, and gets what is missing.
        first: the least number that there is.
    """
    if damage or not numbers or len(numbers) == numbers[-1] + 1 - first:
        return
    missing = sorted(set(range(first, numbers[-1])) - set(numbers))
    damage.add(f"study {study!r}", [f"{what} {number} is missing" for number in missing[: _MOST_SHOWN + 1]])


def note_strays(connection: Connection, damage: Damage) -> None:
    """Notes rows that belong to no study: the number of theirs was changed, or the study's own."""
    for name in KINDS:
        table = tables.metadata.tables[name]
        if table is not tables.studies:
            strays = select(func.count()).where(table.c.study_id.not_in(select(tables.studies.c.id)))
            number = connection.execute(strays.select_from(table)).scalar_one()
            if number:
                damage.add(f"table {name}", [f"{number} {'row belongs' if number == 1 else 'rows belong'} to no study"])


def _contradictions(row: Row[Any]) -> list[str]:
    """Returns what columns of a trial say against each other."""
    if (row.state == "succeeded") != (row.value is not None):
        return [f"value: {shown(row.value)} of a trial that is {row.state}"]
    if row.state in ENDED_STATES and row.told_order is None:
        return [f"told_order: NULL of a trial that is {row.state}"]
    if digest_of(row.architecture) != row.digest:
        return ["architecture: not the one that its digest is of"]
    return []


def _name(table: Table, row: Row[Any], study: str | None) -> str:
    if study is None:
        return f"study {shown(row.name)}"
    of = f"study {study!r}, "
    if table is tables.trials:
        return f"{of}trial {shown(row.number)}"
    if table is tables.intermediates:
        return f"{of}trial {shown(row.number)}, intermediate value {shown(row.sequence)}"
    what = "repeat" if table is tables.repeats else "retry"
    return f"{of}{what} of trial {shown(row.number)}"
