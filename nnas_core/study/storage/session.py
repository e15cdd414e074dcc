"""A session: the time that one process works on a study, alone (``exclusive.py``) or beside others (``shared.py``).

StudyStore.acquire -> ExclusiveSession --+--> StudySession, which the coordinator works with
StudyStore.join    -> SharedSession -----+        .trials: a TrialWriter, which writes what becomes of trials
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, NamedTuple, TypeVar

from sqlalchemy import Connection, bindparam, func, select

from nnas_core.errors import NnasError
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.records import LimitsDocument, StudyRecord, TrialRecord, limits_of
from nnas_core.study.storage.rows import Damage, change, check_control, sound
from nnas_core.study.storage.tables import studies, trials
from nnas_core.study.storage.trial_writer import Counters, TrialWriter, read_intermediates
from nnas_core.study.storage.tuner_log import Event, Stored

__all__ = ["BEGUN", "Control", "StudySession", "WaitingTrial", "requeue"]

_Session = TypeVar("_Session", bound="StudySession")
_Result = TypeVar("_Result")

_CONTROL = select(studies.c.limits, studies.c.stop_requested).where(studies.c.id == bindparam("of_study"))

_KILLED = select(trials.c.number, trials.c.attempt).where(
    trials.c.study_id == bindparam("of_study"),
    trials.c.state == "running",
    trials.c.kill_requested == trials.c.attempt,
)

BEGUN = select(func.count()).where(trials.c.study_id == bindparam("of_study"), trials.c.state != "waiting")
"""Counts the trials that have ended or run."""


def requeue(connection: Connection, where: str, study: StudyRecord, *lease_tokens: str | None) -> int:
    """Lets trials that run wait again; returns how many.

    Args:
        connection: to write by.
        where: the database, for errors.
        study: which.
        lease_tokens: those that run under one of these leases; none: all.

    Raises:
        InputError: the row of one is damaged.
    """
    running = select(trials).where(trials.c.study_id == study.id, trials.c.state == "running")
    damage = Damage(where)
    found = [
        row
        for row in sound(trials, connection.execute(running).all(), study.name, damage)
        if not lease_tokens or row.lease_token in lease_tokens
    ]
    damage.refuse()
    for row in found:
        change(connection, trials, row, {"state": "waiting", "attempt": row.attempt + 1, "lease_token": None})
    return len(found)


@dataclass(frozen=True)
class Control:
    """Others may say how long a study goes on.

    Attributes:
        limits: those of the study.
        stop: it was asked to stop.
        killed: trials that somebody wants ended, each with its attempt.
    """

    limits: LimitsDocument
    stop: bool
    killed: frozenset[tuple[int, int]] = frozenset()


class WaitingTrial(NamedTuple):
    """A trial that waits, and how many of its attempts were lost."""

    trial: TrialRecord
    losses: int


class StudySession(ABC):
    """A study in the hands of this process; ``release`` it at the end.

    As a context manager it is released as interrupted when the block ends without that.

    Args:
        database: where the study is.
        study: which.
        counters: how far the study is; they are kept up to date here.

    Attributes:
        study: which.
        trials: writes what becomes of them.
        recovered: how many trials a dead process had left running; they wait again.
        control: as it was last read.
        go_on: the parameter of a command that goes on with the study after this process.
        patience_s: how long a result waits for a database that cannot be reached.

    Raises:
        EnvironmentFailure: this process may not write to the study any more, or the database cannot be written.
    """

    go_on: ClassVar[str]
    patience_s: ClassVar[float] = 0.0

    def __init__(self, database: Database, study: StudyRecord, counters: Counters) -> None:
        self.study = study
        self.database = database
        self.counters = counters
        self.trials = TrialWriter(self, study, counters)
        self.recovered = 0
        self.control = Control(limits_of({}), False)
        self._released = False

    @property
    def begun(self) -> int:
        """Holds how many trials have ended or run, here and elsewhere, as of the last turn."""
        return self.counters.begun

    # ---- transactions

    @property
    @abstractmethod
    def lease_key(self) -> str | None:
        """Holds what this process's trials are leased to; None if that is to an exclusive lease."""

    @abstractmethod
    def writing(self, *, patient: bool = True) -> AbstractContextManager[Connection]:
        """Begins a transaction, which is refused where this process may not write to the study any more.

        Args:
            patient: wait for a server that cannot be reached.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """Begins a transaction that sees what this process has written."""

    def repeated(self, work: Callable[[], _Result]) -> _Result:
        """Does a work of one transaction; again, where the connection was lost in it."""
        return self.database.repeated(work)

    @abstractmethod
    def turn(self, attempts: int) -> AbstractContextManager[None]:
        """Begins what no other process that works on the study must come between.

        Args:
            attempts: how often a trial may be begun whose process died.
        """

    # ---- the study

    @abstractmethod
    def set_limits(self, limits: LimitsDocument) -> None:
        """Stores the limits of this run, which others may change from here on."""

    def read_control(self) -> Control:
        """Reads again what others may have changed."""
        return self.repeated(self._read_control)

    def _read_control(self) -> Control:
        of_study = {"of_study": self.study.id}
        with self.reading() as connection:
            limits, stop = connection.execute(_CONTROL, of_study).one()
            check_control({"limits": limits, "stop_requested": stop}, self.database.where, self.study.name)
            killed = frozenset((number, attempt) for number, attempt in connection.execute(_KILLED, of_study))
        self.control = Control(limits_of(limits), bool(stop), killed)
        return self.control

    @abstractmethod
    def renew(self) -> None:
        """Keeps the right to write for a while; every write does that too, so only long trials need it."""

    # ---- trials

    @abstractmethod
    def news(self, untold: int | None) -> tuple[list[Stored], list[Event]]:
        """Returns the calls of the tuner that this process has not heard of, and the trials that they are of.

        Args:
            untold: the number of the first trial whose result this process does not know yet; None if there is none.
        """

    @abstractmethod
    def waiting(self) -> WaitingTrial | None:
        """Returns the first trial that waits."""

    @abstractmethod
    def holds(self, trial: TrialRecord) -> bool:
        """Returns true if that attempt of a trial is still this process's own."""

    @abstractmethod
    def store_reported(self, trial: TrialRecord, sequence: int, values: Sequence[float]) -> bool:
        """Stores what a running trial reported on its way; false if it is not this process's own any more.

        Args:
            trial: which.
            sequence: the place of the first of the values among all of the trial.
            values: not empty.
        """

    def intermediates(self, number: int = 0) -> Mapping[int, list[float]]:
        """Returns what the last attempt of each trial that ended had reported on its way, by the trial's number.

        Args:
            number: of the first trial to read.
        """
        damage = Damage(self.database.where)
        with self.reading() as connection:
            found = read_intermediates(connection, self.study, damage, number, ended=True)
        damage.refuse()
        return found

    # ---- the end

    @abstractmethod
    def release(self, state: str) -> int:
        """Gives the study back; what runs here waits again, and nothing can be written any more.

        Args:
            state: one of ``STUDY_STATES``, for a study that nobody else works on.

        Returns:
            How many others do.
        """

    def __enter__(self: _Session) -> _Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._released:
            # what ended the work is the news; what cannot be written now, whoever comes next repairs
            with contextlib.suppress(NnasError):
                self.release("interrupted")
