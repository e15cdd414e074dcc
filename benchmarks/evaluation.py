"""Row 9: architectures evaluated with inherited weights, against a hand-written loop over extracted models.

Both sides measure the mean loss and accuracy on the same validation batches and, where BatchNorm is recalibrated, do
so before and after it, with the same training batches. Extracting the models, and setting them to evaluation mode, is
not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from harness import Line, Turn, compare, ratios, shown
from nets import Cells, Tiny, batch_for, supernet
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nnas_core import Architecture, Mutator, extract
from nnas_core.plugins.loading import UserModule
from nnas_core.randomness import generator
from nnas_core.training.data import Batches
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.task import Task

ARCHITECTURES = 100
VALIDATION_BATCHES = 2

Batch = tuple[Tensor, Tensor]


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Mean loss and accuracy, as one writes it by hand."""
    loss, correct, count = 0.0, 0, 0
    for x, y in batches:
        output = model(x)
        loss += F.cross_entropy(output, y).item() * len(y)
        correct += (output.argmax(dim=1) == y).sum().item()
        count += len(y)
    return loss / count, correct / count


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace the statistics of BatchNorm by their mean over ``batches``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for x, _ in batches:
        model(x)
    for norm in norms:
        norm.eval()


def prepared(net: Any, recalibrated: int) -> Callable[[int], Mapping[str, Turn]]:
    """The sides: one step evaluates all architectures."""
    torch.manual_seed(0)
    model = net(supernet)
    mutator = Mutator(model)
    train = [small_batch(net, seed) for seed in range(recalibrated)]
    valid = [small_batch(net, 1000 + seed) for seed in range(VALIDATION_BATCHES)]
    task = Task(UserModule("benchmark", ModuleType("benchmark"), None))
    cpu = torch.device("cpu")
    inherited = InheritedWeights(mutator, task, _batches(train), _batches(valid), cpu, recalibrated)
    rng = generator(0, "benchmark")
    architectures = [mutator.space.sample(rng) for _ in range(ARCHITECTURES)]
    models = [extract(model, architecture).eval() for architecture in architectures]

    def by_hand() -> None:
        for extracted in models:
            measure(extracted, valid)
            if recalibrated:
                recalibrate(extracted, train)
                measure(extracted, valid)

    def ours() -> None:
        for architecture in architectures:
            inherited.evaluate(architecture)

    _check(inherited, architectures[0], extract(model, architectures[0]).eval(), train, valid)
    return lambda number: {"nnas": ours, "by hand": by_hand}


def small_batch(net: Any, seed: int) -> Batch:
    """8 samples, images of 16x16: smaller kernels leave more to see of what is around them."""
    x, y = batch_for(net, seed)
    return (x[:8, :, :16, :16] if x.dim() == 4 else x[:8]).contiguous(), y[:8]


def _batches(batches: list[Batch]) -> Batches:
    return Batches(DataLoader(batches, batch_size=None), None)


def _check(
    inherited: InheritedWeights, architecture: Architecture, model: nn.Module, train: list[Batch], valid: list[Batch]
) -> None:
    if train:
        recalibrate(model, train)
    loss, accuracy = measure(model, valid)
    found = inherited.evaluate(architecture).metrics
    if abs(found["loss"] - loss) > 1e-5 or abs(found["accuracy"] - accuracy) > 1e-6:
        raise RuntimeError(f"the two sides do not measure the same: {found}, {loss}, {accuracy}")


def row_9(rounds: int) -> Iterator[Line]:
    """A python-bound net, and one with BatchNorm without and with recalibration."""
    for net, recalibrated, what in (
        (Tiny, 0, "tiny net"),
        (Cells, 0, "cell network"),
        (Cells, 2, "cell network, BatchNorm recalibrated on 2 batches"),
    ):
        seconds = compare(prepared(net, recalibrated), rounds, turns=7 if net is Tiny else 1, shortest=0)
        what = f"{ARCHITECTURES} architectures with inherited weights, {what}"
        yield Line(9, what, "x", 1.05, ratios(seconds, "nnas", "by hand"), note=shown(seconds))
