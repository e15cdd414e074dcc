"""One process has a study alone: it runs trials, and says how the study ended.

The trials themselves are ``trial_loop.py``'s; ``cooperation.py`` has the same for processes that share a study.
"""

from __future__ import annotations

import math
import time
import warnings
from contextlib import closing
from dataclasses import dataclass

from nnas_core.errors import EnvironmentFailure, NnasWarning, NoResultError
from nnas_core.execution.engine import Engine, Evaluate, InProcessEngine
from nnas_core.space.region import shown
from nnas_core.study.failures import causes
from nnas_core.study.limits import REASONS, RunSettings, interrupted
from nnas_core.study.storage.exclusive import ExclusiveSession
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.trial_loop import TrialLoop
from nnas_core.tuners.base import Tuner

__all__ = ["StudyResult", "as_engine", "no_result", "run_study", "wait_for"]

_LOOK_S = 0.5
"""How often it is looked whether a study is free."""


@dataclass(frozen=True)
class StudyResult:
    """Says how a study ended.

    Attributes:
        study: which.
        best: its best trial.
        finished: trials that ended, in this run and before.
        failed: those of them that have no result.
        recovered: trials that a dead process had left running, and that were run again.
        reason: one of ``REASONS``, which has a sentence for each.
    """

    study: StudyRecord
    best: TrialRecord
    finished: int
    failed: int
    recovered: int
    reason: str


def run_study(
    store: StudyStore,
    study: StudyRecord,
    tuner: Tuner,
    engine: Engine | Evaluate,
    settings: RunSettings | None = None,
) -> StudyResult:
    """Runs trials until a limit is reached or the tuner has no more; a study that has trials is resumed.

    The limits are stored with the study, and heeded when somebody changes them there meanwhile.

    Args:
        store: where the study is.
        study: from ``create_study`` or ``resume_study``.
        tuner: fresh, from ``create_tuner``; its space is given to it here.
        engine: runs the trials, and is closed at the end; or a function that measures an architecture in this
            process. ``TrialFailed`` fails the trial; so does ``UserCodeError``, except in the first attempt of a study
            without any result. Any other exception ends the run and lets the trial wait for the next one.
        settings: how long, how much at once, and who is told; None for the defaults.

    Raises:
        EnvironmentFailure: another process works on the study, or the database cannot be written.
        UserCodeError: the tuner proposed what is no architecture of the space.
        NoResultError: no trial of the study succeeded, or too many of this run failed.
        Interrupted: ``should_stop`` said so; everything is stored.
    """
    engine, settings = as_engine(engine), settings or RunSettings()
    with closing(engine), _acquired(store, study, settings) as session:
        with closing(engine):  # before the study is given back: nobody else begins what still runs here
            loop = TrialLoop(store, session, tuner, engine, settings)
            reason = loop.run()
        session.release("interrupted" if reason == "stopped" else "finished")
    best = store.best(study)
    if best is None:
        raise no_result(store, study, reason)
    return StudyResult(study, best, loop.finished, loop.failed, session.recovered, reason)


def _acquired(store: StudyStore, study: StudyRecord, settings: RunSettings) -> ExclusiveSession:
    while True:
        if settings.wait:
            wait_for(store, study, settings)
        try:
            if settings.retry_failed:
                store.retry(study)
            return store.acquire(study)
        except EnvironmentFailure:
            if not settings.wait or store.in_use_by(study) is None:
                raise  # with ``wait``, somebody else was quicker


def wait_for(store: StudyStore, study: StudyRecord, settings: RunSettings, *, beside_others: bool = False) -> None:
    """Returns when nobody works on a study any more.

    Args:
        store: where the study is.
        study: which.
        settings: who may end the waiting.
        beside_others: those who share it do not matter, only one that has it alone.

    Raises:
        Interrupted: ``should_stop`` said so.
    """
    said = False
    while True:
        by = store.holders(study)
        if not by.leases or (beside_others and by.exclusive is None):
            return
        if not said:
            warnings.warn(f"waits for study {study.name!r}: in use by {by.who}, {by.heard}", NnasWarning, stacklevel=2)
            said = True
        number = settings.should_stop()
        if number is not None:
            go_on = "join" if beside_others else "resume"
            raise interrupted(study, store.status(study).finished, number, go_on)
        time.sleep(_LOOK_S)


def as_engine(engine: Engine | Evaluate) -> Engine:
    """Returns an engine, also for a function that measures an architecture in this process."""
    return engine if isinstance(engine, Engine) else InProcessEngine(engine)


def no_result(store: StudyStore, study: StudyRecord, reason: str) -> NoResultError:
    """Describes the end of a study without any trial that succeeded; ``reason`` is one of ``REASONS``."""
    failed = store.trials(study, state="failed")
    stopped = len(store.trials(study, state="stopped"))
    beyond = [trial for trial in store.trials(study, state="succeeded") if not trial.feasible]
    if beyond:
        asked = " and ".join(map(str, study.settings.constraints))
        return NoResultError(
            f"none of the {len(beyond)} trials of study {study.name!r} that succeeded has {asked}",
            problems=_nearest(study, beyond),
            hint="move the bounds in another study, or try more with `resume`",
        )
    if not failed and not stopped:
        return NoResultError(f"study {study.name!r} has no finished trial: {REASONS[reason]}")
    message = f"all {len(failed)} finished trials of study {study.name!r} failed"
    if stopped:
        message = f"no trial of study {study.name!r} succeeded: {stopped} were stopped early, {len(failed)} failed"
    return NoResultError(message, problems=causes(failed))


def _nearest(study: StudyRecord, beyond: list[TrialRecord]) -> list[str]:
    """Returns for each constraint that a trial does not meet the one that came nearest."""
    lines = []
    for one in study.settings.constraints:
        best = min(beyond, key=lambda trial: one.excess(trial.numbers.get(one.name, math.inf)))
        value = best.numbers.get(one.name)
        lines.append(f"{one}: nearest was {'nothing' if value is None else shown(value)}, of trial {best.number}")
    return lines
