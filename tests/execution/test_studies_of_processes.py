"""Whole studies by the engines of this machine: what is stored is what their processes did."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Engine
from nnas_core.execution.pool import WorkerPool
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudySettings, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import NoMoreTrials, Tuner
from tests.execution.pool_worker import Deeds
from tests.execution.process_checks import program
from tests.study.known_studies import SPACE
from tests.study.study_programs import run_settings


class InOrder(Tuner):
    """Proposes every architecture of ``SPACE``, and keeps what it proposed."""

    def __init__(self) -> None:
        super().__init__()
        self.proposed: list[dict[str, Any]] = []

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Known already."""

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        if len(self.proposed) == SPACE.size:
            raise NoMoreTrials
        self.proposed.append(SPACE.at(len(self.proposed)).parameters())
        return self.proposed[-1]

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        """Nothing to learn."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as opened:
        yield opened


def run(store: StudyStore, engine: Engine, trials: int, tuner: Tuner | None = None, **rules: Any) -> list[TrialRecord]:
    """The trials of a new study, two at once."""
    study = create_study(store, StudySettings("study", SPACE, "random"))
    run_study(
        store, study, tuner or InOrder(), engine, run_settings(trials=trials, concurrency=2, rules=TrialRules(**rules))
    )
    return store.trials(study)


def command(folder: Path, text: str) -> CommandEngine:
    """Trials of a Python text."""
    return CommandEngine([sys.executable, "-I", "-S", program(folder, text)], LocalSettings(folder / "trials"))


def test_a_trial_finds_in_its_file_what_the_tuner_proposed(store: StudyStore, tmp_path: Path) -> None:
    tuner = InOrder()
    text = (
        "content = open(os.environ['NNAS_PARAMETERS']).read()\n"
        "say('x'); open(os.environ['NNAS_TRIAL_DIR'] + '/seen', 'w').write(content)\n"
        "open(os.environ['NNAS_RESULT'], 'w').write(os.environ['NNAS_TRIAL'])"
    )
    trials = run(store, command(tmp_path, text), 5, tuner)
    assert [trial.value for trial in trials] == [0.0, 1.0, 2.0, 3.0, 4.0]
    seen = [json.loads((tmp_path / "trials" / f"{number}-1" / "seen").read_text()) for number in range(5)]
    assert seen == tuner.proposed


@pytest.mark.kill
def test_a_command_that_crashes_is_tried_again_as_often_as_is_allowed(store: StudyStore, tmp_path: Path) -> None:
    text = (
        "trial, attempt = (int(os.environ['NNAS_' + name]) for name in ('TRIAL', 'ATTEMPT'))\n"
        "if trial == 1 or (trial == 2 and attempt == 1): os.kill(os.getpid(), 11 if trial == 1 else 9)\n"
        "if trial == 3: print('no luck'); sys.exit(3)\n"
        "open(os.environ['NNAS_RESULT'], 'w').write(str(attempt))"
    )
    trials = run(store, command(tmp_path, text), 4, attempts=3)
    assert [(trial.state, trial.attempt, trial.value, trial.error) for trial in trials] == [
        ("succeeded", 1, 1.0, None),
        ("failed", 3, None, "killed by signal 11 (SIGSEGV) 3 times"),
        ("succeeded", 2, 2.0, None),
        ("failed", 1, None, "no result (exit 3): no luck"),
    ]
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == [
        "0-1",
        "1-1",
        "1-2",
        "1-3",
        "2-1",
        "2-2",
        "3-1",
    ]


@pytest.mark.kill
def test_a_trial_whose_worker_is_killed_is_tried_again_by_another(store: StudyStore, tmp_path: Path) -> None:
    deeds = ["fine", "dies", "values", "fails", "hangs"]
    assert all(hasattr(Deeds, deed) for deed in deeds)
    do = {SPACE.at(place).canonical: deed for place, deed in enumerate(deeds)}
    settings = LocalSettings(tmp_path / "logs", grace_s=0.2)
    engine = WorkerPool("tests.execution.pool_worker", {"folder": str(tmp_path), "do": do}, settings)
    trials = run(store, engine, 5, timeout_s=3.0)
    assert [(trial.state, trial.attempt, trial.value, trial.error) for trial in trials] == [
        ("succeeded", 1, 1.0, None),
        ("succeeded", 2, 2.0, None),
        ("succeeded", 1, 1 / 3, None),
        ("failed", 1, None, "it does not work"),
        ("failed", 1, None, "timed out after 3 s"),
    ]
    assert store.intermediates(store.study("study")) == {2: [0.1, -math.inf, 0.1 + 0.2, -math.inf, 1e-300]}
