"""Studies whose trials run at the same time and report in whatever order: each counts once, and all can be repeated."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nnas_core import Assessor
from nnas_core.errors import Interrupted, NoResultError, UserCodeError
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report, TrialResult
from nnas_core.study import limits
from nnas_core.study.coordinator import StudyResult, run_study
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import NoMoreTrials, Tuner
from tests.study import study_programs
from tests.study.trial_objective import additive

Step = Callable[["Scripted"], Sequence[Report]]


class Scripted(Engine):
    """Reports what each step of a script says, a step for a call of ``poll``; then every trial ends in its order."""

    def __init__(self, *script: Step, slots: int = 100) -> None:
        super().__init__()
        self._script = iter(script)
        self._slots = slots
        self.jobs: dict[int, Job] = {}
        self.given: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int, str]] = []
        self.most = 0
        self.closed = 0

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        assert job.number not in self.jobs
        self.given.append((job.number, job.attempt))
        self.jobs[job.number] = job
        self.most = max(self.most, len(self.jobs))

    def poll(self, timeout_s: float) -> list[Report]:
        step = next(self._script, None)
        reports = list(step(self) if step else [self.ok(min(self.jobs))] if self.jobs else [])
        for report in reports:
            job = self.jobs.get(report.number)
            if job and job.attempt == report.attempt and not isinstance(report, Intermediate):
                del self.jobs[report.number]
        return reports

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        self.cancelled.append((number, attempt, reason))

    def close(self) -> None:
        self.closed += 1
        self.jobs.clear()

    def ok(self, number: int, value: float | None = None, attempt: int | None = None) -> Finished:
        """A result; ``additive`` if no value is given."""
        worth = additive(self.jobs[number].architecture) if value is None else value
        return Finished(number, attempt or self.jobs[number].attempt, TrialResult(worth), 1.0)

    def bad(self, number: int, message: str = "no", **more: Any) -> Failed:
        """No result."""
        return Failed(number, self.jobs[number].attempt, message, 1.0, **more)

    def on_the_way(self, number: int, *values: float) -> list[Report]:
        """Values before the end."""
        return [Intermediate(number, self.jobs[number].attempt, place, value) for place, value in enumerate(values)]


class Noting(Tuner):
    """Proposes architectures of the space by number, and notes every call."""

    def __init__(self, proposals: Sequence[int]) -> None:
        super().__init__()
        space = study_programs.space_of_all_kinds()
        self._proposals = iter([space.at(number).parameters() for number in proposals])
        self.calls: list[tuple[Any, ...]] = []

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Known already."""

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        self.calls.append(("propose", parameter_id))
        try:
            return next(self._proposals)
        except StopIteration:
            raise NoMoreTrials from None

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        self.calls.append(("value", parameter_id, value))

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        self.calls.append(("end", parameter_id, success))


@dataclass
class Setup:
    """A study in a store."""

    store: StudyStore
    study: StudyRecord

    def run(self, engine: Engine, tuner: Tuner | None = None, **options: Any) -> StudyResult:
        """Run it; a tuner that proposes 0, 1, 2, ... if none is given."""
        options = {"concurrency": 3, **options}
        return run_study(
            self.store, self.study, tuner or Noting(range(100)), engine, study_programs.run_settings(**options)
        )

    def trials(self) -> list[TrialRecord]:
        """As they are stored."""
        return self.store.trials(self.study)

    def states(self) -> list[tuple[str, int]]:
        """State and attempt of each trial."""
        return [(trial.state, trial.attempt) for trial in self.trials()]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        yield Setup(store, create_study(store, study_programs.settings()))


