"""JSON objects, one a line, over a pipe; nothing that is received can run code or fill the memory."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

__all__ = ["LONGEST_MESSAGE", "Receiver", "send_object"]

LONGEST_MESSAGE = 16 * 2**20

T = TypeVar("T")


class Receiver(Generic[T]):
    """The reading end of a pipe, which never blocks.

    Args:
        descriptor: of the pipe; closing it is not done here.
        decode: makes a message of an object; a ``ValueError`` of it means that the object is none.

    Attributes:
        closed: the other end is gone, or sent what is no message.
    """

    def __init__(self, descriptor: int, decode: Callable[[dict[str, Any]], T]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._decode = decode
        self._rest = bytearray()
        self.closed = False

    def fileno(self) -> int:
        """Returns the pipe."""
        return self._descriptor

    def wait(self, seconds: float | None) -> bool:
        """Waits until there is something to receive, at most so long; None: for ever."""
        timeout = None if seconds is None else max(0.0, seconds) * 1000
        poll = select.poll()  # unlike select, it takes any number of open files
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout))

    def receive(self) -> list[T]:
        """Returns all messages that are there, in order."""
        messages: list[T] = []
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
                try:
                    messages.append(self._decode(_object(bytes(self._rest))))
                except (ValueError, RecursionError):
                    self.closed = True
                    return messages
                self._rest.clear()
            self._rest += rest
            if len(self._rest) > LONGEST_MESSAGE:
                self.closed = True
        return messages


def _object(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def send_object(descriptor: int, document: Mapping[str, object]) -> None:
    """Writes an object; waits while the pipe is full.

    Raises:
        OSError: the other end is gone.
    """
    data = json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
