"""Mix all candidates by a sample of the concrete distribution, and train weights and mixture at once.

Source: Xie, Zheng, Liu, Lin, "SNAS: Stochastic Neural Architecture Search", arXiv:1812.09926.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.mutators._gumbel import GumbelMutator
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.in_place import repeated_if_changed_in_place
from nnas_core.training.task import Batch

__all__ = ["SnasMutator", "SnasTrainer"]


class SnasTrainer(BilevelTrainer):
    """Both gradients from one backward pass on training data (section 2.2), or, with ``bilevel``, DARTS's order."""

    def train_batch(self, batch: Batch) -> None:
        """One sample, one loss, one backward pass; both optimizers make a step."""
        if getattr(self.searching, "bilevel", False):  # another mutator may be trained by this loop too
            super().train_batch(batch)
        else:
            self.joint_step(batch)

    @repeated_if_changed_in_place
    def joint_step(self, batch: Batch) -> None:
        """One update of the weights and of the architecture, from one loss."""
        self.optimizer.zero_grad()
        self.architecture_optimizer.zero_grad()
        self.searching.reset()
        loss, output, target = self.loss_of(batch)
        self.backward(loss)
        self.update_weights()
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad()
        self.record(loss, output, target)


class SnasMutator(GumbelMutator):
    """Weights of candidates: a sample of the concrete distribution, ``softmax((logits + Gumbel) / T)`` (equation 6).

    As T falls the samples become decisions, and the expected loss becomes that of the architectures themselves. The
    paper's resource constraint is not part of this: ``fbnet`` has one.

    Args:
        model: to be bound.
        generator: source of the initial logits and of all noise, on the CPU; torch's default generator if None.
        temperature: T at the beginning of the training, as in the authors' program.
        final_temperature: T at its end, likewise; in between, it falls in a straight line.
        bilevel: train the logits on held-out data instead, before each step of the weights.
        learning_rate: of Adam, for the logits.
        betas: of Adam.
        weight_decay: of Adam.
    """

    derives = True
    trainer = SnasTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        final_temperature: float = 0.03,
        bilevel: bool = False,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(
            model,
            generator,
            temperature=temperature,
            final_temperature=final_temperature,
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
        )
        self.bilevel = bilevel

    def relaxed(self) -> Tensor:
        """``[K, W]``: a relaxed sample at the temperature of now."""
        return self.softened(self.perturbed())
