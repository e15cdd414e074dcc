"""Any number of processes run one study together, none of them in charge: each asks a tuner of its own.

All tuners hear the same calls in the same order, that of the store, so they are copies of one another, and whichever is
asked proposes what a single process would have proposed. In a turn (see ``joining``), a process catches up with the
calls of the others, and then stores a result, or asks for the next trial.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from nnas_core.errors import EnvironmentFailure, Interrupted, NnasWarning
from nnas_core.execution.engine import Engine, Evaluate, Failed, Finished, InProcessEngine
from nnas_core.study.coordinator import Run, StudyResult, interrupted, no_result
from nnas_core.study.limits import Limits, TrialRules
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.shared import LEASE, JoinedStudy
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner

__all__ = ["JoinedResult", "run_joined"]

_FEW = 16
"""Calls of others that a turn may repeat while they wait; more are repeated before it."""

_PATIENCE_S = 600.0
"""How long a result waits for a store that cannot be reached."""

_AGAIN_S = 1.0
"""How often it is tried."""


@dataclass(frozen=True)
class JoinedResult:
    """How a process left a study.

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


def run_joined(
    store: StudyStore,
    study: StudyRecord,
    tuner: Tuner,
    engine: Engine | Evaluate,
    *,
    trials: int | None = None,
    duration_s: float | None = None,
    concurrency: int = 1,
    rules: TrialRules | None = None,
    lease: timedelta = LEASE,
    should_stop: Callable[[], int | None] = lambda: None,
    on_start: Callable[[int, int], None] = lambda finished, recovered: None,
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
    on_retry: Callable[[TrialRecord, str], None] = lambda trial, why: None,
) -> JoinedResult:
    """Run trials of a study beside other processes that do the same, until there are none to begin.

    Where the others still evaluate at that time, they end the study. Limits that somebody changes in the store hold for
    all from then on.

    Args:
        store: where the study is.
        study: from ``join_study``.
        tuner: fresh, from ``create_tuner``; its space is given to it here.
        engine: as for ``run_study``.
        trials: the number of finished trials that the study shall have, wherever they end; that of the first holds.
        duration_s: no trial begins here after so many seconds of this process.
        concurrency: trials that run at once here, as far as the engine has slots.
        rules: for each trial; the failures that end a run are those of its own.
        lease: after how long without a word from here others on other machines count this process as dead.
        should_stop: asked before every trial and several times a second; a signal's number ends the run.
        on_start: called once with the numbers of finished and of recovered trials.
        on_trial: called with each trial that ended here, after it is stored.
        on_retry: called with a trial that begins again, and with what ended the attempt before.

    Raises:
        UsageError: a limit is not positive.
        EnvironmentFailure: a process owns the study, or the database cannot be written.
        UserCodeError: the tuner proposed what is no architecture of the space.
        NoResultError: no trial of the study succeeded and nobody works on it, or too many of this run failed.
        Interrupted: ``should_stop`` said so; the trials at hand wait for the others.
    """
    if not isinstance(engine, Engine):
        engine = InProcessEngine(engine)
    with closing(engine), store.join(study, lease) as joined:
        try:
            limits = Limits(joined, trials, duration_s, concurrency)
            run = _JoinedRun(store, joined, tuner, engine, limits, rules or TrialRules())
            on_start(run.finished, joined.recovered)
            try:
                reason = run.until_done(should_stop, on_trial, on_retry)
            except Interrupted as stop:
                raise interrupted(study, run.finished, stop.signal_number, "--join") from None
        finally:
            engine.close()  # before its trials are given to others
        others = joined.leave("interrupted" if reason == "stopped" else "finished")
    whole = None
    if not others:
        best = store.best(study)
        if best is None:
            raise no_result(store, study, reason)
        status = store.status(study)  # others may have stored results since this process looked
        whole = StudyResult(study, best, status.finished, status.counts["failed"], joined.recovered, reason)
    return JoinedResult(study, run.evaluated, others, reason, whole)


