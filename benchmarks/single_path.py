"""Rows 1 to 4, and 25: one path of a supernet, trained and run, against that architecture written in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from harness import Line, Turn, compare, ratios, shown
from nets import Cells, Pointwise, SinglePath, Tiny, TinyConv, batch_for, sampled, supernet
from torch import nn

from nnas_core import RandomMutator
from nnas_core.training.optimizers import default_optimizer
from nnas_core.training.settings import OptimizerSettings

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

SETTINGS = OptimizerSettings(learning_rate=1e-3)


def plain_sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD as everybody writes it."""
    return torch.optim.SGD(parameters, SETTINGS.learning_rate, SETTINGS.momentum, weight_decay=SETTINGS.weight_decay)


def default(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """What nnas takes where the user's module defines no optimizer."""
    return default_optimizer(parameters, SETTINGS)


class Pair:
    """A supernet with its mutator, and for each round one sampled architecture in plain PyTorch.

    Before each reset the mutator's generator is put back, so that every step of a round runs the same architecture as
    the plain model does; that costs our side 0.2 microseconds a step.
    """

    def __init__(self, net: Any) -> None:
        self._net = net
        self._generator = torch.Generator()
        torch.manual_seed(0)
        self.supernet: nn.Module = net(supernet)
        self._mutator = RandomMutator(self.supernet, self._generator)
        self._state = self._generator.get_state()
        self.batch = batch_for(net)

    def reset(self) -> None:
        """One step's decision."""
        self._generator.set_state(self._state)
        self._mutator.reset()

    def draw(self, number: int) -> nn.Module:
        """Sample the architecture of a round; returns it as a plain model with equal weights."""
        self._generator.manual_seed(number)
        torch.rand(1, generator=self._generator)  # a fresh seed makes the next draw a slow one
        self._state = self._generator.get_state()
        self.reset()
        architecture = {key: mask.nonzero().flatten().tolist() for key, mask in self._mutator._cache.items()}
        torch.manual_seed(0)
        static = self._net(sampled(architecture))
        torch.manual_seed(0)
        fresh = self._net(supernet)
        self.supernet.load_state_dict(fresh.state_dict())
        x, _ = self.batch
        with torch.no_grad():
            same = torch.equal(self.supernet.eval()(x), static.eval()(x))
        if not same:
            raise RuntimeError(f"{self._net.__name__}: the two sides do not compute the same")
        self.supernet.train()
        return static.train()


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    """One step of an ordinary training loop."""
    x, y = batch
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def training(net: Any, ours: Optimizer, theirs: Optimizer) -> Callable[[int], Mapping[str, Turn]]:
    """The sides of a training step; the optimizer of ours walks all parameters of the supernet."""
    pair = Pair(net)

    def sides(number: int) -> Mapping[str, Turn]:
        static = pair.draw(number)
        optimizer = ours(pair.supernet.parameters())
        static_optimizer = theirs(static.parameters())

        def supernet_step() -> None:
            pair.reset()
            train_step(pair.supernet, optimizer, pair.batch)

        return {"nnas": supernet_step, "plain": lambda: train_step(static, static_optimizer, pair.batch)}

    return sides


def forward(net: Any) -> Callable[[int], Mapping[str, Turn]]:
    """The sides of a forward pass without gradients, with a reset each time."""
    pair = Pair(net)
    x, _ = pair.batch

    def sides(number: int) -> Mapping[str, Turn]:
        static = pair.draw(number)

        def supernet_forward() -> None:
            pair.reset()
            with torch.no_grad():
                pair.supernet(x)

        def static_forward() -> None:
            with torch.no_grad():
                static(x)

        return {"nnas": supernet_forward, "plain": static_forward}

    return sides


def _line(row: int, what: str, target: float, sides: Callable[[int], Mapping[str, Turn]], rounds: int) -> Line:
    seconds = compare(sides, rounds)
    return Line(row, what, "x", target, ratios(seconds, "nnas", "plain"), note=shown(seconds))


def row_1(rounds: int) -> Iterator[Line]:
    """Python-bound training step."""
    yield _line(1, "training step, tiny conv net", 1.05, training(TinyConv, plain_sgd, plain_sgd), rounds)
    yield _line(1, "training step, tiny linear net", 1.05, training(Tiny, plain_sgd, plain_sgd), rounds)


def row_2(rounds: int) -> Iterator[Line]:
    """Kernel-bound training steps."""
    yield _line(2, "training step, cell network", 1.03, training(Cells, plain_sgd, plain_sgd), rounds)
    yield _line(2, "training step, 20-block network", 1.03, training(SinglePath, plain_sgd, plain_sgd), rounds)


def row_3(rounds: int) -> Iterator[Line]:
    """The default optimizer against the one that a plain loop has."""
    sides = training(Tiny, default, plain_sgd)
    yield _line(3, "default optimizer against plain SGD, tiny linear net", 0.75, sides, rounds)


def row_4(rounds: int) -> Iterator[Line]:
    """Forward passes only."""
    yield _line(4, "reset and forward pass, tiny conv net", 1.08, forward(TinyConv), rounds)
    yield _line(4, "reset and forward pass, tiny linear net", 1.08, forward(Tiny), rounds)


def row_25(rounds: int) -> Iterator[Line]:
    """Kernels of a few microseconds: what a choice costs beside them."""
    what = "12 choices among 1x1 convolutions of 8 channels, 8x8, batch 2"
    yield _line(25, f"training step, {what}", 1.05, training(Pointwise, plain_sgd, plain_sgd), rounds)
    yield _line(25, f"reset and forward pass, {what}", 1.08, forward(Pointwise), rounds)
