"""The calls of a study's tuner as they are stored, so that they can be repeated in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from nnas_core.study.storage.records import StudyRecord, numbers_of
from nnas_core.study.storage.rows import Damage, note_gaps, sound
from nnas_core.study.storage.tables import repeats, retries, trials

__all__ = ["Event", "Stored", "next_numbers", "read_calls"]


@dataclass(frozen=True)
class Stored:
    """Holds of a trial what is needed to repeat the tuner's calls."""

    number: int
    state: str
    digest: str
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """All that was measured, by name."""
        return numbers_of(self.value, self.metrics, self.cost)


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
    connection: Connection, where: str, study: StudyRecord, number: int = 0, order: int = 0
) -> tuple[list[Stored], list[Event]]:
    """Returns trials, by number, and the calls of the tuner, in their order.

    Args:
        connection: its transaction shows one state of both.
        where: the database, for errors.
        study: which.
        number: of the first trial to read; there must be no later call for the trials before, except their repeats.
        order: of the first call to read.

    Raises:
        InputError: rows are damaged, or missing; each is named.
    """
    found: list[Stored] = []
    events: list[Event] = []
    damage = Damage(where)
    rows = connection.execute(
        select(trials).where(trials.c.study_id == study.id, trials.c.number >= number).order_by(trials.c.number)
    )
    for row in sound(trials, rows.all(), study.name, damage):
        found.append(Stored(row.number, row.state, row.digest, row.value, row.metrics, row.cost))
        events += _events(row.number, row.proposed_order, row.told_order)
    again = select(repeats).where(repeats.c.study_id == study.id)
    failed = select(retries).where(retries.c.study_id == study.id)
    if order > 0:
        again = again.where(repeats.c.proposed_order >= order)
        failed = failed.where(retries.c.told_order >= order)
    for row in sound(repeats, connection.execute(again).all(), study.name, damage):
        events += _events(row.number, row.proposed_order, row.told_order)
    for row in sound(retries, connection.execute(failed).all(), study.name, damage):
        events.append(Event(row.told_order, "failed", row.number))
    note_gaps("trial", [one.number for one in found], study.name, damage, first=number)
    events = sorted(event for event in events if event.order >= order)
    note_gaps("call of the tuner", [event.order for event in events], study.name, damage, first=order)
    damage.refuse()
    return found, events


def _events(number: int, proposed: int, told: int | None) -> list[Event]:
    if proposed == told:  # see importing.py
        return [Event(told, "imported", number)]
    events = [Event(proposed, "proposed", number)]
    return events if told is None else [*events, Event(told, "told", number)]


def next_numbers(connection: Connection, where: str, study: StudyRecord) -> tuple[int, int]:
    """Returns the number of the next trial of a study, and the order of the next call of its tuner.

    Raises:
        InputError: rows are damaged; each is named.
    """
    last = connection.execute(
        select(func.max(trials.c.number), func.max(trials.c.proposed_order), func.max(trials.c.told_order)).where(
            trials.c.study_id == study.id
        )
    ).one()
    repeated = connection.execute(select(func.max(repeats.c.told_order)).where(repeats.c.study_id == study.id)).scalar()
    retried = connection.execute(select(func.max(retries.c.told_order)).where(retries.c.study_id == study.id)).scalar()
    found = (*last, repeated, retried)
    if not all(one is None or type(one) is int for one in found):
        read_calls(connection, where, study)  # says which row it is
    number, *orders = (-1 if one is None else one for one in found)
    return number + 1, max(orders) + 1
