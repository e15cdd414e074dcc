"""Mix all candidates by a sample of a Dirichlet distribution, whose concentrations are trained.

Source: Chen, Wang, Cheng, Tang, Hsieh, "DrNAS: Dirichlet Neural Architecture Search", arXiv:2006.10355.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import UsageError
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.plugins.arguments import check_range
from nnas_core.training.bilevel import BilevelTrainer, warmup_of
from nnas_core.training.task import Batch

__all__ = ["DrnasMutator", "DrnasTrainer"]

_PAPER_WARMUP = 10 / 50
"""The part of each stage of the progressive search in which the paper leaves the concentrations alone."""


class DrnasTrainer(BilevelTrainer):
    """DARTS's order with a regularised loss; with ``progressive``, half of the candidates go when half is done.

    Raises:
        BindingError: the mutator is no DrnasMutator.
        UsageError: there are too few epochs for two stages, or for ``warmup_epochs``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        mutator = self.searching
        if mutator.progressive and self.epochs < 2:
            raise UsageError("progressive=true needs 2 epochs or more, one for each stage", hint="give more `epochs`")
        self.in_stages = mutator.progressive
        self.second_stage = (self.epochs + 1) // 2 if mutator.progressive else self.epochs
        shortest = self.epochs - self.second_stage if mutator.progressive else self.epochs
        share = _PAPER_WARMUP if mutator.progressive else 0.0
        self.warmup = warmup_of(mutator.warmup_epochs, share, shortest)

    @property
    def searching(self) -> DrnasMutator:
        """The mutator, whose options this loop reads."""
        return self.mutator_of(DrnasMutator)

    def start_epoch(self, epoch: int) -> None:
        """Prune where the second stage begins."""
        if epoch == self.second_stage:
            self.searching.prune()

    def train_batch(self, batch: Batch) -> None:
        """In the warm-up of a stage one step of the weights, later one of the concentrations before it."""
        begun = self.second_stage if self.epoch >= self.second_stage else 0
        if self.epoch - begun < self.warmup:
            self.weight_step(batch)
        else:
            super().train_batch(batch)

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> Sequence[Tensor | None]:
        """The gradient of the held-out loss, and of the divergence with ``regularizer="kl"``."""
        mutator = self.searching
        mutator.reset()
        loss = self.loss_of(held_out)[0]
        if mutator.regularizer == "kl":
            loss = loss + mutator.regularization * mutator.divergence()
        return self.gradients(loss)


