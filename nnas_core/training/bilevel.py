"""Training in two halves: the architecture on held-out data, the weights on training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError, UserCodeError
from nnas_core.mutables.mutator import Mutator
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import Cycle
from nnas_core.training.gradients import differentiating
from nnas_core.training.in_place import repeated_if_changed_in_place
from nnas_core.training.optimizers import State
from nnas_core.training.task import Batch, Output, Target
from nnas_core.training.trainer import Trainer

__all__ = ["BilevelTrainer", "warmup_of"]


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

    def another_model(self, arguments: Mapping[str, object]) -> nn.Module:
        """The user's model once more, with new weights.

        Args:
            arguments: for its constructor, besides those of the first model.

        Raises:
            BindingError: a program made the model, and gave the trainer no ``rebuild``.
            UserCodeError: its search space is another one.
        """
        if self.rebuild is None:
            raise BindingError(
                f"{type(self).__name__} needs another model with {dict(arguments)}, and cannot build one",
                hint="give the trainer rebuild=..., a function of model arguments, or leave this option out",
            )
        model = self.rebuild(arguments)
        space, own = SearchSpace.from_model(model), self.searching.space
        if space != own:
            raise UserCodeError(
                f"with {dict(arguments)} the model has another search space",
                where=self.task.user.reference,
                problems=own.differences(space, ("the first model", "this one")),
                hint="give the same key to the choices that repeat with each further layer",
            )
        return model

    def train_batch(self, batch: Batch) -> None:
        """One step of the architecture, one of the weights."""
        self.architecture_step(batch, self.to_device(next(self.held_out)))
        self.weight_step(batch)

    @repeated_if_changed_in_place
    def architecture_step(self, batch: Batch, held_out: Batch) -> None:
        """One update of the architecture.

        Args:
            batch: of the training data, the one that the next step of the weights uses.
            held_out: a batch of the validation data.
        """
        self.update_architecture(self.architecture_gradients(batch, held_out))

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> Sequence[Tensor | None]:
        """The gradient of the held-out loss in ``architecture_parameters``, with the weights as they are."""
        with self.weights_at_rest():
            self.searching.reset()
            return self.gradients(self.loss_of(held_out)[0])

    @contextmanager
    def weights_at_rest(self) -> Iterator[None]:
        """Without gradients of the model's weights, if it is compiled.

        The backward pass of a compiled model computes all gradients that were possible when it was compiled. That of
        an uncompiled one computes those that are asked for, in the same time with and without this.
        """
        compiled = self.network is not self.model
        weights = [one for one in self.model.parameters() if one.requires_grad] if compiled else []
        for weight in weights:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in weights:
                weight.requires_grad_(True)

    def gradients(self, loss: Tensor) -> Sequence[Tensor | None]:
        """Differentiate in ``architecture_parameters`` alone: gradients of weights are not even computed.

        Raises:
            NoResultError: the loss is not finite.
            UserCodeError: it cannot be differentiated.
        """
        self.require_finite(loss, "loss on held-out data")
        with differentiating():
            return torch.autograd.grad(loss, self.architecture_parameters, allow_unused=True)

    def update_architecture(self, gradients: Sequence[Tensor | None]) -> None:
        """Let the architecture's optimizer make a step along ``gradients``.

        Raises:
            NoResultError: one of them is not finite, which a finite loss does not exclude.
        """
        sizes = [gradient.abs().sum() for gradient in gradients if gradient is not None]
        if sizes:
            self.require_finite(torch.stack(sizes).sum(), "gradient of the architecture")
        for parameter, gradient in zip(self.architecture_parameters, gradients, strict=True):
            parameter.grad = gradient
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()

    def training_step(self, batch: Batch) -> tuple[Tensor, Output, Target]:
        with torch.no_grad():  # the weights' half needs no gradient of the architecture
            self.searching.reset()
        return self.loss_of(batch)

    def state_dict(self) -> State:
        own = {"optimizer": self.architecture_optimizer.state_dict(), "held_out": self.held_out.state_dict()}
        return {**super().state_dict(), "architecture": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.architecture_optimizer.load_state_dict(state["architecture"]["optimizer"])
        self.held_out.load_state_dict(state["architecture"]["held_out"])


def warmup_of(given: int | None, share: float, epochs: int) -> int:
    """How many epochs train the weights alone.

    Args:
        given: by the user; None: ``share``.
        share: of the epochs, in the paper; rounded down.
        epochs: of the training, or of a stage.

    Raises:
        UsageError: none of them is left to train the architecture.
    """
    warmup = int(share * epochs + 1e-9) if given is None else given
    if warmup >= epochs:
        raise UsageError(
            f"warmup_epochs={warmup} leaves none of {epochs} epochs to train the architecture",
            hint="give more `epochs`, or a smaller warmup_epochs",
        )
    return warmup
