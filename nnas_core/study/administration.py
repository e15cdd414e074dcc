"""Studies from outside, while or after somebody runs them: they are followed, stopped, changed, deleted.

Nothing here begins a session. What a running study is asked, those who run it read in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from nnas_core.errors import InputError, UsageError
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.leases import Holders, gone, holders, in_use
from nnas_core.study.storage.records import (
    ENDED_STATES,
    TRIAL_STATES,
    LimitsDocument,
    StudyRecord,
    TrialRecord,
    limits_of,
    numbers_of,
    trial_of,
)
from nnas_core.study.storage.rows import Damage, change, change_study, check_control, note_gaps, sound, sound_row
from nnas_core.study.storage.tables import (
    exclusive_leases,
    intermediates,
    repeats,
    retries,
    shared_leases,
    studies,
    trials,
)

__all__ = [
    "StudyStatus",
    "best_first",
    "delete_study",
    "known_holders",
    "read_status",
    "read_trials",
    "request_kill",
    "request_stop",
    "true_state",
    "update_limits",
]

_LATEST = 20
"""The trials whose mean time stands for those to come."""


@dataclass(frozen=True)
class StudyStatus:
    """Says how far a study is.

    Attributes:
        study: which; its ``state`` is the true one: ``interrupted`` where its process died without a word.
        in_use_by: who works on it (``process P on HOST since T``, and how many others), or None.
        silent: when one of them was last heard of, if that is so long ago that they are probably dead.
        counts: how many trials are in each of ``TRIAL_STATES``.
        infeasible: how many of those that succeeded do not meet the constraints.
        limits: those of the run that works on it, or of the last one: ``trials``, ``duration_s`` and ``concurrency``.
        stop_requested: it was asked to stop, and has not done so yet.
        best: the best trial; None while none succeeded.
        trial_s: the mean time of the latest trials; None while there are none.
    """

    study: StudyRecord
    in_use_by: str | None
    silent: str | None
    counts: Mapping[str, int]
    infeasible: int
    limits: LimitsDocument
    stop_requested: bool
    best: TrialRecord | None
    trial_s: float | None

    @property
    def finished(self) -> int:
        """Holds how many trials ended, with a result or without."""
        return sum(self.counts[state] for state in ENDED_STATES)

    @property
    def left_s(self) -> float | None:
        """Holds about how long a running study takes to its number of trials; None where that cannot be told."""
        wanted = self.limits["trials"]
        at_once = max(self.limits["concurrency"] or 1, self.counts["running"])  # each of many processes has so many
        if self.in_use_by is None or wanted is None or self.trial_s is None:
            return None
        return max(0, wanted - self.finished) * self.trial_s / at_once

    def to_json(self) -> dict[str, object]:
        """Returns everything but what the study was made with."""
        return {
            "name": self.study.name,
            "state": self.study.state,
            "owner": self.in_use_by,
            "tuner": self.study.settings.tuner,
            "optimize_mode": self.study.settings.optimize_mode,
            "created": self.study.created,
            "counts": {**self.counts, "infeasible": self.infeasible, "finished": self.finished},
            "limits": dict(self.limits),
            "stop_requested": self.stop_requested,
            "best": None if self.best is None else self.best.to_json(),
            "seconds_left": self.left_s,
        }


def read_status(database: Database, study: StudyRecord, damage: Damage) -> StudyStatus:
    """Returns how far ``study`` is; its ``state`` is not looked at, that of the database is.

    Args:
        database: where the study is.
        study: which.
        damage: gets the rows of trials that are not as they were written, which do not count.
    """
    with database.read() as connection:
        stored = connection.execute(select(studies).where(studies.c.id == study.id)).all()
        row = sound_row(studies, stored, None, database.where)
        if row is None:
            raise gone(database, study)
        by = known_holders(database, connection, study, damage)
        found = read_trials(connection, study, damage)
    counts = dict.fromkeys(TRIAL_STATES, 0)
    for one in found:
        counts[true_state(one, by)] += 1
    told = [one for one in found if one.state in ENDED_STATES and one.seconds is not None]
    seconds = [one.seconds for one in sorted(told, key=lambda one: one.told_order)[-_LATEST:]]
    best = best_first(found, study)
    state = str(row.state)
    return StudyStatus(
        study=study.with_state("interrupted" if state == "running" and by.who is None else state),
        in_use_by=by.who,
        silent=by.heard if by.silent else None,
        counts=counts,
        infeasible=sum(one.state == "succeeded" for one in found) - len(best),
        limits=limits_of(row.limits),
        stop_requested=by.who is not None and bool(row.stop_requested),
        best=trial_of(best[0], study) if best else None,
        trial_s=sum(seconds) / len(seconds) if seconds else None,
    )


def known_holders(database: Database, connection: Connection, study: StudyRecord, damage: Damage) -> Holders:
    """Returns who works on a study; nobody, where that cannot be read, which ``damage`` gets."""
    try:
        return holders(database, connection, study)
    except InputError as error:
        damage.add_error(error)
        return Holders(None, (), database.now(connection))


def read_trials(connection: Connection, study: StudyRecord, damage: Damage) -> list[Row[Any]]:
    """Returns the sound rows of all trials of a study, by number; the others, and what is missing, go to ``damage``."""
    query = select(trials).where(trials.c.study_id == study.id).order_by(trials.c.number)
    found = list(sound(trials, connection.execute(query).all(), study.name, damage))
    note_gaps("trial", [row.number for row in found], study.name, damage)
    return found


def best_first(rows: Sequence[Row[Any]], study: StudyRecord) -> list[Row[Any]]:
    """Returns those of the rows that succeeded and meet the constraints, the best first; of equal ones the earlier."""
    made = study.settings
    sign = -1 if made.optimize_mode == "maximize" else 1
    found = [row for row in rows if row.state == "succeeded"]
    if made.constraints:
        found = [row for row in found if not made.unmet(numbers_of(row.value, row.metrics, row.cost))]
    return sorted(found, key=lambda row: (sign * row.value, row.number))


def true_state(row: Any, by: Holders) -> str:
    """Returns the state of a trial, of its row: one that a dead process has left running waits, as it will be found."""
    state = str(row.state)
    return "waiting" if state == "running" and not by.holds(row.lease_token) else state


def request_kill(database: Database, study: StudyRecord, number: int) -> str | None:
    """Asks the process that evaluates a trial to end it.

    Returns:
        None; or the state of the trial, which does not run.

    Raises:
        InputError: the study has no such trial.
    """
    this = (trials.c.study_id == study.id, trials.c.number == number)
    with database.write() as connection:
        row = sound_row(trials, connection.execute(select(trials).where(*this)).all(), study.name, database.where)
        if row is None:
            raise InputError(f"study {study.name!r} has no trial {number}", where=database.where)
        state = true_state(row, holders(database, connection, study))
        if state != "running":
            return state
        change(connection, trials, row, {"kill_requested": row.attempt})
    return None


def request_stop(database: Database, study: StudyRecord) -> bool:
    """Asks those who work on the study to stop; false if nobody does."""
    with database.write() as connection:
        if not holders(database, connection, study).leases:
            return False
        change_study(connection, database.where, study, stop_requested=1)
    return True


def update_limits(database: Database, study: StudyRecord, changes: Mapping[str, float | None]) -> LimitsDocument | None:
    """Changes limits of a running study, which heeds them within seconds.

    Args:
        database: where the study is.
        study: which.
        changes: any of ``trials``, ``duration_s`` and ``concurrency``; the first two may be None, for no limit.

    Returns:
        All limits as they are now, or None if nobody runs the study; a run that begins brings its own limits.

    Raises:
        UsageError: nothing to change, no limit of that name, or one that is not positive.
    """
    _check(changes)
    with database.write() as connection:
        if not holders(database, connection, study).leases:
            return None
        before = connection.execute(select(studies.c.limits).where(studies.c.id == study.id)).scalar_one()
        check_control({"limits": before, "stop_requested": 0}, database.where, study.name)
        limits = limits_of({**before, **changes})
        change_study(connection, database.where, study, limits=limits)
    return limits


def _check(changes: Mapping[str, float | None]) -> None:
    if not changes:
        raise UsageError("there is nothing to change", hint="give a number of trials, a duration or a concurrency")
    for name, value in changes.items():
        if name not in ("trials", "duration_s", "concurrency"):
            raise UsageError(f"no limit is named {name!r}", hint="there are trials, duration_s and concurrency")
        if value is None and name == "concurrency":
            raise UsageError("the concurrency must be a number")
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be positive, not {value:g}")


def delete_study(database: Database, study: StudyRecord) -> None:
    """Deletes a study and its trials, for good.

    Raises:
        EnvironmentFailure: somebody works on it.
    """
    with database.write() as connection:
        by = holders(database, connection, study)
        if by.leases:
            raise in_use(database, study, by)
        for table in (intermediates, repeats, retries, trials, exclusive_leases, shared_leases):
            connection.execute(delete(table).where(table.c.study_id == study.id))
        connection.execute(delete(studies).where(studies.c.id == study.id))
