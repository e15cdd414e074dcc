"""Trials as they are written: every write proves that its trial is still the writer's.

A running trial belongs to the process with the exclusive lease of the study, or to the one with a shared lease that the
trial names. The statement that changes it finds only this attempt with this lease, so each result counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Row, bindparam, func, insert, select

from nnas_core.errors import EnvironmentFailure
from nnas_core.files import finite
from nnas_core.space.architecture import Architecture
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord, digest_of, numbers_of
from nnas_core.study.storage.rows import Damage, change, sealed, sound, sound_row
from nnas_core.study.storage.tables import intermediates, repeats, trials

__all__ = ["Counters", "Evaluator", "Transactions", "TrialWriter", "read_intermediates", "timestamp"]

_LONGEST_ERROR = 10_000

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# statements are built once: a trial costs two of these transactions, and no text is put together for it
_INSERT_TRIAL = insert(trials)
_INSERT_REPEAT = insert(repeats)
_INSERT_INTERMEDIATE = insert(intermediates)
_THIS = select(trials).where(trials.c.study_id == bindparam("of_study"), trials.c.number == bindparam("of_number"))
_RESULT = ("state", "value", "metrics", "cost", "error", "seconds", "finished")


@dataclass(frozen=True)
class Evaluator:
    """Says who evaluates trials, for people.

    Attributes:
        worker: ``host:pid``.
        log_folder: where it keeps logs; None: nowhere.
    """

    worker: str | None = None
    log_folder: str | None = None


_NOBODY = Evaluator()


@dataclass
class Counters:
    """Counts how far a study is, as its session knows.

    Attributes:
        number: of the next trial.
        order: of the next call of the tuner.
        begun: trials that have ended or run.
    """

    number: int = 0
    order: int = 0
    begun: int = 0


class Transactions(Protocol):
    """The means of writing: see ``StudySession``."""

    @property
    def database(self) -> Database:
        """Holds where the study is."""

    @property
    def lease_key(self) -> str | None:
        """Holds what trials are leased to."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Begins a transaction, or goes on with one."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Begins a transaction that changes nothing, or goes on with one."""

    def repeated(self, work: Callable[[], _Result]) -> _Result:
        """Does a work of one transaction; again, where the connection was lost in it."""


def _repeated(
    method: Callable[Concatenate[TrialWriter, _Given], _Result],
) -> Callable[Concatenate[TrialWriter, _Given], _Result]:
    """Makes a method of one transaction begin that again if the connection is lost in it: then nothing is stored."""

    @wraps(method)
    def again(self: TrialWriter, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        return self._session.repeated(lambda: method(self, *args, **kwargs))

    return again


class TrialWriter:
    """Writes the trials of one session; each method is one transaction, or part of one that the session has begun.

    Args:
        session: whose transactions they are.
        study: which.
        counters: kept up to date here.

    Raises:
        EnvironmentFailure: the trial is not this process's own any more, or the database cannot be written.
    """

    def __init__(self, session: Transactions, study: StudyRecord, counters: Counters) -> None:
        self._session = session
        self._study = study
        self._counters = counters

    @_repeated
    def start(self, architecture: Architecture, repeated: Sequence[int] = (), by: Evaluator = _NOBODY) -> TrialRecord:
        """Stores a new trial, running.

        Args:
            architecture: new to the study.
            repeated: numbers of the known trials that the tuner proposed again before this one.
            by: who evaluates it.
        """
        number, started, canonical = self._counters.number, timestamp(), architecture.canonical
        again = self._repeats(repeated)
        order = self._counters.order + 2 * len(again)
        row: dict[str, object] = {
            "study_id": self._study.id,
            "number": number,
            "state": "running",
            "attempt": 1,
            "digest": digest_of(canonical),
            "architecture": canonical,
            "metrics": {},
            "cost": {},
            "started": started,
            "proposed_order": order,
            "worker": by.worker,
            "log_folder": by.log_folder,
        }
        with self._session.writing() as connection:
            if again:
                connection.execute(_INSERT_REPEAT, again)
            row["lease_token"] = self._session.lease_key
            connection.execute(_INSERT_TRIAL, sealed(trials, row))
        self._counters.number += 1
        self._counters.order = order + 1
        self._counters.begun += 1
        return TrialRecord(number, "running", 1, architecture, started=started)

    def _repeats(self, numbers: Sequence[int]) -> list[dict[str, object]]:
        orders = range(self._counters.order, self._counters.order + 2 * len(numbers), 2)
        of_study = {"study_id": self._study.id}
        return [
            sealed(repeats, {**of_study, "number": number, "proposed_order": order, "told_order": order + 1})
            for number, order in zip(numbers, orders, strict=True)
        ]

    @_repeated
    def restart(self, trial: TrialRecord, by: Evaluator = _NOBODY) -> TrialRecord:
        """Lets a waiting trial run."""
        started = timestamp()
        changes = {"state": "running", "started": started, "worker": by.worker, "log_folder": by.log_folder}
        with self._session.writing() as connection:
            row = self._row(connection, trial)
            if row is None or (row.attempt, row.state) != (trial.attempt, "waiting"):
                raise self._too_late(trial)
            change(connection, trials, row, {**changes, "lease_token": self._session.lease_key})
        self._counters.begun += 1
        return replace(trial, state="running", started=started)

    @_repeated
    def adopt(self, trial: TrialRecord, by: Evaluator = _NOBODY) -> tuple[TrialRecord, int]:
        """Lets the attempt before run on, of a trial that waits for its next one: it has finished, and left its result.

        Returns:
            The trial in that attempt, and how many values are stored that it has reported on its way.
        """
        attempt = trial.attempt - 1
        changes = {"state": "running", "attempt": attempt, "worker": by.worker, "log_folder": by.log_folder}
        mine = (intermediates.c.number == trial.number, intermediates.c.attempt == attempt)
        with self._session.writing() as connection:
            row = self._row(connection, trial)
            if row is None or (row.attempt, row.state) != (trial.attempt, "waiting"):
                raise self._too_late(trial)
            change(connection, trials, row, {**changes, "lease_token": self._session.lease_key})
            counted = select(func.count()).where(intermediates.c.study_id == self._study.id, *mine)
            stored = int(connection.execute(counted).scalar_one())
        self._counters.begun += 1
        return replace(trial, state="running", attempt=attempt), stored

    @_repeated
    def retry(self, trial: TrialRecord) -> TrialRecord:
        """Gives up an attempt of a running trial whose process died, and begins the next one."""
        started = timestamp()
        with self._session.writing() as connection:
            row = self._mine(connection, trial)
            if row is None:
                raise self._too_late(trial)
            changes = {"attempt": row.attempt + 1, "losses": row.losses + 1, "started": started}
            change(connection, trials, row, changes)
        return replace(trial, attempt=trial.attempt + 1, started=started)

    @_repeated
    def intermediate(self, trial: TrialRecord, sequence: int, *values: float) -> None:
        """Stores what a running trial reported on its way; the first of the values has that sequence number."""
        row = {"study_id": self._study.id, "number": trial.number, "attempt": trial.attempt}
        rows = [
            sealed(intermediates, {**row, "sequence": place, "value": value})
            for place, value in enumerate(values, sequence)
        ]
        with self._session.writing() as connection:
            connection.execute(_INSERT_INTERMEDIATE, rows)

    def succeed(
        self,
        trial: TrialRecord,
        value: float,
        metrics: dict[str, float],
        cost: dict[str, float],
        seconds: float,
    ) -> TrialRecord:
        """Stores the result of a running trial; it survives anything from here on."""
        feasible = not self._study.settings.unmet(numbers_of(value, metrics, cost))
        measured = replace(trial, value=value, metrics=metrics, cost=cost, seconds=seconds, feasible=feasible)
        return self._finish(replace(measured, state="succeeded"))

    def fail(self, trial: TrialRecord, error: str, seconds: float) -> TrialRecord:
        """Stores that a running trial has no result, and why."""
        text = error[:_LONGEST_ERROR].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        return self._finish(replace(trial, state="failed", error=text, seconds=seconds))

    def stop(self, trial: TrialRecord, last: float | None, seconds: float, why: str | None = None) -> TrialRecord:
        """Stores that a running trial was ended early, what it had reported last, and why if no assessor did it."""
        number = finite(last)
        metrics = {} if number is None else {"intermediate": number}
        return self._finish(replace(trial, state="stopped", metrics=metrics, error=why, seconds=seconds))

    def holds(self, trial: TrialRecord) -> bool:
        """Returns true if that attempt of a trial runs, and is this process's own."""
        with self._session.reading() as connection:
            return self._mine(connection, trial) is not None

    @_repeated
    def _finish(self, trial: TrialRecord) -> TrialRecord:
        trial = replace(trial, finished=timestamp())
        changes: dict[str, object] = {name: getattr(trial, name) for name in _RESULT}
        with self._session.writing() as connection:
            row = self._mine(connection, trial)
            if row is None:
                raise self._too_late(trial)
            change(connection, trials, row, {**changes, "told_order": self._counters.order})
        self._counters.order += 1
        return trial

    def _mine(self, connection: Connection, trial: TrialRecord) -> Row[Any] | None:
        """Returns the row of a trial if that attempt of it runs, and is this process's own."""
        row = self._row(connection, trial)
        mine = (trial.attempt, "running", self._session.lease_key)
        return row if row is not None and (row.attempt, row.state, row.lease_token) == mine else None

    def _row(self, connection: Connection, trial: TrialRecord) -> Row[Any] | None:
        rows = connection.execute(_THIS, {"of_study": self._study.id, "of_number": trial.number})
        return sound_row(trials, rows.all(), self._study.name, self._session.database.where)

    def _too_late(self, trial: TrialRecord) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"study {self._study.name!r}: attempt {trial.attempt} of trial {trial.number} comes too late; its result "
            "is not stored",
            where=self._session.database.where,
        )


def read_intermediates(
    connection: Connection, study: StudyRecord, damage: Damage, number: int = 0, *, ended: bool = False
) -> dict[int, list[float]]:
    """Returns what the last attempt of each trial reported on its way, by the trial's number.

    Args:
        connection: to read by.
        study: which.
        damage: gets the rows that are not as they were written.
        number: of the first trial to read.
        ended: leave out trials that have not ended.
    """
    table = intermediates.c
    last = select(trials.c.number, trials.c.attempt).where(trials.c.study_id == study.id, trials.c.number >= number)
    if ended:
        last = last.where(trials.c.state.in_(ENDED_STATES))
    attempts = {tuple(row) for row in connection.execute(last)}
    # of all attempts, for one that is damaged may say another
    query = select(intermediates).where(table.study_id == study.id).order_by(table.number, table.sequence)
    if number > 0:
        query = query.where(table.number >= number)
    found: dict[int, list[float]] = {}
    for row in sound(intermediates, connection.execute(query).all(), study.name, damage):
        if (row.number, row.attempt) in attempts:
            found.setdefault(row.number, []).append(row.value)
    return found


def timestamp() -> str:
    """Returns the time, for people."""
    return leases.now().isoformat(timespec="milliseconds")
