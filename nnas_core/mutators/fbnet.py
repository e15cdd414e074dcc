"""Mix all candidates by Gumbel softmax, and multiply the loss by a term of the expected latency.

Source: Wu, Dai, Zhang, Wang, Sun, Wu, Tian, Vajda, Jia, Keutzer, "FBNet: Hardware-Aware Efficient ConvNet Design via
Differentiable Neural Architecture Search", arXiv:1812.03443.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import InputError, UsageError, UserCodeError
from nnas_core.mutables.binding import per_binding
from nnas_core.mutators._gumbel import GumbelMutator
from nnas_core.mutators._latency import latency_matrix, require_same_latencies
from nnas_core.plugins.arguments import check_range
from nnas_core.space.latency_table import Latencies, read_latencies
from nnas_core.training.bilevel import BilevelTrainer, warmup_of
from nnas_core.training.task import Batch

__all__ = ["FbnetMutator", "FbnetTrainer"]

_PAPER_WARMUP = 10 / 90
"""The part of the training in which the paper leaves the architecture alone."""


class FbnetTrainer(BilevelTrainer):
    """DARTS's order, batch by batch (the paper: epoch by epoch), with the latency in the architecture's loss.

    The weights are trained by the loss alone: the latency term does not depend on them, it would only scale it.

    Raises:
        BindingError: the mutator is no FbnetMutator.
        UsageError: ``warmup_epochs`` leaves no epoch to train the architecture in.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.warmup = warmup_of(self.searching.warmup_epochs, _PAPER_WARMUP, self.epochs)

    @property
    def searching(self) -> FbnetMutator:
        """The mutator, whose options this loop reads."""
        return self.mutator_of(FbnetMutator)

    def train_batch(self, batch: Batch) -> None:
        """In the warm-up one step of the weights, later one of the architecture before it."""
        if self.epoch < self.warmup:
            self.weight_step(batch)
        else:
            super().train_batch(batch)

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> Sequence[Tensor | None]:
        """The gradient of ``loss * alpha * log(latency)^beta`` on held-out data.

        Raises:
            UserCodeError: the loss is negative, and the factor would reward what is slow.
        """
        mutator = self.searching
        mutator.reset()
        loss = self.loss_of(held_out)[0]
        if loss.item() < 0:
            raise UserCodeError(
                f"the loss is {loss.item():.4g}, and fbnet multiplies it by a latency term: it must not be negative",
                where=self.task.user.reference,
                hint="add a constant to the loss, or use another mutator",
            )
        return self.gradients(loss * mutator.factor())


class _Sample:
    """The relaxed sample of the last reset."""

    weights: Tensor