def test_ends_in_any_order_are_told_in_that_order_and_repeated_in_it(setup: Setup) -> None:
    tuner = Noting(range(6))
    engine = Scripted(
        lambda at: [at.ok(2, 0.2), at.ok(0, 0.0)],
        lambda at: [],
        lambda at: [at.bad(3), at.ok(1, 0.1)],
    )
    setup.run(engine, tuner, trials=4)
    assert tuner.calls == [
        *[("propose", number) for number in (0, 1, 2)],
        *[("value", 2, 0.2), ("end", 2, True), ("value", 0, 0.0), ("end", 0, True)],
        ("propose", 3),
        *[("end", 3, False), ("value", 1, 0.1), ("end", 1, True)],
    ]
    again = Noting(range(6))
    setup.run(Scripted(), again, trials=5)
    assert again.calls[: len(tuner.calls)] == tuner.calls
    assert again.calls[len(tuner.calls)] == ("propose", 4)
    assert [trial.value for trial in setup.trials()[:4]] == [0.0, 0.1, 0.2, None]


def test_a_trial_counts_once_however_often_it_is_reported(setup: Setup) -> None:
    heard: list[TrialRecord] = []
    engine = Scripted(
        lambda at: [at.ok(0, 1.0), at.ok(0, 2.0), at.bad(0), *at.on_the_way(0, 0.5)],
        lambda at: [Finished(0, 1, TrialResult(3.0), 1.0), Finished(77, 1, TrialResult(3.0), 1.0)],
    )
    result = setup.run(engine, trials=3, on_trial=heard.append)
    assert [trial.number for trial in heard] == [0, 1, 2]
    assert (result.finished, setup.trials()[0].value) == (3, 1.0)
    assert setup.store.intermediates(setup.study) == {}


def test_a_late_report_of_an_attempt_that_was_given_up_is_refused(setup: Setup) -> None:
    retries: list[tuple[int, int, str]] = []
    engine = Scripted(
        lambda at: [*at.on_the_way(0, 0.1, 0.2), at.bad(0, "killed by signal 9", lost=True)],
        lambda at: [
            Finished(0, 1, TrialResult(99.0), 1.0),
            Intermediate(0, 1, 2, 99.0),
            Failed(0, 1, "killed again", 1.0, lost=True),
            *at.on_the_way(0, 0.3),
        ],
        lambda at: [at.ok(0, 1.0)],
    )
    setup.run(
        engine,
        trials=1,
        on_retry=lambda trial, why: retries.append((trial.number, trial.attempt, why)),
    )
    trial = setup.trials()[0]
    assert (trial.state, trial.attempt, trial.value) == ("succeeded", 2, 1.0)
    assert retries == [(0, 2, "killed by signal 9")]
    assert engine.given == [(0, 1), (0, 2)]
    assert setup.store.intermediates(setup.study) == {0: [0.3]}


@pytest.mark.parametrize(("attempts", "error"), [(1, "gone"), (2, "gone 2 times"), (3, "gone 3 times")])
def test_a_trial_that_is_lost_too_often_fails(setup: Setup, attempts: int, error: str) -> None:
    steps: list[Step] = [lambda at: [at.bad(1, "gone", lost=True)]] * attempts
    result = setup.run(Scripted(*steps), trials=3, rules=TrialRules(attempts=attempts))
    assert (result.finished, result.failed) == (3, 1)
    assert [(trial.attempt, trial.error) for trial in setup.trials()] == [(1, None), (attempts, error), (1, None)]


def test_no_more_trials_run_than_there_are_slots(setup: Setup) -> None:
    engine = Scripted(slots=2)
    setup.run(engine, trials=5, concurrency=4)
    assert engine.most == 2


def test_an_architecture_that_runs_is_not_evaluated_twice_and_told_as_a_failure(setup: Setup) -> None:
    tuner = Noting([4, 4, 7])
    engine = Scripted(lambda at: [at.ok(0, 1.0)])
    setup.run(engine, tuner, concurrency=2)
    assert engine.given == [(0, 1), (1, 1)]
    assert tuner.calls[:4] == [("propose", 0), ("propose", 1), ("end", 1, False), ("propose", 2)]
    assert tuner.calls[4:7] == [("value", 0, 1.0), ("end", 0, True), ("propose", 3)]
    again = Noting([4, 4, 7, 8])
    setup.run(Scripted(), again, trials=3)
    answered = [call for call in tuner.calls if call != ("propose", 3)]  # which ended the run
    assert again.calls[: len(answered)] == answered


