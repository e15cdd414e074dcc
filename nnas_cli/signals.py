"""Ctrl-C and its relatives: the first asks the work to stop at the next step, the second stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """While it is entered, calling it gives the number of the signal that came, or None.

    The handlers are installed also where the shell made the process ignore SIGINT, as it does in the background.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self) -> int | None:
        return self._number

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._number is not None:
            raise KeyboardInterrupt
        self._number = number
