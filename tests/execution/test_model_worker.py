"""A worker process measures what this process would: the same numbers to the bit, in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nnas_core import random_state
from nnas_core.errors import InputError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Finished, Job
from nnas_core.execution.pool import WorkerPool
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.settings import DataSettings, ModelReference, TrainingSettings, to_options
from nnas_core.workflows.settings import AlgorithmSettings, TuneSettings
from nnas_core.workflows.tune import prepare_worker, tune
from tests.cli_support import _searched, small_model, small_run
from tests.execution.process_checks import ends

__all__ = ["_searched", "small_model", "small_run"]


RANDOM = AlgorithmSettings(tuner="random")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as opened:
        yield opened


def inherited(run: Path) -> TuneSettings:
    """Trials that inherit the weights of a search."""
    training = TrainingSettings(model=ModelReference(str(run.parent / "model.py")))
    return TuneSettings(training=training, study="study", algorithms=RANDOM, checkpoint=str(run / "checkpoint.pt"))


def from_scratch(run: Path) -> TuneSettings:
    """Trials that train."""
    model = ModelReference(str(run.parent / "model.py"))
    training = TrainingSettings(model=model, epochs=2, data=DataSettings(batch_size=16))
    return TuneSettings(training=training, study="study", algorithms=RANDOM)


@pytest.mark.slow
@pytest.mark.global_random
@pytest.mark.parametrize("made", [inherited, from_scratch])
def test_a_worker_gives_the_numbers_of_this_process_in_any_order(
    small_run: Path, store: StudyStore, tmp_path: Path, made: Any
) -> None:
    settings = made(small_run)
    begin = random_state.to_json(random_state.capture())
    study = tune(settings, store, run=RunSettings(Limits(4))).study
    here = [(trial.value, dict(trial.metrics)) for trial in store.trials(study)]
    assert len({str(metrics) for _, metrics in here}) > 1
    setting = {"settings": to_options(settings), "random": begin, "weights": study.settings.config.get("weights")}
    architectures = [trial.architecture for trial in store.trials(study)]
    engine = WorkerPool("nnas_core.workflows.tune_worker", setting, LocalSettings(tmp_path / "logs"))
    for place in (3, 1, 0, 2, 3):
        engine.submit(Job(place, 1, architectures[place]))
        report = ends(engine, 1)[0]
        assert isinstance(report, Finished), report
        assert (report.result.value, dict(report.result.metrics)) == here[place]
    engine.close()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["worker-0.log"]


def test_a_worker_does_not_begin_with_weights_that_are_not_those_of_the_study(small_run: Path) -> None:
    setting = {
        "settings": to_options(inherited(small_run)),
        "random": random_state.to_json(random_state.capture()),
        "weights": "those before the checkpoint was overwritten",
    }
    with torch.random.fork_rng(), pytest.raises(InputError) as caught:
        prepare_worker(setting)
    assert str(caught.value).endswith("checkpoint.pt: the checkpoint has changed since the study began")
    assert caught.value.hint == "tune with a copy of it"
