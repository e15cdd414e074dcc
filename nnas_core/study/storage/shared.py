"""A session of one of any number of processes that work on a study: what each may write, and when.

They take turns. A turn is one transaction in which nobody else writes, so a process that dies in it leaves nothing; and
in it, the process first shows that it is still one of them. Each has a lease, which it renews while its trials run, and
the trials that it evaluates name that lease. Who notices that another one has died gives its trials to all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.heartbeat import Heartbeat
from nnas_core.study.storage.leases import Holders, Lease
from nnas_core.study.storage.records import LimitsDocument, StudyRecord, TrialRecord, limits_of, trial_of
from nnas_core.study.storage.rows import Damage, change, change_study, sound, sound_row
from nnas_core.study.storage.session import BEGUN, StudySession, WaitingTrial, requeue
from nnas_core.study.storage.tables import exclusive_leases, shared_leases, studies, trials
from nnas_core.study.storage.trial_writer import Counters, timestamp
from nnas_core.study.storage.tuner_log import Event, Stored, next_numbers, read_calls

__all__ = ["SharedSession"]

_Result = TypeVar("_Result")

_RENEW = (
    update(shared_leases)
    .where(shared_leases.c.study_id == bindparam("of_study"), shared_leases.c.claim == bindparam("of_lease"))
    .values(expires=bindparam("new_expires"))
)


class SharedSession(StudySession):
    """A study in the hands of this process and of others, got from ``StudyStore.join``.

    The first write takes a lease. A process that was given up as dead, and is not, takes a new one with the next write;
    its trials are others' then.

    Args:
        database, study: as for ``StudySession``.
        term: of the leases.

    Raises:
        EnvironmentFailure: a process has the study alone, or the database cannot be written.
    """

    go_on = "join"
    patience_s = 600.0

    def __init__(self, database: Database, study: StudyRecord, term: timedelta) -> None:
        super().__init__(database, study, Counters())
        self._term = term
        self._lease: Lease | None = None
        self._limits = limits_of({})
        self._connection: Connection | None = None  # of the turn that goes on
        self._heart = Heartbeat(self.renew, term)

    # ---- transactions

    @property
    def lease_key(self) -> str | None:
        """Holds the key of this process's lease."""
        return None if self._lease is None else self._lease.key

    def writing(self, *, patient: bool = True) -> contextlib.AbstractContextManager[Connection]:
        """Begins a transaction in which nobody else writes, or goes on with the one at hand."""
        return contextlib.nullcontext(self._connection) if self._connection is not None else self._begun_turn()

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """Begins a transaction that changes nothing, or goes on with the one at hand."""
        return contextlib.nullcontext(self._connection) if self._connection is not None else self.database.read()

    def repeated(self, work: Callable[[], _Result]) -> _Result:
        """Does a work of one transaction; again, where the connection was lost in it, if it is not part of a turn."""
        return work() if self._connection is not None else super().repeated(work)

    @contextlib.contextmanager
    def turn(self, attempts: int) -> Iterator[None]:
        """Begins a transaction that all belongs to that is called in the block; takes the trials of the dead first."""
        with self.writing() as connection:
            self._bury(connection, attempts)
            self.read_control()
            self._count(connection)
            yield
            self._count(connection)

    def _count(self, connection: Connection) -> None:
        self.counters.begun = int(connection.execute(BEGUN, {"of_study": self.study.id}).scalar_one())

    @contextlib.contextmanager
    def _begun_turn(self) -> Iterator[Connection]:
        with self.database.write() as connection:
            if not self._renewed(connection):
                self._come_in(connection)
            self._connection = connection
            try:
                yield connection
            finally:
                self._connection = None
        self._heart.start()

    # ---- the lease

    def _renewed(self, connection: Connection) -> bool:
        if self._lease is None:
            return False
        expires = (self.database.now(connection) + self._term).isoformat(timespec="milliseconds")
        row = {"of_study": self.study.id, "of_lease": self._lease.key, "new_expires": expires}
        return connection.execute(_RENEW, row).rowcount == 1

    def _come_in(self, connection: Connection) -> None:
        time = self.database.now(connection)
        this = studies.c.id == self.study.id
        if connection.execute(select(studies.c.id).where(this)).first() is None:
            raise leases.gone(self.database, self.study)
        exclusive = leases.exclusive_lease(self.database, connection, self.study, time)
        if exclusive is not None:
            instead = "give `wait` to do so here, or choose another `study` name"
            raise leases.in_use(self.database, self.study, Holders(exclusive, (), time), instead)
        living, _ = leases.living_and_dead(self.database, connection, self.study, time)
        if not living:
            asked = {"state": "running", "stop_requested": 0, "limits": self._limits}
            change_study(connection, self.database.where, self.study, **asked)
        self._take_over(connection)
        if self._lease is not None:
            leases.release(self._lease)
        self._lease = leases.new_lease(time, self._term)
        connection.execute(insert(shared_leases).values(study_id=self.study.id, **self._lease.row()))

    def _take_over(self, connection: Connection) -> None:
        """Lets what a dead process alone has left running wait; it writes nothing more if it only seemed dead."""
        of_study = exclusive_leases.c.study_id == self.study.id
        connection.execute(
            update(exclusive_leases).where(of_study).values(claim=None, token=exclusive_leases.c.token + 1)
        )
        self.recovered += requeue(connection, self.database.where, self.study, None)

    def renew(self) -> None:
        """Stays one of those who work on the study; does not bring back one that was given up."""
        with self.database.write(patient=False) as connection:
            self._renewed(connection)

    # ---- in a turn

    def set_limits(self, limits: LimitsDocument) -> None:
        """Takes a lease; the limits become those of the study if nobody else works on it, and else theirs stay."""
        self._limits = limits
        with self.writing():
            pass

    def _bury(self, connection: Connection, attempts: int) -> None:
        """Takes the trials of those who died: they wait again, or have failed by so many deaths."""
        _, dead = leases.living_and_dead(self.database, connection, self.study, self.database.now(connection))
        for lease in dead:
            theirs = (trials.c.study_id == self.study.id, trials.c.lease_token == lease.key)
            query = select(trials).where(*theirs, trials.c.state == "running")
            damage = Damage(self.database.where)
            rows = list(sound(trials, connection.execute(query).all(), self.study.name, damage))
            damage.refuse()
            for row in rows:
                self._lose(connection, row, attempts)
            connection.execute(
                delete(shared_leases).where(
                    shared_leases.c.study_id == self.study.id, shared_leases.c.claim == lease.key
                )
            )
            self.recovered += len(rows)

    def _lose(self, connection: Connection, row: Row[Any], attempts: int) -> None:
        losses = row.losses + 1
        values: dict[str, object] = {"losses": losses, "lease_token": None}
        if losses < attempts:
            values.update(state="waiting", attempt=row.attempt + 1)
        else:
            times = f" {losses} times" if losses > 1 else ""
            values.update(state="failed", error=f"the process that evaluated it was lost{times}", finished=timestamp())
            values.update(told_order=next_numbers(connection, self.database.where, self.study)[1])
        change(connection, trials, row, values)

    def news(self, untold: int | None) -> tuple[list[Stored], list[Event]]:
        """Returns the calls of the tuner that others have made since the last time, and the trials that they are of."""
        counters = self.counters
        with self.reading() as connection:
            first = counters.number if untold is None else untold
            found, events = read_calls(connection, self.database.where, self.study, first, counters.order)
        if found:
            counters.number = max(counters.number, found[-1].number + 1)
        if events:
            counters.order = events[-1].order + 1
        return found, events

    def waiting(self) -> WaitingTrial | None:
        """Returns the first trial that waits, wherever it ran before."""
        query = select(trials).where(trials.c.study_id == self.study.id, trials.c.state == "waiting")
        with self.reading() as connection:
            rows = connection.execute(query.order_by(trials.c.number).limit(1)).all()
        row = sound_row(trials, rows, self.study.name, self.database.where)
        return None if row is None else WaitingTrial(trial_of(row, self.study), int(row.losses))

    def holds(self, trial: TrialRecord) -> bool:
        """Returns false if that attempt of a trial was given to another process."""
        return self.trials.holds(trial)

    def store_reported(self, trial: TrialRecord, sequence: int, values: Sequence[float]) -> bool:
        """Stores what a running trial reported on its way; false if it was given to another process."""
        with self.writing():
            held = self.trials.holds(trial)
            if held:
                self.trials.intermediate(trial, sequence, *values)
        return held

    # ---- the end

    def release(self, state: str) -> int:
        """Works no longer on the study; what runs here waits again. The last one leaves it in ``state``."""
        self._released = True
        self._heart.stop()
        lease, self._lease = self._lease, None
        if lease is None:
            return 0
        leases.release(lease)
        mine = (shared_leases.c.study_id == self.study.id, shared_leases.c.claim == lease.key)
        with self.database.write() as connection:
            time = self.database.now(connection)
            there = connection.execute(delete(shared_leases).where(*mine)).rowcount
            requeue(connection, self.database.where, self.study, lease.key)
            living, _ = leases.living_and_dead(self.database, connection, self.study, time)
            if there and not living:
                connection.execute(delete(shared_leases).where(shared_leases.c.study_id == self.study.id))
                if requeue(connection, self.database.where, self.study):
                    state = "interrupted"
                change_study(connection, self.database.where, self.study, state=state)
        return len(living)
