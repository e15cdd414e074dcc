"""A small supernet, and its search by CDARTS, for the tests of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice
from nnas_core.mutators.cdarts import CdartsMutator, CdartsTrainer
from tests.mutators.darts_variant_searches import searcher


class Net(nn.Module):
    """Two operations with shared keys in further layers, an edge, BatchNorm; an auxiliary head if asked for."""

    def __init__(self, layers: int = 1, auxiliary: bool = False, normalized: bool = True) -> None:
        super().__init__()
        self.a = nn.ModuleList(_operation("a") for _ in range(layers))
        self.b = nn.ModuleList(_operation("b") for _ in range(layers))
        self.pick = InputChoice(choose_from=["a", "b"], n_chosen=1, key="pick")
        self.norm = nn.BatchNorm1d(4) if normalized else nn.Identity()
        self.head = nn.Linear(4, 3)
        self.auxiliary = nn.Linear(4, 3) if auxiliary else None

    def forward(self, x: Tensor) -> Any:
        for first, second in zip(self.a, self.b, strict=True):
            a = first(x)
            x = self.norm(self.pick([a, second(a)]))
        return self.head(x) if self.auxiliary is None else (self.head(x), self.auxiliary(x))


def _operation(key: str) -> LayerChoice:
    return LayerChoice(OrderedDict(linear=nn.Linear(4, 4), skip=nn.Identity(), tanh=nn.Tanh()), key=key)


def net(arguments: Mapping[str, Any] | None = None, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Net(**{**(arguments or {}), **options})


def cyclic(model: nn.Module | None = None, **options: Any) -> CdartsTrainer:
    """A trainer of CDARTS; options of the mutator and of the trainer together."""
    names = ("epochs", "stop", "callbacks", "precision", "rebuild", "task", "clip_grad")
    of_trainer = {name: options.pop(name) for name in names if name in options}
    return searcher(partial(CdartsMutator, **options), net() if model is None else model, **of_trainer)


def double(**options: Any) -> CdartsTrainer:
    return cyclic(net(**options.pop("model", {})).double(), precision="float64", **options)


def batch_of(trainer: CdartsTrainer, number: int = 0) -> Any:
    x, y = list(trainer.train_batches.epoch(0))[number]
    return trainer.to_device([x, y])
