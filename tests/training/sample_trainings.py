"""Tasks, data and trainers for the tests of training."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from nnas_core import InputChoice, LayerChoice, RandomMutator, Trainer
from nnas_core.plugins.loading import UserModule
from nnas_core.training.data import build_batches
from nnas_core.training.settings import DataSettings, OptimizerSettings
from nnas_core.training.task import Task


def task_of(optimizer: OptimizerSettings | None = None, **functions: Any) -> Task:
    """A task whose module defines ``functions``."""
    module = ModuleType("task")
    vars(module).update(functions)
    return Task(UserModule("task.py", module, None), optimizer)


def numbers(count: int = 40, seed: int = 0) -> TensorDataset:
    """Points in four dimensions, labelled by the sign of the first coordinate."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Draws from all global random states for each sample, as augmentation does."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.data[index]
        return x + 0.1 * torch.randn(4) + 0.1 * float(np.random.rand()), y


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """An iterable dataset of unknown length."""

    def __iter__(self):
        return iter(numbers(10))


class Net(nn.Module):
    """A supernet with dropout and BatchNorm, so that every kind of state matters."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(4, 6, bias=False)])
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.4)
        self.pick = InputChoice(2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.op(x))
        z = self.pick([self.drop(y), torch.relu(y)])
        return self.head(y if z is None else z)


def global_loaders(batch_size: int, workers: int) -> dict[str, DataLoader[Any]]:
    """Loaders that shuffle with torch's global state, as most programs make them."""
    return {
        "train": DataLoader(Augmented(numbers()), batch_size=batch_size, shuffle=True, num_workers=workers),
        "valid": DataLoader(numbers(12, 1), batch_size=batch_size, num_workers=workers),
    }


def build_trainer(task: Task, settings: DataSettings, epochs: int = 3, **options: Any) -> Trainer:
    """A supernet trainer whose start depends on nothing but its arguments."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    generator = torch.Generator().manual_seed(5)
    train, valid = build_batches(task, settings)
    mutator = RandomMutator(model, generator)
    return Trainer(model, task, train, valid, epochs, mutator=mutator, generators={"mutator": generator}, **options)
