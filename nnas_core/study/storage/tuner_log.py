"""The calls of a study's tuner as they are stored, so that they can be repeated in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from nnas_core.study.storage.tables import repeats, retries, trials

__all__ = ["Event", "Stored", "digest_of", "next_numbers", "read_calls"]


def digest_of(canonical: str) -> str:
    """Returns what makes an architecture unique in its study; of ``Architecture.canonical``."""
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """Holds of a trial what is needed to repeat the tuner's calls."""

    number: int
    state: str
    digest: str
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Event:
    """One call of the tuner.

    Attributes:
        order: its place among all calls.
        kind: ``"proposed"``, ``"told"`` (how it ended), ``"failed"`` (that it failed, before it was tried again) or
            ``"imported"``.
        number: of the trial.
    """

    order: int
    kind: str
    number: int


def read_calls(
    connection: Connection, study_id: int, number: int = 0, order: int = 0
) -> tuple[list[Stored], list[Event]]:
    """Returns trials, by number, and the calls of the tuner, in their order.

    Args:
        connection: its transaction shows one state of both.
        study_id: which study.
        number: of the first trial to read; there must be no later call for the trials before, except their repeats.
        order: of the first call to read.
    """
    table = trials.c
    found, events = [], []
    query = (
        select(
            *(table.number, table.state, table.digest, table.value, table.metrics, table.cost),
            *(table.proposed_order, table.told_order),
        )
        .where(table.study_id == study_id, table.number >= number)
        .order_by(table.number)
    )
    for *values, proposed, told in connection.execute(query):
        found.append(Stored(*values))
        events += _events(values[0], proposed, told)
    again = select(repeats.c.number, repeats.c.proposed_order, repeats.c.told_order).where(
        repeats.c.study_id == study_id, repeats.c.proposed_order >= order
    )
    for row in connection.execute(again):
        events += _events(*row)
    failed = select(retries.c.told_order, retries.c.number).where(
        retries.c.study_id == study_id, retries.c.told_order >= order
    )
    events += [Event(told, "failed", trial) for told, trial in connection.execute(failed)]
    return found, sorted(event for event in events if event.order >= order)


def _events(number: int, proposed: int, told: int | None) -> list[Event]:
    if proposed == told:  # see importing.py
        return [Event(told, "imported", number)]
    events = [Event(proposed, "proposed", number)]
    return events if told is None else [*events, Event(told, "told", number)]


def next_numbers(connection: Connection, study_id: int) -> tuple[int, int]:
    """Returns the number of the next trial of a study, and the order of the next call of its tuner."""
    last = connection.execute(
        select(func.max(trials.c.number), func.max(trials.c.proposed_order), func.max(trials.c.told_order)).where(
            trials.c.study_id == study_id
        )
    ).one()
    repeated = connection.execute(select(func.max(repeats.c.told_order)).where(repeats.c.study_id == study_id)).scalar()
    retried = connection.execute(select(func.max(retries.c.told_order)).where(retries.c.study_id == study_id)).scalar()
    number, *orders = (-1 if one is None else one for one in (*last, repeated, retried))
    return number + 1, max(orders) + 1
