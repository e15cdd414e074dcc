"""Run one path a step, drawn with Gumbel noise, and train its probabilities through the soft sample.

Source: Dong, Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", arXiv:1910.04465.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nnas_core.mutators._gumbel import GumbelMutator
from nnas_core.training.bilevel import BilevelTrainer

__all__ = ["GdasMutator", "GdasTrainer"]


class GdasTrainer(BilevelTrainer):
    """Algorithm 1 of the paper: weights on training data, the architecture on held-out data, a new sample for each."""


class GdasMutator(GumbelMutator):
    """Forward: the sampled decision alone, unweighted. Backward: as if it were weighted by the soft sample.

    With ``h = softmax((logits + Gumbel) / T)`` and the sampled candidate s, the gradient of a logit is
    ``<gradient, output of s> h_s ((i = s) - h_i) / T`` (equations 3 to 5, and the acceleration of section 3.2: a
    candidate that did not run gives no gradient of its own). An InputChoice of k inputs takes the k largest of
    ``logits + Gumbel`` and is trained through their relaxation; one of any number takes each input by itself, and a
    step trains only those that were taken.

    Args:
        model: to be bound.
        generator: source of the initial logits and of all noise, on the CPU; torch's default generator if None.
        temperature: T at the beginning of the training, 10 as in the paper.
        final_temperature: T at its end, 0.1; in between, it falls in a straight line.
        learning_rate, betas, weight_decay: of Adam, for the logits.
    """

    derives = True
    runs_all = False
    serves_any_reduction = True
    trainer = GdasTrainer

    def relaxed(self) -> Tensor:
        """``[K, W]``: zeros and ones, with the gradient of the soft sample."""
        perturbed = self.perturbed()
        hard = self.hardened(perturbed)
        if not perturbed.requires_grad:
            return hard
        soft = self.softened(perturbed)
        return hard + (soft - soft.detach())  # the bracket is zero to the bit

    def paths(self, weights: Tensor) -> Sequence[Sequence[int]]:
        """The sampled candidates, fetched from the device at once."""
        if self.one_of_each:
            chosen: list[list[int]] = weights.argmax(dim=1, keepdim=True).tolist()
            return chosen
        return [[index for index, value in enumerate(row) if value] for row in weights.tolist()]
