"""All writing to a study goes through its one owner, and every write proves that it still is.

The proof is a token that grows with each owner: the statement that renews the lease finds only its own, in
the same transaction as the write. A late result of a lost owner or attempt is refused, so each counts once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from nnas_core.errors import EnvironmentFailure, NnasError
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.holders import holder_of, in_use
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.session import TrialWriter
from nnas_core.study.storage.tables import joiners, owners, studies, trials
from nnas_core.study.storage.tuner_log import next_numbers

__all__ = ["REQUEUE", "OwnedStudy", "acquire"]

# a statement that is built once: each write begins with it
_RENEW = (
    update(owners)
    .where(owners.c.study_id == bindparam("of_study"), owners.c.token == bindparam("of_token"))
    .values(expires=bindparam("new_expires"))
)

REQUEUE = (
    update(trials)
    .where(trials.c.study_id == bindparam("of_study"), trials.c.state == "running")
    .values(state="waiting", attempt=trials.c.attempt + 1, lease_token=None)
)
"""Every trial that runs waits again; narrow it by further conditions."""

_RUNNING = update(studies).values(state="running", stop_requested=0)


def acquire(database: Database, study: StudyRecord) -> OwnedStudy:
    """Make this process the owner of ``study``; see ``StudyStore.acquire``."""
    mine = owners.c.study_id == study.id
    with database.write() as connection:
        holder = holder_of(database, connection, study)
        if holder is not None:
            raise in_use(database, study, holder, "choose another --study name")
        claim = leases.new_claim(database.now(connection))
        token = connection.execute(select(owners.c.token).where(mine)).scalar()
        if token is None:
            token = 1
            connection.execute(insert(owners).values(study_id=study.id, token=token, **vars(claim)))
        else:
            token += 1
            connection.execute(update(owners).where(mine).values(token=token, **vars(claim)))
        connection.execute(delete(joiners).where(joiners.c.study_id == study.id))
        recovered = connection.execute(REQUEUE, {"of_study": study.id}).rowcount
        connection.execute(_RUNNING.where(studies.c.id == study.id))
        numbers = next_numbers(connection, study.id)
    return OwnedStudy(database, study, claim, token, recovered, *numbers)


class OwnedStudy(TrialWriter):
    """A study in the hands of this process alone, got from ``StudyStore.acquire``; ``release`` it at the end.

    As a context manager it is released as interrupted when the block ends without that.
    """

    def __init__(
        self,
        database: Database,
        study: StudyRecord,
        claim: leases.Claim,
        token: int,
        recovered: int,
        next_number: int,
        next_order: int,
    ) -> None:
        super().__init__(database, study, next_number, next_order)
        self.recovered = recovered
        self._claim = claim
        self._token = token
        self._released = False

    def set_limits(self, limits: dict[str, Any]) -> None:
        """Store the limits of this run, which others may change from here on."""
        with self._writing() as connection:
            connection.execute(update(studies).where(studies.c.id == self.study.id).values(limits=limits))

    def renew(self) -> None:
        """Stay the owner for another ``LEASE``; every write does that too, so only long trials need it."""
        with self._writing():
            pass

    def release(self, state: str) -> None:
        """Give the study back, in one of ``STUDY_STATES``; what was running waits again.

        Nothing can be written through this object after that.
        """
        self._released = True
        leases.release(self._claim)
        mine = owners.c.study_id == self.study.id
        with self._writing() as connection:
            connection.execute(REQUEUE, {"of_study": self.study.id})
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
    def _writing(self) -> Iterator[Connection]:
        row: dict[str, object] = {"of_study": self.study.id, "of_token": self._token}
        with self._database.write() as connection:
            row["new_expires"] = (self._database.now(connection) + leases.LEASE).isoformat(timespec="milliseconds")
            if connection.execute(_RENEW, row).rowcount != 1:
                raise self._lost(connection)
            yield connection

    def _lost(self, connection: Connection) -> EnvironmentFailure:
        row = connection.execute(select(owners).where(owners.c.study_id == self.study.id)).first()
        other = None if row is None else leases.claim_of(row)
        who = other or holder_of(self._database, connection, self.study) or "another process"
        return EnvironmentFailure(
            f"study {self.study.name!r} was taken over by {who}; what this one does now is not stored",
            where=self._database.where,
            hint="let only one process work on a study",
        )
