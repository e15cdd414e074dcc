"""One loop trains everything: a supernet with a mutator, or a plain model without one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.data import Batches, batch_size_of, to_device
from nnas_core.errors import NoResultError, UserCodeError
from nnas_core.mutator import Mutator
from nnas_core.task import Task

__all__ = ["Averages", "Callback", "EpochRecord", "Trainer", "mean_metrics"]


class Averages:
    """Means of metrics over samples, batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, float], count: int) -> None:
        """Add the means of a batch of ``count`` samples."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * count
            self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """The means so far, in the order in which the names first came."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain data to go on from."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch measured.

    Attributes:
        epoch: from 1.
        train, valid: means over samples; with a mutator each batch saw an architecture of its own.
        samples: training samples seen in this epoch by this process.
        seconds: wall time of their training, validation apart.
    """

    epoch: int
    train: dict[str, float]
    valid: dict[str, float]
    samples: int
    seconds: float

    @property
    def samples_per_second(self) -> float:
        """Training throughput."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0


class Callback:
    """Hooks of the loop; override what is needed. Epochs count from 0."""

    trainer: Trainer
    model: nn.Module
    mutator: Mutator | None

    def build(self, model: nn.Module, mutator: Mutator | None, trainer: Trainer) -> None:
        """Called once, before training."""
        self.model, self.mutator, self.trainer = model, mutator, trainer

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first batch."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after validation; ``trainer.history[-1]`` is what it measured."""

    def on_batch_begin(self, epoch: int) -> None:
        """Called before each training batch."""

    def on_batch_end(self, epoch: int) -> None:
        """Called after each training step; ``trainer.step`` counts them."""

    def on_validation_batch(self, epoch: int) -> None:
        """Called before each validation batch."""


@torch.no_grad()
def mean_metrics(
    model: nn.Module,
    task: Task,
    batches: Iterator[Any],
    device: torch.device,
    before_batch: Callable[[], None],
) -> dict[str, float]:
    """Mean loss and metrics over samples, in the mode that the model is in.

    Args:
        before_batch: called first for each batch; what it raises ends the measurement.

    Raises:
        UserCodeError: there is no batch.
    """
    averages = Averages()
    for batch in batches:
        before_batch()
        output, target = task.forward_batch(model, to_device(batch, device))
        values = {"loss": float(task.loss(output, target)), **task.metrics(output, target)}
        averages.update(values, batch_size_of(target))
    means = averages.means()
    if not means:
        raise UserCodeError("the data to measure on has no batches", where=task.user.reference)
    return means


