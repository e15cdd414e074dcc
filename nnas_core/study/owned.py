"""All writing to a study goes through its one owner, and every write proves that it still is.

The proof is a token that grows with each owner: the statement that renews the lease finds only its own, in
the same transaction as the write. A late result of a lost owner or attempt is refused, so each counts once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from nnas_core.architecture import Architecture
from nnas_core.errors import EnvironmentFailure, NnasError
from nnas_core.study import owner
from nnas_core.study.database import Database
from nnas_core.study.records import ENDED_STATES, StudyRecord, TrialRecord
from nnas_core.study.tables import intermediates, owners, repeats, studies, trials

__all__ = ["Event", "OwnedStudy", "Stored", "acquire", "digest_of"]

_LONGEST_ERROR = 10_000

# statements are built once: a trial costs two of these transactions, and no text is put together for it
_RENEW = (
    update(owners)
    .where(owners.c.study_id == bindparam("of_study"), owners.c.token == bindparam("of_token"))
    .values(expires=bindparam("new_expires"))
)
_INSERT_TRIAL = insert(trials)
_INSERT_REPEAT = insert(repeats)
_MINE = (
    trials.c.study_id == bindparam("of_study"),
    trials.c.number == bindparam("of_number"),
    trials.c.attempt == bindparam("of_attempt"),
)
_FINISH = (
    update(trials)
    .where(*_MINE, trials.c.state == "running")
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "value", "metrics", "cost", "error", "seconds", "finished", "told_order")
        }
    )
)
_RESTART = (
    update(trials)
    .where(*_MINE, trials.c.state == "waiting")
    .values(state="running", started=bindparam("new_started"), worker=bindparam("new_worker"))
)
_RETRY = (
    update(trials)
    .where(*_MINE, trials.c.state == "running")
    .values(attempt=trials.c.attempt + 1, started=bindparam("new_started"))
)
_INSERT_INTERMEDIATE = insert(intermediates)
_CONTROL = select(studies.c.limits, studies.c.stop_requested).where(studies.c.id == bindparam("of_study"))
_REQUEUE = (
    update(trials)
    .where(trials.c.study_id == bindparam("of_study"), trials.c.state == "running")
    .values(state="waiting", attempt=trials.c.attempt + 1)
)

_RUNNING = update(studies).values(state="running", stop_requested=0)


def digest_of(canonical: str) -> str:
    """What the uniqueness of an architecture in its study is checked by; of ``Architecture.canonical``."""
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """What repeating the tuner's calls needs to know of a trial."""

    number: int
    state: str
    digest: str
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Event:
    """One call of the tuner: ``kind`` is ``"proposed"``, ``"told"`` or ``"imported"``."""

    order: int
    kind: str
    number: int


def acquire(database: Database, study: StudyRecord) -> OwnedStudy:
    """Make this process the owner of ``study``; see ``StudyStore.acquire``."""
    mine = owners.c.study_id == study.id
    with database.write() as connection:
        time = database.now(connection)
        claim = owner.new_claim(time)
        row = connection.execute(select(owners).where(mine)).first()
        if row is None:
            token = 1
            connection.execute(insert(owners).values(study_id=study.id, token=token, **vars(claim)))
        else:
            holder = owner.claim_of(row)
            if holder is not None and owner.is_alive(holder, time):
                raise _in_use(database, study, holder)
            token = row.token + 1
            connection.execute(update(owners).where(mine).values(token=token, **vars(claim)))
        recovered = connection.execute(_REQUEUE, {"of_study": study.id}).rowcount
        connection.execute(_RUNNING.where(studies.c.id == study.id))
        numbers = connection.execute(
            select(func.max(trials.c.number), func.max(trials.c.proposed_order), func.max(trials.c.told_order)).where(
                trials.c.study_id == study.id
            )
        ).one()
        repeated = connection.execute(
            select(func.max(repeats.c.told_order)).where(repeats.c.study_id == study.id)
        ).scalar()
    last, *orders = (-1 if number is None else number for number in (*numbers, repeated))
    return OwnedStudy(database, study, claim, token, recovered, last + 1, max(orders) + 1)


def _in_use(database: Database, study: StudyRecord, holder: owner.Claim) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"study {study.name!r} is in use by {holder}",
        where=database.where,
        hint="wait until it has ended, or choose another --study name",
    )


