"""Ctrl-C and its relatives: the first asks the work to stop at the next step, the second stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from nnas_core.errors import Interrupted

__all__ = ["StopRequest", "at_once"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def at_once() -> Iterator[Callable[[], int | None]]:
    """While it is entered, a signal stops the work by ``KeyboardInterrupt``; gives a function that says which came.

    What nobody may interrupt stays so, as SIGHUP under nohup. Only the main thread can be interrupted.
    """
    came: list[int] = []
    process = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            _die(number)
        came.append(number)
        raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)
    is_main = threading.current_thread() is threading.main_thread()
    ours = [number for number in _SIGNALS if is_main and signal.getsignal(number) in usual]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """While it is entered, calling it gives the number of the signal that came, or None.

    The handlers are installed also where the shell made the process ignore SIGINT, as it does in the background, but
    not for a SIGHUP that is ignored: nohup does that. What is stopped at once ends as ``Interrupted`` with the number
    of the first signal; a ``KeyboardInterrupt`` that no signal brought is an error of the code that raised it.

    Args:
        hint: how to go on with what is stopped at once.
    """

    def __init__(self, hint: str | None = None) -> None:
        self._hint = hint
        self._process = os.getpid()
        self._number: int | None = None
        self._at_once = False
        self._before: dict[signal.Signals, _Handler] = {}

    def __call__(self) -> int | None:
        return self._number

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt) and self._number is not None:
            raise Interrupted(self._number, "stopped at once", hint=self._hint) from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While it is entered, also the first signal stops the work at once, by ``KeyboardInterrupt``."""
        before, self._at_once = self._at_once, True
        try:
            if self._number is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = before

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _die(number)
        again = self._number is not None
        self._number = number if self._number is None else self._number
        if again or self._at_once:
            raise KeyboardInterrupt


def _die(number: int) -> None:
    """What a signal does to a process that the user's code has forked, and ends so."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
