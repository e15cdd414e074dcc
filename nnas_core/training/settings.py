"""Every option of a training, resolved; the names are those of the command line and of ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnas_core.training.data import DataSettings
from nnas_core.training.task import OptimizerSettings

__all__ = ["TrainingSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all trainings have in common; see ``nnas search --help``."""

    model: str
    epochs: int
    model_arg: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    batch_size: int = 64
    workers: int = 0
    valid_fraction: float = 0.2
    drop_last: bool = False
    clip_grad: float = 5.0
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    schedule: str = "cosine"
    min_learning_rate: float = 1e-3
    checkpoint_every: str | None = None
    device: str = "auto"
    seed: int = 0

    def data(self) -> DataSettings:
        """The part that concerns data."""
        return DataSettings(self.batch_size, self.workers, self.valid_fraction, self.drop_last, self.seed)

    def optimizer(self) -> OptimizerSettings:
        """The part that concerns the default optimizer."""
        return OptimizerSettings(
            self.learning_rate, self.momentum, self.weight_decay, self.schedule, self.min_learning_rate
        )
