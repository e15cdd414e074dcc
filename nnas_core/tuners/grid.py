"""Propose every architecture once, each differing from the one before at a single key.

Source: Knuth, "The Art of Computer Programming", volume 4A, section 7.2.1.1 (reflected mixed-radix Gray code).
"""

from __future__ import annotations

from nnas_core.plugins.arguments import sign_of
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import CodeTuner

__all__ = ["GridTuner"]

_MOST_PASSED = 1_000_000
"""Architectures of a space that are all looked at, where constraints exclude most of them."""


class GridTuner(CodeTuner):
    """The whole space, in an order in which neighbours follow each other; the last key changes most often.

    It begins with the first decision at every key. Each next architecture has the next or the previous decision
    at one key: the last key that is not at the end of its run; all behind it turn around. Architectures that are
    known from elsewhere, or beyond a constraint, are passed over, and only there a step may change more than one key;
    in a space that is too large to pass over most of it, those within the constraints come in another order.

    No list of the space is made, so a space of any size starts at once.

    Args:
        seed: accepted as for every tuner, of no effect.
        optimize_mode: ``"maximize"`` or ``"minimize"``, of no effect.

    Raises:
        UsageError: ``optimize_mode`` is neither.
    """

    name = "grid"

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        sign_of("grid: optimize_mode", optimize_mode)

    def _begin(self) -> None:
        """Begins at the first architecture."""
        self._position = 0
        few = self._region is None or self._codes.size <= _MOST_PASSED
        self._inside = None if few or self._region is None else self._region.all()

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes the next architecture that was not imported."""
        if self._inside is not None:
            return next((code for code in self._inside if code in self._unseen), None)
        while self._position < self._codes.size:
            code = self._at(self._position)
            self._position += 1
            if code in self._unseen:
                return code
        return None

    def _at(self, position: int) -> Code:
        """Returns the code at ``position`` of the order, computed from the position alone."""
        digits: list[int] = []
        for size in reversed(self._codes.sizes):
            position, digit = divmod(position, size)
            # what remains of the position counts the runs of this key so far; every other one goes backwards
            digits.append(size - 1 - digit if position % 2 else digit)
        return tuple(reversed(digits))
