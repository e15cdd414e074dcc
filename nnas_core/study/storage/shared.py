"""A study that any number of processes work on, without an owner: what each may write, and when.

They take turns. A turn is one transaction in which nobody else writes, so a process that dies in it leaves nothing; and
in it, the process first shows that it is still one of them. Each has a claim, which it renews while its trials run, and
the trials that it evaluates are leased to that claim. Who notices that another one has died gives its trials to all.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from nnas_core.errors import NnasError
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.exclusive import REQUEUE
from nnas_core.study.storage.holders import gone, in_use, joiners_of, owner_of
from nnas_core.study.storage.records import StudyRecord, TrialRecord, trial_of
from nnas_core.study.storage.session import TrialWriter, timestamp
from nnas_core.study.storage.tables import joiners, owners, studies, trials
from nnas_core.study.storage.tuner_log import Event, Stored, next_numbers, read_calls

__all__ = ["LEASE", "JoinedStudy"]

LEASE = timedelta(minutes=5)
"""How long a process on another machine counts as alive after it has last renewed its claim."""

_BEATS = 5  # how often a claim is renewed in the time of its lease

_RENEW = (
    update(joiners)
    .where(joiners.c.study_id == bindparam("of_study"), joiners.c.claim == bindparam("of_claim"))
    .values(expires=bindparam("new_expires"))
)
_BEGUN = select(func.count()).where(trials.c.study_id == bindparam("of_study"), trials.c.state != "waiting")


class JoinedStudy(TrialWriter):
    """A study in the hands of this process and of others, got from ``StudyStore.join``; ``leave`` it at the end.

    The first write joins. A process that was given up as dead, and is not, joins again with the next one; its trials
    are others' then. As a context manager it is left as interrupted when the block ends without that.

    Raises:
        EnvironmentFailure: an owner works on the study, or the database cannot be written.
    """

    def __init__(self, database: Database, study: StudyRecord, lease: timedelta) -> None:
        super().__init__(database, study)
        self._term = lease
        self._claim: leases.Claim | None = None
        self._limits: dict[str, Any] = {}
        self._connection: Connection | None = None  # of the turn that goes on
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="nnas-lease", daemon=True)

    # ---- turns

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One transaction, in which nobody else writes; whatever is called in the block belongs to it."""
        with self._writing():
            yield

    @contextlib.contextmanager
    def _begun_turn(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            if not self._renewed(connection):
                self._come_in(connection)
            self._connection = connection
            try:
                yield connection
            finally:
                self._connection = None
        if self._heart.ident is None:
            self._heart.start()

    def _writing(self) -> contextlib.AbstractContextManager[Connection]:
        return contextlib.nullcontext(self._connection) if self._connection is not None else self._begun_turn()

    def _reading(self) -> contextlib.AbstractContextManager[Connection]:
        return contextlib.nullcontext(self._connection) if self._connection is not None else self._database.read()

    def _renewed(self, connection: Connection) -> bool:
        if self._claim is None:
            return False
        expires = (self._database.now(connection) + self._term).isoformat(timespec="milliseconds")
        row = {"of_study": self.study.id, "of_claim": self._claim.claim, "new_expires": expires}
        return connection.execute(_RENEW, row).rowcount == 1

    def _come_in(self, connection: Connection) -> None:
        time = self._database.now(connection)
        this = studies.c.id == self.study.id
        if connection.execute(select(studies.c.id).where(this)).first() is None:
            raise gone(self._database, self.study)
        holder = owner_of(connection, self.study, time)
        if holder is not None:
            raise in_use(self._database, self.study, str(holder), "choose another --study name")
        living, _ = joiners_of(connection, self.study, time)
        if not living:
            connection.execute(
                update(studies).where(this).values(state="running", stop_requested=0, limits=self._limits)
            )
        self._take_over(connection)
        if self._claim is not None:
            leases.release(self._claim)
        self._claim = leases.new_claim(time, self._term)
        self._lease = self._claim.claim
        connection.execute(insert(joiners).values(study_id=self.study.id, **vars(self._claim)))

    def _take_over(self, connection: Connection) -> None:
        """What an owner that died has left running waits, and it writes nothing more if it only seemed dead."""
        of_owner = owners.c.study_id == self.study.id
        connection.execute(update(owners).where(of_owner).values(claim=None, token=owners.c.token + 1))
        left = REQUEUE.where(trials.c.lease_token.is_(None))
        self.recovered += connection.execute(left, {"of_study": self.study.id}).rowcount

    def renew(self) -> None:
        """Stay one of those who work on the study; does not bring back one that was given up."""
        with self._database.write() as connection:
            self._renewed(connection)

    def _beat(self) -> None:
        while not self._left.wait(self._term.total_seconds() / _BEATS):
            # what cannot be written now may be with the next beat, and the turn after it will tell
            with contextlib.suppress(NnasError):
                self.renew()

    # ---- in a turn

    def set_limits(self, limits: dict[str, Any]) -> None:
        """Join; the limits become those of the study if nobody else works on it, and else theirs stay."""
        self._limits = limits
        with self.turn():
            pass

    def bury(self, attempts: int) -> None:
        """Take the trials of those who died: they wait again, or have failed by so many deaths.

        Args:
            attempts: how often a trial may be begun.
        """
        with self._writing() as connection:
            _, dead = joiners_of(connection, self.study, self._database.now(connection))
            for claim in dead:
                theirs = (trials.c.study_id == self.study.id, trials.c.lease_token == claim.claim)
                rows = connection.execute(
                    select(trials.c.number, trials.c.losses).where(*theirs, trials.c.state == "running")
                ).all()
                for number, losses in rows:
                    self._lose(connection, number, losses + 1, attempts)
                connection.execute(
                    delete(joiners).where(joiners.c.study_id == self.study.id, joiners.c.claim == claim.claim)
                )
                self.recovered += len(rows)

    def _lose(self, connection: Connection, number: int, losses: int, attempts: int) -> None:
        this = (trials.c.study_id == self.study.id, trials.c.number == number)
        values: dict[str, Any] = {"losses": losses, "lease_token": None}
        if losses < attempts:
            values.update(state="waiting", attempt=trials.c.attempt + 1)
        else:
            times = f" {losses} times" if losses > 1 else ""
            values.update(state="failed", error=f"the process that evaluated it was lost{times}", finished=timestamp())
            values.update(told_order=next_numbers(connection, self.study.id)[1])
        connection.execute(update(trials).where(*this).values(values))

    def news(self, number: int | None) -> tuple[list[Stored], list[Event]]:
        """The calls of the tuner that others have made since the last time, and the trials that they are of.

        Args:
            number: of the first trial whose result this process does not know yet; None if there is none.
        """
        with self._reading() as connection:
            first = self._next_number if number is None else number
            found, events = read_calls(connection, self.study.id, first, self._next_order)
        if found:
            self._next_number = max(self._next_number, found[-1].number + 1)
        if events:
            self._next_order = events[-1].order + 1
        return found, events

    def begun(self) -> int:
        """How many trials have ended or run, here and elsewhere."""
        with self._reading() as connection:
            return int(connection.execute(_BEGUN, {"of_study": self.study.id}).scalar_one())

    def waiting(self) -> tuple[TrialRecord, int] | None:
        """The first trial that waits, and how many of its attempts were lost."""
        query = select(trials).where(trials.c.study_id == self.study.id, trials.c.state == "waiting")
        with self._reading() as connection:
            row = connection.execute(query.order_by(trials.c.number).limit(1)).first()
        return None if row is None else (trial_of(row, self.study), int(row.losses))

    # ---- the end

    def leave(self, state: str) -> int:
        """Work no longer on the study; what runs here waits again.

        Args:
            state: one of ``STUDY_STATES`` for a study that nobody else works on.

        Returns:
            How many others do.
        """
        self._left.set()
        if self._heart.ident is not None:
            self._heart.join()
        claim, self._claim = self._claim, None
        if claim is None:
            return 0
        leases.release(claim)
        mine = (joiners.c.study_id == self.study.id, joiners.c.claim == claim.claim)
        with self._database.write() as connection:
            time = self._database.now(connection)
            there = connection.execute(delete(joiners).where(*mine)).rowcount
            of_study = {"of_study": self.study.id}
            connection.execute(REQUEUE.where(trials.c.lease_token == claim.claim), of_study)
            living, _ = joiners_of(connection, self.study, time)
            if there and not living:
                connection.execute(delete(joiners).where(joiners.c.study_id == self.study.id))
                if connection.execute(REQUEUE, of_study).rowcount:
                    state = "interrupted"
                connection.execute(update(studies).where(studies.c.id == self.study.id).values(state=state))
        return len(living)

    def __enter__(self) -> JoinedStudy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # what ended the work is the news; what cannot be written now, the others repair
        with contextlib.suppress(NnasError):
            self.leave("interrupted")
