"""A study that is interrupted and resumed is the study that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnas_core.errors import Interrupted, NnasWarning
from nnas_core.execution.engine import TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.coordinator import run_study
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner
from nnas_core.tuners.random import RandomTuner
from tests.study import study_programs

KINDS = [
    pytest.param("random", {}, id="random"),
    pytest.param("evolution", {"population": 8, "sample": 3}, id="evolution"),
    pytest.param("evolution", {"population": 8, "sample": 3, "repeats": True}, id="evolution with repeats"),
]


class Tape:
    """A tuner, and every call of it in words."""

    def __init__(self, tuner: Tuner) -> None:
        self.calls: list[str] = []
        for name in ("generate_parameters", "receive_trial_result", "trial_end"):
            setattr(tuner, name, self._taped(name, getattr(tuner, name)))
        self.tuner = tuner

    def _taped(self, name: str, method: Any) -> Any:
        def call(*args: Any) -> Any:
            result = method(*args)
            self.calls.append(f"{name}{args} -> {result}")
            return result

        return call


def finish(store: StudyStore, study: StudyRecord, trials: int) -> list[str]:
    tape = Tape(study_programs.tuner_of(study))
    run_study(store, study, tape.tuner, study_programs.evaluate, study_programs.run_settings(trials=trials))
    return tape.calls


@pytest.mark.parametrize(("tuner", "args"), KINDS)
@pytest.mark.parametrize("inside", [True, False], ids=["inside a trial", "between trials"])
def test_every_call_of_the_tuner_is_repeated(tuner: str, args: dict[str, Any], inside: bool, tmp_path: Path) -> None:
    settings = study_programs.settings(tuner, tuner_args=args)
    with StudyStore.open(f"sqlite:///{tmp_path}/whole.db") as store:
        calls = finish(store, create_study(store, settings), 120)
        history = study_programs.history(store)

    with StudyStore.open(f"sqlite:///{tmp_path}/parts.db") as store:
        study = create_study(store, settings)
        for after in (0, 1, 5, 3, 17, 40):  # trials of each part
            left = iter(range(after + 1))

            def evaluate(architecture: Architecture, left: Any = left, after: int = after) -> TrialResult:
                if inside and next(left) == after:
                    raise Interrupted(2, "interrupted")
                return study_programs.evaluate(architecture)

            def stop(left: Any = left, after: int = after) -> int | None:
                return 15 if not inside and next(left) == after else None

            with pytest.raises(Interrupted):
                run_study(
                    store,
                    study,
                    study_programs.tuner_of(study),
                    evaluate,
                    study_programs.run_settings(should_stop=stop),
                )
        assert finish(store, study, 120) == calls
        assert study_programs.history(store) == history


def test_the_history_depends_on_the_seed(tmp_path: Path) -> None:
    histories = []
    for seed in (0, 1):
        with StudyStore.open(f"sqlite:///{tmp_path}/{seed}.db") as store:
            finish(store, create_study(store, study_programs.settings(seed=seed)), 20)
            histories.append(study_programs.history(store))
    assert histories[0] != histories[1]


def test_a_tuner_that_does_not_repeat_itself_is_warned_of_and_goes_on(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    finish(store, study, 10)
    told: list[Any] = []

    class Other(RandomTuner):
        def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **_: Any) -> None:
            super().receive_trial_result(parameter_id, parameters, value)
            told.append((parameter_id, study.settings.space.parse(parameters), value))

    before = [(t.number, t.architecture, t.value) for t in store.trials(study, state="succeeded")]
    with pytest.warns(NnasWarning, match=r"'random' does not repeat its proposals \(10 differ, first that of trial 0"):
        result = run_study(
            store, study, Other(seed=99), study_programs.evaluate, study_programs.run_settings(trials=20)
        )
    assert told[: len(before)] == before  # what was stored, not what this tuner proposed
    assert result.finished == 20
    assert len({trial.architecture for trial in store.trials(study)}) == 20


def test_a_tuner_that_ends_early_in_the_repetition_gets_the_rest_told(store: StudyStore) -> None:
    study = create_study(store, study_programs.settings("random"))
    finish(store, study, 10)

    class Short(RandomTuner):
        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
            if parameter_id >= 5:
                return super().generate_parameters(parameter_id) if parameter_id >= 10 else {}
            return super().generate_parameters(parameter_id)

    with pytest.warns(NnasWarning, match=r"\(5 differ, first that of trial 5\)"):
        assert (
            run_study(
                store, study, Short(seed=0), study_programs.evaluate, study_programs.run_settings(trials=12)
            ).finished
            == 12
        )
