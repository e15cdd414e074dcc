"""JSON objects, one a line, over a pipe; nothing that is received can run code or fill the memory."""

from __future__ import annotations

import json
import os
import select
from typing import Any

__all__ = ["LONGEST_MESSAGE", "Receiver", "begin_to_serve", "send"]

LONGEST_MESSAGE = 16 * 2**20


class Receiver:
    """The reading end of a pipe, which never blocks.

    Args:
        descriptor: of the pipe; closing it is not done here.

    Attributes:
        closed: the other end is gone, or sent what is no message.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = bytearray()
        self.closed = False

    def fileno(self) -> int:
        """The pipe."""
        return self._descriptor

    def wait(self, seconds: float | None) -> bool:
        """Wait until there is something to receive, at most so long; None: for ever."""
        timeout = None if seconds is None else max(0.0, seconds) * 1000
        poll = select.poll()  # unlike select, it takes any number of open files
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout))

    def receive(self) -> list[dict[str, Any]]:
        """All messages that are there, in order."""
        messages: list[dict[str, Any]] = []
        while not self.closed:
            try:
                data = os.read(self._descriptor, 1 << 18)
            except BlockingIOError:
                break
            if not data:
                self.closed = True
                break
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._rest += line
                message = _object(bytes(self._rest))
                if message is None:
                    self.closed = True
                    return messages
                messages.append(message)
                self._rest.clear()
            self._rest += rest
            if len(self._rest) > LONGEST_MESSAGE:
                self.closed = True
        return messages


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def begin_to_serve(jobs: int, reports: int) -> tuple[Receiver, list[dict[str, Any]]]:
    """Take over the two pipes that this process was handed, and wait for what comes first.

    Args:
        jobs: to read from.
        reports: to write to. No process that this one starts has either.

    Returns:
        The reading end, and the first messages; none if the other side is gone.
    """
    for descriptor in (jobs, reports):
        os.set_inheritable(descriptor, False)
    received = Receiver(jobs)
    first: list[dict[str, Any]] = []
    while not first and not received.closed:
        received.wait(None)
        first = received.receive()
    return received, first


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write a message; waits while the pipe is full.

    Raises:
        OSError: the other end is gone.
    """
    data = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
