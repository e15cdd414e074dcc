"""Progress bars: only where both streams are terminals and nothing speaks against them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_support import ForkServer

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run")
TUNE = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--trials", 3)
BAR = "\x1b[?25l"  # rich hides the cursor while a bar is there


class Terminal:
    """A pseudo terminal; ``path`` is what a command writes to, ``text()`` what it wrote."""

    def __init__(self) -> None:
        self._ours, self._theirs = os.openpty()
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

    def text(self) -> str:
        """Everything, after the command has ended."""
        self.close()
        return self._content.decode()

    def close(self) -> None:
        """Give both ends back."""
        if self._reader.is_alive():
            os.close(self._theirs)
            self._reader.join(timeout=30)
            os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A pseudo terminal."""
    made = Terminal()
    yield made
    made.close()


def test_search_shows_a_bar_on_a_terminal_and_a_line_an_epoch(
    forks: ForkServer, small_model: Path, tmp_path: Path, terminal: Terminal
) -> None:
    env = {"TERM": "xterm"}
    assert forks.run(tmp_path, *SEARCH, stdout=terminal.path, stderr=terminal.path, env=env).code == 0
    text = terminal.text()
    assert BAR in text
    assert text.count("epoch 1/2: train loss") == 1
    assert text.count("epoch 2/2: train loss") == 1


def test_tune_shows_a_bar_on_a_terminal(forks: ForkServer, small_run: Path, tmp_path: Path, terminal: Terminal) -> None:
    env = {"TERM": "xterm"}
    assert forks.run(tmp_path, *TUNE, stdout=terminal.path, stderr=terminal.path, env=env).code == 0
    text = terminal.text()
    assert BAR in text
    assert "study model-bayes" in text


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (("--no-progress",), {"TERM": "xterm"}),
        (("-q",), {"TERM": "xterm"}),
        (("--json",), {"TERM": "xterm"}),
        ((), {"TERM": "dumb"}),
        ((), {"TERM": "xterm", "CI": "true"}),
    ],
)
def test_a_bar_can_be_spoken_against(
    forks: ForkServer,
    small_model: Path,
    tmp_path: Path,
    terminal: Terminal,
    options: tuple[str, ...],
    env: dict[str, str],
) -> None:
    process = forks.run(tmp_path, *SEARCH, *options, stdout=terminal.path, stderr=terminal.path, env=env)
    assert process.code == 0
    assert BAR not in terminal.text()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_terminal_is_not_enough_for_a_bar(
    forks: ForkServer, small_model: Path, tmp_path: Path, terminal: Terminal, stream: str
) -> None:
    result = forks.run(tmp_path, *SEARCH, env={"TERM": "xterm"}, **{stream: terminal.path})
    assert result.code == 0
    assert BAR not in terminal.text() + result.out + result.err
