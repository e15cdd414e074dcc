"""Means of losses and metrics over samples, and what one epoch measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nnas_core.errors import UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.training.data import batch_size_of
from nnas_core.training.task import Batch, Task

__all__ = ["Averages", "EpochRecord", "mean_metrics"]


class Averages:
    """Means of metrics over samples, batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, float], count: int) -> None:
        """Add the means of a batch of ``count`` samples; a metric that is NaN has no value in it, and does not count.

        A loss that is NaN does: it says that the training diverged.
        """
        for name, value in values.items():
            sum_before, count_before = self._sums.get(name, 0.0), self._counts.get(name, 0)
            counts = name == "loss" or not math.isnan(value)
            self._sums[name] = sum_before + value * count if counts else sum_before
            self._counts[name] = count_before + count if counts else count_before

    def means(self) -> dict[str, float]:
        """The means so far, in the order in which the names first came; NaN for what had a value in no batch."""
        return {
            name: total / count if (count := self._counts[name]) else math.nan for name, total in self._sums.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain data to go on from."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


@dataclass(frozen=True)
class EpochRecord:
    """The measurements of one epoch.

    Attributes:
        epoch: from 1.
        train, valid: means over samples; with a mutator each batch saw an architecture of its own. Metrics of a whole
            data set are in ``valid`` alone. NaN says that a metric had a value in no batch.
        samples: training samples seen in this epoch by this process.
        seconds: wall time of their training, validation apart.
        step: training steps in all at its end; 0 in the checkpoints of an older nnas.
    """

    epoch: int
    train: dict[str, float]
    valid: dict[str, float]
    samples: int
    seconds: float
    step: int = 0

    @property
    def samples_per_second(self) -> float:
        """Training throughput."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0


@torch.no_grad()
def mean_metrics(
    model: Forward,
    task: Task,
    batches: Iterator[Batch],
    before_batch: Callable[[], None],
) -> dict[str, float]:
    """Mean loss and metrics over samples, and metrics of the whole, in the mode that the model is in.

    Args:
        batches: where the model is.
        before_batch: called first for each batch; what it raises ends the measurement.

    Raises:
        UserCodeError: there is no batch.
    """
    averages = Averages()
    whole = task.whole_set()
    for batch in batches:
        before_batch()
        output, target = task.forward_batch(model, batch)  # type: ignore[arg-type]
        values = {"loss": float(task.loss(output, target)), **task.batch_metrics(output, target)}
        averages.update(values, batch_size_of(target))
        if whole is not None:
            whole.update(output, target)
    means = averages.means()
    if not means:
        raise UserCodeError("the data to measure on has no batches", where=task.user.reference)
    return means if whole is None else {"loss": means["loss"], **whole.compute(), **means}