class _JoinedRun(Run):
    """The trials of one process of several."""

    def __init__(
        self,
        store: StudyStore,
        joined: JoinedStudy,
        tuner: Tuner,
        engine: Engine,
        limits: Limits,
        rules: TrialRules,
    ) -> None:
        self.evaluated = 0
        self._joined = joined
        self._should_stop: Callable[[], int | None] = lambda: None
        super().__init__(store, joined, tuner, engine, limits, rules)
        with self._turn():
            pass

    def until_done(
        self,
        should_stop: Callable[[], int | None],
        on_trial: Callable[[TrialRecord], None],
        on_retry: Callable[[TrialRecord, str], None],
    ) -> str:
        """Run trials; the reason why there are no more to begin."""
        self._should_stop = should_stop
        return super().until_done(should_stop, on_trial, on_retry)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn that begins with all that the others did."""
        while self._repeat_news() > _FEW:
            pass
        with self._joined.turn():
            self._joined.bury(self._rules.attempts)
            self._repeat_news()
            self._begun = self._joined.begun()
            yield
            self._begun = self._joined.begun()

    def _catch_up(self) -> None:
        self._repeat_news()

    def _repeat_news(self) -> int:
        stored, events = self._joined.news(min(self._proposer.untold, default=None))
        self._learn(stored, events)
        return len(events)

    def _limit(self) -> str | None:
        return self._limits.reached(self._begun) or ("exhausted" if self._begun >= self._size else None)

    def _next(self) -> TrialRecord | str | None:
        with self._turn():
            self._limits.read()
            if self._limit():
                return None
            found = self._joined.waiting()
            self._waiting = []
            if found is not None:
                trial, lost = found
                self._waiting.append(trial)
                self._losses[trial.number] = lost
            return super()._next()

    def _close(
        self,
        trial: TrialRecord,
        report: Finished | Failed,
        on_trial: Callable[[TrialRecord], None],
        on_retry: Callable[[TrialRecord, str], None],
    ) -> None:
        news: list[Callable[[], None]] = []  # told when it is stored
        self._await_store(trial)
        with self._turn():
            if self._joined.holds(trial):
                super()._close(
                    trial,
                    report,
                    lambda ended: news.append(partial(self._ended, ended, on_trial)),
                    lambda again, why: news.append(partial(on_retry, again, why)),
                )
            else:
                news.append(partial(self._refuse, trial))
        for tell in news:
            tell()

    def _await_store(self, trial: TrialRecord) -> None:
        """Return when the store can be read: what took hours to measure shall not be lost to a server that restarts."""
        end = time.monotonic() + _PATIENCE_S
        said = False
        while True:
            try:
                self._repeat_news()
                return
            except EnvironmentFailure as error:
                if time.monotonic() > end:
                    raise
                if not said:
                    warnings.warn(f"{error}; the result of trial {trial.number} waits", NnasWarning, stacklevel=2)
                    said = True
            number = self._should_stop()
            if number is not None:
                raise interrupted(self._joined.study, self.finished, number)
            time.sleep(_AGAIN_S)

    def _store_reported(self, trial: TrialRecord) -> None:
        if len(self._reported[trial.number]) == self._stored[trial.number]:
            return
        with self._joined.turn():
            held = self._joined.holds(trial)
            if held:
                super()._store_reported(trial)
        if not held:
            self._engine.cancel(trial.number, trial.attempt, "taken over")
            self._refuse(trial)

    def _refuse(self, trial: TrialRecord) -> None:
        self._forget(trial)
        warnings.warn(
            f"trial {trial.number} was given to another process, as if this one had died; what it measures here does "
            "not count",
            NnasWarning,
            stacklevel=2,
        )

    def _ended(self, trial: TrialRecord, on_trial: Callable[[TrialRecord], None]) -> None:
        self.evaluated += 1
        on_trial(trial)
