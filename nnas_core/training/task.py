"""The task of a model: the functions of the user's module beside it, or their defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.errors import UserCodeError
from nnas_core.plugins.loading import UserModule
from nnas_core.training.optimizers import default_optimizer
from nnas_core.training.settings import OptimizerSettings

__all__ = [
    "AUXILIARY_WEIGHT",
    "Batch",
    "Output",
    "Target",
    "Task",
    "default_forward_batch",
    "default_loss",
    "default_metrics",
]


# Whatever the functions of a task agree on: nnas hands them on, and looks into none.
Batch: TypeAlias = Any
Output: TypeAlias = Any
Target: TypeAlias = Any


class Task:
    """The functions ``train_dataset``, ``valid_dataset``, ``test_dataset``, ``loss``, ``metrics``, ``forward_batch``,
    ``build_optimizer``, ``build_scheduler`` and ``build_dataloaders`` of a module.

    Args:
        user: the loaded module; what it does not define has a default, except ``train_dataset``.
        optimizer: numbers for the default optimizer and schedule.

    Attributes:
        metric_mode: ``"max"`` or ``"min"``: which values of the first metric are better.
    """

    def __init__(self, user: UserModule, optimizer: OptimizerSettings | None = None) -> None:
        self.user = user
        self._settings = optimizer or OptimizerSettings()
        self.metric_mode: str = getattr(user.module, "metric_mode", "max")
        if self.metric_mode not in ("max", "min"):
            raise UserCodeError(f"metric_mode is {self.metric_mode!r}, it must be 'max' or 'min'", where=user.reference)
        self.loss: Callable[[Output, Target], Tensor] = self._own("loss") or default_loss
        self._metrics: Callable[[Output, Target], object] = self._own("metrics") or default_metrics
        self.forward_batch: Callable[[nn.Module, Batch], tuple[Output, Target]] = (
            self._own("forward_batch") or default_forward_batch
        )

    def _own(self, name: str) -> Any:
        return getattr(self.user.module, name, None)

    def has(self, name: str) -> bool:
        """Returns true if the module defines ``name`` itself."""
        return self._own(name) is not None

    def call(self, name: str, *arguments: object) -> Any:
        """Call a function of the module with its folder importable.

        Raises:
            UserCodeError: the module does not define it.
        """
        function = self._own(name)
        if function is None:
            raise UserCodeError(
                f"it defines no {name}()",
                where=self.user.reference,
                hint=f"define {name}() there, or name the file that does with `task` FILE",
            )
        with self.user.imports():
            return function(*arguments)

    def metrics(self, output: Output, target: Target) -> dict[str, float]:
        """The metrics of one batch as plain numbers; the first is *the* metric.

        Raises:
            UserCodeError: the module's ``metrics`` returned something else than numbers by name.
        """
        values = self._metrics(output, target)
        if not isinstance(values, Mapping) or not values:
            raise UserCodeError(
                f"metrics() returned {values!r}, it must return a dictionary of numbers",
                where=self.user.reference,
            )
        return {str(name): float(value) for name, value in values.items()}

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The module's optimizer of the weights, or SGD as ``OptimizerSettings`` says."""
        if self.has("build_optimizer"):
            own: torch.optim.Optimizer = self.call("build_optimizer", parameters)
            return own
        return default_optimizer(parameters, self._settings)

    def build_scheduler(
        self, optimizer: torch.optim.Optimizer, total_steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """The schedule, stepped after every training step; None for a constant rate.

        Args:
            optimizer: whose rate it sets.
            total_steps: of the whole training; 0 if that is not known, which leaves the default rate constant.
        """
        if self.has("build_scheduler"):
            own: torch.optim.lr_scheduler.LRScheduler | None = self.call("build_scheduler", optimizer, total_steps)
            if isinstance(own, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise UserCodeError(
                    "build_scheduler() returned a ReduceLROnPlateau, which needs a metric; schedules are stepped every"
                    " training step",
                    where=self.user.reference,
                    hint="return a schedule of steps, such as CosineAnnealingLR",
                )
            return own
        if self._settings.schedule == "none" or not total_steps:
            return None
        return torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=total_steps, eta_min=self._settings.min_learning_rate
        )


def default_forward_batch(model: nn.Module, batch: Batch) -> tuple[Output, Target]:
    """``x, y = batch``; the output for ``x``, and ``y``."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        shown = f"{len(batch)} entries" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise UserCodeError(
            f"a batch has {shown}, not an input and a target",
            hint="define forward_batch(model, batch) beside the model; it returns output and target",
        )
    x, y = batch
    return model(x), y


AUXILIARY_WEIGHT = 0.4
"""Weight of an auxiliary head's loss, as in Szegedy et al. 2014 (0.3) and DARTS (0.4)."""


def default_loss(output: Output, target: Tensor) -> Tensor:
    """Cross entropy; for ``(logits, auxiliary_logits)`` the weighted sum of both.

    Raises:
        UserCodeError: output and target cannot be compared.
    """
    logits, auxiliary = _split(output)
    try:
        loss = F.cross_entropy(logits, target)
        return loss if auxiliary is None else loss + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary, target)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = " and ".join(
            f"{name} {list(value.shape)}" if isinstance(value, Tensor) else f"{name} of {type(value).__name__}"
            for name, value in (("output", logits), ("target", target))
        )
        raise UserCodeError(
            f"cross entropy cannot compare {shapes}: {str(error).splitlines()[0]}",
            hint="define loss(output, target) and metrics(output, target) beside the model",
        ) from error


def default_metrics(output: Output, target: Tensor) -> dict[str, float]:
    """``accuracy``: the fraction of rows whose largest logit is the target's."""
    logits, _ = _split(output)
    return {"accuracy": (logits.argmax(dim=1) == target).mean(dtype=torch.float32).item()}


def _split(output: Output) -> tuple[Output, Output | None]:
    if isinstance(output, (tuple, list)) and len(output) == 2:
        return output[0], output[1]
    return output, None
