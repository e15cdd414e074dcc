"""Who may write to a study: one process by an exclusive lease, or any number by shared ones; never both.

Each lease is a row of the database. This file says what it holds, whether the process that has it still lives, and what
others are told who would like the study.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from nnas_core.errors import EnvironmentFailure
from nnas_core.study.storage.column_kinds import Columns
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.rows import check_lease
from nnas_core.study.storage.tables import exclusive_leases, shared_leases

__all__ = [
    "TERM",
    "Holders",
    "Lease",
    "exclusive_lease",
    "gone",
    "holders",
    "in_use",
    "is_alive",
    "lease_in",
    "living_and_dead",
    "new_lease",
    "now",
    "release",
    "shut_out",
]

TERM = timedelta(minutes=1)
"""How long a lease lasts after it was last renewed, which a living process does every few seconds."""

_SILENT_S = 15.0
"""A process that was not heard of for so long is probably dead."""

_in_use_here: set[str] = set()  # the keys of this process's leases: its own dead ones can be told from them


@dataclass(frozen=True)
class Lease:
    """The right of one process to write to a study.

    Attributes:
        key: a random text, new for each lease.
        host: the machine's name.
        boot: identifies one boot of the machine and one numbering of processes (containers have their own).
        pid: the process.
        pid_start: when the process began, in the machine's ticks: process numbers are used again.
        since: when it was given, UTC.
        expires: when it ends unless it is renewed.
    """

    key: str
    host: str
    boot: str
    pid: int
    pid_start: str
    since: str
    expires: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def silent_s(self, time: datetime) -> float:
        """Returns for how long nothing was heard of its process; ``time`` as in ``is_alive``."""
        return max(0.0, (TERM - (datetime.fromisoformat(self.expires) - time)).total_seconds())

    def row(self) -> dict[str, object]:
        """Returns the lease as the tables have it."""
        values = dict(vars(self))
        return {"claim": values.pop("key"), **values}


def lease_in(row: Columns, where: str, study: str) -> Lease | None:
    """Returns the lease in a row of either table; None if the study was given back.

    Args:
        row: by column.
        where: the database, for errors.
        study: whose it is, for errors.

    Raises:
        InputError: the row is damaged.
    """
    check_lease(row, where, study)
    if row["claim"] is None:
        return None
    texts = (str(row[name]) for name in ("claim", "host", "boot", "pid_start", "since", "expires"))
    key, host, boot, pid_start, since, expires = texts
    return Lease(key, host, boot, int(str(row["pid"])), pid_start, since, expires)


def now() -> datetime:
    """Returns the time, UTC."""
    return datetime.now(timezone.utc)


# ---- of this process


def new_lease(time: datetime | None = None, term: timedelta = TERM) -> Lease:
    """Makes a lease of this process, in use until ``release``; ``time`` as in ``is_alive``."""
    time = time or now()
    lease = Lease(
        key=secrets.token_hex(8),
        host=socket.gethostname(),
        boot=_boot(),
        pid=os.getpid(),
        pid_start=_process_start(os.getpid()) or "",
        since=time.isoformat(timespec="seconds"),
        expires=(time + term).isoformat(timespec="milliseconds"),
    )
    _in_use_here.add(lease.key)
    return lease


def release(lease: Lease) -> None:
    """Says that this process no longer works under ``lease``, whatever its row says."""
    _in_use_here.discard(lease.key)


# ---- of any process


def is_alive(other: Lease, time: datetime | None = None, *, cluster: bool = False) -> bool:
    """Returns false if the process that has a lease cannot be working any more.

    On the same machine the process itself is looked at too; the machine rebooted, the number belongs to another
    process, or it is a zombie: dead. On any machine, one whose lease is over has lost it.

    Args:
        other: its lease.
        time: by the clock that the lease was made with, ``Database.now``; this machine's if None.
        cluster: machines may have one name, so that another boot is no proof of an end; the lease decides then too.
    """
    if other.host == socket.gethostname():
        if other.boot == _boot():
            if other.pid == os.getpid() and other.pid_start == (_process_start(os.getpid()) or ""):
                return other.key in _in_use_here
            if _process_start(other.pid) != other.pid_start:
                return False
        elif not cluster and other.boot.split("/")[0] != _boot().split("/")[0]:
            return False
    return datetime.fromisoformat(other.expires) > (time or now())


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: the process numbers alone must do
        return "unknown"


def _process_start(pid: int) -> str | None:
    """Returns when process ``pid`` began, or None if there is none that lives."""
    try:
        # the name of the command, in parentheses, may hold anything; state and start come after it
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    state, start = words.split()[0], words.split()[19]
    return None if state in "ZX" else start


def _signalled(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


# ---- of a study


def exclusive_lease(database: Database, connection: Connection, study: StudyRecord, time: datetime) -> Lease | None:
    """Returns the exclusive lease of a study, if its process lives; ``time`` is ``Database.now``."""
    row = connection.execute(select(exclusive_leases).where(exclusive_leases.c.study_id == study.id)).first()
    lease = None if row is None else lease_in(row._mapping, database.where, study.name)
    return lease if lease is not None and is_alive(lease, time) else None


def living_and_dead(
    database: Database, connection: Connection, study: StudyRecord, time: datetime
) -> tuple[list[Lease], list[Lease]]:
    """Returns the shared leases of a study, the earliest first: those of living processes, and those of dead ones."""
    query = (
        select(shared_leases)
        .where(shared_leases.c.study_id == study.id)
        .order_by(shared_leases.c.since, shared_leases.c.claim)
    )
    found: tuple[list[Lease], list[Lease]] = [], []
    for row in connection.execute(query):
        lease = lease_in(row._mapping, database.where, study.name)
        if lease is not None:
            found[not is_alive(lease, time, cluster=True)].append(lease)
    return found


@dataclass(frozen=True)
class Holders:
    """The processes that work on a study, as their leases tell.

    Attributes:
        exclusive: the lease of the one that has the study alone.
        shared: those of the others, the earliest first.
        time: when that was so, ``Database.now``.
    """

    exclusive: Lease | None
    shared: tuple[Lease, ...]
    time: datetime

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Holds all leases."""
        return self.shared if self.exclusive is None else (self.exclusive,)

    def holds(self, lease_key: str | None) -> bool:
        """Returns true if a trial that runs under that lease, None for an exclusive one, has a living owner."""
        if lease_key is None:
            return self.exclusive is not None
        return any(lease.key == lease_key for lease in self.shared)

    @property
    def who(self) -> str | None:
        """Says who works on the study (``process P on HOST since T``, and how many others); None: nobody."""
        if not self.leases:
            return None
        more = len(self.leases) - 1
        if more:
            return f"{self.leases[0]} and {more} more {'process' if more == 1 else 'processes'}"
        return str(self.leases[0])

    @property
    def silent(self) -> bool:
        """Holds true if nobody was heard of for so long that all are probably dead."""
        return bool(self.leases) and all(lease.silent_s(self.time) >= _SILENT_S for lease in self.leases)

    @property
    def heard(self) -> str:
        """Says when one of them was last heard of, and until when that counts."""
        last = max(self.leases, key=lambda lease: datetime.fromisoformat(lease.expires))
        until = datetime.fromisoformat(last.expires).astimezone(timezone.utc)
        return f"heard of {last.silent_s(self.time):.0f} s ago, and given up at {until:%H:%M:%S} UTC if it stays silent"


