"""One process runs a study: ask the tuner, store the trial, evaluate it, store the result, tell the tuner.

The result is stored before anybody hears of it, and the tuner's calls are stored with the trials; whatever
ends the process, the next one goes on where this one was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nnas_core.architecture import Architecture
from nnas_core.errors import Interrupted, NoResultError, UsageError, UserCodeError
from nnas_core.finite import finite, finite_only
from nnas_core.study.owned import OwnedStudy, Stored, digest_of
from nnas_core.study.records import StudyRecord, TrialFailed, TrialRecord, TrialResult
from nnas_core.study.replay import Proposer
from nnas_core.study.store import StudyStore
from nnas_core.tuner import NoMoreTrials, Tuner

__all__ = ["MOST_REPEATS", "REASONS", "Evaluate", "StudyResult", "run_study"]

Evaluate = Callable[[Architecture], TrialResult]

MOST_REPEATS = 1000
"""Known architectures that a tuner may propose one after the other before the study ends."""

REASONS = {
    "trials": "the number of trials is reached",
    "duration": "the time is used up",
    "exhausted": "there are no more architectures to try",
    "repeats": f"the tuner proposed {MOST_REPEATS} known architectures one after the other",
}


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

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
    evaluate: Evaluate,
    *,
    trials: int | None = None,
    duration_s: float | None = None,
    should_stop: Callable[[], int | None] = lambda: None,
    on_start: Callable[[int, int], None] = lambda finished, recovered: None,
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
) -> StudyResult:
    """Run trials until a limit is reached or the tuner has no more; a study that has trials is resumed.

    Args:
        store: where the study is.
        study: from ``create_study`` or ``resume_study``.
        tuner: fresh, from ``create_tuner``; its space is given to it here.
        evaluate: measures an architecture. ``TrialFailed`` fails the trial; so does ``UserCodeError``, except in
            the first attempt of a study without any result. Any other exception ends the run and lets the trial wait
            for the next one.
        trials: the number of finished trials that the study shall have; None for no limit.
        duration_s: no trial begins after so many seconds of this run.
        should_stop: asked before every trial; a signal's number ends the run.
        on_start: called once with the numbers of finished and of recovered trials.
        on_trial: called with each finished trial, after it is stored.

    Raises:
        UsageError: a limit is not positive.
        EnvironmentFailure: another process owns the study, or the database cannot be written.
        UserCodeError: the tuner proposed what is no architecture of the space.
        NoResultError: no trial of the study succeeded.
        Interrupted: ``should_stop`` said so; everything is stored.
    """
    if trials is not None and trials < 1:
        raise UsageError(f"the number of trials must be at least 1, not {trials}")
    if duration_s is not None and not duration_s > 0:
        raise UsageError(f"the duration must be positive, not {duration_s:g} s")
    begin = time.monotonic()
    with store.acquire(study) as owned:
        run = _Run(store, owned, tuner, evaluate)
        on_start(run.finished, owned.recovered)
        while True:
            reason = run.limit(trials) or _expired(duration_s, begin)
            if reason:
                break
            signal_number = should_stop()
            if signal_number is not None:
                raise _interrupted(study, run.finished, signal_number)
            trial = run.next()
            if isinstance(trial, str):
                reason = trial
                break
            on_trial(run.evaluate(trial))
        owned.release("finished")
    best = store.best(study)
    if best is None:
        raise _no_result(store, study, reason)
    return StudyResult(study, best, run.finished, run.failed, owned.recovered, reason)


def _expired(duration_s: float | None, begin: float) -> str | None:
    return "duration" if duration_s is not None and time.monotonic() - begin >= duration_s else None


def _interrupted(study: StudyRecord, finished: int, signal_number: int) -> Interrupted:
    return Interrupted(
        signal_number,
        f"study {study.name!r} was interrupted; its {finished} finished trials are stored",
        hint="run the command again with --resume to go on",
    )


def _no_result(store: StudyStore, study: StudyRecord, reason: str) -> NoResultError:
    failed = store.trials(study, state="failed")
    if not failed:
        return NoResultError(f"study {study.name!r} has no finished trial: {REASONS[reason]}")
    first = {trial.error: trial.number for trial in reversed(failed)}  # each cause once, with its first trial
    causes = [f"trial {number}: {error}" for error, number in sorted(first.items(), key=lambda pair: pair[1])]
    return NoResultError(
        f"all {len(failed)} finished trials of study {study.name!r} failed",
        problems=causes[:10],
    )


class _Run:
    """The trials of one run."""

    def __init__(self, store: StudyStore, owned: OwnedStudy, tuner: Tuner, evaluate: Evaluate) -> None:
        self._store = store
        self._owned = owned
        self._evaluate = evaluate
        settings = owned.study.settings
        self._size = settings.space.size
        history = owned.history()
        self._known = {trial.digest: trial for trial in history}
        self._digests = {trial.number: trial.digest for trial in history}
        self.finished = sum(trial.state in ("succeeded", "failed") for trial in history)
        self.failed = sum(trial.state == "failed" for trial in history)
        tuner.update_search_space(settings.space.to_json())
        self._proposer = Proposer(tuner, settings.tuner, settings.space)
        self._proposer.replay(owned.events(), {trial.number: trial for trial in history}, self._architecture)
        self._waiting = store.trials(owned.study, state="waiting")[::-1]

    def _architecture(self, number: int) -> Architecture:
        return self._store.trial(self._owned.study, number).architecture

    def limit(self, trials: int | None) -> str | None:
        """The reason to end before anything is asked of the tuner, if there is one."""
        if trials is not None and self.finished >= trials:
            return "trials"
        return "exhausted" if self.finished >= self._size else None

    def next(self) -> TrialRecord | str:
        """The next trial, stored as running; or the reason why there is none."""
        if self._waiting:
            return self._owned.restart(self._waiting.pop())
        repeated: list[int] = []
        while True:
            try:
                parameter_id, parameters, architecture = self._proposer.propose()
            except NoMoreTrials:
                return "exhausted"
            digest = digest_of(architecture.canonical)
            known = self._known.get(digest)
            if known is None:
                break
            if len(repeated) == MOST_REPEATS:
                return "repeats"
            # the proposals that led here are stored with the next trial; without one nothing was lost
            repeated.append(known.number)
            self._proposer.untold[known.number] = parameter_id, parameters
            self._proposer.tell(known.number, known.state == "succeeded", known.value)
        trial = self._owned.start(architecture, repeated)
        self._digests[trial.number] = digest
        self._known[digest] = Stored(trial.number, trial.state, digest, None)
        self._proposer.untold[trial.number] = parameter_id, parameters
        return trial

    def evaluate(self, trial: TrialRecord) -> TrialRecord:
        """Evaluate a running trial, store what came out, and tell the tuner."""
        begin = time.monotonic()
        error, result = "", None
        try:
            result = self._evaluate(trial.architecture)
        except TrialFailed as failure:
            error = failure.message
        except UserCodeError as failure:
            # A broken model shows at the first trial, and its author wants to know. One bad architecture among good
            # ones costs its own trial only; and so does one that ended the study when it was first tried.
            if trial.attempt == 1 and self.finished == self.failed:
                raise
            error = failure.message
        seconds = time.monotonic() - begin
        value = None if result is None else finite(result.value)
        if result is not None and value is not None:
            trial = self._owned.succeed(trial, value, finite_only(result.metrics), finite_only(result.cost), seconds)
        else:
            trial = self._owned.fail(trial, error or _not_finite(result), seconds)
            self.failed += 1
        self.finished += 1
        digest = self._digests[trial.number]
        self._known[digest] = Stored(trial.number, trial.state, digest, trial.value)
        self._proposer.tell(trial.number, trial.state == "succeeded", trial.value)
        return trial


def _not_finite(result: TrialResult | None) -> str:
    value = None if result is None else result.value
    text = str(value) if isinstance(value, float) else repr(value)
    return f"metric is not a finite number: {text[:80]}"
