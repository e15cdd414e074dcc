"""Propose every architecture once, each differing from the one before at a single key.

Source: Knuth, "The Art of Computer Programming", volume 4A, section 7.2.1.1 (reflected mixed-radix Gray code).
"""

from __future__ import annotations

from typing import Any

from nnas_core.plugins.arguments import sign_of
from nnas_core.space.encoding import Code, Codes, Unseen
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["GridTuner"]


class GridTuner(Tuner):
    """The whole space, in an order in which neighbours follow each other; the last key changes most often.

    It begins with the first decision at every key. Each next architecture has the next or the previous decision
    at one key: the last key that is not at the end of its run; all behind it turn around. Architectures that are
    known from elsewhere are passed over, and only there a step may change more than one key.

    No list of the space is made, so a space of any size starts at once.

    Args:
        seed: accepted as for every tuner, of no effect.
        optimize_mode: ``"maximize"`` or ``"minimize"``, of no effect.

    Raises:
        UsageError: ``optimize_mode`` is neither.
    """

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        sign_of("grid: optimize_mode", optimize_mode)

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Begin at the first architecture of a space of which nothing was seen."""
        self._codes = Codes(SearchSpace.from_json(search_space))
        self._unseen = Unseen(self._codes)
        self._position = 0

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Propose the next architecture that was not imported.

        Raises:
            NoMoreTrials: all were proposed or imported.
        """
        while self._position < self._codes.size:
            code = self._at(self._position)
            self._position += 1
            if code in self._unseen:
                self._unseen.see(code)
                return self._codes.parameters(code)
        raise NoMoreTrials

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        """Remember the architecture; the value is not used."""
        self._unseen.see(self._codes.read(parameters))

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Pass over architectures that were tried elsewhere, whatever came out.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for entry in data:
            self._unseen.see(self._codes.parse(entry["parameter"]))

    def _at(self, position: int) -> Code:
        """The code at ``position`` of the order, computed from the position alone."""
        digits: list[int] = []
        for size in reversed(self._codes.sizes):
            position, digit = divmod(position, size)
            # what remains of the position counts the runs of this key so far; every other one goes backwards
            digits.append(size - 1 - digit if position % 2 else digit)
        return tuple(reversed(digits))