@dataclass
class Trainer:
    """Train a model; with a mutator, a new architecture every step.

    Override ``training_step``, ``train_one_epoch`` or ``validate_one_epoch`` for another algorithm.

    Args:
        model: on its device.
        task: loss, metrics, optimizer.
        train_batches, valid_batches: the data.
        epochs: to train in all.
        mutator: bound to ``model``; None trains the model as it is.
        clip_grad: largest gradient norm; 0 for no limit.
        device: where batches go.
        callbacks: called in this order.
        generators: every private generator that training draws from, by name; saved and restored.

    Raises:
        NoResultError: the loss is not finite.
    """

    model: nn.Module
    task: Task
    train_batches: Batches
    valid_batches: Batches
    epochs: int
    mutator: Mutator | None = None
    clip_grad: float = 5.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    callbacks: Sequence[Callback] = ()
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.epoch = 0  # of the step to come
        self.batch = 0  # of that epoch, already consumed
        self.step = 0  # in all
        self.history: list[EpochRecord] = []
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not weights:
            raise UserCodeError("the model has no weights to train", where=self.task.user.reference)
        self.optimizer = self.task.build_optimizer(weights)
        self.scheduler = self.task.build_scheduler(self.optimizer, self.epochs * len(self.train_batches))
        self._averages = Averages()
        self._samples = 0
        self._elapsed = 0.0
        self._epoch_start: dict[str, Any] = {}
        # While it validates, the random states from before it: an interrupted validation is done again.
        self._before_validation: dict[str, Any] | None = None
        for callback in self.callbacks:
            callback.build(self.model, self.mutator, self)

    # ---- the loop

    def train(self) -> None:
        """Train from wherever ``load_state_dict`` left off to the last epoch."""
        while self.epoch < self.epochs:
            if self.batch == 0:
                self._averages, self._samples, self._elapsed = Averages(), 0, 0.0
                self._epoch_start = random_state.capture()
                self._call("on_epoch_begin")
            self.train_one_epoch(self.epoch)
            self._before_validation = self._random_states()
            valid = self.validate_one_epoch(self.epoch)
            self._before_validation = None
            record = EpochRecord(self.epoch + 1, self._averages.means(), valid, self._samples, self._elapsed)
            self.history.append(record)
            finished = self.epoch
            self.epoch, self.batch = self.epoch + 1, 0
            for callback in self.callbacks:
                callback.on_epoch_end(finished)

    def train_one_epoch(self, epoch: int) -> None:
        """The training steps of one epoch, or what is left of it."""
        self.model.train()
        batches = self._resumed_batches(epoch)
        started = time.perf_counter()
        for batch in batches:
            self._call("on_batch_begin")
            self._train_batch(to_device(batch, self.device))
            self._elapsed += time.perf_counter() - started
            self.batch += 1
            self.step += 1
            self._call("on_batch_end")
            started = time.perf_counter()
        if self.batch == 0:
            raise UserCodeError("the training data has no batches", where=self.task.user.reference)

    def _resumed_batches(self, epoch: int) -> Iterator[Any]:
        if self.batch == 0 or self.train_batches.can_skip:
            return self.train_batches.epoch(epoch, self.batch)
        # A loader of the user's draws from the global state: repeat the epoch's beginning, then go on as it was.
        now = random_state.capture()
        random_state.restore(self._epoch_start)
        batches = self.train_batches.epoch(epoch)
        for _ in itertools.islice(batches, self.batch):
            pass
        random_state.restore(now)
        return batches

    def _train_batch(self, batch: Any) -> None:
        self.optimizer.zero_grad()
        loss, output, target = self.training_step(batch)
        value = loss.item()
        if not math.isfinite(value):  # before it reaches the weights, and with them a checkpoint
            raise NoResultError(
                f"the loss is not finite ({value}) at step {self.step + 1}, epoch {self.epoch + 1}",
                hint="lower the learning rate, set --clip-grad, or look for bad input data",
            )
        try:
            torch.autograd.backward(loss)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserCodeError(
                f"the backward pass failed: {str(error).splitlines()[0]}",
                hint="the loss must depend on weights that require gradients; in-place operations may break that",
            ) from error
        if self.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        count = batch_size_of(target)
        with torch.no_grad():
            values = {"loss": value, **self.task.metrics(output, target)}
        self._averages.update(values, count)
        self._samples += count

    def training_step(self, batch: Any) -> tuple[Tensor, Any, Any]:
        """Decide an architecture and compute its loss on one batch.

        Returns:
            The loss, which is then differentiated; the output and the target, for the metrics.
        """
        if self.mutator is not None:
            self.mutator.reset()
        output, target = self.task.forward_batch(self.model, batch)
        return self.task.loss(output, target), output, target

    def validate_one_epoch(self, epoch: int) -> dict[str, float]:
        """Mean loss and metrics on the validation data; with a mutator, a new architecture a batch."""
        self.model.eval()

        def before_batch() -> None:
            self._call("on_validation_batch")
            if self.mutator is not None:
                self.mutator.reset()

        return mean_metrics(self.model, self.task, self.valid_batches.epoch(epoch), self.device, before_batch)

    def _call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.epoch)

    # ---- going on later

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next step, as tensors and plain data."""
        return {
            "model": dict(self.model.state_dict()),
            "mutator": dict(self.mutator.state_dict()) if self.mutator is not None else {},
            "optimizer": _without_numpy(self.optimizer.state_dict()),
            "scheduler": _plain(_without_numpy(self.scheduler.state_dict())) if self.scheduler is not None else {},
            "progress": {"epoch": self.epoch, "batch": self.batch, "step": self.step},
            "epoch": {
                "averages": self._averages.state_dict(),
                "samples": self._samples,
                "elapsed": self._elapsed,
                "start": self._epoch_start,
            },
            "history": [vars(record) for record in self.history],
            "random": self._before_validation or self._random_states(),
        }

    def _random_states(self) -> dict[str, Any]:
        generators = {name: generator.get_state() for name, generator in self.generators.items()}
        return {"global": random_state.capture(), "generators": generators}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, to the bit."""
        self.model.load_state_dict(state["model"])
        if self.mutator is not None:
            self.mutator.load_state_dict(state["mutator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        progress = state["progress"]
        self.epoch, self.batch, self.step = progress["epoch"], progress["batch"], progress["step"]
        self._averages.load_state_dict(state["epoch"]["averages"])
        self._samples, self._elapsed = state["epoch"]["samples"], state["epoch"]["elapsed"]
        self._epoch_start = state["epoch"]["start"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        for name, generator in self.generators.items():
            generator.set_state(state["random"]["generators"][name])
        random_state.restore(state["random"]["global"])


def _without_numpy(value: Any) -> Any:
    """Numbers of numpy, which a schedule may well compute, as Python's own: no checkpoint may hold the others."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _without_numpy(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(entry) for entry in value)
    return value


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's state without bound methods and the like, which no checkpoint may hold."""
    allowed: tuple[type, ...] = (str, int, float, bool, type(None), list, dict, Tensor)
    return {name: value for name, value in state.items() if isinstance(value, allowed)}
