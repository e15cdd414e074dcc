"""Studies from outside, while or after somebody runs them: they are followed, stopped, changed, deleted.

Nothing here begins a session. What a running study is asked, those who run it read in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update

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
)
from nnas_core.study.storage.tables import (
    exclusive_leases,
    intermediates,
    repeats,
    retries,
    shared_leases,
    studies,
    trials,
)

__all__ = ["StudyStatus", "delete_study", "read_status", "request_kill", "request_stop", "true_state", "update_limits"]

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
        limits: those of the run that works on it, or of the last one: ``trials``, ``duration_s`` and ``concurrency``.
        stop_requested: it was asked to stop, and has not done so yet.
        best: the best trial; None while none succeeded.
        trial_s: the mean time of the latest trials; None while there are none.
    """

    study: StudyRecord
    in_use_by: str | None
    silent: str | None
    counts: Mapping[str, int]
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
            "counts": {**self.counts, "finished": self.finished},
            "limits": dict(self.limits),
            "stop_requested": self.stop_requested,
            "best": None if self.best is None else self.best.to_json(),
            "seconds_left": self.left_s,
        }


def read_status(database: Database, study: StudyRecord, best: TrialRecord | None) -> StudyStatus:
    """Returns how far ``study`` is; its ``state`` is not looked at, that of the database is."""
    latest = (
        select(trials.c.seconds)
        .where(trials.c.study_id == study.id, trials.c.state.in_(ENDED_STATES), trials.c.seconds.is_not(None))
        .order_by(trials.c.told_order.desc())
        .limit(_LATEST)
        .subquery()
    )
    with database.read() as connection:
        row = connection.execute(
            select(studies.c.state, studies.c.limits, studies.c.stop_requested).where(studies.c.id == study.id)
        ).first()
        if row is None:
            raise gone(database, study)
        by = holders(database, connection, study)
        counted = connection.execute(
            select(trials.c.state, trials.c.lease_token, func.count().label("number"))
            .where(trials.c.study_id == study.id)
            .group_by(trials.c.state, trials.c.lease_token)
        ).all()
        trial_s = connection.execute(select(func.avg(latest.c.seconds))).scalar()
    counts = dict.fromkeys(TRIAL_STATES, 0)
    for one in counted:
        counts[true_state(one, by)] += one.number
    state = "interrupted" if row.state == "running" and by.who is None else row.state
    return StudyStatus(
        study=study.with_state(state),
        in_use_by=by.who,
        silent=by.heard if by.silent else None,
        counts=counts,
        limits=limits_of(row.limits),
        stop_requested=by.who is not None and bool(row.stop_requested),
        best=best,
        trial_s=trial_s,
    )


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
        row = connection.execute(select(trials.c.state, trials.c.lease_token, trials.c.attempt).where(*this)).first()
        if row is None:
            raise InputError(f"study {study.name!r} has no trial {number}", where=database.where)
        state = true_state(row, holders(database, connection, study))
        if state != "running":
            return state
        connection.execute(update(trials).where(*this).values(kill_requested=row.attempt))
    return None


def request_stop(database: Database, study: StudyRecord) -> bool:
    """Asks those who work on the study to stop; false if nobody does."""
    with database.write() as connection:
        if not holders(database, connection, study).leases:
            return False
        connection.execute(update(studies).where(studies.c.id == study.id).values(stop_requested=1))
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
        limits = limits_of({**before, **changes})
        connection.execute(update(studies).where(studies.c.id == study.id).values(limits=limits))
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