class OwnedStudy:
    """A study in the hands of this process, got from ``StudyStore.acquire``; ``release`` it at the end.

    As a context manager it is released as interrupted when the block ends without that.

    Attributes:
        study: which.
        recovered: how many trials a dead owner had left running; they wait again.

    Every method that writes is one transaction.

    Raises:
        EnvironmentFailure: another process took the study over, or the database cannot be written.
    """

    def __init__(
        self,
        database: Database,
        study: StudyRecord,
        claim: owner.Claim,
        token: int,
        recovered: int,
        next_number: int,
        next_order: int,
    ) -> None:
        self.study = study
        self.recovered = recovered
        self._database = database
        self._claim = claim
        self._token = token
        self._next_number = next_number
        self._next_order = next_order
        self._released = False

    # ---- reading what the owner before left

    def history(self) -> list[Stored]:
        """All trials, by number, without their architectures."""
        table = trials.c
        columns = (table.number, table.state, table.digest, table.value, table.metrics, table.cost)
        query = select(*columns).where(trials.c.study_id == self.study.id).order_by(trials.c.number)
        with self._database.read() as connection:
            return [Stored(*row) for row in connection.execute(query)]

    def events(self) -> list[Event]:
        """All calls of the tuner whose trials are stored, in their order."""
        found = []
        with self._database.read() as connection:
            for table in (trials, repeats):
                columns = (table.c.number, table.c.proposed_order, table.c.told_order)
                for number, proposed, told in connection.execute(
                    select(*columns).where(table.c.study_id == self.study.id)
                ):
                    if proposed == told:  # see importing.py
                        found.append(Event(told, "imported", number))
                        continue
                    found.append(Event(proposed, "proposed", number))
                    if told is not None:
                        found.append(Event(told, "told", number))
        return sorted(found)

    def intermediates(self) -> dict[int, list[float]]:
        """What the last attempt of each trial that ended had reported on its way, by the trial's number."""
        table = intermediates.c
        query = (
            select(table.number, table.value)
            .join(trials, (trials.c.study_id == table.study_id) & (trials.c.number == table.number))
            .where(table.study_id == self.study.id, trials.c.state.in_(ENDED_STATES), trials.c.attempt == table.attempt)
            .order_by(table.number, table.sequence)
        )
        found: dict[int, list[float]] = {}
        with self._database.read() as connection:
            for number, value in connection.execute(query):
                found.setdefault(number, []).append(value)
        return found

    def control(self) -> tuple[dict[str, Any], bool]:
        """The limits of the study as they are now, and whether it was asked to stop."""
        with self._database.read() as connection:
            limits, stop = connection.execute(_CONTROL, {"of_study": self.study.id}).one()
        return dict(limits), bool(stop)

    # ---- writing

    def set_limits(self, limits: Mapping[str, Any]) -> None:
        """Store the limits of this run, which others may change from here on."""
        with self._fenced() as connection:
            connection.execute(update(studies).where(studies.c.id == self.study.id).values(limits=dict(limits)))

    def start(self, architecture: Architecture, repeated: Sequence[int] = (), worker: str | None = None) -> TrialRecord:
        """Store a new trial, running.

        Args:
            architecture: new to the study.
            repeated: numbers of the known trials that the tuner proposed again before this one.
            worker: who evaluates it, for people.
        """
        order = self._next_order + 2 * len(repeated)
        started = _timestamp()
        canonical = architecture.canonical
        row = {
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
        }
        with self._fenced() as connection:
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
            connection.execute(_INSERT_TRIAL, row)
        trial = TrialRecord(self._next_number, "running", 1, architecture, started=started)
        self._next_number += 1
        self._next_order = order + 1
        return trial

    def restart(self, trial: TrialRecord, worker: str | None = None) -> TrialRecord:
        """Let a waiting trial run."""
        started = _timestamp()
        self._change(_RESTART, trial, {"new_started": started, "new_worker": worker})
        return replace(trial, state="running", started=started)

    def retry(self, trial: TrialRecord) -> TrialRecord:
        """Give up an attempt of a running trial, and begin the next one."""
        started = _timestamp()
        self._change(_RETRY, trial, {"new_started": started})
        return replace(trial, attempt=trial.attempt + 1, started=started)

    def intermediate(self, trial: TrialRecord, sequence: int, value: float) -> None:
        """Store what a running trial reported on its way."""
        row = {"study_id": self.study.id, "number": trial.number, "attempt": trial.attempt, "sequence": sequence}
        with self._fenced() as connection:
            connection.execute(_INSERT_INTERMEDIATE, {**row, "value": value})

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

    def _finish(self, trial: TrialRecord) -> TrialRecord:
        trial = replace(trial, finished=_timestamp())
        names = ("state", "value", "metrics", "cost", "error", "seconds", "finished")
        values = {f"new_{name}": getattr(trial, name) for name in names}
        self._change(_FINISH, trial, {**values, "new_told_order": self._next_order})
        self._next_order += 1
        return trial

    def _change(self, statement: Any, trial: TrialRecord, values: dict[str, Any]) -> None:
        row = {"of_study": self.study.id, "of_number": trial.number, "of_attempt": trial.attempt, **values}
        with self._fenced() as connection:
            if connection.execute(statement, row).rowcount != 1:
                raise EnvironmentFailure(
                    f"study {self.study.name!r}: attempt {trial.attempt} of trial {trial.number} comes too "
                    "late; its result is not stored",
                    where=self._database.where,
                )

    def renew(self) -> None:
        """Stay the owner for another ``LEASE``; every write does that too, so only long trials need it."""
        with self._fenced():
            pass

    def release(self, state: str) -> None:
        """Give the study back, in one of ``STUDY_STATES``; what was running waits again.

        Nothing can be written through this object after that.
        """
        self._released = True
        owner.release(self._claim)
        mine = owners.c.study_id == self.study.id
        with self._fenced() as connection:
            connection.execute(_REQUEUE, {"of_study": self.study.id})
            connection.execute(update(studies).where(studies.c.id == self.study.id).values(state=state))
            connection.execute(update(owners).where(mine).values(claim=None, token=owners.c.token + 1))

    def __enter__(self) -> OwnedStudy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._released:
            # what ended the work is the news; what cannot be written now, the next owner repairs
            with contextlib.suppress(NnasError):
                self.release("interrupted")

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[Connection]:
        row: dict[str, object] = {"of_study": self.study.id, "of_token": self._token}
        with self._database.write() as connection:
            row["new_expires"] = (self._database.now(connection) + owner.LEASE).isoformat(timespec="seconds")
            if connection.execute(_RENEW, row).rowcount != 1:
                raise self._lost(connection)
            yield connection

    def _lost(self, connection: Connection) -> EnvironmentFailure:
        row = connection.execute(select(owners).where(owners.c.study_id == self.study.id)).first()
        other = None if row is None else owner.claim_of(row)
        return EnvironmentFailure(
            f"study {self.study.name!r} was taken over by {other or 'another process'}; "
            "what this one does now is not stored",
            where=self._database.where,
            hint="let only one process work on a study",
        )


def _timestamp() -> str:
    return owner.now().isoformat(timespec="milliseconds")
