"""A command that goes on in the background, after the terminal is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from nnas_core.files import environment_failure, prepare_folder

__all__ = ["detach"]


def detach(log: Path) -> int | Callable[[], None]:
    """Go on in a process of its own session, whose output is appended to ``log``.

    Both processes return from here. The one that was called does so when the other says that its work has begun; if
    that ends before, its output and its exit code become those of the command.

    Args:
        log: made if need be, with its folder.

    Returns:
        In the process that was called, the number of the other one; in the other one, a function to call when its work
        has begun.

    Raises:
        EnvironmentFailure: the log cannot be written.
        click.exceptions.Exit: the work never began.
    """
    prepare_folder(log.parent)
    try:
        target = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise environment_failure(error, log) from error
    said_before = os.fstat(target).st_size
    begun, begins = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.setsid()
        os.close(begun)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(target, stream)
        os.close(target)
        return _Once(begins)
    os.close(begins)
    try:
        word = os.read(begun, 1)
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        raise
    finally:
        os.close(begun)
    if word:
        os.close(target)
        return process
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with open(target, "rb") as said:
        said.seek(said_before)
        sys.stderr.write(said.read().decode("utf-8", "replace"))
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)


class _Once:
    """Says on a pipe that the work has begun."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def __call__(self) -> None:
        if self._pipe is not None:
            # the other process may be gone, as after kill -9: the work goes on
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, b"+")
            os.close(self._pipe)
            self._pipe = None
