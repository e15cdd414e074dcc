"""Draw architectures uniformly, never the same one twice, until the space is exhausted.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv:1902.07638
(the baseline without weight sharing).
"""

from __future__ import annotations

from typing import Any

from nnas_core.randomness import generator
from nnas_core.space.encoding import Codes, Unseen
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["RandomTuner"]


class RandomTuner(Tuner):
    """Random search without repeats; results do not matter to it.

    Args:
        seed: of the study; equal seeds propose equal architectures in equal order.
        optimize_mode: accepted as for every tuner, of no effect.
    """

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        self._rng = generator(seed, "tuner", "random")

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Begin with a space of which nothing was seen."""
        self._codes = Codes(SearchSpace.from_json(search_space))
        self._unseen = Unseen(self._codes)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Propose an architecture that was never proposed or imported.

        Raises:
            NoMoreTrials: all were.
        """
        code = self._unseen.draw(self._rng)
        if code is None:
            raise NoMoreTrials
        return self._codes.parameters(code)

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        """Remember the architecture; the value is not used."""
        self._unseen.see(self._codes.read(parameters))

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take architectures that were tried elsewhere out of the draw.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for entry in data:
            self._unseen.see(self._codes.parse(entry["parameter"]))
