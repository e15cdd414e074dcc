"""A supernet in double precision, and its held-out loss after a step that torch's optimizer really makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from nnas_core import InputChoice, LayerChoice
from nnas_core.mutators.darts import DartsMutator, DartsTrainer
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import numbers, task_of

ORDERS: dict[str, dict[str, Any]] = {
    "first": {},
    "exact": {"order": 2},
    "finite": {"order": 2, "hypergradient": "finite"},
}
SECOND = {name: options for name, options in ORDERS.items() if name != "first"}


def trainer_of(model: nn.Module, mutator: Any, optimizer: Any = None, **functions: Any) -> DartsTrainer:
    """The real loop around ``model``, in double precision."""
    functions.setdefault("train_dataset", lambda: numbers(80))
    functions.setdefault("build_scheduler", lambda optimizer, steps: None)
    if optimizer is not None:
        functions["build_optimizer"] = optimizer
    task = task_of(**functions)
    settings = DataSettings(batch_size=8, seed=3)
    train, valid = build_batches(task, settings)
    held_out = architecture_batches(task, settings)
    model.double()
    mutator.double()
    return DartsTrainer(
        model, task, train, valid, 2, mutator=mutator, architecture_batches=held_out, precision="float64"
    )


def batches_of(trainer: DartsTrainer) -> tuple[Any, Any]:
    """A training and a held-out batch."""
    return tuple(
        trainer.to_device(next(iter(source.epoch(0))))
        for source in (trainer.train_batches, trainer.architecture_batches)
    )


def warmed_up(trainer: DartsTrainer, steps: int = 3) -> DartsTrainer:
    """After some steps of the weights: the optimizer has a state."""
    for batch, _ in zip(trainer.train_batches.epoch(0), range(steps), strict=False):
        trainer.weight_step(trainer.to_device(batch))
    return trainer


def gradient_of(trainer: DartsTrainer, batches: tuple[Any, Any]) -> Tensor:
    (gradient,) = trainer.architecture_gradients(*batches)
    assert gradient is not None
    return gradient


def gap(one: Tensor, other: Tensor) -> float:
    """The relative distance of two gradients."""
    return float((one - other).norm() / other.norm())


class Net(nn.Module):
    """Every way in which weights may depend on the architecture; smooth, or with kinks."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.Tanh, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shared = nn.Linear(6, 6)
            self.stem = nn.Linear(4, 6)
            self.a = LayerChoice([nn.Sequential(nn.Linear(6, 6), activation()), nn.Linear(6, 6), shared], key="a")
            self.b = LayerChoice([nn.Sequential(nn.Linear(6, 6), activation()), nn.Identity()], key="b")
            self.c = LayerChoice([shared, activation(), nn.Linear(6, 6)], key="a")
            self.norm = nn.BatchNorm1d(6)
            self.drop = nn.Dropout(dropout)
            self.pick = InputChoice(choose_from=["a", "b"], n_chosen=1, key="pick")
            self.unused = nn.Linear(6, 6)
            self.only_held_out = nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)
            self.activation = activation()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, held_out: bool = False) -> Tensor:
        self.calls = self.calls + 1
        x = self.activation(self.stem(x))
        a = self.a(x)
        b = self.norm(self.b(a))
        c = self.c(self.drop(self.pick([a, b])))
        if held_out:
            c = c + self.only_held_out(c)
        return self.head(self.activation(c))


def half_each(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> Callable[[Any], Any]:
    """Two groups that differ in rate and weight decay."""

    def build(parameters: Any) -> torch.optim.Optimizer:
        every = list(parameters)
        optimizer = make([{"params": every[::2]}, {"params": every[1::2]}])
        optimizer.param_groups[1]["lr"] *= 0.3
        optimizer.param_groups[1]["weight_decay"] += 0.1
        return optimizer

    return build


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: SGD(weights, lr=0.5),
    "momentum": lambda weights: SGD(weights, lr=0.3, momentum=0.9, weight_decay=0.05),
    "nesterov, groups": half_each(lambda groups: SGD(groups, lr=0.3, momentum=0.9, nesterov=True)),
    "dampening, groups": half_each(lambda groups: SGD(groups, lr=0.4, momentum=0.8, dampening=0.3)),
    "adam, groups": half_each(lambda groups: Adam(groups, lr=0.02, weight_decay=0.01)),
    "adamw": lambda weights: AdamW(weights, lr=0.02, weight_decay=0.1),
}


def unrolled_loss(trainer: DartsTrainer, batches: tuple[Any, Any], logits: Tensor) -> float:
    """The held-out loss after a step that a copy of the optimizer really makes, of a copy of the model."""
    mutator, optimizer = copy.deepcopy((trainer.mutator, trainer.optimizer))
    own = dict(zip(trainer.model.parameters(), mutator.model.parameters(), strict=True))
    for group, original in zip(optimizer.param_groups, trainer.optimizer.param_groups, strict=True):
        group["params"] = [own[one] for one in original["params"]]
    optimizer.state.clear()
    for parameter, state in trainer.optimizer.state.items():
        optimizer.state[own[parameter]] = copy.deepcopy(state)
    with torch.no_grad():
        mutator.logits.copy_(logits)
    mutator.model.train()
    optimizer.zero_grad()
    losses = []
    with torch.random.fork_rng():
        for (x, y), held_out in zip(batches, (False, True), strict=True):
            mutator.reset()
            losses.append(F.cross_entropy(mutator.model(x, held_out), y))
            if not held_out:
                losses[0].backward()
                optimizer.step()
    return losses[1].item()


def numeric(trainer: DartsTrainer, batches: tuple[Any, Any], h: float = 2e-3) -> Tensor:
    """The derivative of ``unrolled_loss`` in each logit, by differences of the sixth order."""
    logits = trainer.mutator.logits.detach()
    result = torch.zeros_like(logits)
    for row, column in trainer.mutator.valid.nonzero().tolist():
        for steps, factor in ((1, 45), (2, -9), (3, 1)):
            for sign in (1, -1):
                moved = logits.clone()
                moved[row, column] += sign * steps * h
                result[row, column] += sign * factor * unrolled_loss(trainer, batches, moved) / (60 * h)
    return result


def second_order(
    options: dict[str, Any],
    optimizer: Any = OPTIMIZERS["momentum"],
    *,
    activation: Callable[[], nn.Module] = nn.Tanh,
    dropout: float = 0.0,
    seed: int = 1,
    **functions: Any,
) -> tuple[DartsTrainer, tuple[Any, Any]]:
    """A trainer some steps into the training, and its next batches; the head of its model knows which is held out."""
    model = Net(activation, dropout)
    mutator = DartsMutator(model, torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():
        mutator.logits.mul_(500)  # unequal weights, of the order of 1
    trainer = warmed_up(trainer_of(model, mutator, optimizer, forward_batch=forward_batch, **functions))
    (x, y), held_out = batches_of(trainer)
    return trainer, ((x, y), [*held_out, True])


def forward_batch(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    x, y, *held_out = batch
    return (model(x, True) if held_out else model(x)), y


def bits(value: Any) -> Any:
    """Nested tensors as plain numbers."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    return [bits(entry) for entry in value] if isinstance(value, list | tuple) else value
