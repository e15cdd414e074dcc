"""A session of the one process that works on a study; every write proves that it still has the lease.

The proof is a token that grows with each exclusive lease of a study: the statement that renews the lease finds only its
own, in the same transaction as the write. A late result of a lost lease or attempt is refused, so each counts once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from nnas_core.errors import EnvironmentFailure
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.heartbeat import Heartbeat
from nnas_core.study.storage.leases import Lease
from nnas_core.study.storage.records import LimitsDocument, StudyRecord, TrialRecord, trial_of
from nnas_core.study.storage.rows import Damage, change_study, sound
from nnas_core.study.storage.session import BEGUN, Control, StudySession, WaitingTrial, requeue
from nnas_core.study.storage.tables import exclusive_leases, shared_leases, trials
from nnas_core.study.storage.trial_writer import Counters
from nnas_core.study.storage.tuner_log import Event, Stored, next_numbers, read_calls

__all__ = ["ExclusiveSession", "acquire"]

# a statement that is built once: each write begins with it
_RENEW = (
    update(exclusive_leases)
    .where(exclusive_leases.c.study_id == bindparam("of_study"), exclusive_leases.c.token == bindparam("of_token"))
    .values(expires=bindparam("new_expires"))
)


def acquire(database: Database, study: StudyRecord) -> ExclusiveSession:
    """Begins an exclusive session; see ``StudyStore.acquire``."""
    with database.write() as connection:
        by = leases.holders(database, connection, study)
        if by.leases:
            raise leases.in_use(database, study, by, "give `wait` to do so here, or choose another `study` name")
        lease = leases.new_lease(database.now(connection), leases.TERM)
        token = _give(connection, study, lease)
        connection.execute(delete(shared_leases).where(shared_leases.c.study_id == study.id))
        recovered = requeue(connection, database.where, study)
        change_study(connection, database.where, study, state="running", stop_requested=0)
        begun = int(connection.execute(BEGUN, {"of_study": study.id}).scalar_one())
        counters = Counters(*next_numbers(connection, database.where, study), begun)
    session = ExclusiveSession(database, study, counters, lease, token)
    session.recovered = recovered
    session.heart.start()
    return session


def _give(connection: Connection, study: StudyRecord, lease: Lease) -> int:
    """Writes an exclusive lease, and returns its token."""
    mine = exclusive_leases.c.study_id == study.id
    token = connection.execute(select(exclusive_leases.c.token).where(mine)).scalar()
    if token is None:
        connection.execute(insert(exclusive_leases).values(study_id=study.id, token=1, **lease.row()))
        return 1
    connection.execute(update(exclusive_leases).where(mine).values(token=token + 1, **lease.row()))
    return int(token) + 1


class ExclusiveSession(StudySession):
    """A study in the hands of this process alone, got from ``StudyStore.acquire``.

    Args:
        database, study, counters: as for ``StudySession``.
        lease: of this process.
        token: of the lease.

    Attributes:
        heart: renews the lease from ``start`` on, until the study is given back.
    """

    go_on = "resume"

    def __init__(self, database: Database, study: StudyRecord, counters: Counters, lease: Lease, token: int) -> None:
        super().__init__(database, study, counters)
        self.lease = lease
        self._token = token
        self.heart = Heartbeat(self.renew, leases.TERM)
        self._heard = False
        self._waiting: list[TrialRecord] | None = None

    # ---- transactions

    @property
    def lease_key(self) -> str | None:
        """Holds nothing: the token proves the lease."""
        return None

    @contextlib.contextmanager
    def writing(self, *, patient: bool = True) -> Iterator[Connection]:
        """Begins a transaction that renews the lease."""
        row: dict[str, object] = {"of_study": self.study.id, "of_token": self._token}
        with self.database.write(patient=patient) as connection:
            expires = self.database.now(connection) + leases.TERM
            row["new_expires"] = expires.isoformat(timespec="milliseconds")
            if connection.execute(_RENEW, row).rowcount != 1:
                raise self._lost(connection)
            yield connection

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """Begins a transaction that changes nothing."""
        return self.database.read()

    def turn(self, attempts: int) -> contextlib.AbstractContextManager[None]:
        """Does nothing: nobody else works on the study, and each write is a transaction of its own."""
        return contextlib.nullcontext()

    def _lost(self, connection: Connection) -> EnvironmentFailure:
        row = connection.execute(select(exclusive_leases).where(exclusive_leases.c.study_id == self.study.id)).first()
        other = None if row is None else leases.lease_in(row._mapping, self.database.where, self.study.name)
        who = other or leases.holders(self.database, connection, self.study).who or "another process"
        return EnvironmentFailure(
            f"study {self.study.name!r} was taken over by {who}; what this one does now is not stored",
            where=self.database.where,
            hint="let only one process work on a study",
        )

    # ---- the study

    def set_limits(self, limits: LimitsDocument) -> None:
        """Stores the limits of this run, which others may change from here on."""
        with self.writing() as connection:
            change_study(connection, self.database.where, self.study, limits=limits)

    def _read_control(self) -> Control:
        """Reads also whether the study is still in the hands of this process."""
        with self.reading() as connection:
            mine = exclusive_leases.c.study_id == self.study.id
            if connection.execute(select(exclusive_leases.c.token).where(mine)).scalar() != self._token:
                raise self._lost(connection)
        return super()._read_control()

    def renew(self) -> None:
        """Keeps the lease for another ``TERM``, if the database can be reached."""
        with self.writing(patient=False):
            pass

    # ---- trials

    def news(self, untold: int | None) -> tuple[list[Stored], list[Event]]:
        """Returns all calls of the tuner, once: no other process makes any."""
        if self._heard:
            return [], []
        self._heard = True
        with self.reading() as connection:
            return read_calls(connection, self.database.where, self.study)

    def waiting(self) -> WaitingTrial | None:
        """Returns the first trial that earlier runs have left; losses of theirs do not count."""
        if self._waiting is None:
            query = select(trials).where(trials.c.study_id == self.study.id, trials.c.state == "waiting")
            damage = Damage(self.database.where)
            with self.reading() as connection:
                rows = connection.execute(query.order_by(trials.c.number.desc())).all()
            self._waiting = [trial_of(row, self.study) for row in sound(trials, rows, self.study.name, damage)]
            damage.refuse()
        return WaitingTrial(self._waiting.pop(), 0) if self._waiting else None

    def holds(self, trial: TrialRecord) -> bool:
        """Returns true: a trial can only be lost with the study, and then the next write says so."""
        return True

    def store_reported(self, trial: TrialRecord, sequence: int, values: Sequence[float]) -> bool:
        """Stores what a running trial reported on its way; always true."""
        self.trials.intermediate(trial, sequence, *values)
        return True

    # ---- the end

    def release(self, state: str) -> int:
        """Gives the study back, in ``state``; what was running waits again."""
        self._released = True
        self.heart.stop()
        leases.release(self.lease)
        self.repeated(lambda: self._give_back(state))
        return 0

    def _give_back(self, state: str) -> None:
        mine = exclusive_leases.c.study_id == self.study.id
        with self.writing() as connection:
            requeue(connection, self.database.where, self.study)
            change_study(connection, self.database.where, self.study, state=state)
            connection.execute(
                update(exclusive_leases).where(mine).values(claim=None, token=exclusive_leases.c.token + 1)
            )
