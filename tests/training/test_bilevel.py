"""The loop that trains the architecture too, against a plain one; and the endless held-out batches that it uses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from nnas_core import LayerChoice, RandomMutator
from nnas_core.errors import BindingError, NoResultError, UserCodeError
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.data import Batches, Cycle, architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import Augmented, Stream, global_loaders, numbers, task_of

SETTINGS = DataSettings(batch_size=8, seed=3)


class Soft(RelaxedMutator):
    """Softmax, nothing else."""

    def relaxed(self) -> Tensor:
        return self.probabilities()


class Net(nn.Module):
    """Two candidates and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 6), nn.Tanh())], key="op")
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op(x))


def build(task: Any, **options: Any) -> BilevelTrainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net().double()
    mutator = Soft(model, torch.Generator().manual_seed(1), learning_rate=0.1, weight_decay=0.01)
    train, valid = build_batches(task, SETTINGS)
    options.setdefault("architecture_batches", architecture_batches(task, SETTINGS))
    return BilevelTrainer(model, task, train, valid, 1, mutator=mutator, precision="float64", **options)


def test_one_epoch_equals_a_plain_loop_over_the_same_batches() -> None:
    task = task_of(train_dataset=numbers)
    trainer = build(task, clip_grad=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Net().double()
    linear, tanh, head = plain.op[0], plain.op[1][0], plain.head
    logits = trainer.mutator.logits.detach().clone().requires_grad_()
    weights = torch.optim.SGD(plain.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam([logits], lr=0.1, betas=(0.5, 0.999), weight_decay=0.01)
    train, _ = build_batches(task, SETTINGS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(weights, len(train), 1e-3)
    held_out = list(architecture_batches(task, SETTINGS).epoch(0))

    def loss_of(batch: Any) -> Tensor:
        x, y = batch[0].double(), batch[1]
        p = logits.softmax(1)[0]
        return F.cross_entropy(head(p[0] * linear(x) + p[1] * torch.tanh(tanh(x))), y)

    for step, batch in enumerate(train.epoch(0)):
        adam.zero_grad()
        loss_of(held_out[step % len(held_out)]).backward()
        adam.step()
        weights.zero_grad()
        loss_of(batch).backward()
        weights.step()
        schedule.step()

    assert len(held_out) == 1  # 8 of 40 samples are held out: the next pass has them in another order, the loss not
    trainer.train()
    torch.testing.assert_close(trainer.mutator.logits.detach(), logits.detach(), rtol=1e-10, atol=1e-12)
    for one, other in zip(trainer.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_each_half_computes_the_gradients_of_its_own_parameters_only() -> None:
    trainer = build(task_of(train_dataset=numbers))
    batch = trainer.to_device(next(iter(trainer.train_batches.epoch(0))))
    trainer.architecture_step(batch, batch)
    assert all(one.grad is None for one in trainer.model.parameters())
    loss, _, _ = trainer.training_step(batch)
    trainer.backward(loss)
    assert all(one.grad is not None for one in trainer.model.parameters())
    assert trainer.mutator.logits.grad is None


def test_a_held_out_loss_that_is_not_finite_ends_the_training_before_the_architecture_changes() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) * (float("nan") if trainer.step == 2 else 1.0)

    trainer = build(task_of(train_dataset=numbers, loss=loss))
    before: list[Tensor] = []
    trainer.train_batch, step = None, trainer.train_batch

    def watched(batch: Any) -> None:
        before.append(trainer.mutator.logits.detach().clone())
        step(batch)

    trainer.train_batch = watched
    with pytest.raises(NoResultError, match=r"^the loss on held-out data is not finite \(nan\) at step 3, epoch 1$"):
        trainer.train()
    assert torch.equal(trainer.mutator.logits, before[-1])


def test_it_needs_a_mutator_with_parameters() -> None:
    task = task_of(train_dataset=numbers)
    train, valid = build_batches(task, SETTINGS)
    with pytest.raises(BindingError, match="BilevelTrainer trains an architecture, it needs a mutator"):
        BilevelTrainer(Net(), task, train, valid, 1)
    model = Net()
    with pytest.raises(BindingError, match="RandomMutator has no parameters to train") as raised:
        BilevelTrainer(model, task, train, valid, 1, mutator=RandomMutator(model))
    assert "give the mutator an nn.Parameter" in str(raised.value.hint)


# ---- held-out batches


def test_the_held_out_batches_are_the_validation_data_shuffled_anew_each_pass() -> None:
    task = task_of(train_dataset=lambda: numbers(100))
    settings = DataSettings(batch_size=8, seed=3)  # 20 are held out: two full batches, and 4 samples left out
    cycle = Cycle(architecture_batches(task, settings))
    valid = torch.cat([x for x, _ in build_batches(task, settings)[1].epoch(0)])
    rows = {tuple(row) for row in valid.tolist()}
    passes = [torch.cat([next(cycle)[0], next(cycle)[0]]).tolist() for _ in range(3)]
    assert all(len(one) == 16 and {tuple(row) for row in one} <= rows for one in passes)
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize("loaders", [False, True], ids=["datasets", "own loaders"])
@pytest.mark.parametrize("position", [0, 1, 3, 5])
@pytest.mark.global_random
def test_a_position_in_the_held_out_batches_can_be_saved(loaders: bool, position: int) -> None:
    if loaders:  # they shuffle and augment with the global random state
        task = task_of(build_dataloaders=global_loaders)
        source = Batches(global_loaders(8, 0)["train"], None)
    else:
        task = task_of(train_dataset=lambda: Augmented(numbers(80)), valid_dataset=lambda: Augmented(numbers(24)))
        source = architecture_batches(task, SETTINGS)
    torch.manual_seed(0)
    cycle = Cycle(source)
    for _ in range(position):
        next(cycle)
    state, before = cycle.state_dict(), torch.get_rng_state()
    expected = [next(cycle)[1].tolist() for _ in range(7)]

    torch.set_rng_state(before)
    again = Cycle(source)
    again.load_state_dict(state)
    assert [next(again)[1].tolist() for _ in range(7)] == expected


def test_validation_data_smaller_than_a_batch_are_refused() -> None:
    task = task_of(train_dataset=numbers)
    message = (
        "task.py: the 8 validation samples make no full batch of 16, which this algorithm trains the architecture on"
    )
    with pytest.raises(UserCodeError, match=f"^{re.escape(message)}$") as raised:
        architecture_batches(task, DataSettings(batch_size=16))
    assert raised.value.hint == "choose a smaller `batch_size`, or a larger `valid_fraction`"


def test_an_iterable_dataset_can_be_held_out() -> None:
    task = task_of(train_dataset=numbers, valid_dataset=Stream)
    cycle = Cycle(architecture_batches(task, DataSettings(batch_size=4)))
    assert [len(next(cycle)[0]) for _ in range(4)] == [4, 4, 4, 4]  # of its 10 samples, two full batches


def test_held_out_data_without_batches_are_an_error() -> None:
    class Empty(IterableDataset[Any]):
        def __iter__(self):
            return iter([])

    with pytest.raises(UserCodeError, match="the validation data have no batches to train the architecture on"):
        next(Cycle(Batches(DataLoader(Empty()), None)))
