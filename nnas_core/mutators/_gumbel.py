"""Samples of decisions that logits can be trained through: Gumbel noise, and a temperature that falls.

At each temperature a sample is a vector of weights; as the temperature falls they become a decision, drawn with the
probabilities that the logits mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.plugins.arguments import check_range

__all__ = ["GumbelMutator"]


class GumbelMutator(RelaxedMutator):
    """Logits whose samples are relaxed decisions; a subclass says in ``relaxed`` what becomes of them.

    - One of n (a LayerChoice, or ``n_chosen=1``): the concrete distribution ``softmax((logits + Gumbel) / T)``
      (Maddison et al., arXiv:1611.00712).
    - k of n: the k largest of ``logits + Gumbel``, relaxed by k softmaxes, each without what those before it took (Xie
      & Ermon, arXiv:1901.10517). The weights sum to k. For k = n they are ones: there is nothing to decide.
    - Any number: each input alone, ``sigmoid((logit + logistic) / T)`` (binary concrete).

    Args:
        model: to be bound.
        generator: source of the initial logits and of all noise, on the CPU; torch's default generator if None.
        temperature: T at the beginning, larger than 0.
        final_temperature: T at the end, larger than 0.
        learning_rate, betas, weight_decay: of Adam, which trains the logits.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 10.0,
        final_temperature: float = 0.1,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
    ) -> None:
        check_range("temperature", temperature, "(0, inf)")
        check_range("final_temperature", final_temperature, "(0, inf)")
        super().__init__(model, generator, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay)
        self.temperature = temperature
        self.final_temperature = final_temperature
        independent = torch.tensor([[row.n_chosen is None] for row in self.rows])
        forced = torch.tensor([[row.n_chosen == row.count and row.count > 1] for row in self.rows])
        several = [row for row in self.rows if row.n_chosen is not None and 1 < row.n_chosen < row.count]
        self._any_independent, self._any_forced = bool(independent.any()), bool(forced.any())
        self._most = max((row.n_chosen or 0 for row in several), default=0)
        self.independent: Tensor
        self.forced: Tensor
        self.several: Tensor
        self.taken: Tensor
        device = self.valid.device
        for name, buffer in (
            ("independent", independent),
            ("forced", forced),
            ("several", torch.tensor([row.index for row in several], dtype=torch.long)),
            ("taken", torch.tensor([[row.n_chosen or 0] for row in several], dtype=torch.long)),
        ):
            self.register_buffer(name, buffer.to(device), persistent=False)  # all of it follows from the model

    def annealed(self) -> float:
        """The temperature of now: from the first to the last in a straight line over the training."""
        return self.temperature + (self.final_temperature - self.temperature) * self.progress

    def perturbed(self) -> Tensor:
        """``[K, W]``: the logits with fresh noise, differentiable in them; -inf where not valid.

        Where one or k are chosen: with Gumbel noise, so that the largest are a sample without replacement. Where any
        number is: with logistic noise, so that those larger than 0 are.
        """
        uniform = self.noise(self.logits.shape)
        noise = -torch.log(-torch.log(uniform))
        if self._any_independent:
            noise = torch.where(self.independent, torch.log(uniform) - torch.log1p(-uniform), noise)
        return (self.logits + noise).masked_fill(~self.valid, -torch.inf)

    def softened(self, perturbed: Tensor) -> Tensor:
        """``[K, W]``: the relaxed decision at the temperature of now; zero where not valid."""
        temperature = self.annealed()
        scaled = perturbed / temperature
        weights = scaled.softmax(dim=1)
        if self._any_independent:
            weights = torch.where(self.independent, torch.sigmoid(scaled), weights)
        if self._most:
            weights = weights.index_copy(0, self.several, self._k_of_n(perturbed[self.several], temperature))
        if self._any_forced:
            weights = torch.where(self.forced, self.valid.to(weights.dtype), weights)
        return weights

    def _k_of_n(self, keys: Tensor, temperature: float) -> Tensor:
        total = torch.zeros_like(keys)
        limit = 1 - torch.finfo(keys.dtype).eps
        for taken in range(self._most):
            share = (keys / temperature).softmax(dim=1)
            total = total + share * (taken < self.taken)
            keys = keys + torch.log1p(-share.clamp(max=limit))
        return total

    def hardened(self, perturbed: Tensor) -> Tensor:
        """``[K, W]``: the decision that the relaxed ones tend to as the temperature falls; zeros and ones."""
        with torch.no_grad():
            hard = torch.zeros_like(perturbed).scatter_(1, perturbed.argmax(dim=1, keepdim=True), 1.0)
            if self._any_independent:
                hard = torch.where(self.independent, (perturbed > 0).to(hard.dtype), hard)
            if self._most:
                keys = perturbed[self.several]
                order = keys.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
                hard[self.several] = (order < self.taken).to(hard.dtype)
            if self._any_forced:
                hard = torch.where(self.forced, self.valid.to(hard.dtype), hard)
            return hard

    @property
    def one_of_each(self) -> bool:
        """True if every decision takes exactly one candidate."""
        return not (self._any_independent or self._any_forced or self._most)
