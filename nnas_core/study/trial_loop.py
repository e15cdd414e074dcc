"""Trials, one after the other: ask the tuner, store the trial, let an engine run it, store its result, tell the tuner.

The result is stored before anybody hears of it, and the tuner's calls are stored with the trials; whatever ends the
process, the next one goes on where this one was. The loop is the same whether the process has the study alone or beside
others: what differs is the session.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial

from nnas_core.assessors.base import Assessor
from nnas_core.errors import EnvironmentFailure, NnasWarning
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report
from nnas_core.files import finite
from nnas_core.space.architecture import Architecture
from nnas_core.study.failures import FailureWatch
from nnas_core.study.limits import MOST_REPEATS, LimitWatch, RunSettings, interrupted
from nnas_core.study.proposals import Proposer
from nnas_core.study.running_trial import RunningTrial, measured
from nnas_core.study.storage.records import ENDED_STATES, TrialRecord, digest_of, worst_value
from nnas_core.study.storage.session import StudySession
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.trial_writer import Evaluator
from nnas_core.study.storage.tuner_log import Event, Stored
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["TrialLoop"]

_POLL_S = 0.2
"""How long a signal may wait for an engine that has nothing to report."""

_FEW = 16
"""Calls of others that a turn may repeat while they wait; more are repeated before it."""

_AGAIN_S = 1.0
"""How often a store is tried that cannot be reached."""


class TrialLoop:
    """Runs the trials of one session.

    Args:
        store: where the study is.
        session: of the study.
        tuner: fresh; its space is given to it here.
        engine: runs the trials.
        settings: how long, how much at once, and who is told.

    Attributes:
        finished: trials of the study that ended, as far as this process knows.
        failed: those of them that failed.
        evaluated: those that ended here.
    """

    def __init__(
        self, store: StudyStore, session: StudySession, tuner: Tuner, engine: Engine, settings: RunSettings
    ) -> None:
        self.finished = self.failed = self.evaluated = 0
        self._any_success = self._any_report = False
        self._store = store
        self._session = session
        self._engine = engine
        self._settings = settings
        self._rules = settings.rules
        self._study = session.study
        self._limits = LimitWatch(session, settings.limits)
        self._failures = FailureWatch(settings.rules, session.study, session.go_on)
        self._worst = worst_value(session.study.settings.optimize_mode)
        self._evaluator = Evaluator(engine.label, engine.log_folder)
        self._known: dict[str, Stored] = {}  # by digest
        self._digests: dict[int, str] = {}
        self._running: dict[int, RunningTrial] = {}
        self._tuner_ended: str | None = None  # why, if it has no more
        self._unstored = False  # a result is at hand, which no signal may lose
        engine.attend = self._attend_if_possible
        session.database.waiting = self._check_signal
        made = session.study.settings
        with self._interruptible():
            self._size = made.space.size
            if settings.region is not None:
                tuner.keep_within(settings.region)
            if len(made.objectives) > 1:
                tuner.aim_at(made.objectives)
            tuner.update_search_space(made.space.to_json())
            self._proposer = Proposer(tuner, made, settings.region)
            with self._turn():
                pass

    def run(self) -> str:
        """Runs trials; returns the reason why there are no more to begin."""
        reason = self._run()
        if self._rules.assessor is not None and self.evaluated and not self._any_report:
            warnings.warn(
                "the assessor had nothing to assess: no trial of this run reported a value on its way "
                "(report_intermediate, or a line in the file NNAS_INTERMEDIATE)",
                NnasWarning,
                stacklevel=2,
            )
        return reason

    def _run(self) -> str:
        self._settings.on_start(self.finished, self._session.recovered)
        while True:
            self._attend()
            reason = self._tuner_ended or self._limit()
            if reason == "stopped" or (reason and not self._running):
                return reason
            self._check_signal()
            reason = self._fill_slots()
            if reason and not self._running:
                return reason
            for report in self._engine.poll(_POLL_S):
                self._hear(report)
            for trial in list(self._running.values()):
                self._store_reported(trial)

    def _check_signal(self) -> None:
        if (number := self._settings.should_stop()) is not None:
            raise interrupted(self._study, self.finished, number, self._session.go_on)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ends at a signal, not after it: a tuner may take minutes for a proposal, to learn, or to repeat its calls."""
        try:
            with nullcontext() if self._unstored else self._settings.at_once():
                yield
        except KeyboardInterrupt:
            self._check_signal()
            raise

    # ---- what others do

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Begins a turn with all that others did, before this run or beside it."""
        while self._catch_up() > _FEW:
            pass
        with self._session.turn(self._rules.attempts):
            self._catch_up()
            yield

    def _catch_up(self) -> int:
        stored, events = self._session.news(self._proposer.first_untold)
        self._learn(stored, events)
        return len(events)

    def _learn(self, stored: list[Stored], events: list[Event]) -> None:
        ended = []
        for trial in stored:
            before = self._known.get(trial.digest)
            self._known[trial.digest] = trial
            self._digests[trial.number] = trial.digest
            if trial.state in ENDED_STATES and (before is None or before.state not in ENDED_STATES):
                ended.append(trial)
        self.finished += len(ended)
        self.failed += sum(trial.state == "failed" for trial in ended)
        self._any_success = self._any_success or any(trial.state == "succeeded" for trial in ended)
        if events:
            trials = {event.number: self._known[self._digests[event.number]] for event in events}
            with self._interruptible():
                self._proposer.replay(events, trials, self._architecture)
        if self._rules.assessor is not None and ended:
            self._let_assess(self._rules.assessor, ended)

    def _architecture(self, number: int) -> Architecture:
        return self._store.trial(self._study, number).architecture

    def _let_assess(self, assessor: Assessor, ended: list[Stored]) -> None:
        """Lets the assessor hear of trials that ended elsewhere, as if they had run here."""
        reported = self._session.intermediates(ended[0].number)
        for trial in ended:
            values = reported.get(trial.number, [])
            for place in range(len(values)):
                assessor.assess_trial(trial.number, values[: place + 1])
            assessor.trial_end(trial.number, trial.state == "succeeded")

    # ---- the begin of a trial

    def _limit(self) -> str | None:
        """Returns the reason to ask nothing more of the tuner, if there is one."""
        exhausted = self._session.begun >= self._size
        return self._limits.reached() or ("exhausted" if exhausted else None)

    def _fill_slots(self) -> str | None:
        """Begins trials while there is room for more; returns the reason if no more may begin."""
        reason = self._tuner_ended or self._limit()
        while reason is None and len(self._running) < min(self._limits.concurrency, self._engine.slots):
            trial = self._next()
            if isinstance(trial, str):
                reason = self._tuner_ended = trial
            else:
                if trial is not None:
                    self._submit(trial)
                reason = self._limit()
        return reason

    def _next(self) -> RunningTrial | str | None:
        """Returns the next trial, stored as running; the reason why the tuner has no more; None at a limit."""
        with self._turn():
            if self._limit():
                return None
            waiting = self._session.waiting()
            if waiting is None:
                return self._propose()
            left = self._left(waiting.trial)
            if left:
                record, stored = self._session.trials.adopt(waiting.trial, self._evaluator)
                return RunningTrial(record, waiting.losses, stored=stored, left=left)
            return RunningTrial(self._session.trials.restart(waiting.trial, self._evaluator), waiting.losses)

    def _left(self, trial: TrialRecord) -> list[Report]:
        """Returns what an attempt has reported whose coordinator died before it could store the result."""
        if trial.started is None or trial.log_folder is None or trial.log_folder != self._engine.log_folder:
            return []
        begun = datetime.fromisoformat(trial.started)
        return self._engine.left(Job(trial.number, trial.attempt - 1, trial.architecture), begun)

    def _propose(self) -> RunningTrial | str:
        repeated: list[int] = []
        while True:
            try:
                with self._interruptible():
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
            with self._interruptible():
                self._proposer.tell_again(known, parameter_id, parameters)
        trial = self._session.trials.start(architecture, repeated, self._evaluator)
        self._digests[trial.number] = digest
        self._known[digest] = Stored(trial.number, trial.state, digest, None)
        self._proposer.untold[trial.number] = parameter_id, parameters
        return RunningTrial(trial)

    def _submit(self, trial: RunningTrial) -> None:
        record = trial.record
        self._running[record.number] = trial
        self._settings.on_begin(record)
        for report in trial.left:
            self._hear(report)
        if not trial.left:
            self._engine.submit(Job(record.number, record.attempt, record.architecture, self._rules.timeout_s))

    # ---- on its way

    def _hear(self, report: Report) -> None:
        trial = self._running.get(report.number)
        if trial is None or trial.record.attempt != report.attempt:
            return  # of an attempt that was given up
        if isinstance(report, Intermediate):
            self._assess(trial, report)
        else:
            self._close(trial, report)
            self._failures.check(lambda: self._store.trials(self._study, state="failed"), self._any_success)

    def _assess(self, trial: RunningTrial, report: Intermediate) -> None:
        if trial.stopping:
            return  # whatever it reports until it is dead: a resumed study shall judge by what was judged here
        self._any_report = True
        trial.reported.append(report.value if finite(report.value) is not None else self._worst)
        if self._rules.assessor is not None and not self._rules.assessor.goes_on(report.number, list(trial.reported)):
            trial.stopping = True
            self._engine.cancel(report.number, report.attempt, "stopped by the assessor")

    def _attend(self) -> None:
        """Looks at what others want, and ends the trials that they want ended."""
        self._limits.look()
        for number, attempt in self._session.control.killed:
            trial = self._running.get(number)
            if trial is not None and trial.record.attempt == attempt and not trial.stopping:
                trial.stopping, trial.killed = True, "ended by `nnas study kill`"
                self._engine.cancel(number, attempt, trial.killed)

    def _attend_if_possible(self) -> None:
        with suppress(EnvironmentFailure):  # a store that cannot be reached is no reason to lose what is evaluated
            self._attend()

    def _store_reported(self, trial: RunningTrial) -> None:
        """Stores what came since the last time, all at once: a trial may report faster than a disk can write."""
        values = trial.reported[trial.stored :]
        if not values:
            return
        if self._session.store_reported(trial.record, trial.stored, values):
            trial.stored += len(values)
        else:
            self._engine.cancel(trial.record.number, trial.record.attempt, "taken over")
            self._refuse(trial)

    def _refuse(self, trial: RunningTrial) -> None:
        """Forgets a trial that another process has now."""
        number = trial.record.number
        del self._running[number]
        warnings.warn(
            f"trial {number} was given to another process, as if this one had died; what it measures here does "
            "not count",
            NnasWarning,
            stacklevel=2,
        )

    # ---- its end

    def _close(self, trial: RunningTrial, report: Finished | Failed) -> None:
        """Stores the end of an attempt, and says so when it is stored."""
        self._unstored = True
        self._await_store(trial)
        with self._turn():
            say = self._store_end(trial, report)
        self._unstored = False
        say()

    def _await_store(self, trial: RunningTrial) -> None:
        """Returns when the store can be read: what took hours to measure is not lost to a server that restarts."""
        end = time.monotonic() + self._session.patience_s
        result, said = f"the result of trial {trial.record.number}", False
        while True:
            try:
                self._catch_up()
                return
            except EnvironmentFailure as error:
                if time.monotonic() > end:
                    raise
                if not said:
                    warnings.warn(f"{error}; {result} waits", NnasWarning, stacklevel=2)
                    said = True
            self._check_signal()
            time.sleep(_AGAIN_S)

    def _store_end(self, trial: RunningTrial, report: Finished | Failed) -> Callable[[], None]:
        """Stores the end of an attempt; returns what says so."""
        if not self._session.holds(trial.record):
            return partial(self._refuse, trial)
        self._store_reported(trial)
        if isinstance(report, Failed) and report.lost and not trial.stopping:
            trial.losses += 1
            if trial.losses < self._rules.attempts:
                again = RunningTrial(self._session.trials.retry(trial.record), trial.losses)
                self._submit(again)
                return partial(self._settings.on_retry, again.record, report.message)
        return partial(self._say_ended, self._end(trial, report))

    def _say_ended(self, trial: TrialRecord) -> None:
        """Says how a trial ended, also to the tuner, which may think for long: it is stored by then."""
        self.evaluated += 1
        self._settings.on_trial(trial)
        with self._interruptible():
            self._proposer.tell(self._known[self._digests[trial.number]], self._architecture)
        if self._rules.assessor is not None:
            self._rules.assessor.trial_end(trial.number, trial.state == "succeeded")

    def _end(self, trial: RunningTrial, report: Finished | Failed) -> TrialRecord:
        """Stores how a trial ended."""
        ended = self._store_failed(trial, report) if isinstance(report, Failed) else self._store_finished(trial, report)
        del self._running[ended.number]
        self.failed += ended.state == "failed"
        self.finished += 1
        self._any_success = self._any_success or ended.state == "succeeded"
        self._failures.ended(ended)
        digest = self._digests[ended.number]
        # in the order that they have when they are read back, whatever order the evaluation gave
        metrics, cost = dict(sorted(ended.metrics.items())), dict(sorted(ended.cost.items()))
        self._known[digest] = Stored(ended.number, ended.state, digest, ended.value, metrics, cost)
        return ended

    def _store_finished(self, trial: RunningTrial, report: Finished) -> TrialRecord:
        writer, is_first = self._session.trials, not self._any_success
        found = measured(self._study.settings, self._settings.costs, trial.record, report.result, is_first=is_first)
        if isinstance(found, str):
            return writer.fail(trial.record, found, report.seconds)
        return writer.succeed(trial.record, found.value, dict(found.metrics), dict(found.cost), report.seconds)

    def _store_failed(self, trial: RunningTrial, report: Failed) -> TrialRecord:
        # A broken model shows at the first trial, and its author wants to know. One bad architecture among good
        # ones costs its own trial only; and so does one that ended the study when it was first tried.
        if report.error is not None and trial.record.attempt == 1 and self.finished == self.failed:
            raise report.error
        if trial.stopping:
            last = trial.reported[-1] if trial.reported else None
            return self._session.trials.stop(trial.record, last, report.seconds, trial.killed)
        times = f" {trial.losses} times" if report.lost and trial.losses > 1 else ""
        return self._session.trials.fail(trial.record, report.message + times, report.seconds)