class FbnetMutator(GumbelMutator):
    """Weights of candidates m: ``softmax((logits + Gumbel) / T)``; the loss of the logits: equation 2 of the paper.

    ``loss * alpha * log(LAT)^beta``, where LAT is the sum over all keys and candidates of weight times latency
    (equation 9). The numbers of the table enter the logarithm as they are, so the unit matters, and even the fastest
    architecture must take more than 1. A key that several LayerChoices share has the latency of all of them together.

    Args:
        model: to be bound.
        generator: source of the initial logits and of all noise, on the CPU; torch's default generator if None.
        latency_table: a file of the schema latency-table, or key -> candidate -> latency; or a list a key.
        alpha: scales the whole loss.
        beta: how much latency counts against the loss.
        temperature: T at the beginning of the training.
        final_temperature: T at its end: the paper's 5 exp(-0.045 epoch) at epoch 90; it falls exponentially.
        warmup_epochs: in which only weights are trained; null: 1 of 9 epochs, as in the paper (10 of 90).
        learning_rate: of Adam, for the logits.
        betas: of Adam.
        weight_decay: of Adam.

    Raises:
        UsageError: there is no table, or an option is out of range.
        InputError: the table cannot be read, is not one of this model, or has latencies too small for the logarithm.
    """

    trainer = FbnetTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        latency_table: str | Latencies | None = None,
        alpha: float = 0.2,
        beta: float = 0.6,
        temperature: float = 5.0,
        final_temperature: float = 0.087,
        warmup_epochs: int | None = None,
        learning_rate: float = 0.01,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 5e-4,
    ) -> None:
        if latency_table is None:
            raise UsageError("fbnet needs a table of latencies", hint="give `latency_table` FILE")
        check_range("alpha", alpha, "(0, inf)")
        check_range("beta", beta, "[0, inf)")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        super().__init__(
            model,
            generator,
            temperature=temperature,
            final_temperature=final_temperature,
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
        )
        self.alpha = alpha
        self.beta = beta
        self.warmup_epochs = warmup_epochs
        self.latencies = read_latencies(latency_table, self.space)
        self.costs: Tensor
        self.register_buffer("costs", latency_matrix(self.latencies, self.rows, self.logits), persistent=False)
        self._require_logarithm(latency_table)

    def _require_logarithm(self, table: str | Latencies) -> None:
        fastest = sum((row.n_chosen or 0) * min(self.latencies[row.key]) for row in self.rows)
        if fastest <= 1:
            raise InputError(
                f"the latencies of a fast architecture sum up to {fastest:g}, the logarithm needs more than 1",
                where=table if isinstance(table, str) else "latency_table",
                hint="give them in a smaller unit, such as us",
            )

    def annealed(self) -> float:
        """The temperature of now: from the first to the last in equal ratios."""
        ratio = self.final_temperature / self.temperature
        return float(self.temperature * ratio**self.progress)

    def relaxed(self) -> Tensor:
        """``[K, W]``: a relaxed sample at the temperature of now."""
        weights = self._sampled.weights = self.softened(self.perturbed())
        return weights

    @per_binding
    def _sampled(self) -> _Sample:
        """Holds the sample of the last reset; no part of a copy."""
        return _Sample()

    def latency(self) -> Tensor:
        """``[]``: the latency of the sample of the last ``reset``, differentiable in the logits."""
        return (self._sampled.weights * self.costs).sum()

    def factor(self) -> Tensor:
        """``[]``: ``alpha log(latency)^beta``, what multiplies the loss."""
        return self.alpha * torch.log(self.latency()) ** self.beta

    def expected_latency(self) -> Tensor:
        """``[]``: the mean latency of the architectures that the logits draw, differentiable in the logits.

        An InputChoice of k inputs is enumerated subset by subset.
        """
        total = (self.probabilities() * self.costs)[[row.index for row in self.rows if row.n_chosen in (1, None)]].sum()
        for row in self.rows:
            if row.n_chosen not in (1, None):
                own = self.costs[row.index, : row.count]
                total = total + (_inclusion(self.logits[row.index, : row.count], int(row.n_chosen or 0)) * own).sum()
        return total

    def get_extra_state(self) -> dict[str, object]:
        """The latencies, for runs that are gone on with."""
        return {"latencies": self.latencies}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Make sure that the latencies are those of ``get_extra_state``.

        Raises:
            InputError: they differ; every difference is listed.
        """
        require_same_latencies(state["latencies"], self.latencies, self.space)


def _inclusion(logits: Tensor, k: int) -> Tensor:
    """``[n]``: how probable each entry is to be among the k largest of ``logits + Gumbel``.

    A sum over the orders in which softmax draws without replacement, grouped by the set that was drawn before.
    """
    weights = (logits - logits.detach().max()).exp()
    everything = range(len(logits))
    reached = {frozenset[int](): logits.new_ones(())}
    for size in range(k):
        further: dict[frozenset[int], Tensor] = {}
        for drawn in map(frozenset, itertools.combinations(everything, size)):
            left = [index for index in everything if index not in drawn]
            shares = reached[drawn] * weights[left] / weights[left].sum()
            for index, share in zip(left, shares, strict=True):
                more = drawn | {index}
                further[more] = further[more] + share if more in further else share
        reached = further
    return torch.stack([torch.stack([p for drawn, p in reached.items() if i in drawn]).sum() for i in everything])
