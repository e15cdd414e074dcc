"""How a study runs: limits, results, failures, and tuners that do not behave."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnas_core import schema
from nnas_core.errors import Interrupted, NoResultError, UsageError, UserCodeError
from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.coordinator import StudyResult, run_study
from nnas_core.study.limits import MOST_REPEATS, REASONS
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import NoMoreTrials, Tuner
from tests.study import study_programs


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return create_study(store, study_programs.settings())


def run(store: StudyStore, study: StudyRecord, evaluate: Any = study_programs.evaluate, **options: Any) -> StudyResult:
    return run_study(store, study, study_programs.tuner_of(study), evaluate, study_programs.run_settings(**options))


class Scripted(Tuner):
    """Proposes what it was given, and notes every call."""

    def __init__(self, proposals: Any) -> None:
        super().__init__()
        self.proposals = iter(proposals)
        self.calls: list[tuple[Any, ...]] = []

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        self.calls.append(("space", sorted(search_space)))

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        self.calls.append(("propose", parameter_id))
        try:
            proposal: dict[str, Any] = next(self.proposals)
        except StopIteration:
            raise NoMoreTrials from None
        return proposal

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        self.calls.append(("value", parameter_id, value))

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        self.calls.append(("end", parameter_id, success))


def parameters(*numbers: int) -> list[dict[str, Any]]:
    space = study_programs.space_of_all_kinds()
    return [space.at(number).parameters() for number in numbers]


def test_a_study_ends_at_its_number_of_trials_and_goes_on_to_a_larger_one(
    store: StudyStore, study: StudyRecord
) -> None:
    seen: list[TrialRecord] = []
    result = run(store, study, trials=20, on_trial=seen.append)
    assert (result.reason, result.finished, result.recovered) == ("trials", 20, 0)
    assert store.trials(study) == seen
    assert [trial.number for trial in seen] == list(range(20))
    assert store.study("study").state == "finished"
    result = run(store, study, trials=50, on_trial=seen.append)
    assert (result.finished, len(seen)) == (50, 50)
    assert result.failed == len(store.trials(study, state="failed"))
    assert run(store, study, trials=10).finished == 50  # which has more already


def test_the_best_and_the_top_follow_the_mode_and_prefer_the_earlier(store: StudyStore) -> None:
    values = [2.0, 3.0, 1.0, 3.0, 1.0]
    for mode, order in (("maximize", [1, 3, 0, 2, 4]), ("minimize", [2, 4, 0, 1, 3])):
        settings = replace(study_programs.settings("random", optimize_mode=mode), name=mode)
        study = create_study(store, settings)
        drawn = iter(values)
        result = run(store, study, lambda _, drawn=drawn: TrialResult(next(drawn)), trials=5)
        assert [trial.number for trial in store.top(study, 10)] == order
        assert [trial.number for trial in store.top(study, 2)] == order[:2]
        assert result.best.number == order[0]


def test_a_study_without_limits_ends_when_the_space_is_exhausted(store: StudyStore, study: StudyRecord) -> None:
    result = run(store, study)
    assert (result.reason, result.finished) == ("exhausted", 576)
    assert len({trial.architecture for trial in store.trials(study)}) == 576


def test_a_study_ends_when_its_time_is_used_up(
    store: StudyStore, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)

    def evaluate(architecture: Architecture) -> TrialResult:
        nonlocal clock
        clock += 4.0
        return TrialResult(1.0)

    result = run(store, study, evaluate, duration_s=10)
    assert (result.reason, result.finished) == ("duration", 3)  # the third begins at 8 s
    assert [trial.seconds for trial in store.trials(study)] == [4.0] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "the number of trials must be at least 1, not 0"),
        ({"duration_s": 0.0}, "the duration must be positive, not 0 s"),
        ({"duration_s": math.nan}, "the duration must be positive, not nan s"),
    ],
)
def test_a_limit_must_be_positive(store: StudyStore, study: StudyRecord, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(store, study, **options)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (None, "None"),
        (True, "True"),
        ("0.9", "'0.9'"),
        ([0.9], r"\[0.9\]"),
        (10**400, "1000"),
        (np.float64("nan"), "nan"),
        ("x" * 1000, "'x{79}$"),
    ],
)
def test_a_value_that_is_no_finite_number_fails_its_trial_and_is_never_best(
    store: StudyStore, study: StudyRecord, value: Any, shown: str
) -> None:
    values = iter([0.5, value, 0.25])
    result = run(store, study, lambda _: TrialResult(next(values)), trials=3)
    trial = store.trial(study, 1)
    assert (trial.state, trial.value) == ("failed", None)
    with pytest.raises(TrialFailed, match=f"^metric is not a finite number: {shown}"):
        raise TrialFailed(trial.error or "")
    assert (result.best.value, result.failed) == (0.5, 1)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_every_kind_of_finite_number_is_a_value(store: StudyStore, study: StudyRecord, value: Any) -> None:
    assert run(store, study, lambda _: TrialResult(value), trials=1).best.value == float(value)


def test_metrics_and_costs_are_stored_without_what_is_no_number(store: StudyStore, study: StudyRecord) -> None:
    metrics: dict[str, Any] = {"accuracy": np.float32(0.5), "loss": math.nan, "ok": True, "name": "x", "count": 3}
    result = run(store, study, lambda _: TrialResult(0.5, metrics, {"seconds": 1, "flops": math.inf}), trials=1)
    assert result.best.metrics == {"accuracy": 0.5, "count": 3.0}
    assert result.best.cost == {"seconds": 1.0}
    assert schema.problems("trial", result.best.to_json()) == []


def test_a_trial_that_fails_is_stored_with_its_reason_and_the_study_goes_on(
    store: StudyStore, study: StudyRecord
) -> None:
    tuner = Scripted(parameters(0, 1))

    def evaluate(architecture: Architecture) -> TrialResult:
        if architecture == study.settings.space.at(0):
            raise TrialFailed("killed by signal 9")
        return TrialResult(0.5)

    result = run_study(store, study, tuner, evaluate)
    assert (result.reason, result.finished, result.failed) == ("exhausted", 2, 1)
    failed = store.trial(study, 0)
    assert (failed.state, failed.error) == ("failed", "killed by signal 9")
    assert schema.problems("trial", failed.to_json()) == []
    keys = ["any", "layer", "none", "one", "only", "two"]
    assert tuner.calls == [
        ("space", keys),
        ("propose", 0),
        ("end", 0, False),
        ("propose", 1),
        ("value", 1, 0.5),
        ("end", 1, True),
        ("propose", 2),
    ]


def test_a_study_of_which_every_trial_failed_has_no_result(store: StudyStore, study: StudyRecord) -> None:
    reasons = iter(["first", "second", "first"])

    def evaluate(architecture: Architecture) -> TrialResult:
        raise TrialFailed(next(reasons))

    with pytest.raises(NoResultError, match="all 3 finished trials of study 'study' failed") as caught:
        run(store, study, evaluate, trials=3)
    assert caught.value.problems == ("trial 0: first", "trial 1: second")


def test_a_study_without_a_finished_trial_has_no_result(store: StudyStore, study: StudyRecord) -> None:
    with pytest.raises(NoResultError, match="'study' has no finished trial: there are no more architectures"):
        run_study(store, study, Scripted([]), study_programs.evaluate)


def test_a_signal_ends_the_study_between_trials(store: StudyStore, study: StudyRecord) -> None:
    signals = iter([None, None, 15])
    with pytest.raises(Interrupted, match="'study' was interrupted; its 2 finished trials are stored") as caught:
        run(store, study, should_stop=lambda: next(signals))
    assert caught.value.code == 143
    assert "`resume`" in (caught.value.hint or "")
    assert store.study("study").state == "interrupted"


@pytest.mark.parametrize("error", [Interrupted(2, "stopped"), KeyboardInterrupt(), ZeroDivisionError()])
def test_an_evaluation_that_ends_the_run_leaves_its_trial_waiting(
    store: StudyStore, study: StudyRecord, error: BaseException
) -> None:
    def evaluate(architecture: Architecture) -> TrialResult:
        raise error

    with pytest.raises(type(error)) as caught:
        run(store, study, evaluate)
    assert caught.value is error
    assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2)]
    assert (store.study("study").state, store.in_use_by(study)) == ("interrupted", None)


def test_the_start_is_told_with_what_is_there(store: StudyStore, study: StudyRecord) -> None:
    starts: list[tuple[int, int]] = []
    run(store, study, trials=3, on_start=lambda *numbers: starts.append(numbers))
    run(store, study, trials=4, on_start=lambda *numbers: starts.append(numbers))
    assert starts == [(0, 0), (3, 0)]


# ---- what tuners may do


def test_a_known_architecture_is_told_again_and_not_evaluated(store: StudyStore, study: StudyRecord) -> None:
    tuner = Scripted(parameters(4, 4, 7, 4))
    evaluated = []

    def evaluate(architecture: Architecture) -> TrialResult:
        evaluated.append(architecture)
        return TrialResult(len(evaluated))

    result = run_study(store, study, tuner, evaluate)
    assert evaluated == [study.settings.space.at(4), study.settings.space.at(7)]
    assert (result.finished, result.reason) == (2, "exhausted")
    values = [call for call in tuner.calls if call[0] == "value"]
    assert values == [("value", 0, 1.0), ("value", 1, 1.0), ("value", 2, 2.0), ("value", 3, 1.0)]


def test_a_known_architecture_that_failed_fails_again(store: StudyStore, study: StudyRecord) -> None:
    tuner = Scripted(parameters(4, 4, 7))
    results = iter([TrialResult(math.nan), TrialResult(1.0)])
    run_study(store, study, tuner, lambda _: next(results))
    ends = [call for call in tuner.calls if call[0] == "end"]
    assert ends == [("end", 0, False), ("end", 1, False), ("end", 2, True)]


def test_a_tuner_that_only_repeats_itself_ends_the_study(store: StudyStore, study: StudyRecord) -> None:
    tuner = Scripted(itertools.repeat(parameters(4)[0]))
    result = run_study(store, study, tuner, study_programs.evaluate)
    assert (result.reason, result.finished) == ("repeats", 1)
    assert REASONS["repeats"] == "the tuner proposed 1000 known architectures one after the other"
    assert tuner.calls.count(("propose", MOST_REPEATS)) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"layer": {"_value": "conv", "_idx": 1}}, "layer: _idx 1 is 'pool', not 'conv'"),
        ({"layer": [0, 1]}, "layer: a layer choice takes one candidate, not 2"),
        ({"layer": [0.5, 0.25, 0.25]}, "layer: the decision weighs its candidates"),
        ({"two": {"_value": ["node0"], "_idx": [0]}}, "two: chooses 1 candidates, n_chosen is 2"),
        ({"more": 1}, "unexpected keys found: 'more'"),
    ],
)
def test_a_proposal_that_does_not_fit_names_the_tuner_and_the_problem(
    store: StudyStore, study: StudyRecord, change: dict[str, Any], problem: str
) -> None:
    tuner = Scripted([{**parameters(0)[0], **change}])
    with pytest.raises(UserCodeError, match="tuner 'evolution' proposed what is no architecture") as caught:
        run_study(store, study, tuner, study_programs.evaluate)
    assert [problem in line for line in caught.value.problems] == [True]
    assert store.trials(study) == []


def test_a_proposal_that_is_no_object_is_refused(store: StudyStore, study: StudyRecord) -> None:
    with pytest.raises(UserCodeError, match="an architecture is an object of keys, not null"):
        run_study(store, study, Scripted([None]), study_programs.evaluate)


def test_an_error_inside_the_tuner_is_its_own(store: StudyStore, study: StudyRecord) -> None:
    class Broken(Scripted):
        def receive_trial_result(self, *_: Any, **__: Any) -> None:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_study(store, study, Broken(parameters(0, 1)), lambda _: TrialResult(1.0))
    assert [trial.state for trial in store.trials(study)] == ["succeeded"]  # its result was stored before


class TestBrokenArchitectures:
    def test_the_first_trial_of_a_broken_model_ends_the_study_and_fails_when_tried_again(
        self, store: StudyStore, study: StudyRecord
    ) -> None:
        def broken(architecture: Architecture) -> TrialResult:
            raise UserCodeError("ValueError: no")

        with pytest.raises(UserCodeError, match="ValueError: no"):
            run(store, study, broken, trials=3)
        assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("waiting", 2)]
        result = run(store, study, trials=3)  # the model was mended, or only this architecture is broken
        assert (result.finished, result.failed) == (3, 0)

    def test_one_among_good_ones_costs_its_own_trial_only(self, store: StudyStore, study: StudyRecord) -> None:
        calls = itertools.count()

        def evaluate(architecture: Architecture) -> TrialResult:
            if next(calls) == 2:
                raise UserCodeError("ValueError: no")
            return study_programs.evaluate(architecture)

        result = run(store, study, evaluate, trials=5)
        assert (result.finished, result.failed) == (5, 1)
        assert [trial.error for trial in store.trials(study, state="failed")] == ["ValueError: no"]
