"""All writing to a study goes through its one owner, and every write proves that it still is.

The proof is a token that grows with each owner: the statement that renews the lease finds only its own, in
the same transaction as the write. A late result of a lost owner or attempt is refused, so each counts once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from nnas_core.architecture import Architecture
from nnas_core.errors import EnvironmentFailure, NnasError
from nnas_core.study import owner
from nnas_core.study.database import Database
from nnas_core.study.records import StudyRecord, TrialRecord
from nnas_core.study.tables import owners, repeats, studies, trials

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
    update(trials).where(*_MINE, trials.c.state == "waiting").values(state="running", started=bindparam("new_started"))
)
_REQUEUE = (
    update(trials)
    .where(trials.c.study_id == bindparam("of_study"), trials.c.state == "running")
    .values(state="waiting", attempt=trials.c.attempt + 1)
)


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


@dataclass(frozen=True, order=True)
class Event:
    """One call of the tuner: ``kind`` is ``"proposed"`` or ``"told"``."""

    order: int
    kind: str
    number: int


def acquire(database: Database, study: StudyRecord) -> OwnedStudy:
    """Make this process the owner of ``study``; see ``StudyStore.acquire``."""
    claim = owner.new_claim()
    mine = owners.c.study_id == study.id
    with database.write() as connection:
        row = connection.execute(select(owners).where(mine)).first()
        if row is None:
            token = 1
            connection.execute(insert(owners).values(study_id=study.id, token=token, **vars(claim)))
        else:
            holder = owner.claim_of(row)
            if holder is not None and owner.is_alive(holder):
                raise _in_use(database, study, holder)
            token = row.token + 1
            connection.execute(update(owners).where(mine).values(token=token, **vars(claim)))
        recovered = connection.execute(_REQUEUE, {"of_study": study.id}).rowcount
        connection.execute(update(studies).where(studies.c.id == study.id).values(state="running"))
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
        columns = (trials.c.number, trials.c.state, trials.c.digest, trials.c.value)
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
                    found.append(Event(proposed, "proposed", number))
                    if told is not None:
                        found.append(Event(told, "told", number))
        return sorted(found)

    # ---- writing

    def start(self, architecture: Architecture, repeated: Sequence[int] = ()) -> TrialRecord:
        """Store a new trial, running.

        Args:
            architecture: new to the study.
            repeated: numbers of the finished trials that the tuner proposed again before this one.
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

    def restart(self, trial: TrialRecord) -> TrialRecord:
        """Let a waiting trial run."""
        started = _timestamp()
        self._change(_RESTART, trial, {"new_started": started})
        return replace(trial, state="running", started=started)

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
        row = {
            "of_study": self.study.id,
            "of_token": self._token,
            "new_expires": (owner.now() + owner.LEASE).isoformat(timespec="seconds"),
        }
        with self._database.write() as connection:
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
