"""Gradients of a user's loss: whose fault it is if there are none, and steps that have nothing to update."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from torch.nn.modules.module import register_module_forward_pre_hook

from nnas_core.errors import NnasWarning, UserCodeError
from nnas_core.mutables.untouched import untouched
from nnas_core.plain_optimizers import SGD
from nnas_core.training.loader_processes import loader_died
from nnas_core.training.optimizers import State
from nnas_core.training.returned import explaining
from nnas_core.training.task import Batch

if TYPE_CHECKING:
    from nnas_core.training.trainer import Trainer

__all__ = ["WeightlessPasses", "differentiating", "optimizer_of_nothing", "take_step"]


@contextmanager
def differentiating(
    what: str = "the backward pass failed",
    hint: str = "the loss must depend on weights that require gradients; in-place operations may break that",
) -> Iterator[None]:
    """Say whose fault it is when a loss of the user's cannot be differentiated.

    Raises:
        UserCodeError: ``what``, and torch's reason.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or loader_died(error):  # which interrupts whatever runs
            raise
        raise UserCodeError(f"{what}: {str(error).splitlines()[0]}", hint=hint) from error


def optimizer_of_nothing() -> torch.optim.Optimizer:
    """The optimizer of a model without weights, such as an architecture of pooling and skip connections alone."""
    return SGD([nn.Parameter(torch.zeros(0))], lr=0.0)


def take_step(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler | None, where: str
) -> None:
    """Update the weights, and move the schedule on.

    Raises:
        UserCodeError: one of the two fails in a way that says nothing to its user.
    """
    with explaining(f"a step of {type(optimizer).__name__}", where):
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


class WeightlessPasses:
    """Training passes in which no weight took part: a path of poolings and skip connections has nothing to update.

    Attributes:
        count: of such passes in the training so far; a step of some algorithms has several passes.
    """

    def __init__(self) -> None:
        self.count = 0

    def counted(self, trainer: Trainer, batch: Batch) -> bool:
        """Count a pass whose loss has no gradient, if that is because the path has no weights.

        Args:
            trainer: what it has decided is what was run.
            batch: that was run; None if that is not known.

        Returns:
            False if weights took part, so that the loss should depend on them.
        """
        if any(one.requires_grad for one in trainer.model.parameters()) and _runs_weights(trainer, batch):
            return False
        self.count += 1
        return True

    def tell(self, steps: int) -> None:
        """Say at the end of a training of ``steps`` how many of them had nothing to update."""
        if self.count:
            warnings.warn(
                f"{self.count} passes in {steps} training steps updated nothing: the path that was run has no weights",
                NnasWarning,
                stacklevel=2,
            )

    def state_dict(self) -> State:
        """The count, if there is something to count."""
        return {"weightless": self.count} if self.count else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.count = state.get("weightless", 0)


def _runs_weights(trainer: Trainer, batch: Batch) -> bool:
    """Run a batch once more, without a trace, and look whether a module with weights takes part."""
    if batch is None:
        return True
    found: list[nn.Module] = []

    def notice(module: nn.Module, _: object) -> None:
        if any(one.requires_grad for one in module.parameters(recurse=False)):
            found.append(module)

    handle = register_module_forward_pre_hook(notice)
    try:
        with torch.no_grad(), untouched(trainer.model, trainer.mutator, trainer.generators), trainer.autocast():
            trainer.task.forward_batch(trainer.model, batch)
    finally:
        handle.remove()
    return bool(found)
