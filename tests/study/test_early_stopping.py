"""Assessors in studies: trials that end early, and studies that are resumed."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nnas_core import Assessor, AssessResult
from nnas_core.errors import Interrupted, NnasWarning, UserCodeError
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report, TrialResult
from nnas_core.plugins import registry
from nnas_core.space.architecture import Architecture
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import create_study
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.trial_objective import additive

Curve = Callable[[Architecture], list[float]]


def saturating(architecture: Architecture) -> list[float]:
    """Nine values that rise to what the architecture is worth, at a speed of its own; some trials fail before."""
    worth = additive(architecture)
    return [worth * (1 - math.exp(-step * (1 + worth % 7) / 9)) for step in range(1, 10)]


class Reporting(Engine):
    """Trials that report a curve, one value in each call of ``poll``, or all that they have at once.

    One whose worth ends in 3 fails with its last value.
    """

    def __init__(self, curve: Curve = saturating, slots: int = 1, at_once: bool = False) -> None:
        super().__init__()
        self._curve = curve
        self._slots = slots
        self._at_once = at_once
        self._running: dict[int, tuple[Job, deque[Report]]] = {}
        self._cancelled: list[Report] = []

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        values = self._curve(job.architecture)
        reports: list[Report] = [
            Intermediate(job.number, job.attempt, place, value) for place, value in enumerate(values)
        ]
        worth = additive(job.architecture)
        if worth % 10 == 3:
            reports.append(Failed(job.number, job.attempt, "it broke", 0.0))
        else:
            reports.append(Finished(job.number, job.attempt, TrialResult(worth), 0.0))
        self._running[job.number] = job, deque(reports)

    def poll(self, timeout_s: float) -> list[Report]:
        found, self._cancelled = self._cancelled, []
        for number, (_, reports) in list(self._running.items()):
            found += [reports.popleft() for _ in range(max(1, len(reports) - 1) if self._at_once else 1)]
            if not reports:
                del self._running[number]
        return found

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        if number in self._running:
            del self._running[number]
            self._cancelled.append(Failed(number, attempt, reason, 0.0))


class AtThird(Assessor):
    """Ends every trial but the first at its third value, and notes what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Any, ...]] = []

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool | AssessResult:
        self.heard.append((trial_number, len(history)))
        return AssessResult.Bad if trial_number > 0 and len(history) >= 3 else AssessResult.Good

    def trial_end(self, trial_number: int, success: bool) -> None:
        self.heard.append((trial_number, success))


def one_to_five(architecture: Architecture) -> list[float]:
    """The same for all."""
    return [1.0, 2.0, 3.0, 4.0, 5.0]


def go_on(store: StudyStore, assessor: Assessor, engine: Engine, trials: int, stop_after: int | None = None) -> None:
    """Run the study to so many trials; ``stop_after`` so many questions whether to stop it is interrupted."""
    study = store.study("study")
    asked = itertools.count(1)
    run_study(
        store,
        study,
        study_programs.tuner_of(study),
        engine,
        study_programs.run_settings(
            trials=trials,
            concurrency=engine.slots,
            rules=TrialRules(assessor=assessor),
            should_stop=lambda: 2 if next(asked) == stop_after else None,
        ),
    )