def holders(database: Database, connection: Connection, study: StudyRecord) -> Holders:
    """Returns who works on a study."""
    time = database.now(connection)
    exclusive = exclusive_lease(database, connection, study, time)
    living = [] if exclusive is not None else living_and_dead(database, connection, study, time)[0]
    return Holders(exclusive, tuple(living), time)


def in_use(database: Database, study: StudyRecord, by: Holders, instead: str | None = None) -> EnvironmentFailure:
    """Refuses to do to a study what those who work on it would not survive; ``instead`` may be done at once."""
    instead = instead or f"end it by `nnas study stop {study.name}`"
    return EnvironmentFailure(
        f"study {study.name!r} is in use by {by.who}, {by.heard}",
        where=database.where,
        hint=f"wait until it has ended, or {instead}",
    )


def shut_out(database: Database, connection: Connection, study: StudyRecord) -> None:
    """Sees to it that nobody writes on from what is known of a study: one that only seems dead must not either.

    Raises:
        EnvironmentFailure: somebody works on the study.
    """
    by = holders(database, connection, study)
    if by.leases:
        raise in_use(database, study, by)
    connection.execute(
        update(exclusive_leases)
        .where(exclusive_leases.c.study_id == study.id)
        .values(token=exclusive_leases.c.token + 1)
    )
    connection.execute(delete(shared_leases).where(shared_leases.c.study_id == study.id))


def gone(database: Database, study: StudyRecord) -> EnvironmentFailure:
    """Refuses to go on with a study that is no more."""
    return EnvironmentFailure(f"study {study.name!r} was deleted meanwhile", where=database.where)
