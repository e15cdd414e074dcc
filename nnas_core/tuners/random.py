"""Draw architectures uniformly, never the same one twice, until the space is exhausted.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv:1902.07638
(the baseline without weight sharing).
"""

from __future__ import annotations

from collections.abc import Sequence

from nnas_core.randomness import generator
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import CodeTuner

__all__ = ["RandomTuner"]


class RandomTuner(CodeTuner):
    """Random search without repeats; results do not matter to it.

    Args:
        seed: of the study; equal seeds propose equal architectures in equal order.
        optimize_mode: accepted as for every tuner, of no effect.
        first: architectures in any form that are proposed before those that are drawn, in this order.
    """

    name = "random"
    serves_objectives = True

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize", first: Sequence[object] = ()) -> None:
        super().__init__(seed, optimize_mode)
        self._rng = generator(seed, "tuner", self.name)
        self._first = first
        self._given: list[Code] = []

    def _begin(self) -> None:
        """Reads what is proposed first.

        Raises:
            ArchitectureError: one of them does not fit the space.
        """
        self._given = [self._codes.parse(one) for one in reversed(self._first)]

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes an architecture that was never proposed or imported."""
        while self._given:
            code = self._given.pop()
            if code in self._unseen:
                return code
        return self._unseen.draw(self._rng)
