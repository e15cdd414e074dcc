"""A pseudo terminal, and what a screen of a size shows of what is written to it."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

__all__ = ["Terminal", "terminal"]

_ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Terminal:
    """A pseudo terminal; ``path`` is what a command writes to, ``text()`` what it wrote."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._ours, self._theirs = os.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns, self.rows = columns, rows
        self.path = os.ttyname(self._theirs)
        self._content = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # how Linux tells that nobody holds the other end any more
                return
            if not data:
                return
            self._content += data

    def so_far(self) -> str:
        """What was written until now."""
        return self._content.decode(errors="ignore")

    def text(self) -> str:
        """Everything, after the command has ended."""
        self.close()
        return self._content.decode()

    def screens(self) -> list[list[str]]:
        """What the screen showed, each time that lines were taken away or at the end; without what scrolled away."""
        return _screens(self.text())

    def close(self) -> None:
        """Give both ends back."""
        if self._reader.is_alive():
            os.close(self._theirs)
            self._reader.join(timeout=30)
            os.close(self._ours)


def _screens(text: str) -> list[list[str]]:
    """The lines of a screen without an end, before each escape that erases one, and at last."""
    lines, row, column = [""], 0, 0
    found: list[list[str]] = []
    position = 0
    while position < len(text):
        escape = _ESCAPE.match(text, position)
        if escape is not None:
            position = escape.end()
            count = int(escape[1]) if escape[1].isdigit() else 1
            if escape[2] == "A":
                row = max(0, row - count)
            elif escape[2] == "K":
                if lines[row] and (not found or found[-1] != lines):
                    found.append(list(lines))
                lines[row] = ""
            continue
        character = text[position]
        position += 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
            lines.extend([""] * (row + 1 - len(lines)))
        else:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [*found, lines]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A pseudo terminal of 80 columns and 24 rows."""
    made = Terminal()
    yield made
    made.close()
