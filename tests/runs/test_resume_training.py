"""A training that was stopped anywhere goes on to the bit as if it had not been."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nnas_core import random_state
from nnas_core.runs.checkpoint import read_checkpoint, write_checkpoint
from nnas_core.training.settings import DataSettings
from nnas_core.training.trainer import Callback
from tests.runs.test_checkpoint import HEADER
from tests.training.sample_trainings import Augmented, build_trainer, global_loaders, numbers, task_of

pytestmark = pytest.mark.global_random


class Stop(Exception):
    """The interruption."""


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, epoch):
        if self.trainer.step == self.step:
            raise Stop


def seed(number):
    """What a process starts from."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def everything(trainer):
    """All state as plain data; times are left out."""
    state = trainer.state_dict()
    state["history"] = [
        {name: one[name] for name in ("epoch", "train", "valid", "samples")} for one in state["history"]
    ]
    del state["epoch"]["elapsed"]
    return plain(state)


def plain(value):
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def own(**options):
    return task_of(train_dataset=numbers, **options)


def augmented():
    return task_of(train_dataset=lambda: Augmented(numbers()))


def users():
    return task_of(build_dataloaders=global_loaders)


def adam():
    return own(
        build_optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01),
        build_scheduler=lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps),
    )


CASES = [
    pytest.param(own, 0, id="our loader"),
    pytest.param(own, 2, id="our loader, two processes"),
    pytest.param(augmented, 0, id="augmentation"),
    pytest.param(augmented, 2, id="augmentation in two processes"),
    pytest.param(users, 0, id="the user's loaders"),
    pytest.param(users, 2, id="the user's loaders, two processes"),
    pytest.param(adam, 0, id="the user's optimizer and schedule"),
]


@pytest.mark.parametrize(("task", "workers"), CASES)
def test_a_run_stopped_at_any_step_ends_as_the_uninterrupted_one(tmp_path, task, workers):
    settings = DataSettings(batch_size=8, workers=workers, seed=1)
    seed(100)
    whole = build_trainer(task(), settings)
    whole.train()
    per_epoch = len(whole.train_batches)
    stops = [2, per_epoch, per_epoch + 3] if workers == 0 else [per_epoch + 2]
    ends = []
    for stop in stops:
        seed(100)
        first = build_trainer(task(), settings, callbacks=[StopAt(stop)])
        with pytest.raises(Stop):
            first.train()
        write_checkpoint(tmp_path / "c.pt", HEADER, {"state": first.state_dict()})
        seed(999)  # another process
        second = build_trainer(task(), settings)
        second.load_state_dict(read_checkpoint(tmp_path / "c.pt")["state"])
        second.train()
        ends.append(everything(second) == everything(whole))
    assert ends == [True] * len(stops)


def test_the_comparison_sees_a_difference():
    trainers = []
    for start in (100, 101):  # dropout differs
        seed(start)
        trainers.append(build_trainer(own(), DataSettings(batch_size=8)))
        trainers[-1].train()
    assert everything(trainers[0]) != everything(trainers[1])


def test_a_finished_run_that_is_resumed_does_nothing():
    trainer = build_trainer(own(), DataSettings(batch_size=8))
    trainer.train()
    state = trainer.state_dict()
    again = build_trainer(own(), DataSettings(batch_size=8))
    again.load_state_dict(state)
    again.train()
    assert (again.step, everything(again)) == (trainer.step, everything(trainer))


def test_global_random_states_are_captured_and_restored():
    def draw():
        return (
            random.random(),
            float(np.random.rand()),
            torch.rand(1).item(),
            random.gauss(0, 1),
            float(np.random.randn()),
        )

    draw()
    saved = random_state.capture()
    first = draw()
    draw()
    random_state.restore(saved)
    assert draw() == first


def test_a_private_generator_depends_on_seed_and_purpose_only():
    draws = [
        torch.rand(1, generator=random_state.torch_generator(*names)).item()
        for names in [(0, "a"), (0, "a"), (0, "b"), (1, "a"), (0, "a", 1)]
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4
