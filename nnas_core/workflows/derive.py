"""Deriving an architecture: draw several from a trained mutator, and keep the one that inherits best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nnas_core import random_state
from nnas_core.errors import BindingError, NoResultError
from nnas_core.space.architecture import Architecture
from nnas_core.training.evaluation import InheritedWeights, first_metric
from nnas_core.training.settings import RECALIBRATE
from nnas_core.training.trainer import Trainer

__all__ = ["Derivation", "derive"]


@dataclass(frozen=True)
class Derivation:
    """The best of several architectures.

    Attributes:
        architecture: the best.
        drawn: how many there were.
        distinct: how many different ones, which were measured.
        metric: the task's first, by name.
        mode: ``"max"`` or ``"min"``: which of its values are better.
        metrics: of the best, on the validation data, with the weights of the supernet. As the best of several estimates
            on the data that they were chosen by, they are optimistic.
    """

    architecture: Architecture
    drawn: int
    distinct: int
    metric: str
    mode: str
    metrics: dict[str, float]

    @property
    def value(self) -> float:
        """The value of the metric."""
        return self.metrics[self.metric]


def derive(trainer: Trainer, count: int, poll: Callable[[], None] = lambda: None) -> Derivation:
    """Draw final architectures, measure each different one with inherited weights, and keep the best.

    All random states stay as they are, so that it gives the same when it is done again.

    Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", arXiv:1802.03268
    (section 2.2, "Deriving Architectures"; there on one batch, here on all validation data).

    Args:
        trainer: after its training.
        count: how many to draw.
        poll: called before each batch; what it raises ends the measurement.

    Raises:
        BindingError: the trainer has no mutator.
        NoResultError: no architecture has a finite metric.
    """
    mutator = trainer.mutator
    if mutator is None:
        raise BindingError("there is no mutator to draw architectures from", hint="train with one")
    mutator.progress = 1.0  # of a training that was resumed after its end, too
    inherited = InheritedWeights(
        mutator,
        trainer.task,
        trainer.train_batches,
        trainer.valid_batches,
        trainer.device,
        RECALIBRATE,
        trainer.to_device,
    )
    best: tuple[float, Architecture, dict[str, float]] | None = None
    metric = ""
    with random_state.untouched(trainer.generators), trainer.autocast():
        distinct = list(dict.fromkeys(mutator.final_architecture() for _ in range(count)))
        for architecture in distinct:
            metrics = inherited.evaluate(architecture, poll).metrics
            metric, value = first_metric(metrics)
            worth = -value if trainer.task.metric_mode == "min" else value
            if math.isfinite(worth) and (best is None or worth > best[0]):
                best = (worth, architecture, metrics)
    if best is None:
        raise NoResultError(
            f"none of the {len(distinct)} derived architectures has a finite {metric} on the validation data",
            hint="look for bad input data, and for weights that are too large",
        )
    return Derivation(best[1], count, len(distinct), metric, trainer.task.metric_mode, best[2])
