"""Any number of processes run one study together, none of them in charge: each asks a tuner of its own.

All tuners hear the same calls in the same order, that of the store, so they are copies of one another, and whichever is
asked proposes what a single process would have proposed. In a turn (see ``storage/shared.py``), a process catches up
with the calls of the others, and then stores a result, or asks for the next trial.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from nnas_core.errors import Interrupted
from nnas_core.execution.engine import Engine, Evaluate
from nnas_core.study.coordinator import StudyResult, as_engine, no_result, wait_for
from nnas_core.study.limits import RunSettings, interrupted
from nnas_core.study.storage.leases import TERM
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.trial_loop import TrialLoop
from nnas_core.tuners.base import Tuner

__all__ = ["SharedResult", "run_shared"]


@dataclass(frozen=True)
class SharedResult:
    """Says how a process left a study that others may still work on.

    Attributes:
        study: which.
        evaluated: trials that ended here.
        others: processes that still work on the study.
        reason: why this one ended, as in ``StudyResult``.
        whole: how the study ended; None while others work on it.
    """

    study: StudyRecord
    evaluated: int
    others: int
    reason: str
    whole: StudyResult | None


def run_shared(
    store: StudyStore,
    study: StudyRecord,
    tuner: Tuner,
    engine: Engine | Evaluate,
    settings: RunSettings | None = None,
    term: timedelta = TERM,
) -> SharedResult:
    """Runs trials of a study beside other processes that do the same, until there are none to begin.

    Where the others still evaluate at that time, they end the study. Limits that somebody changes in the store hold for
    all from then on.

    Args:
        store: where the study is.
        study: from ``join_study``.
        tuner: fresh, from ``create_tuner``; its space is given to it here.
        engine: as for ``run_study``.
        settings: as for ``run_study``; the number of trials counts them wherever they end, and that of the first
            process holds; the time, the trials at once, and the failures that end a run are those of this process.
        term: after how long without a word from here others on other machines count this process as dead.

    Raises:
        EnvironmentFailure: a process has the study alone, or the database cannot be written.
        UserCodeError: the tuner proposed what is no architecture of the space.
        NoResultError: no trial of the study succeeded and nobody works on it, or too many of this run failed.
        Interrupted: ``should_stop`` said so; the trials at hand wait for the others.
    """
    engine, settings = as_engine(engine), settings or RunSettings()
    if settings.wait:
        wait_for(store, study, settings, beside_others=True)
    with closing(engine), store.join(study, term) as session:
        with closing(engine):  # before its trials are given to others
            loop = TrialLoop(store, session, tuner, engine, settings)
            try:
                reason = loop.run()
            except Interrupted as stop:  # perhaps of an evaluation, which does not know how this study goes on
                raise interrupted(study, loop.finished, stop.signal_number, session.go_on) from None
        others = session.release("interrupted" if reason == "stopped" else "finished")
    whole = None
    if not others:
        best = store.best(study)
        if best is None:
            raise no_result(store, study, reason)
        status = store.status(study)  # others may have stored results since this process looked
        whole = StudyResult(study, best, status.finished, status.counts["failed"], session.recovered, reason)
    return SharedResult(study, loop.evaluated, others, reason, whole)