def outcome(store: StudyStore) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions."""
    study = store.study("study")
    reported = store.intermediates(study)
    return [
        (trial.number, trial.state, trial.architecture.canonical, trial.value, reported.get(trial.number))
        for trial in store.trials(study)
    ]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_trial_ends_with_the_value_that_it_was_judged_by(store: StudyStore, at_once: bool) -> None:
    study = create_study(store, study_programs.settings())
    assessor = AtThird()
    go_on(store, assessor, Reporting(one_to_five, at_once=at_once), 3)
    assert store.intermediates(study) == {0: [1, 2, 3, 4, 5], 1: [1, 2, 3], 2: [1, 2, 3]}
    assert [trial.state for trial in store.trials(study)][1:] == ["stopped", "stopped"]
    assert [trial.metrics for trial in store.trials(study)][1:] == [{"intermediate": 3}, {"intermediate": 3}]
    assert [one for one in assessor.heard if one[0] == 1] == [(1, 1), (1, 2), (1, 3), (1, False)]


def test_a_resumed_assessor_hears_of_every_trial_that_ended_in_order_of_their_numbers(store: StudyStore) -> None:
    create_study(store, study_programs.settings())
    before = AtThird()
    go_on(store, before, Reporting(one_to_five), 4)
    silent = AtThird()
    with pytest.warns(NnasWarning, match="nothing to assess"):
        go_on(store, silent, Reporting(lambda architecture: []), 6)
    assert silent.heard[:-2] == before.heard
    after = AtThird()
    go_on(store, after, Reporting(one_to_five), 7)
    assert after.heard[: len(silent.heard)] == silent.heard
    assert [one for one in after.heard if one[0] in (4, 5)] == silent.heard[-2:]  # which reported nothing


NAN = math.nan


@pytest.mark.parametrize(("mode", "worst"), [("maximize", -math.inf), ("minimize", math.inf)])
def test_a_value_that_is_not_finite_is_the_worst_at_its_step(store: StudyStore, mode: str, worst: float) -> None:
    study = create_study(store, study_programs.settings(optimize_mode=mode))
    assessor = AtThird()
    histories: list[list[float]] = []
    assess = assessor.assess_trial
    assessor.assess_trial = lambda number, history: (histories.append(list(history)), assess(number, history))[1]  # type: ignore[method-assign]
    go_on(store, assessor, Reporting(lambda architecture: [1.0, NAN, math.inf, -math.inf, 2.0]), 2)
    assert histories[4] == [1.0, worst, worst, worst, 2.0]
    assert store.intermediates(study)[0] == histories[4]
    stopped = store.trial(study, 1)
    assert (stopped.state, stopped.metrics) == ("stopped", {})  # JSON has no word for its last value


@pytest.mark.parametrize("name", ["medianstop", "asha", "hyperband"])
def test_a_trial_that_diverged_is_stopped_as_the_worst(store: StudyStore, name: str) -> None:
    create_study(store, study_programs.settings("random"))
    count = itertools.count()

    def curve(architecture: Architecture) -> list[float]:
        return [NAN] * 9 if next(count) == 8 else [1.0] * 9

    assessor: Assessor = registry.find("assessors", name)(**ARGUMENTS[name])
    go_on(store, assessor, Reporting(curve), 9)
    states = [trial.state for trial in store.trials(store.study("study"))]
    assert states[8] == "stopped"
    assert "stopped" not in states[:8]


def test_an_assessor_that_got_nothing_to_assess_is_told_of(store: StudyStore) -> None:
    create_study(store, study_programs.settings())
    with pytest.warns(NnasWarning, match="^the assessor had nothing to assess: no trial of this run reported a value"):
        go_on(store, AtThird(), Reporting(lambda architecture: []), 3)
    go_on(store, AtThird(), Reporting(one_to_five), 4)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "asha": {"reduction_factor": 2},
    "hyperband": {"max_resource": 9},
    "medianstop": {},
}


def test_every_assessor_is_tried_here() -> None:
    assert list(registry.entries("assessors")) == list(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_study_that_was_interrupted_ends_the_same_trials(store: StudyStore, name: str) -> None:
    def fresh() -> Assessor:
        made: Assessor = registry.find("assessors", name)(**ARGUMENTS[name])
        return made

    create_study(store, study_programs.settings())
    go_on(store, fresh(), Reporting(), 20)
    expected = outcome(store)
    store.delete_study(store.study("study"))
    create_study(store, study_programs.settings())
    for stop_after in (30, 20, 2):
        with pytest.raises(Interrupted):
            go_on(store, fresh(), Reporting(), 20, stop_after)
    go_on(store, fresh(), Reporting(), 20)
    assert outcome(store) == expected
    assert {state for _, state, *_ in expected} == {"succeeded", "failed", "stopped"}


def test_an_answer_that_is_forgotten_ends_the_study_and_not_every_trial(store: StudyStore) -> None:
    create_study(store, study_programs.settings())

    class Forgetful(Assessor):
        def assess_trial(self, trial_number: int, history: Sequence[float]) -> Any:
            """Say nothing."""

    with pytest.raises(UserCodeError, match=r"^Forgetful.assess_trial returned None for trial 0$") as caught:
        go_on(store, Forgetful(), Reporting(), 3)
    assert caught.value.hint == "return True if the trial may go on, False if it shall end"
