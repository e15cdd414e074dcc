"""Draw architectures uniformly, never the same one twice, until the space is exhausted.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv:1902.07638
(the baseline without weight sharing).
"""

from __future__ import annotations

from nnas_core.randomness import generator
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import CodeTuner

__all__ = ["RandomTuner"]


class RandomTuner(CodeTuner):
    """Random search without repeats; results do not matter to it.

    Args:
        seed: of the study; equal seeds propose equal architectures in equal order.
        optimize_mode: accepted as for every tuner, of no effect.
    """

    name = "random"
    serves_objectives = True

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        self._rng = generator(seed, "tuner", self.name)

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes an architecture that was never proposed or imported."""
        return self._unseen.draw(self._rng)
