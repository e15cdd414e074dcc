"""A supernet that grows, and its search by P-DARTS, for the tests of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core import LayerChoice
from nnas_core.mutators.pdarts import PdartsMutator, PdartsTrainer
from nnas_core.training.trainer import Callback
from tests.mutators.darts_variant_searches import searcher

DEEP: dict[str, Any] = {"depth_arg": "layers", "layers": [1, 2, 3]}


class Counted(nn.Linear):
    """A candidate that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Layers(nn.Module):
    """``layers`` pairs of operations that share their keys from layer to layer: 4 candidates, and 2."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.wide = nn.ModuleList(
            LayerChoice(OrderedDict(a=Counted(), b=Counted(), c=Counted(), skip=nn.Identity()), key="wide")
            for _ in range(layers)
        )
        self.narrow = nn.ModuleList(LayerChoice([Counted(), nn.Tanh()], key="narrow") for _ in range(layers))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = narrow(wide(x))
        return self.head(self.drop(x))


class Watch(Callback):
    """What the model of each epoch is, and what ran in it."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.alive: list[Mapping[str, list[int]]] = []
        self.ran: list[set[int]] = []
        self.rates: list[float] = []
        self.learning_rates: list[float] = []
        self.moved: list[bool] = []

    def on_epoch_begin(self, epoch: int) -> None:
        self.depths.append(len(self.model.wide))
        self.alive.append(self.mutator.alive())
        self.rates.append(self.mutator.skip_rate)
        self.learning_rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        self.before = self.mutator.logits.detach().clone()
        for choice in self.model.wide:
            for candidate in choice:
                candidate.calls = 0

    def on_epoch_end(self, epoch: int) -> None:
        counts = [[getattr(one, "calls", 0) for one in choice] for choice in self.model.wide]
        self.ran.append({index for own in counts for index, count in enumerate(own) if count})
        self.moved.append(not torch.equal(self.before, self.mutator.logits))


def layered(arguments: Mapping[str, Any]) -> nn.Module:
    """``Layers`` with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Layers(**arguments)


_OF_THE_TRAINER = ("epochs", "stop", "callbacks", "seed", "precision")


def progressive(model: nn.Module | None = None, rebuild: Any = layered, **options: Any) -> PdartsTrainer:
    """A trainer of P-DARTS; options of the mutator and of the trainer together."""
    of_trainer = {name: options.pop(name) for name in _OF_THE_TRAINER if name in options}
    model = layered({}) if model is None else model
    return searcher(partial(PdartsMutator, **options), model, rebuild=rebuild, **of_trainer)
