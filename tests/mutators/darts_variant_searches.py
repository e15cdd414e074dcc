"""Small searches for the tests of DARTS's variants: a trainer in a mutator's own loop, stopped where a test asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core import Mutator
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback
from tests.training.sample_trainings import numbers, task_of

SETTINGS = DataSettings(batch_size=8, seed=3)
"""With ``numbers``: 4 training batches an epoch, and one held-out batch."""


class StopAt(Callback):
    """Raises InterruptedError after a step."""

    def __init__(self, step: int | None) -> None:
        self.at = step

    def on_batch_end(self, epoch: int) -> None:
        if self.trainer.step == self.at:
            raise InterruptedError


def searcher(
    make: Callable[[nn.Module, torch.Generator], Mutator],
    model: nn.Module,
    epochs: int = 3,
    stop: int | None = None,
    task: Task | None = None,
    callbacks: Iterable[Callback] = (),
    seed: int = 1,
    **options: Any,
) -> Any:
    """A trainer whose start depends on nothing but its arguments."""
    task = task or task_of(train_dataset=numbers)
    train, valid = build_batches(task, SETTINGS)
    generator = torch.Generator().manual_seed(seed)
    mutator = make(model, generator)
    return mutator.trainer(
        model,
        task,
        train,
        valid,
        epochs,
        mutator=mutator,
        generators={"mutator": generator},
        callbacks=[*callbacks, StopAt(stop)],
        architecture_batches=architecture_batches(task, SETTINGS),
        **options,
    )


def run(trainer: Any) -> dict[str, Tensor]:
    """Train to the end, or to the step where it stops; the weights, and the mutator's state."""
    with contextlib.suppress(InterruptedError):
        trainer.train()
    return {**trainer.model.state_dict(), **{f"mutator.{k}": v for k, v in trainer.mutator.state_dict().items()}}


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names at which two states are not equal to the bit."""
    assert list(one) == list(other)
    return [name for name in one if not torch.equal(one[name], other[name])]