class DrnasMutator(RelaxedMutator):
    """Weights of candidates: a sample of ``Dirichlet(elu(logits) + 1)``, differentiated pathwise (section 3.1).

    An InputChoice of k inputs is weighted by k times such a sample (all ones if it takes all). One of any number gives
    each input a sample of its own, of ``Beta(elu(logit) + 1, elu(-logit) + 1)``, whose mean is above 1/2 where the
    logit is above 0. The derivatives are those of ``torch.distributions``, which approximates them to about 0.1 %.

    The progressive search (section 3.3) is here without its partial channels, which need candidates of several widths:
    when half of the epochs are done, each LayerChoice loses the candidates with the smallest concentrations.

    Args:
        model: to be bound.
        generator: source of the initial logits and of all samples, on the CPU; torch's default generator if None.
        regularizer: what holds the concentrations near 1: "l2", Adam's weight decay, or "kl" to Dirichlet(1).
        regularization: its weight; the authors' 1e-3 is meant for "l2".
        progressive: prune when half of the epochs are done.
        keep: the part of the candidates that pruning leaves, rounded up: 4 of 8 and 3 of 5, as in the paper.
        warmup_epochs: in which only weights are trained, of each stage; null: none, or 1 of 5 if progressive (paper).
        learning_rate: of Adam, for the logits; the paper has 3e-4 on NAS-Bench-201 and 6e-4 on DARTS's space.
        betas: of Adam.

    Raises:
        UsageError: an option is out of range, or would have no effect.
    """

    derives = True
    trainer = DrnasTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        regularizer: Literal["l2", "kl"] = "l2",
        regularization: float = 1e-3,
        progressive: bool = False,
        keep: float = 0.5,
        warmup_epochs: int | None = None,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
    ) -> None:
        if regularizer not in ("l2", "kl"):
            raise UsageError(f"regularizer={regularizer!r} is neither 'l2' nor 'kl'", hint="the default is 'l2'")
        check_range("regularization", regularization, "[0, inf)")
        check_range("keep", keep, "(0, 1]")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        if keep != 0.5 and not progressive:
            raise UsageError(f"keep={keep} has no effect without pruning", hint="give progressive=true too")
        decay = regularization if regularizer == "l2" else 0.0
        super().__init__(model, generator, learning_rate=learning_rate, betas=betas, weight_decay=decay)
        self.regularizer = regularizer
        self.regularization = regularization
        self.progressive = progressive
        self.keep = keep
        self.warmup_epochs = warmup_epochs
        self.pruned = False
        self._single = [row.index for row in self.rows if row.n_chosen is not None]
        self._independent = [row.index for row in self.rows if row.n_chosen is None]
        self._forced = [row.index for row in self.rows if row.n_chosen == row.count]
        self._takes = torch.tensor([[row.n_chosen or 1] for row in self.rows], dtype=torch.float64)

    def concentrations(self) -> tuple[Tensor, Tensor]:
        """Of the distributions, on the CPU, in float64, and differentiable in the logits.

        Returns:
            ``[R, W]``, a row for each key whose decision has a size, 1 where not valid; ``[M, 2]``, a row for each
            input that is taken or left by itself.
        """
        logits, valid = self.logits.to("cpu", torch.float64), self.valid.cpu()
        single = _elu_plus_one(logits)[self._single].masked_fill(~valid[self._single], 1.0)
        alone = logits[self._independent][valid[self._independent]]
        return single, torch.stack([_elu_plus_one(alone), _elu_plus_one(-alone)], dim=1)

    def relaxed(self) -> Tensor:
        """``[K, W]``: a sample."""
        valid = self.valid.cpu()
        single, pairs = self.concentrations()
        drawn = _sample(single, valid[self._single], self.generator)
        first = _sample(pairs, torch.ones_like(pairs, dtype=torch.bool), self.generator)[:, 0]
        return self._placed(drawn, first, valid)

    def probabilities(self) -> Tensor:
        """``[K, W]``: the means of the distributions; of k inputs, k times the mean."""
        valid = self.valid.cpu()
        single, pairs = self.concentrations()
        single = single * valid[self._single]
        means = single / single.sum(dim=1, keepdim=True)
        return self._placed(means, pairs[:, 0] / pairs.sum(dim=1), valid)

    def _placed(self, single: Tensor, alone: Tensor, valid: Tensor) -> Tensor:
        weights = torch.zeros(valid.shape, dtype=torch.float64).index_copy(0, torch.tensor(self._single), single)
        weights = weights * self._takes
        if self._independent:
            rows = torch.tensor(self._independent)
            spread = torch.zeros(len(rows), valid.shape[1], dtype=torch.float64).masked_scatter(valid[rows], alone)
            weights = weights.index_copy(0, rows, spread)
        if self._forced:
            rows = torch.tensor(self._forced)
            weights = weights.index_copy(0, rows, valid[rows].double())
        return weights.to(self.logits.device, self.logits.dtype)

    def divergence(self) -> Tensor:
        """``[]``: the sum over all keys of the divergence ``KL(Dirichlet(concentrations) || Dirichlet(1))``."""
        single, pairs = self.concentrations()
        total = _divergence(single, self.valid.cpu()[self._single])
        total = total + _divergence(pairs, torch.ones_like(pairs, dtype=torch.bool))
        return total.to(self.logits.device, self.logits.dtype)

    def prune(self) -> None:
        """Leave the strongest candidates of each LayerChoice, ``keep`` of them rounded up; done once."""
        if self.pruned:
            return
        scores, valid = self.logits.detach().cpu(), self.valid.cpu()
        for row in self.rows:
            if isinstance(row.mutable, LayerChoice):
                present = [index for index in range(row.count) if valid[row.index, index]]
                order = scores[row.index, present].argsort(descending=True, stable=True).tolist()
                for weak in (present[position] for position in order[math.ceil(self.keep * len(present)) :]):
                    valid[row.index, weak] = False
        self.valid.copy_(valid)
        self.pruned = True
        self.reblend()

    def get_extra_state(self) -> dict[str, object]:
        """The stage: true once the second has begun."""
        return {"pruned": self.pruned}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``get_extra_state``."""
        self.pruned = state["pruned"]


def _elu_plus_one(logits: Tensor) -> Tensor:
    """``elu(logits) + 1``, without the digits that the addition would lose where it is near 0."""
    return torch.where(logits > 0, logits + 1, torch.exp(logits.clamp(max=0)))


def _sample(concentrations: Tensor, valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """A sample of a Dirichlet distribution in each row, over its valid entries; zero elsewhere."""
    drawn: Tensor = _Dirichlet.apply(concentrations, valid, generator)  # type: ignore[no-untyped-call]
    return drawn


class _Dirichlet(torch.autograd.Function):
    """``torch.distributions.Dirichlet.rsample`` with a generator of its own, and rows of unequal length."""

    @staticmethod
    def forward(ctx: Any, concentrations: Tensor, valid: Tensor, generator: torch.Generator | None) -> Tensor:
        gammas = torch._standard_gamma(concentrations, generator=generator) * valid
        sample = gammas / gammas.sum(dim=1, keepdim=True)
        ctx.save_for_backward(sample, concentrations, valid)
        return sample

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        sample, concentrations, valid = ctx.saved_tensors
        total = (concentrations * valid).sum(dim=1, keepdim=True).expand_as(sample)
        moved = valid & (sample > 0) & (sample < 1)  # 1: there is no other candidate that could lose what one gains
        inside = sample.masked_fill(~moved, 0.5)
        rate = torch._dirichlet_grad(inside, concentrations, torch.where(moved, total, concentrations + 1))
        centred = gradient - (sample * gradient).sum(dim=1, keepdim=True)
        return (rate * centred).masked_fill(~moved, 0.0), None, None


def _divergence(concentrations: Tensor, valid: Tensor) -> Tensor:
    total = (concentrations * valid).sum(dim=1)
    constant = torch.lgamma(total) - torch.lgamma(valid.sum(dim=1).double())
    slopes = torch.digamma(concentrations) - torch.digamma(total).unsqueeze(1)
    each = ((concentrations - 1) * slopes - torch.lgamma(concentrations)) * valid
    return constant.sum() + each.sum()
