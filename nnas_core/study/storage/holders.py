"""Who works on a study: its one owner, or the processes that have joined it; never both."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from nnas_core.errors import EnvironmentFailure
from nnas_core.study.storage import leases
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.leases import Claim
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.tables import joiners, owners

__all__ = ["gone", "holder_of", "in_use", "joiners_of", "owner_of"]


def owner_of(connection: Connection, study: StudyRecord, time: datetime) -> Claim | None:
    """The living owner of a study; ``time`` is ``Database.now``."""
    row = connection.execute(select(owners).where(owners.c.study_id == study.id)).first()
    claim = None if row is None else leases.claim_of(row)
    return claim if claim is not None and leases.is_alive(claim, time) else None


def joiners_of(connection: Connection, study: StudyRecord, time: datetime) -> tuple[list[Claim], list[Claim]]:
    """The processes that have joined a study, the earliest first: those that live, and those that died in it."""
    query = select(joiners).where(joiners.c.study_id == study.id).order_by(joiners.c.since, joiners.c.claim)
    found: tuple[list[Claim], list[Claim]] = [], []
    for row in connection.execute(query):
        claim = leases.claim_of(row)
        if claim is not None:
            found[not leases.is_alive(claim, time, cluster=True)].append(claim)
    return found


def holder_of(database: Database, connection: Connection, study: StudyRecord) -> str | None:
    """Who works on ``study`` (``process P on HOST since T``, and how many others), or None."""
    time = database.now(connection)
    claim = owner_of(connection, study, time)
    if claim is not None:
        return str(claim)
    living, _ = joiners_of(connection, study, time)
    if len(living) < 2:
        return str(living[0]) if living else None
    return f"{living[0]} and {len(living) - 1} more {'process' if len(living) == 2 else 'processes'}"


def in_use(database: Database, study: StudyRecord, holder: str, instead: str | None = None) -> EnvironmentFailure:
    """The refusal to do to a study what those who work on it would not survive; ``instead`` may be done at once."""
    instead = instead or f"end it by `nnas study stop {study.name}`"
    return EnvironmentFailure(
        f"study {study.name!r} is in use by {holder}",
        where=database.where,
        hint=f"wait until it has ended, or {instead}",
    )


def gone(database: Database, study: StudyRecord) -> EnvironmentFailure:
    """The refusal to go on with a study that is no more."""
    return EnvironmentFailure(f"study {study.name!r} was deleted meanwhile", where=database.where)
