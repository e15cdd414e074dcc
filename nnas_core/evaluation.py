"""The metric of an architecture with the weights that it inherits from a supernet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nnas_core.architecture import Architecture
from nnas_core.data import Batches, batch_size_of, to_device
from nnas_core.errors import NoResultError
from nnas_core.mutator import Mutator
from nnas_core.task import Task
from nnas_core.training import Averages

__all__ = ["Evaluation", "InheritedWeights", "measure", "require_finite"]

_KEEP_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one architecture.

    Attributes:
        metrics: loss and metrics on the validation data, after recalibration.
        before: the same before it; None if there was none.
        seconds: wall time of both.
    """

    metrics: dict[str, float]
    before: dict[str, float] | None
    seconds: float


@torch.no_grad()
def measure(
    model: nn.Module,
    task: Task,
    batches: Iterator[Any],
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean loss and metrics of ``model`` in evaluation mode.

    Args:
        poll: called before each batch; what it raises ends the measurement.
    """
    model.eval()
    return _means(model, task, batches, device, poll)


def _means(
    model: nn.Module, task: Task, batches: Iterator[Any], device: torch.device, poll: Callable[[], None]
) -> dict[str, float]:
    averages = Averages()
    for batch in batches:
        poll()
        output, target = task.forward_batch(model, to_device(batch, device))
        values = {"loss": float(task.loss(output, target)), **task.metrics(output, target)}
        averages.update(values, batch_size_of(target))
    return averages.means()


def require_finite(metrics: Mapping[str, float], data: str) -> None:
    """Refuse a measurement whose loss or first metric is not a finite number.

    Raises:
        NoResultError: naming it and ``data``.
    """
    for name in [name for name in metrics if name == "loss"] + [name for name in metrics if name != "loss"][:1]:
        if not math.isfinite(metrics[name]):
            raise NoResultError(
                f"the {name} on the {data} data is not finite ({metrics[name]})",
                hint="look for bad input data, and for weights that are too large",
            )


class InheritedWeights:
    """Evaluates architectures one after another in the supernet itself; nothing is copied or left behind.

    A supernet's BatchNorm statistics mix all architectures, which says little about one of them. Recalibration
    replaces them, for the duration of the evaluation, by the mean over a few training batches of this one.

    Args:
        mutator: bound to the supernet.
        task: loss and metrics.
        train_batches: for recalibration.
        valid_batches: for the metric.
        device: of the supernet.
        recalibrate: training batches to use; 0 evaluates with the statistics of the supernet.
    """

    def __init__(
        self,
        mutator: Mutator,
        task: Task,
        train_batches: Batches,
        valid_batches: Batches,
        device: torch.device,
        recalibrate: int,
    ) -> None:
        self._mutator = mutator
        self._task = task
        self._device = device
        self._recalibrate = recalibrate
        self._calibration = _Kept(train_batches, device, recalibrate)
        self._valid = _Kept(valid_batches, device, None)
        self._modules = list(mutator.model.modules())
        self._norms = [
            module for module in self._modules if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]

    def evaluate(self, architecture: Architecture, poll: Callable[[], None] = lambda: None) -> Evaluation:
        """Measure one architecture.

        Args:
            poll: called before each batch; what it raises ends the evaluation and leaves the supernet as it was.
        """
        started = time.perf_counter()
        self._mutator.apply_architecture(architecture)
        if not (self._recalibrate and self._norms):
            metrics = self._measure(poll)
            return Evaluation(metrics, None, time.perf_counter() - started)
        before = self._measure(poll)
        with _statistics_kept(self._norms):
            self._run_calibration(poll)
            metrics = self._measure(poll)
        return Evaluation(metrics, before, time.perf_counter() - started)

    @torch.no_grad()
    def _measure(self, poll: Callable[[], None]) -> dict[str, float]:
        self._eval()
        return _means(self._mutator.model, self._task, self._valid.batches(), self._device, poll)

    def _eval(self) -> None:
        # eval() walks the whole supernet, which takes longer than a small architecture
        if any(module.training for module in self._modules):
            self._mutator.model.eval()

    @torch.no_grad()
    def _run_calibration(self, poll: Callable[[], None]) -> None:
        self._eval()  # dropout and the like stay off
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        for batch in self._calibration.batches():
            poll()
            self._task.forward_batch(self._mutator.model, batch)


@contextmanager
def _statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    saved: list[tuple[_BatchNorm, float | None, list[Tensor]]] = [
        (norm, norm.momentum, [buffer.clone() for buffer in norm.buffers(recurse=False)]) for norm in norms
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, momentum, buffers in saved:
                norm.momentum = momentum
                for buffer, value in zip(norm.buffers(recurse=False), buffers, strict=True):
                    buffer.copy_(value)


class _Kept:
    """The same batches again and again: on the device after the first time, while they are small."""

    def __init__(self, source: Batches, device: torch.device, limit: int | None) -> None:
        self._source = source
        self._device = device
        self._limit = limit
        self._kept: list[Any] | None = None

    def batches(self) -> Iterator[Any]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Any] = []
        size = 0
        for number, batch in enumerate(self._source.epoch(0)):
            if number == self._limit:
                break
            batch = to_device(batch, self._device)
            size += _bytes(batch)
            if size <= _KEEP_BYTES:
                kept.append(batch)
            yield batch
        if size <= _KEEP_BYTES:
            self._kept = kept


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
