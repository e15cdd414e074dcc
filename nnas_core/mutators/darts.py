"""Mix all candidates by a softmax, and train mixture and weights in turn on two halves of the data.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.bilevel import BilevelTrainer
from nnas_core.mutables import InputChoice
from nnas_core.relaxation import RelaxedMutator
from nnas_core.resolution import hard_mask

__all__ = ["DartsMutator", "DartsTrainer"]


class DartsTrainer(BilevelTrainer):
    """Algorithm 1 of the paper."""


class DartsMutator(RelaxedMutator):
    """Weights of candidates: ``softmax(logits)`` (equation 2). All inputs of an InputChoice take part, unweighted.

    The final architecture has the strongest candidate of each LayerChoice, and of an InputChoice those ``n_chosen``
    inputs whose tags name the strongest LayerChoices (section 2.4).

    Args:
        model: to be bound.
        generator: source of the initial logits, on the CPU; torch's default generator if None.
        learning_rate: of Adam, for the logits.
        betas: of Adam.
        weight_decay: of Adam.
        zero: let one more logit a LayerChoice stand for no candidate, as NNI does.
    """

    relaxes_inputs = False
    trainer = DartsTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        zero: bool = True,
    ) -> None:
        super().__init__(
            model, generator, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay, zero=zero
        )

    def relaxed(self) -> Tensor:
        """``softmax(logits)`` ``[K, W]``, the weight that stands for no candidate included."""
        return self.logits.masked_fill(~self.valid, -torch.inf).softmax(dim=1)

    def sample_final(self) -> Mapping[str, Any]:
        """The strongest candidates, and the inputs from the strongest LayerChoices."""
        with torch.no_grad():
            weights = self.relaxed().masked_fill(~self.valid, -1.0).tolist()
        strength = {row.key: max(weights[row.index][: row.count]) for row in self.rows}
        final = dict(super().sample_final())
        for mutable in self.choices:
            if isinstance(mutable, InputChoice) and mutable.n_chosen is not None:
                final[mutable.key] = self._strongest(mutable, strength)
        return final

    def _strongest(self, mutable: InputChoice, strength: Mapping[str, float]) -> Tensor:
        order = sorted(range(len(mutable)), key=lambda index: -strength.get(mutable.choose_from[index], 0.0))
        return hard_mask(tuple(sorted(order[: mutable.n_chosen])), len(mutable), torch.device("cpu"))
