"""One process has a study alone: it runs trials, and says how the study ended.

The trials themselves are ``trial_loop.py``'s; ``cooperation.py`` has the same for processes that share a study.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from nnas_core.errors import NoResultError
from nnas_core.execution.engine import Engine, Evaluate, InProcessEngine
from nnas_core.study.limits import RunSettings
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.trial_loop import REASONS, TrialLoop, causes
from nnas_core.tuners.base import Tuner

__all__ = ["StudyResult", "as_engine", "no_result", "run_study"]


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
    engine = as_engine(engine)
    with closing(engine), store.acquire(study) as session:
        with closing(engine):  # before the study is given back: nobody else begins what still runs here
            loop = TrialLoop(store, session, tuner, engine, settings or RunSettings())
            reason = loop.run()
        session.release("interrupted" if reason == "stopped" else "finished")
    best = store.best(study)
    if best is None:
        raise no_result(store, study, reason)
    return StudyResult(study, best, loop.finished, loop.failed, session.recovered, reason)


def as_engine(engine: Engine | Evaluate) -> Engine:
    """Returns an engine, also for a function that measures an architecture in this process."""
    return engine if isinstance(engine, Engine) else InProcessEngine(engine)


def no_result(store: StudyStore, study: StudyRecord, reason: str) -> NoResultError:
    """Describes the end of a study without any trial that succeeded; ``reason`` is one of ``REASONS``."""
    failed = store.trials(study, state="failed")
    stopped = len(store.trials(study, state="stopped"))
    if not failed and not stopped:
        return NoResultError(f"study {study.name!r} has no finished trial: {REASONS[reason]}")
    message = f"all {len(failed)} finished trials of study {study.name!r} failed"
    if stopped:
        message = f"no trial of study {study.name!r} succeeded: {stopped} were stopped early, {len(failed)} failed"
    return NoResultError(message, problems=causes(failed))
