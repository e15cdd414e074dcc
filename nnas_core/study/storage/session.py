"""What is written of trials, and who may: every write proves that its trial is still the writer's.

A running trial belongs to the owner of the study, or to the process that has joined it and holds the trial's lease. The
statement that changes it finds only this attempt with this lease, so each result counts once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from nnas_core.errors import EnvironmentFailure
from nnas_core.space.architecture import Architecture
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord
from nnas_core.study.storage.tables import intermediates, repeats, studies, trials
from nnas_core.study.storage.tuner_log import Event, Stored, digest_of, read_calls

__all__ = ["TrialWriter", "timestamp"]

_LONGEST_ERROR = 10_000

# statements are built once: a trial costs two of these transactions, and no text is put together for it
_INSERT_TRIAL = insert(trials)
_INSERT_REPEAT = insert(repeats)
_THIS = (
    trials.c.study_id == bindparam("of_study"),
    trials.c.number == bindparam("of_number"),
    trials.c.attempt == bindparam("of_attempt"),
)
_MINE = (*_THIS, trials.c.state == "running", trials.c.lease_token.is_not_distinct_from(bindparam("of_lease")))
_HELD = select(trials.c.number).where(*_MINE)
_FINISH = (
    update(trials)
    .where(*_MINE)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "value", "metrics", "cost", "error", "seconds", "finished", "told_order")
        }
    )
)
_RESTART = (
    update(trials)
    .where(*_THIS, trials.c.state == "waiting")
    .values(
        state="running",
        started=bindparam("new_started"),
        worker=bindparam("new_worker"),
        lease_token=bindparam("of_lease"),
    )
)
_RETRY = (
    update(trials)
    .where(*_MINE)
    .values(attempt=trials.c.attempt + 1, losses=trials.c.losses + 1, started=bindparam("new_started"))
)
_INSERT_INTERMEDIATE = insert(intermediates)
_CONTROL = select(studies.c.limits, studies.c.stop_requested).where(studies.c.id == bindparam("of_study"))


class TrialWriter(ABC):
    """Trials of a study in the hands of this process.

    Every method that writes is one transaction, or part of one that a subclass has begun.

    Args:
        database: where the study is.
        study: which.
        next_number: of the next trial.
        next_order: of the next call of the tuner.

    Attributes:
        study: which.
        recovered: how many trials a dead process had left running; they wait again.

    Raises:
        EnvironmentFailure: this process may not write to the study any more, or the database cannot be written.
    """

    def __init__(self, database: Database, study: StudyRecord, next_number: int = 0, next_order: int = 0) -> None:
        self.study = study
        self.recovered = 0
        self._database = database
        self._lease: str | None = None
        self._next_number = next_number
        self._next_order = next_order

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Connection]:
        """A transaction that is refused where this process may not write to the study any more."""

    def _reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees what this process has written."""
        return self._database.read()

    # ---- reading

    def calls(self) -> tuple[list[Stored], list[Event]]:
        """All trials, by number, without their architectures; all calls of the tuner, in their order."""
        with self._reading() as connection:
            return read_calls(connection, self.study.id)

    def intermediates(self, number: int = 0) -> dict[int, list[float]]:
        """What the last attempt of each trial that ended had reported on its way, by the trial's number.

        Args:
            number: of the first trial to read.
        """
        table = intermediates.c
        query = (
            select(table.number, table.value)
            .join(trials, (trials.c.study_id == table.study_id) & (trials.c.number == table.number))
            .where(table.study_id == self.study.id, table.number >= number)
            .where(trials.c.state.in_(ENDED_STATES), trials.c.attempt == table.attempt)
            .order_by(table.number, table.sequence)
        )
        found: dict[int, list[float]] = {}
        with self._reading() as connection:
            for trial, value in connection.execute(query):
                found.setdefault(trial, []).append(value)
        return found

    def control(self) -> tuple[dict[str, Any], bool]:
        """The limits of the study as they are now, and whether it was asked to stop."""
        with self._reading() as connection:
            limits, stop = connection.execute(_CONTROL, {"of_study": self.study.id}).one()
        return dict(limits), bool(stop)

    # ---- writing

    def start(self, architecture: Architecture, repeated: Sequence[int] = (), worker: str | None = None) -> TrialRecord:
        """Store a new trial, running.

        Args:
            architecture: new to the study.
            repeated: numbers of the known trials that the tuner proposed again before this one.
            worker: who evaluates it, for people.
        """
        started = timestamp()
        canonical = architecture.canonical
        with self._writing() as connection:
            order = self._next_order + 2 * len(repeated)
            if repeated:
                connection.execute(
                    _INSERT_REPEAT,
                    [
                        {
                            "study_id": self.study.id,
                            "number": number,
                            "proposed_order": self._next_order + 2 * place,
                            "told_order": self._next_order + 2 * place + 1,
                        }
                        for place, number in enumerate(repeated)
                    ],
                )
            connection.execute(
                _INSERT_TRIAL,
                {
                    "study_id": self.study.id,
                    "number": self._next_number,
                    "state": "running",
                    "attempt": 1,
                    "digest": digest_of(canonical),
                    "architecture": canonical,
                    "metrics": {},
                    "cost": {},
                    "started": started,
                    "proposed_order": order,
                    "worker": worker,
                    "lease_token": self._lease,
                },
            )
        trial = TrialRecord(self._next_number, "running", 1, architecture, started=started)
        self._next_number += 1
        self._next_order = order + 1
        return trial

    def restart(self, trial: TrialRecord, worker: str | None = None) -> TrialRecord:
        """Let a waiting trial run."""
        started = timestamp()
        self._change(_RESTART, trial, {"new_started": started, "new_worker": worker})
        return replace(trial, state="running", started=started)

    def retry(self, trial: TrialRecord) -> TrialRecord:
        """Give up an attempt of a running trial whose process died, and begin the next one."""
        started = timestamp()
        self._change(_RETRY, trial, {"new_started": started})
        return replace(trial, attempt=trial.attempt + 1, started=started)

    def intermediate(self, trial: TrialRecord, sequence: int, *values: float) -> None:
        """Store what a running trial reported on its way; the first of the values has that sequence number."""
        row = {"study_id": self.study.id, "number": trial.number, "attempt": trial.attempt}
        rows = [{**row, "sequence": place, "value": value} for place, value in enumerate(values, sequence)]
        with self._writing() as connection:
            connection.execute(_INSERT_INTERMEDIATE, rows)

    def succeed(
        self,
        trial: TrialRecord,
        value: float,
        metrics: dict[str, float],
        cost: dict[str, float],
        seconds: float,
    ) -> TrialRecord:
        """Store the result of a running trial; it survives anything from here on."""
        return self._finish(replace(trial, state="succeeded", value=value, metrics=metrics, cost=cost, seconds=seconds))

    def fail(self, trial: TrialRecord, error: str, seconds: float) -> TrialRecord:
        """Store that a running trial has no result, and why."""
        text = error[:_LONGEST_ERROR].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        return self._finish(replace(trial, state="failed", error=text, seconds=seconds))

    def stop(self, trial: TrialRecord, last: float | None, seconds: float) -> TrialRecord:
        """Store that a running trial was ended early, and what it had reported last."""
        metrics = {} if last is None else {"intermediate": last}
        return self._finish(replace(trial, state="stopped", metrics=metrics, seconds=seconds))

    def holds(self, trial: TrialRecord) -> bool:
        """Whether that attempt of a trial runs, and is this process's own."""
        with self._reading() as connection:
            return connection.execute(_HELD, self._key(trial)).first() is not None

    def _finish(self, trial: TrialRecord) -> TrialRecord:
        trial = replace(trial, finished=timestamp())
        names = ("state", "value", "metrics", "cost", "error", "seconds", "finished")
        values = {f"new_{name}": getattr(trial, name) for name in names}
        self._change(_FINISH, trial, {**values, "new_told_order": self._next_order})
        self._next_order += 1
        return trial

    def _key(self, trial: TrialRecord) -> dict[str, Any]:
        return {
            "of_study": self.study.id,
            "of_number": trial.number,
            "of_attempt": trial.attempt,
            "of_lease": self._lease,
        }

    def _change(self, statement: Any, trial: TrialRecord, values: dict[str, Any]) -> None:
        with self._writing() as connection:
            if connection.execute(statement, {**self._key(trial), **values}).rowcount != 1:
                raise EnvironmentFailure(
                    f"study {self.study.name!r}: attempt {trial.attempt} of trial {trial.number} comes too "
                    "late; its result is not stored",
                    where=self._database.where,
                )

    @abstractmethod
    def set_limits(self, limits: dict[str, Any]) -> None:
        """Store the limits of this run, which others may change from here on."""

    @abstractmethod
    def renew(self) -> None:
        """Keep the right to write for a while; every write does that too, so only long trials need it."""


def timestamp() -> str:
    """The time, for people."""
    return leases.now().isoformat(timespec="milliseconds")
