"""A mutator of one's own: prefer cheap candidates, so that small architectures get most of the training.

nnas search examples/digits/model.py --mutator examples/custom_mutator/mutator.py:ThriftyMutator
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, Mutator


class ThriftyMutator(Mutator):
    """Draw a candidate with n parameters with a probability in proportion to ``(1 + n) ** -strength``.

    Args:
        model: the supernet.
        strength: 0 draws all candidates alike, 1 hardly ever an expensive one; ``--mutator-arg strength=1``.
    """

    def __init__(self, model: nn.Module, strength: float = 0.25) -> None:
        super().__init__(model)
        self._chances: dict[str, Tensor] = {}
        for mutable in self.mutables:  # each key once, however many modules share it
            if isinstance(mutable, LayerChoice):
                sizes = [sum(weight.numel() for weight in candidate.parameters()) for candidate in mutable]
                self._chances[mutable.key] = (1.0 + torch.tensor(sizes)) ** -strength

    def sample_search(self) -> dict[str, Tensor]:
        """One architecture a training step: key -> mask, one entry a candidate."""
        masks = {}
        for mutable in self.mutables:
            if isinstance(mutable, LayerChoice):
                drawn = torch.multinomial(self._chances[mutable.key], 1)
                masks[mutable.key] = torch.arange(len(mutable)) == drawn
            elif isinstance(mutable, InputChoice):
                masks[mutable.key] = self._draw_inputs(mutable)
        return masks

    def sample_final(self) -> dict[str, Tensor]:
        """What ``export`` writes: the cheapest layers, and any inputs."""
        masks = self.sample_search()
        for key, chances in self._chances.items():
            masks[key] = torch.arange(len(chances)) == chances.argmax()
        return masks

    def _draw_inputs(self, mutable: InputChoice) -> Tensor:
        if mutable.n_chosen is None:  # any number, none included
            return torch.rand(mutable.n_candidates) < 0.5
        mask = torch.zeros(mutable.n_candidates, dtype=torch.bool)
        mask[torch.randperm(mutable.n_candidates)[: mutable.n_chosen]] = True
        return mask
