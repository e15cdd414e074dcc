"""What one architecture, command or mistake does stays with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from nnas_core import LayerChoice, Mutator, extract
from nnas_core.errors import Interrupted, UserCodeError
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import CheckpointCadence, Recorder
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.settings import DataSettings
from nnas_core.training.trainer import Callback
from tests.runs.test_resume_training import everything, own, seed
from tests.training.sample_trainings import Stream, build_trainer, numbers, task_of

CPU = torch.device("cpu")


class InPlace(nn.Module):
    """Candidate 0 spoils its input."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Sequential(nn.Hardtanh(-0.1, 0.1, inplace=True), nn.Linear(4, 2)), nn.Linear(4, 2)])

    def forward(self, x):
        return self.op(x)


def test_a_candidate_that_works_in_place_changes_no_other_trial():
    task = task_of(train_dataset=lambda: numbers(40), valid_dataset=lambda: numbers(20, 1))
    mutator = Mutator(InPlace())
    train, valid = build_batches(task, DataSettings(batch_size=8))
    inherited = InheritedWeights(mutator, task, train, valid, CPU, 0)
    spoiler, other = (mutator.space.parse({"LayerChoice1": index}) for index in (0, 1))
    alone = inherited.evaluate(other).metrics
    again = [inherited.evaluate(one).metrics for one in (spoiler, other, spoiler, other)]
    x, y = numbers(20, 1).tensors
    expected = nn.functional.cross_entropy(extract(mutator.model, {"LayerChoice1": 1})(x), y).item()
    assert alone["loss"] == pytest.approx(expected, rel=1e-6)
    assert (again[1], again[3], again[2]) == (alone, alone, again[0])


def test_the_split_of_a_checkpoint_is_the_same_under_another_seed():
    task = task_of(train_dataset=lambda: numbers(40))
    searched = DataSettings(batch_size=40, valid_fraction=0.3, seed=1)
    later = DataSettings(batch_size=40, seed=7).with_split(searched.split)
    held_out = [torch.cat([x for x, _ in build_batches(task, one)[1].epoch(0)]) for one in (searched, later)]
    assert held_out[0].shape == (12, 4)
    assert torch.equal(*held_out)


# ---- what cannot be trained or measured


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            {
                "build_dataloaders": lambda size, workers: {
                    "train": DataLoader(numbers(3), batch_size=8, drop_last=True),
                    "valid": DataLoader(numbers(8), batch_size=8),
                }
            },
            "the training data has no batches",
        ),
        (
            {"train_dataset": lambda: numbers(8), "valid_dataset": lambda: Nothing()},
            "the data to measure on has no batches",
        ),
    ],
)
def test_data_without_batches_is_an_error(functions, message):
    trainer = build_trainer(task_of(**functions), DataSettings(batch_size=8))
    with pytest.raises(UserCodeError, match=message):
        trainer.train()


class Nothing(Stream):
    def __iter__(self):
        return iter(())


def test_a_schedule_that_needs_a_metric_is_refused():
    task = own(build_scheduler=lambda optimizer, steps: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
    with pytest.raises(UserCodeError, match=r"returned a ReduceLROnPlateau, which needs a metric"):
        build_trainer(task, DataSettings(batch_size=8))


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_hooks_on_a_choice_are_not_lost_in_silence(hook):
    model = InPlace()
    getattr(model.op, hook)(lambda *given: None)
    with pytest.raises(UserCodeError, match="LayerChoice has hooks, which an extracted model would lose"):
        extract(model, {"LayerChoice1": 1})


# ---- checkpoints


def recorded(folder, task, should_stop=lambda: None, callbacks=(), spoil=None):
    """A trainer that writes to a run folder."""
    run = RunFolder.create(folder, force=True)
    recorder = Recorder(
        run,
        {"command": "search", "model": "m.py", "mutator": "random", "seed": 0},
        None,
        CheckpointCadence(None),
        should_stop,
    )
    if spoil is not None:
        recorder_build = recorder.build

        def build(model, mutator, trainer):
            spoil(model)
            recorder_build(model, mutator, trainer)

        recorder.build = build
    trainer = build_trainer(task, DataSettings(batch_size=8), callbacks=[*callbacks, recorder])
    return run, recorder, trainer


def test_a_schedule_of_numpy_numbers_is_saved(tmp_path):
    task = own(
        build_scheduler=lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + np.cos(np.pi * step / steps))
        )
    )
    run, recorder, trainer = recorded(tmp_path / "run", task)
    with run:
        recorder.train()
    rate = read_checkpoint(run.checkpoint)["state"]["optimizer"]["param_groups"][0]["lr"]
    assert (type(rate), rate) == (float, pytest.approx(0.0, abs=1e-12))
    assert trainer.epoch == 3


def test_a_buffer_of_minus_infinity_is_no_divergence(tmp_path):
    def mask(model):
        model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    run, recorder, _ = recorded(tmp_path / "run", own(), spoil=mask)
    with run:
        recorder.train()
    assert read_checkpoint(run.checkpoint)["state"]["model"]["mask"][0, 1] == -torch.inf


class AtValidation(Callback):
    """Asks to stop at the second validation batch of an epoch."""

    def __init__(self, epoch):
        self.epoch, self.batches, self.asked = epoch, 0, None

    def on_validation_batch(self, epoch):
        self.batches = self.batches + 1 if epoch == self.epoch else 0
        if self.batches == 2:
            self.asked = 2


@pytest.mark.global_random
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_stopped_while_it_validates_ends_as_the_uninterrupted_one(tmp_path, epoch):
    task = own(valid_dataset=lambda: numbers(24, 1))
    seed(100)
    whole = build_trainer(task, DataSettings(batch_size=8))
    whole.train()
    seed(100)
    stop = AtValidation(epoch)
    run, recorder, _ = recorded(tmp_path / "run", task, lambda: stop.asked, [stop])
    with run, pytest.raises(Interrupted, match=f"interrupted; checkpoint at step {5 * (epoch + 1)}: "):
        recorder.train()
    seed(999)
    second = build_trainer(task, DataSettings(batch_size=8))
    second.load_state_dict(read_checkpoint(run.checkpoint)["state"])
    second.train()
    assert everything(second) == everything(whole)


class AtOnce(Callback):
    number = None

    def on_batch_end(self, epoch):
        if epoch == 1:
            self.number = 2  # the first signal, which is to be asked for after this batch
            raise KeyboardInterrupt  # the second


def test_a_second_signal_says_what_is_left(tmp_path):
    at_once = AtOnce()
    run, recorder, _ = recorded(tmp_path / "run", own(), lambda: at_once.number, [at_once])
    with run, pytest.raises(Interrupted, match=r"stopped at once; the last checkpoint is .*checkpoint\.pt") as caught:
        recorder.train()
    assert caught.value.hint == f"resume the run {run.path}"
