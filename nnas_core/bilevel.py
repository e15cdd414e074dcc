"""Training in two halves: the architecture on held-out data, the weights on training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnas_core.data import Cycle
from nnas_core.errors import BindingError
from nnas_core.mutator import Mutator
from nnas_core.training import Trainer

__all__ = ["BilevelTrainer"]


@dataclass
class BilevelTrainer(Trainer):
    """Before each step of the weights, one of the mutator's parameters, on a batch of held-out data (first order).

    The architecture's half computes no gradients of weights, the weights' half none of the architecture.
    Override ``architecture_gradients`` for another gradient, ``architecture_step`` for another update.

    Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, algorithm 1.

    Raises:
        BindingError: there is no mutator, or it has no parameters.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.held_out = Cycle(self.architecture_batches or self.valid_batches)

    @property
    def searching(self) -> Mutator:
        """The mutator, which such a training needs."""
        if self.mutator is None:
            raise BindingError(f"{type(self).__name__} trains an architecture, it needs a mutator")
        return self.mutator

    def build_optimizers(self) -> None:
        """Make the optimizer of the architecture too."""
        super().build_optimizers()
        self.architecture_optimizer = self.searching.build_optimizer()
        groups = self.architecture_optimizer.param_groups
        self.architecture_parameters: list[Tensor] = [one for group in groups for one in group["params"]]

    def train_batch(self, batch: Any) -> None:
        """One step of the architecture, one of the weights."""
        self.architecture_step(batch, self.to_device(next(self.held_out)))
        self.weight_step(batch)

    def architecture_step(self, batch: Any, held_out: Any) -> None:
        """One update of the architecture.

        Args:
            batch: of the training data, the one that the next step of the weights uses.
            held_out: a batch of the validation data.
        """
        self.update_architecture(self.architecture_gradients(batch, held_out))

    def architecture_gradients(self, batch: Any, held_out: Any) -> Sequence[Tensor | None]:
        """The gradient of the held-out loss in ``architecture_parameters``, with the weights as they are."""
        self.searching.reset()
        return self.gradients(self.loss_of(held_out)[0])

    def gradients(self, loss: Tensor) -> Sequence[Tensor | None]:
        """Differentiate in ``architecture_parameters`` alone: gradients of weights are not even computed.

        Raises:
            NoResultError: the loss is not finite.
        """
        self.require_finite(loss, "loss on held-out data")
        return torch.autograd.grad(loss, self.architecture_parameters, allow_unused=True)

    def update_architecture(self, gradients: Sequence[Tensor | None]) -> None:
        """Let the architecture's optimizer make a step along ``gradients``."""
        for parameter, gradient in zip(self.architecture_parameters, gradients, strict=True):
            parameter.grad = gradient
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()

    def training_step(self, batch: Any) -> tuple[Tensor, Any, Any]:
        with torch.no_grad():  # the weights' half needs no gradient of the architecture
            self.searching.reset()
        return self.loss_of(batch)

    def state_dict(self) -> dict[str, Any]:
        own = {"optimizer": self.architecture_optimizer.state_dict(), "held_out": self.held_out.state_dict()}
        return {**super().state_dict(), "architecture": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.architecture_optimizer.load_state_dict(state["architecture"]["optimizer"])
        self.held_out.load_state_dict(state["architecture"]["held_out"])
