"""The metric of an architecture with the weights that it inherits from a supernet."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nnas_core.errors import NoResultError
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.naming import naming
from nnas_core.mutables.nested import tensors
from nnas_core.space.architecture import Architecture
from nnas_core.training.data import Batches, to_device
from nnas_core.training.metrics import mean_metrics
from nnas_core.training.task import Batch, Task

__all__ = ["Evaluation", "InheritedWeights", "first_metric", "measure", "require_finite"]

_KEEP_BYTES = 256 * 2**20
_IS_TRAINING = operator.attrgetter("training")


@dataclass(frozen=True)
class Evaluation:
    """The measurements of one architecture.

    Attributes:
        metrics: loss and metrics on the validation data, after recalibration.
        before: the same before it; None if there was none, or it was not asked for.
        seconds: wall time of both.
    """

    metrics: dict[str, float]
    before: dict[str, float] | None
    seconds: float


def measure(
    model: nn.Module,
    task: Task,
    batches: Iterator[Batch],
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean loss and metrics of ``model`` in evaluation mode.

    Args:
        poll: called before each batch; what it raises ends the measurement.
    """
    model.eval()
    return mean_metrics(model, task, (to_device(batch, device) for batch in batches), poll)


def first_metric(metrics: Mapping[str, float]) -> tuple[str, float]:
    """*The* metric, by name: the first that is not the loss, or the loss where there is no other."""
    return next(((name, value) for name, value in metrics.items() if name != "loss"), ("loss", metrics["loss"]))


def require_finite(metrics: Mapping[str, float], data: str) -> None:
    """Refuse a measurement whose loss or first metric is not a finite number.

    Raises:
        NoResultError: naming it and ``data``.
    """
    for name, value in (("loss", metrics["loss"]), first_metric(metrics)):
        if math.isnan(value) and name != "loss":
            raise NoResultError(
                f"the {name} has a value in no batch of the {data} data",
                hint="look at what metrics(output, target) divides by, or measure the whole with epoch_metrics()",
            )
        if not math.isfinite(value):
            raise NoResultError(
                f"the {name} on the {data} data is not finite ({value})",
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
        prepare: what to make of a batch before the supernet gets it; None: it is moved to the device.
        compares: measure without recalibration first.
    """

    def __init__(
        self,
        mutator: Mutator,
        task: Task,
        train_batches: Batches,
        valid_batches: Batches,
        device: torch.device,
        recalibrate: int,
        prepare: Callable[[Batch], Batch] | None = None,
        compares: bool = True,
    ) -> None:
        self._mutator = mutator
        self._task = task
        self._device = device
        self._recalibrate = recalibrate
        self._compares = compares
        prepare = prepare or functools.partial(to_device, device=device)
        self._calibration = _Kept(train_batches, prepare, recalibrate)
        self._valid = _Kept(valid_batches, prepare, None)
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
        with naming(self._mutator):
            return self._evaluated(poll, started)

    def _evaluated(self, poll: Callable[[], None], started: float) -> Evaluation:
        if not (self._recalibrate and self._norms):
            metrics = self._measure(poll)
            return Evaluation(metrics, None, time.perf_counter() - started)
        before = self._measure(poll) if self._compares else None
        with _new_statistics(self._norms):
            self._run_calibration(poll)
            metrics = self._measure(poll)
        return Evaluation(metrics, before, time.perf_counter() - started)

    def _measure(self, poll: Callable[[], None]) -> dict[str, float]:
        self._eval()
        return mean_metrics(self._mutator.model, self._task, self._valid.batches(), poll)

    def _eval(self) -> None:
        # eval() walks the whole supernet, which takes longer than a small architecture
        if any(map(_IS_TRAINING, self._modules)):
            self._mutator.model.eval()

    @torch.no_grad()
    def _run_calibration(self, poll: Callable[[], None]) -> None:
        self._eval()  # dropout and the like stay off
        for norm in self._norms:
            norm.train()
        for batch in self._calibration.batches():
            poll()
            self._task.forward_batch(self._mutator.model, batch)
        for norm in self._norms:
            norm.eval()


# How statistics begin; other buffers, of a subclass, begin as copies.
_INITIAL = {
    "running_mean": torch.zeros_like,
    "running_var": torch.ones_like,
    "num_batches_tracked": torch.zeros_like,
}


@contextmanager
def _new_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Give BatchNorm modules new buffers for the block; their own are never written."""
    own = [(norm, norm.momentum, norm._buffers.copy()) for norm in norms]
    try:
        for norm, _, buffers in own:
            for name, buffer in buffers.items():
                if buffer is not None:
                    norm._buffers[name] = _INITIAL.get(name, torch.clone)(buffer)
            norm.momentum = None  # a plain mean over the batches
        yield
    finally:
        for norm, momentum, buffers in own:
            norm.momentum = momentum
            norm._buffers.update(buffers)


class _Kept:
    """The same batches again and again: prepared once, on the device, while they are small.

    A model may change its input in place. Then the batches are loaded anew each time, as if they were never kept.
    """

    def __init__(self, source: Batches, prepare: Callable[[Batch], Batch], limit: int | None) -> None:
        self._source = source
        self._prepare = prepare
        self._limit = limit
        self._kept: list[tuple[Batch, list[Tensor]]] | None = None
        self._keeps = True

    def batches(self) -> Iterator[Batch]:
        kept = self._kept
        for batch, parts in self._load() if kept is None else kept:
            versions = [part._version for part in parts]
            yield batch
            if versions != [part._version for part in parts]:
                self._keeps, self._kept = False, None

    def _load(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """The batches with the tensors in them; kept once all are loaded, if they are few and were not changed."""
        loaded: list[tuple[Batch, list[Tensor]]] = []
        size = 0
        for batch in itertools.islice(self._source.epoch(0), self._limit):
            prepared = self._prepare(batch)
            parts = list(tensors(prepared))
            yield prepared, parts
            size += sum(part.numel() * part.element_size() for part in parts)
            self._keeps = self._keeps and size <= _KEEP_BYTES
            if self._keeps:
                loaded.append((prepared, parts))
        if self._keeps:
            self._kept = loaded
