"""What ends a recorded training: a signal, an error, or a loader process that died."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnas_core.errors import Interrupted, NoResultError
from nnas_core.runs.cadence import CheckpointCadence
from nnas_core.runs.checkpoint import RunFacts
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import Recorder
from nnas_core.training.settings import DataSettings
from nnas_core.training.trainer import Callback
from tests.training.sample_trainings import build_trainer, numbers, task_of


class Fails(Callback):
    """Raises an error after the first step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_batch_end(self, epoch: int) -> None:
        raise self.error


def recorded(run: RunFolder, should_stop: Callable[[], int | None], *callbacks: Callback) -> Recorder:
    """The recorder of a small training in a run folder."""
    facts: RunFacts = {"command": "search", "model": "model.py", "seed": 0}
    recorder = Recorder(run, facts, None, CheckpointCadence(None), should_stop)
    settings = DataSettings(batch_size=8)
    trainer = build_trainer(task_of(train_dataset=numbers), settings, callbacks=[*callbacks, recorder])
    recorder.build(trainer.model, None, trainer)
    return recorder


def train(folder: Path, error: BaseException, number: int | None) -> None:
    """A training that ``error`` ends, while a signal has come or none."""
    with RunFolder.create(folder / "run") as run:
        recorded(run, lambda: number, Fails(error)).train()


DEAD_LOADER = RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")


@pytest.mark.parametrize(
    ("error", "number"),
    [(KeyboardInterrupt(), None), (DEAD_LOADER, None), (RuntimeError("shapes differ"), 15)],
    ids=["no signal of ours", "a loader that died by itself", "an error in time with a signal"],
)
def test_what_no_signal_made_is_raised_as_it_is(tmp_path: Path, error: BaseException, number: int | None) -> None:
    with pytest.raises(type(error)) as caught:
        train(tmp_path, error, number)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DEAD_LOADER], ids=["at once", "a loader that got it too"])
def test_what_a_signal_made_is_an_interruption(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(Interrupted, match=r"stopped at once; the last checkpoint is .*checkpoint.pt") as caught:
        train(tmp_path, error, 15)
    assert caught.value.__cause__ is error


def test_infinite_from_the_start_is_meant_for_a_model_of_a_later_stage_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        recorder = recorded(run, lambda: None)
        trainer = recorder.trainer
        trainer.model = copy.deepcopy(trainer.model)
        trainer.model.head.register_buffer("mask", torch.tensor(-torch.inf))
        recorder.on_epoch_begin(1)
        recorder.save()
        trainer.model.head.bias.data[0] = torch.inf
        recorder.on_epoch_begin(2)
        with pytest.raises(NoResultError, match=r"the weights are not finite \(head.bias\) after step 0"):
            recorder.save()
