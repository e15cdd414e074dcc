"""Ctrl-C and its relatives: the first asks the work to stop at the next step, the second stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from nnas_core.errors import Interrupted

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """While it is entered, calling it gives the number of the signal that came, or None.

    The handlers are installed also where the shell made the process ignore SIGINT, as it does in the background. What
    is stopped at once ends as ``Interrupted`` with the number of the first signal; a ``KeyboardInterrupt`` that no
    signal brought is an error of the code that raised it.

    Args:
        hint: how to go on with what is stopped at once.
    """

    def __init__(self, hint: str | None = None) -> None:
        self._hint = hint
        self._number: int | None = None
        self._at_once = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self) -> int | None:
        return self._number

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if not isinstance(error, KeyboardInterrupt):
            return
        if self._number is not None:
            raise Interrupted(self._number, "stopped at once", hint=self._hint) from error
        from nnas_core.plugins.loading import as_user_error  # late: most runs never fail

        user = as_user_error(error)
        if user is not None:
            raise user from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While it is entered, also the first signal stops the work at once, by ``KeyboardInterrupt``."""
        self._at_once = True
        try:
            if self._number is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = self._number is not None
        self._number = number if self._number is None else self._number
        if again or self._at_once:
            raise KeyboardInterrupt