# ---- limits that others change


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others change is seen at once, not within a second."""
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_limits_that_are_changed_in_the_store_take_effect(setup: Setup) -> None:
    most: list[int] = []

    def change(**changes: Any) -> Step:
        def step(at: Scripted) -> Sequence[Report]:
            most.append(len(at.jobs))
            setup.store.update_limits(setup.study, changes)
            return []

        return step

    def look(at: Scripted) -> Sequence[Report]:
        most.append(len(at.jobs))
        return [at.ok(number) for number in list(at.jobs)]

    engine = Scripted(change(concurrency=5), look, change(concurrency=2), look, change(trials=15), look, look, look)
    result = setup.run(engine, concurrency=3, trials=12)
    assert most == [3, 5, 5, 5, 2, 2, 2, 1]
    assert (result.finished, result.reason) == (15, "trials")


@pytest.mark.usefixtures("at_once")
def test_a_study_that_is_asked_to_stop_lets_its_trials_wait(setup: Setup) -> None:
    def stop(at: Scripted) -> Sequence[Report]:
        assert setup.store.request_stop(setup.study)
        return [at.ok(1, 5.0)]

    engine = Scripted(stop)
    result = setup.run(engine, concurrency=3)
    assert (result.reason, result.finished, engine.closed) == ("stopped", 1, 2)
    assert setup.states() == [("waiting", 2), ("succeeded", 1), ("waiting", 2)]
    assert setup.store.study("study").state == "interrupted"
    after = Scripted()
    assert setup.run(after, concurrency=1, trials=4).finished == 4
    assert after.given == [(0, 2), (2, 2), (3, 1)]


def test_a_signal_lets_running_trials_wait_and_they_are_the_first_of_the_next_run(setup: Setup) -> None:
    signals = iter([None, None, signal.SIGTERM])
    engine = Scripted(lambda at: [at.ok(2), *at.on_the_way(0, 0.5)], lambda at: [])
    with pytest.raises(Interrupted, match="its 1 finished trials are stored"):
        setup.run(engine, should_stop=lambda: next(signals, signal.SIGTERM))
    assert engine.closed == 2
    before = {trial.number: trial.architecture for trial in setup.trials()}
    starts: list[tuple[int, int]] = []
    after = Scripted()
    result = setup.run(after, trials=6, on_start=lambda *numbers: starts.append(numbers))
    assert starts == [(1, 0)]
    assert after.given[:4] == [(0, 2), (1, 2), (3, 2), (4, 1)]
    assert {trial.number: trial.architecture for trial in setup.trials()[:4]} == before
    assert (result.finished, result.reason) == (6, "trials")


def test_too_many_failures_end_the_run_and_others_wait(setup: Setup) -> None:
    engine = Scripted(lambda at: [at.bad(0, "first"), at.bad(2, "second"), at.ok(1)])
    with pytest.raises(NoResultError, match="'study' ends: 2 trials of this run failed") as caught:
        setup.run(engine, rules=TrialRules(max_failures=2))
    assert caught.value.problems == ("trial 0: first", "trial 2: second")
    assert setup.states() == [("failed", 1), ("waiting", 2), ("failed", 1)]
    assert engine.closed == 2
    assert setup.run(Scripted(), trials=5, rules=TrialRules(max_failures=1)).failed == 2  # none of the next run


def test_the_fault_of_a_user_ends_the_study_only_where_nothing_else_is_known(setup: Setup) -> None:
    error = UserCodeError("ValueError: no")
    with pytest.raises(UserCodeError, match="ValueError: no"):
        setup.run(Scripted(lambda at: [at.bad(1, error=error), at.ok(0)]))
    assert setup.states() == [("waiting", 2)] * 3
    engine = Scripted(lambda at: [at.bad(1, error=error)], lambda at: [at.ok(0)], lambda at: [at.bad(3, error=error)])
    assert setup.run(engine, trials=5).failed == 2


def test_an_engine_is_closed_when_the_study_is_in_other_hands(setup: Setup) -> None:
    engine = Scripted()
    with setup.store.acquire(setup.study), pytest.raises(Exception, match="is in use by process"):
        setup.run(engine)
    assert engine.closed == 1


# ---- assessors


class AtSecond(Assessor):
    """Ends every trial at its second value."""

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        return len(history) < 2


def test_a_trial_that_an_assessor_ends_is_stopped_and_never_told_as_a_success(setup: Setup) -> None:
    tuner = Noting(range(3))
    engine = Scripted(
        lambda at: [*at.on_the_way(0, 0.5, 0.75, 0.875), *at.on_the_way(1, 0.25)],
        lambda at: [Intermediate(0, 1, 3, 1.0), at.bad(0, "killed by signal 9", lost=True)],
        lambda at: at.on_the_way(2, 0.1, 0.2),
        lambda at: [at.ok(2, 7.0), at.ok(1, 6.0)],
    )
    result = setup.run(engine, tuner, rules=TrialRules(assessor=AtSecond()), trials=3)
    assert engine.cancelled == [(0, 1, "stopped by the assessor"), (2, 1, "stopped by the assessor")]
    assert [trial.state for trial in setup.trials()] == ["stopped", "succeeded", "succeeded"]
    assert (result.finished, result.failed, result.best.number) == (3, 0, 2)  # the result of 2 came first
    assert setup.trials()[0].metrics == {"intermediate": 0.75}
    assert setup.store.intermediates(setup.study) == {0: [0.5, 0.75], 1: [0.25], 2: [0.1, 0.2]}
    assert [call for call in tuner.calls if call[1] == 0] == [("propose", 0), ("end", 0, False)]
    again = Noting(range(4))
    setup.run(Scripted(), again, trials=4)
    assert again.calls[: len(tuner.calls)] == tuner.calls


def test_many_values_at_once_are_all_stored_in_order(setup: Setup) -> None:
    values = [place / 7 for place in range(5000)]
    engine = Scripted(lambda at: at.on_the_way(0, *values[:10]), lambda at: [*at.on_the_way(0, *values[10:]), at.ok(0)])
    setup.run(engine, trials=1)
    assert setup.store.intermediates(setup.study) == {0: values}


def test_a_name_that_a_database_cannot_hold_is_escaped(setup: Setup) -> None:
    result = TrialResult(1.0, {"a\ud800": 2.0}, {"\udfff": 3.0})
    engine = Scripted(lambda at: [Finished(0, 1, result, 1.0), at.bad(1, "half \ud800 \0")])
    found = setup.run(engine, trials=2, concurrency=2).best
    assert (found.metrics, found.cost) == ({"a\\ud800": 2.0}, {"\\udfff": 3.0})
    assert setup.trials()[0] == found
    assert setup.trials()[1].error == "half \\ud800 \\0"


# ---- anything


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_in_whatever_order_can_be_repeated(setup: Setup, seed: int) -> None:
    """The tuner would warn, and the warning would fail the test, if it proposed other architectures when repeated."""
    rng = random.Random(seed)

    def anything(at: Scripted) -> Sequence[Report]:
        reports: list[Report] = []
        for number in rng.sample(sorted(at.jobs), rng.randint(0, len(at.jobs))):
            kind = rng.choice(["ok", "ok", "bad", "lost", "way"])
            if kind == "way":
                reports += at.on_the_way(number, rng.random())
            else:
                reports.append(at.ok(number) if kind == "ok" else at.bad(number, lost=kind == "lost"))
        return reports

    for _ in range(4):
        asked = itertools.count()
        end = rng.randint(5, 15)
        with pytest.raises(Interrupted):
            setup.run(
                Scripted(*[anything] * 1000),
                study_programs.tuner_of(setup.study),
                concurrency=rng.randint(1, 5),
                should_stop=lambda end=end, asked=asked: 2 if next(asked) == end else None,  # type: ignore[misc]
            )
    ended = len([state for state, _ in setup.states() if state in ("succeeded", "failed")])
    result = setup.run(Scripted(), study_programs.tuner_of(setup.study), trials=ended + 10)
    assert result.finished == ended + 10
    assert len({trial.architecture.canonical for trial in setup.trials()}) == len(setup.trials())
    for trial in setup.trials():
        assert trial.value in (None, additive(trial.architecture))
