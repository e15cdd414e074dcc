"""Models, mutators and small computations that the library's tests share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, MutableScope, Mutator


class Times(nn.Module):
    """Multiply by a number; counts its calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.factor


class Always(Mutator):
    """Decides what it is told; a missing key takes the first candidate."""

    def __init__(self, model: nn.Module, decisions: Mapping[str, Any] | None = None) -> None:
        super().__init__(model)
        self.decisions = dict(decisions or {})

    def sample_search(self) -> dict[str, Any]:
        first = {one.key: [index == 0 for index in range(len(one))] for one in self.choices}
        return {**first, **self.decisions}

    def sample_final(self) -> dict[str, Any]:
        return self.sample_search()


class OneLayer(nn.Module):
    """A model that is one LayerChoice of ``candidates``, named ``op``."""

    def __init__(self, candidates: Any, **options: Any) -> None:
        super().__init__()
        self.op = LayerChoice(candidates, **options)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.op(*args, **kwargs)


class OneInput(nn.Module):
    """A model that is one InputChoice, named ``pick``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        self.pick = InputChoice(*args, **options)

    def forward(self, inputs: Any) -> Any:
        return self.pick(inputs)


def decided(model: nn.Module, decisions: Mapping[str, Any]) -> nn.Module:
    """``model``, bound and reset to ``decisions``."""
    Always(model, decisions).reset()
    return model


def times(*factors: float) -> list[nn.Module]:
    """Candidates that multiply."""
    return [Times(factor) for factor in factors]


class Noisy(nn.Module):
    """A candidate with parameters, BatchNorm and an optional second argument."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, shift: float = 0.0) -> Tensor:
        return torch.relu(self.norm(self.conv(x))) + shift


class Cell(MutableScope):
    """A scope with a layer choice that returns its mask, and an input choice by tags."""

    def __init__(self, key: str, channels: int, tags: Sequence[str]) -> None:
        super().__init__(key)
        ops = OrderedDict(noisy=Noisy(channels), conv=nn.Conv2d(channels, channels, 1), skip=nn.Identity())
        self.op = LayerChoice(ops, return_mask=True, reduction="mean", key=f"{key}_op")
        self.pick = InputChoice(choose_from=tags, n_chosen=1, return_mask=True, key=f"{key}_pick")

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x, chosen = self.pick(inputs)
        y, mask = self.op(x)
        if y is None:
            return x
        return y * (1 + mask.to(x.dtype).sum()) + chosen.to(x.dtype).argmax()


class Everything(nn.Module):
    """Every feature at once, small enough to enumerate parts of: 3 * 4 * 9 * 9 * 12 * 8 * ... architectures."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = LayerChoice([nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(1, channels, 1)])
        shared = Noisy(channels)
        self.pair = nn.ModuleList(
            LayerChoice([shared, nn.Conv2d(channels, channels, 1), nn.Identity()], key="tied") for _ in range(2)
        )
        self.several = nn.ModuleDict(
            {
                "sum": LayerChoice([nn.Conv2d(channels, channels, 1) for _ in range(3)], key="sum"),
                "mean": LayerChoice([nn.Conv2d(channels, channels, 1) for _ in range(3)], reduction="mean", key="mean"),
                "none": LayerChoice([nn.Conv2d(channels, channels, 1) for _ in range(3)], reduction="none", key="none"),
                "concat": LayerChoice(
                    [nn.Conv2d(channels, channels, 1) for _ in range(3)], reduction="concat", key="concat"
                ),
            }
        )
        self.cells = nn.Sequential()
        for number in range(2):
            self.cells.add_module(f"cell{number}", Cell(f"cell{number}", channels, [self.stem.key, "tied"]))
        self.again = self.cells.cell0.op  # the same choice under a second name
        self.twice = self.pair[0]
        self.any = InputChoice(n_candidates=3, reduction="mean", key="any")
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        tied = self.twice(self.pair[1](self.pair[0](stem)))
        states = {self.stem.key: stem, "tied": tied}
        cells = [cell(states) for cell in self.cells]
        total = self.again(cells[0])[0]
        total = cells[0] if total is None else total
        for name in ("sum", "mean", "concat"):
            y = self.several[name](total)
            if y is not None:
                total = total + y.unflatten(1, (-1, total.shape[1])).sum(1)
        for y in self.several["none"](total):
            total = total + y
        picked = self.any([total, cells[1], tied])
        return self.head((total if picked is None else picked).mean((2, 3)))
