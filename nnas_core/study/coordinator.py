"""One process runs a study: ask the tuner, store the trial, let an engine run it, store the result, tell the tuner.

The result is stored before anybody hears of it, and the tuner's calls are stored with the trials; whatever
ends the process, the next one goes on where this one was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from nnas_core.errors import Interrupted, NoResultError
from nnas_core.execution.engine import Engine, Evaluate, Failed, Finished, InProcessEngine, Intermediate, Job
from nnas_core.files import finite, finite_only, not_finite
from nnas_core.space.architecture import Architecture
from nnas_core.study.limits import Limits, TrialRules
from nnas_core.study.proposals import Proposer
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord
from nnas_core.study.storage.session import TrialWriter
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.tuner_log import Event, Stored, digest_of
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["MOST_REPEATS", "REASONS", "Run", "StudyResult", "interrupted", "no_result", "run_study"]

MOST_REPEATS = 1000
"""Known architectures that a tuner may propose one after the other before the study ends."""

REASONS = {
    "trials": "the number of trials is reached",
    "duration": "the time is used up",
    "exhausted": "there are no more architectures to try",
    "repeats": f"the tuner proposed {MOST_REPEATS} known architectures one after the other",
    "stopped": "it was asked to stop",
}

_POLL_S = 0.2
"""How long a signal may wait for an engine that has nothing to report."""


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
    engine: Engine | Evaluate,
    *,
    trials: int | None = None,
    duration_s: float | None = None,
    concurrency: int = 1,
    rules: TrialRules | None = None,
    should_stop: Callable[[], int | None] = lambda: None,
    on_start: Callable[[int, int], None] = lambda finished, recovered: None,
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
    on_retry: Callable[[TrialRecord, str], None] = lambda trial, why: None,
) -> StudyResult:
    """Run trials until a limit is reached or the tuner has no more; a study that has trials is resumed.

    The limits are stored with the study, and heeded when somebody changes them there meanwhile.

    Args:
        store: where the study is.
        study: from ``create_study`` or ``resume_study``.
        tuner: fresh, from ``create_tuner``; its space is given to it here.
        engine: runs the trials, and is closed at the end; or a function that measures an architecture in this
            process. ``TrialFailed`` fails the trial; so does ``UserCodeError``, except in the first attempt of a study
            without any result. Any other exception ends the run and lets the trial wait for the next one.
        trials: the number of finished trials that the study shall have; None for no limit.
        duration_s: no trial begins after so many seconds of this run.
        concurrency: trials that run at once, as far as the engine has slots.
        rules: for each trial; None for the defaults.
        should_stop: asked before every trial and several times a second; a signal's number ends the run.
        on_start: called once with the numbers of finished and of recovered trials.
        on_trial: called with each finished trial, after it is stored.
        on_retry: called with a trial that begins again, and with what ended the attempt before.

    Raises:
        UsageError: a limit is not positive.
        EnvironmentFailure: another process owns the study, or the database cannot be written.
        UserCodeError: the tuner proposed what is no architecture of the space.
        NoResultError: no trial of the study succeeded, or too many of this run failed.
        Interrupted: ``should_stop`` said so; everything is stored.
    """
    if not isinstance(engine, Engine):
        engine = InProcessEngine(engine)
    with closing(engine), store.acquire(study) as owned:
        try:
            limits = Limits(owned, trials, duration_s, concurrency)
            run = Run(store, owned, tuner, engine, limits, rules or TrialRules())
            on_start(run.finished, owned.recovered)
            reason = run.until_done(should_stop, on_trial, on_retry)
        finally:
            engine.close()  # before the study is given back: nobody else begins what still runs here
        owned.release("interrupted" if reason == "stopped" else "finished")
    best = store.best(study)
    if best is None:
        raise no_result(store, study, reason)
    return StudyResult(study, best, run.finished, run.failed, owned.recovered, reason)


def interrupted(study: StudyRecord, finished: int, signal_number: int, how: str = "--resume") -> Interrupted:
    """The end of a run by a signal; ``how`` is the option that goes on."""
    return Interrupted(
        signal_number,
        f"study {study.name!r} was interrupted; its {finished} finished trials are stored",
        hint=f"run the command again with {how} to go on",
    )


def no_result(store: StudyStore, study: StudyRecord, reason: str) -> NoResultError:
    """The end of a study without any trial that succeeded; ``reason`` is one of ``REASONS``."""
    failed = store.trials(study, state="failed")
    stopped = len(store.trials(study, state="stopped"))
    if not failed and not stopped:
        return NoResultError(f"study {study.name!r} has no finished trial: {REASONS[reason]}")
    message = f"all {len(failed)} finished trials of study {study.name!r} failed"
    if stopped:
        message = f"no trial of study {study.name!r} succeeded: {stopped} were stopped early, {len(failed)} failed"
    return NoResultError(message, problems=_causes(failed))


def _causes(failed: list[TrialRecord]) -> list[str]:
    """Each cause once, with its first trial."""
    first = {trial.error: trial.number for trial in reversed(failed)}
    causes = [f"trial {number}: {error}" for error, number in sorted(first.items(), key=lambda pair: pair[1])]
    return causes[:10]


class Run:
    """The trials of one run.

    Attributes:
        finished: trials of the study that ended, as far as this run knows.
        failed: those of them that failed.
    """

    def __init__(
        self, store: StudyStore, owned: TrialWriter, tuner: Tuner, engine: Engine, limits: Limits, rules: TrialRules
    ) -> None:
        self.finished = self.failed = 0
        self._store = store
        self._owned = owned
        self._engine = engine
        self._limits = limits
        self._rules = rules
        settings = owned.study.settings
        self._size = settings.space.size
        self._known: dict[str, Stored] = {}
        self._digests: dict[int, str] = {}
        self._failed_before = 0  # and elsewhere
        tuner.update_search_space(settings.space.to_json())
        self._proposer = Proposer(tuner, settings.tuner, settings.space)
        self._catch_up()
        self._waiting = store.trials(owned.study, state="waiting")[::-1]
        self._running: dict[int, TrialRecord] = {}
        self._losses: Counter[int] = Counter()
        self._reported: dict[int, list[float]] = {}
        self._stored: Counter[int] = Counter()  # how many of them
        self._stopping: set[int] = set()

    def _catch_up(self) -> None:
        self._learn(*self._owned.calls())

    def _learn(self, stored: list[Stored], events: list[Event]) -> None:
        """Repeat what others did: those before this run, or beside it."""
        ended = []
        for trial in stored:
            before = self._known.get(trial.digest)
            self._known[trial.digest] = trial
            self._digests[trial.number] = trial.digest
            if trial.state in ENDED_STATES and (before is None or before.state not in ENDED_STATES):
                ended.append(trial)
        failed = sum(trial.state == "failed" for trial in ended)
        self.finished += len(ended)
        self.failed += failed
        self._failed_before += failed
        trials = {event.number: self._known[self._digests[event.number]] for event in events}
        self._proposer.replay(events, trials, self._architecture)
        if self._rules.assessor is not None and ended:
            reported = self._owned.intermediates(ended[0].number)
            for trial in ended:
                values = reported.get(trial.number, [])
                for place in range(len(values)):
                    self._rules.assessor.assess_trial(trial.number, values[: place + 1])
                self._rules.assessor.trial_end(trial.number, trial.state == "succeeded")

    def _architecture(self, number: int) -> Architecture:
        return self._store.trial(self._owned.study, number).architecture

    def until_done(
        self,
        should_stop: Callable[[], int | None],
        on_trial: Callable[[TrialRecord], None],
        on_retry: Callable[[TrialRecord, str], None],
    ) -> str:
        """Run trials; the reason why there are no more."""
        tuner_ended: str | None = None
        while True:
            self._limits.look()
            reason = tuner_ended or self._limit()
            if reason == "stopped" or (reason and not self._running):
                return reason
            signal_number = should_stop()
            if signal_number is not None:
                raise interrupted(self._owned.study, self.finished, signal_number)
            while reason is None and len(self._running) < min(self._limits.concurrency, self._engine.slots):
                trial = self._next()
                if isinstance(trial, str):
                    reason = tuner_ended = trial
                else:
                    if trial is not None:
                        self._submit(trial)
                    reason = self._limit()
            if not self._running and reason:
                return reason
            for report in self._engine.poll(_POLL_S):
                trial_now = self._running.get(report.number)
                if trial_now is None or trial_now.attempt != report.attempt:
                    continue  # of an attempt that was given up
                if isinstance(report, Intermediate):
                    self._assess(trial_now, report)
                else:
                    self._close(trial_now, report, on_trial, on_retry)
                    self._check_failures()
            for trial_now in list(self._running.values()):
                self._store_reported(trial_now)

    def _close(
        self,
        trial: TrialRecord,
        report: Finished | Failed,
        on_trial: Callable[[TrialRecord], None],
        on_retry: Callable[[TrialRecord, str], None],
    ) -> None:
        """An attempt has ended."""
        self._store_reported(trial)
        if isinstance(report, Failed) and self._may_retry(trial, report):
            on_retry(self._retry(trial), report.message)
        else:
            on_trial(self._end(trial, report))

    def _limit(self) -> str | None:
        """The reason to ask nothing more of the tuner, if there is one."""
        begun = self.finished + len(self._running)
        return self._limits.reached(begun) or ("exhausted" if begun >= self._size else None)

    def _next(self) -> TrialRecord | str | None:
        """The next trial, stored as running; the reason why the tuner has no more; None at a limit."""
        if self._waiting:
            return self._owned.restart(self._waiting.pop(), self._engine.label)
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
            self._proposer.tell_again(known, parameter_id, parameters)
        trial = self._owned.start(architecture, repeated, self._engine.label)
        self._digests[trial.number] = digest
        self._known[digest] = Stored(trial.number, trial.state, digest, None)
        self._proposer.untold[trial.number] = parameter_id, parameters
        return trial

    def _submit(self, trial: TrialRecord) -> None:
        self._running[trial.number] = trial
        self._reported[trial.number], self._stored[trial.number] = [], 0
        self._engine.submit(Job(trial.number, trial.attempt, trial.architecture, self._rules.timeout_s))

    def _assess(self, trial: TrialRecord, report: Intermediate) -> None:
        if trial.number in self._stopping:
            return  # whatever it reports until it is dead: a resumed study shall judge by what was judged here
        history = self._reported[trial.number]
        history.append(report.value)
        assessor = self._rules.assessor
        if assessor is not None and not assessor.goes_on(trial.number, list(history)):
            self._stopping.add(trial.number)
            self._engine.cancel(trial.number, trial.attempt, "stopped by the assessor")

    def _store_reported(self, trial: TrialRecord) -> None:
        """Store what came since the last time, all at once: a trial may report faster than a disk can write."""
        stored = self._stored[trial.number]
        values = self._reported[trial.number][stored:]
        if values:
            self._owned.intermediate(trial, stored, *values)
            self._stored[trial.number] += len(values)

    def _may_retry(self, trial: TrialRecord, report: Failed) -> bool:
        if not report.lost or trial.number in self._stopping:
            return False
        self._losses[trial.number] += 1
        return self._losses[trial.number] < self._rules.attempts

    def _retry(self, trial: TrialRecord) -> TrialRecord:
        trial = self._owned.retry(trial)
        self._submit(trial)
        return trial

    def _end(self, trial: TrialRecord, report: Finished | Failed) -> TrialRecord:
        """Store how a trial ended, and tell the tuner."""
        if isinstance(report, Finished):
            value = finite(report.result.value)
            metrics, cost = finite_only(report.result.metrics), finite_only(report.result.cost)
            if value is not None:
                trial = self._owned.succeed(trial, value, metrics, cost, report.seconds)
            else:
                trial = self._owned.fail(trial, not_finite(report.result.value), report.seconds)
        else:
            # A broken model shows at the first trial, and its author wants to know. One bad architecture among good
            # ones costs its own trial only; and so does one that ended the study when it was first tried.
            if report.error is not None and trial.attempt == 1 and self.finished == self.failed:
                raise report.error
            if trial.number in self._stopping:
                history = self._reported[trial.number]
                trial = self._owned.stop(trial, history[-1] if history else None, report.seconds)
            else:
                lost = self._losses[trial.number]
                message = report.message + (f" {lost} times" if report.lost and lost > 1 else "")
                trial = self._owned.fail(trial, message, report.seconds)
        self._forget(trial)
        self.failed += trial.state == "failed"
        self.finished += 1
        digest = self._digests[trial.number]
        # in the order that they have when they are read back, whatever order the evaluation gave
        told: dict[str, Any] = {name: dict(sorted(getattr(trial, name).items())) for name in ("metrics", "cost")}
        self._known[digest] = Stored(trial.number, trial.state, digest, trial.value, **told)
        self._proposer.tell(self._known[digest])
        if self._rules.assessor is not None:
            self._rules.assessor.trial_end(trial.number, trial.state == "succeeded")
        return trial

    def _forget(self, trial: TrialRecord) -> None:
        del self._running[trial.number], self._reported[trial.number]
        del self._stored[trial.number], self._losses[trial.number]
        self._stopping.discard(trial.number)

    def _check_failures(self) -> None:
        most = self._rules.max_failures
        if most is not None and self.failed - self._failed_before >= most:
            study = self._owned.study
            failed = "1 trial" if most == 1 else f"{most} trials"
            raise NoResultError(
                f"study {study.name!r} ends: {failed} of this run failed",
                problems=_causes(self._store.trials(study, state="failed")),
                hint="mend the trials, or raise --max-failures, and go on with --resume",
            )
