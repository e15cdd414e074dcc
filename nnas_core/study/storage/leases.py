"""One process at a time owns a study; this file knows who we are and whether another owner still lives."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["LEASE", "Claim", "claim_of", "is_alive", "new_claim", "now", "release"]

LEASE = timedelta(minutes=15)
"""How long an owner on another machine counts as alive after its last write."""

_held: set[str] = set()  # the claims of this process that are in use: its own dead ones can be told from them


@dataclass(frozen=True)
class Claim:
    """Who owns a study.

    Attributes:
        claim: a random text, new for each claim.
        host: the machine's name.
        boot: identifies one boot of the machine and one numbering of processes (containers have their own).
        pid: the process.
        pid_start: when the process began, in the machine's ticks: process numbers are used again.
        since: when the study was claimed, UTC.
        expires: when the claim ends unless it is renewed; matters only on other machines.
    """

    claim: str
    host: str
    boot: str
    pid: int
    pid_start: str
    since: str
    expires: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(timezone.utc)


def new_claim(time: datetime | None = None, lease: timedelta = LEASE) -> Claim:
    """A claim of this process, counted as held until ``release``; ``time`` as in ``is_alive``."""
    time = time or now()
    claim = Claim(
        claim=secrets.token_hex(8),
        host=socket.gethostname(),
        boot=_boot(),
        pid=os.getpid(),
        pid_start=_process_start(os.getpid()) or "",
        since=time.isoformat(timespec="seconds"),
        expires=(time + lease).isoformat(timespec="milliseconds"),
    )
    _held.add(claim.claim)
    return claim


def claim_of(row: Any) -> Claim | None:
    """The claim in a row of the table of owners, or of joiners; None if the study was given back."""
    if row.claim is None:
        return None
    return Claim(**{field.name: getattr(row, field.name) for field in fields(Claim)})


def release(claim: Claim) -> None:
    """This process no longer works on the study of ``claim``, whatever its row says."""
    _held.discard(claim.claim)


def is_alive(other: Claim, time: datetime | None = None, *, cluster: bool = False) -> bool:
    """Whether the owner may still be working.

    On the same machine the process itself is looked at; the machine rebooted, the number belongs to another
    process, or it is a zombie: dead. Of an owner that cannot be seen from here, its lease decides.

    Args:
        other: who.
        time: by the clock that the lease was made with, ``Database.now``; this machine's if None.
        cluster: machines may have one name, so that another boot is no proof of an end; the lease decides then too.
    """
    if other.host == socket.gethostname():
        if other.boot == _boot():
            if other.pid == os.getpid() and other.pid_start == (_process_start(os.getpid()) or ""):
                return other.claim in _held
            return _process_start(other.pid) == other.pid_start
        if not cluster and other.boot.split("/")[0] != _boot().split("/")[0]:
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
    """When process ``pid`` began, or None if there is none that lives."""
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
