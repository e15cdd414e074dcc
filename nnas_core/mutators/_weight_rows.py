"""The weights of candidates as the last reset left them, a row a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

__all__ = ["WeightRows"]


class WeightRows:
    """``rows[index]`` is a row's ``[W]``.

    The matrix ``[K, W]`` is taken apart when the first row is asked for, all rows at once: that takes longer than
    everything else in a reset, and a reset that no forward pass follows need not pay for it.
    """

    __slots__ = ("_matrix", "_rows")

    _matrix: Tensor
    _rows: tuple[Tensor, ...] | None

    def renew(self, matrix: Tensor) -> None:
        """Replace all of them."""
        self._matrix = matrix
        self._rows = None

    def __getitem__(self, index: int) -> Tensor:
        if torch.compiler.is_compiling():  # the matrix is the graph's input, and a row costs nothing
            return self._matrix[index]
        if self._rows is None:
            with torch.enable_grad():  # whether there are gradients was decided when the matrix was made
                self._rows = self._matrix.unbind()
        return self._rows[index]

    def hold(self) -> Callable[[], AbstractContextManager[None]]:
        """Remember those of now; the result makes a context in which they are back."""
        self[0]
        held = (self._matrix, self._rows)

        @contextmanager
        def back() -> Iterator[None]:
            now = (self._matrix, self._rows)
            self._matrix, self._rows = held
            try:
                yield
            finally:
                self._matrix, self._rows = now

        return back
