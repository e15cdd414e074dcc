"""Loader processes live as long as the process that they load for, and say what the user's code in them did.

A signal to a whole process group or job, as batch systems send it, is for the process that trains, which saves and ends
them. So they pass over SIGINT, SIGTERM and SIGHUP, and end with their parent, even if that is killed.
"""

from __future__ import annotations

import ctypes
import multiprocessing.context
import multiprocessing.popen_fork
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch.utils.data import DataLoader, _DatasetKind

from nnas_core.plugins.loading import ends_early

__all__ = ["begun", "end_processes", "loader_died"]

V = TypeVar("V")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END = signal.SIGQUIT
"""Ends a loader process, without an error. Where a whole group gets it, it ends the process that trains too."""

_PATIENCE_S = 5.0
_PR_SET_PDEATHSIG = 1


def begun(loader: Iterable[V]) -> Iterator[V]:
    """Return ``iter(loader)``; if that starts processes, they are such ones.

    Args:
        loader: one of torch, or any other iterable.
    """
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return iter(loader)
    own = loader.worker_init_fn
    parent = os.getpid() if threading.current_thread() is threading.main_thread() else None
    loader.worker_init_fn = _Beginning(own.own if isinstance(own, _Beginning) else own, parent)
    if loader.multiprocessing_context is None or loader.multiprocessing_context.get_start_method() == "fork":
        loader.multiprocessing_context = _LoaderContext()
    with _masked():
        return iter(loader)


def end_processes(batches: Iterator[object]) -> None:
    """End the processes of an iterator that has failed; those of one that the collector finds wait for seconds."""
    end = getattr(batches, "_shutdown_workers", None)
    if end is not None:
        end()


def loader_died(error: BaseException) -> bool:
    """Return true for what torch raises when a loader process ended without a word."""
    return isinstance(error, RuntimeError) and re.match(r"DataLoader worker .*(killed|exited)", str(error)) is not None


@contextmanager
def _masked() -> Iterator[None]:
    """Let signals wait while processes are started: they would meet one that is not prepared yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _LoaderPopen(multiprocessing.popen_fork.Popen):
    def terminate(self) -> None:
        self._send_signal(_END)  # type: ignore[attr-defined]
        if self.wait(_PATIENCE_S) is None:
            self.kill()


class _LoaderProcess(multiprocessing.context.ForkProcess):
    @staticmethod
    def _Popen(process_obj: multiprocessing.context.ForkProcess) -> _LoaderPopen:  # type: ignore[override]
        return _LoaderPopen(process_obj)


class _LoaderContext(multiprocessing.context.ForkContext):
    Process = _LoaderProcess


@dataclass(frozen=True)
class _Beginning:
    """What a loader process does first; the loader may pickle it.

    Attributes:
        own: the user's ``worker_init_fn``.
        parent: the process that trains, if its main thread starts the loaders: the system would end them with another.
    """

    own: Callable[[int], None] | None
    parent: int | None

    def __call__(self, number: int) -> None:
        for one in _SIGNALS:
            signal.signal(one, _pass_over)  # a handler: what is ignored would be so in programs that the user starts
        signal.signal(_END, _end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self.parent is not None and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.parent:
                os._exit(1)
        create: Callable[..., _Fetcher] = _DatasetKind.create_fetcher

        def created(*given: object) -> _SayingFetcher:
            with _saying():
                return _SayingFetcher(create(*given))

        _DatasetKind.create_fetcher = staticmethod(created)  # type: ignore[method-assign]
        if self.own is not None:
            self.own(number)


def _pass_over(number: int, frame: object) -> None:
    """A signal is for the process that trains."""


def _end(number: int, frame: object) -> None:
    os._exit(0)


class _Fetcher(Protocol):
    def fetch(self, index: object) -> object: ...


@dataclass(frozen=True)
class _SayingFetcher:
    """Loads as ``fetcher`` does, and says what ends the process."""

    fetcher: _Fetcher

    def fetch(self, index: object) -> object:
        with _saying():
            return self.fetcher.fetch(index)


@contextmanager
def _saying() -> Iterator[None]:
    """Inside, what would end the process or its data in silence becomes an error, which torch hands on."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, StopIteration) or not ends_early(error):
            raise
        raise _as_error(error) from error
    except BaseException as error:
        raise _as_error(error) from error


def _as_error(error: BaseException) -> RuntimeError:
    return RuntimeError(f"the data set raised {type(error).__name__}{f'({error})' if str(error) else ''}")
