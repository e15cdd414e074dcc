"""A signal while a tuner thinks, which may take minutes: it ends that, and no result is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from nnas_cli.signals import StopRequest
from nnas_core.errors import Interrupted
from nnas_core.study.cooperation import run_shared
from nnas_core.study.coordinator import run_study
from nnas_core.study.opening import join_study
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.random import RandomTuner
from tests.study import study_programs
from tests.study.simulated_sharing import during, leave_after
from tests.study.trial_objective import evaluate

RUNS = [run_study, run_shared]


class Thinking(RandomTuner):
    """Gets a signal while it proposes, or learns of, its so many-th architecture; of none, if nothing is said.

    Attributes:
        went_on: it was not ended by that.
    """

    def __init__(self, *when: object) -> None:
        super().__init__(seed=0)
        self._when = when
        self.went_on: bool | None = None

    def _think(self, *what: object) -> None:
        if what == self._when:
            self.went_on = False
            signal.raise_signal(signal.SIGTERM)
            self.went_on = True

    def generate_parameters(self, parameter_id: int) -> dict[str, Any]:
        self._think("proposes", parameter_id)
        return super().generate_parameters(parameter_id)

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float) -> None:
        self._think("learns", parameter_id)


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return join_study(store, study_programs.settings())


def stopped(
    store: StudyStore,
    study: StudyRecord,
    tuner: Thinking,
    run: Callable[..., object] = run_shared,
    evaluation: Callable[..., object] = evaluate,
    **how: object,
) -> str:
    """What is said of a run that is ended by a signal; all that it had evaluated is stored, and nothing waits."""
    stop = StopRequest()
    settings = study_programs.run_settings(trials=20, should_stop=stop, at_once=stop.at_once, **how)
    with stop, pytest.raises(Interrupted) as caught:
        run(store, study, tuner, evaluation, settings)
    assert caught.value.code == 143
    assert store.study("study").state == "interrupted"
    assert {trial.state for trial in store.trials(study)} == {"succeeded"}
    return str(caught.value)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("moment", "finished"), [("proposes", 3), ("learns", 4)])
def test_a_tuner_that_thinks_is_ended(
    store: StudyStore, study: StudyRecord, run: Callable[..., object], moment: str, finished: int
) -> None:
    tuner = Thinking(moment, 3)
    assert f"its {finished} finished trials are stored" in stopped(store, study, tuner, run)
    assert tuner.went_on is False
    assert len(store.trials(study)) == finished
    run(store, study, Thinking(), evaluate, study_programs.run_settings(trials=8))
    assert [(trial.state, trial.attempt) for trial in store.trials(study)] == [("succeeded", 1)] * 8


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("moment", ["proposes", "learns"])
def test_a_tuner_that_repeats_its_calls_is_ended(
    store: StudyStore, study: StudyRecord, run: Callable[..., object], moment: str
) -> None:
    run(store, study, Thinking(), evaluate, study_programs.run_settings(trials=4))
    tuner = Thinking(moment, 2)
    stopped(store, study, tuner, run)
    assert tuner.went_on is False
    assert len(store.trials(study)) == 4


def others(store: StudyStore, study: StudyRecord, trials: int) -> None:
    """Another process joins the study, ends so many trials, and leaves."""
    with pytest.raises(Interrupted):
        run_shared(store, study, Thinking(), evaluate, study_programs.run_settings(trials=20, **leave_after(trials)))


def test_a_tuner_that_repeats_calls_of_others_is_ended(store: StudyStore, study: StudyRecord) -> None:
    tuner = Thinking("proposes", 2)
    stopped(store, study, tuner, on_trial=lambda trial: others(store, study, 3))
    assert tuner.went_on is False
    assert len(store.trials(study)) == 1 + 3


def test_a_result_that_is_not_yet_stored_is_stored_before_a_signal_is_heeded(
    store: StudyStore, study: StudyRecord
) -> None:
    tuner = Thinking("proposes", 2)
    said = stopped(store, study, tuner, evaluation=during(1, lambda: others(store, study, 3)))
    assert "its 5 finished trials are stored" in said
    assert tuner.went_on is True
    assert [(trial.number, trial.attempt) for trial in store.trials(study)] == [(number, 1) for number in range(5)]


def test_what_ends_at_once_goes_on_doing_so_after_a_part_that_does() -> None:
    def goes_on() -> None:
        with StopRequest() as stop, stop.at_once():
            with stop.at_once():
                pass
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it went on")

    with pytest.raises(Interrupted, match="stopped at once"):
        goes_on()
