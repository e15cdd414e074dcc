"""Distributions of hard paths by logits: their probabilities, samples, and log-probabilities.

A row that takes one candidate: softmax. One that takes any number: a sigmoid an input. One that takes k: a decision has
a probability proportional to the product of its inputs' ``exp(logits)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.mutators._mixture import RelaxedRow
from nnas_core.space.choice import Decision

__all__ = ["PathDistribution"]


class PathDistribution(nn.Module):
    """The decisions of all rows, independent of each other.

    Args:
        rows: of the logits.
        logits: ``[K, W]``, for their device and dtype.
    """

    def __init__(self, rows: Sequence[RelaxedRow], logits: Tensor) -> None:
        super().__init__()
        self._counts = [row.count for row in rows]
        self._single = [row.n_chosen == 1 for row in rows]
        self._any = [row.index for row in rows if row.n_chosen is None]
        several = [row for row in rows if row.n_chosen not in (None, 1)]
        self._decisions = {row.index: list(row.mutable.choice.decisions()) for row in several}
        for row in several:  # [D, k, n]: whether decision d has input n at place k
            decisions = self._decisions[row.index]
            chosen = torch.tensor(decisions, dtype=torch.long).reshape(len(decisions), row.n_chosen or 0)
            self.register_buffer(f"places{row.index}", F.one_hot(chosen, row.count).to(logits), persistent=False)

    def chances(self, logits: Tensor, kept: Tensor) -> list[Tensor]:
        """The probabilities of each row's gates: ``[W]`` or ``[n]``; ``[k, n]``, place by place, if it takes k.

        Args:
            logits: ``[K, W]``, in which they are differentiable.
            kept: ``[K, W]``, bool: what takes part in rows that take one.
        """
        chances = list(logits.masked_fill(~kept, -torch.inf).softmax(dim=1).unbind())
        for index in self._any:
            chances[index] = logits[index, : self._counts[index]].sigmoid()
        for index in self._decisions:
            joint = self._joint(logits, index).softmax(dim=0)
            chances[index] = torch.einsum("d,dkn->kn", joint, self.get_buffer(f"places{index}"))
        return chances

    def _joint(self, logits: Tensor, index: int) -> Tensor:
        """The logit of each decision ``[D]`` of a row that takes k."""
        places = self.get_buffer(f"places{index}").to(logits)
        return places.sum(dim=1) @ logits[index, : self._counts[index]]

    def draw(
        self, logits: Tensor, valid: Tensor, generator: torch.Generator | None, pairs: bool = False
    ) -> tuple[list[Decision], Tensor]:
        """Samples a decision a row.

        Args:
            logits: ``[K, W]``.
            valid: ``[K, W]``, bool: which of them mean something.
            generator: on the CPU.
            pairs: let only two candidates, sampled first, take part in rows that take one.

        Returns:
            The decisions, and what took part ``[K, W]``, on the CPU.
        """
        logits = logits.detach().masked_fill(~valid, -torch.inf).to("cpu", torch.float64)
        kept = logits != -torch.inf
        uniform = _uniform(logits.shape, generator)
        scores = logits + _gumbel(uniform)  # the largest k are a sample by softmax(logits) without replacement
        if pairs:
            two = scores.topk(min(2, scores.shape[1]), dim=1).indices
            kept &= torch.zeros_like(kept).scatter(1, two, True) | ~torch.tensor(self._single).unsqueeze(1)
            scores = logits.masked_fill(~kept, -torch.inf) + _gumbel(_uniform(logits.shape, generator))
        paths: list[Decision] = [(best,) for best in scores.argmax(dim=1).tolist()]
        for index, count in enumerate(self._counts):
            if index in self._decisions:
                joint = self._joint(logits, index)
                best = int((joint + _gumbel(_uniform(joint.shape, generator))).argmax())
                paths[index] = self._decisions[index][best]
            elif not self._single[index]:
                on = uniform[index, :count] < logits[index, :count].sigmoid()
                paths[index] = tuple(on.nonzero().flatten().tolist())
        return paths, kept

    def log_probability(self, logits: Tensor, valid: Tensor, path: Sequence[Decision]) -> Tensor:
        """``[]``: of a path that ``draw`` may give, differentiable in ``logits``."""
        single = logits.masked_fill(~valid, -torch.inf).log_softmax(dim=1)
        terms = []
        for index, (count, decision) in enumerate(zip(self._counts, path, strict=True)):
            if index in self._decisions:
                terms.append(self._joint(logits, index).log_softmax(dim=0)[self._decisions[index].index(decision)])
            elif self._single[index]:
                terms.append(single[index, decision[0]])
            else:
                signs = torch.full_like(logits[index, :count], -1.0)
                signs[list(decision)] = 1.0
                terms.append(F.logsigmoid(signs * logits[index, :count]).sum())
        return torch.stack(terms).sum()


def _uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel's distribution from uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp_min(torch.finfo(uniform.dtype).tiny)))
