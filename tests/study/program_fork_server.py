"""Programs of ``study_programs`` without the wait for imports: one process imports, each program is a fork of it.

python -m tests.study.program_fork_server
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401  # imported here, so that no fork has to
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

from tests.study import study_programs

__all__ = ["Forked", "Forks", "has_mark", "marked", "new_mark", "until"]

ROOT = Path(__file__).parents[2]

_MARK = "TEST_STUDY_MARK"


class Forked:
    """A process of ``Forks.start``; its output goes to files."""

    def __init__(self, forks: Forks, pid: int, out: Path, err: Path) -> None:
        self._forks, self.pid, self._out, self._err = forks, pid, out, err
        self._end = select.poll()
        self._descriptor = os.pidfd_open(pid)
        self._end.register(self._descriptor, select.POLLIN)
        self.code: int | None = None

    def ended(self, within_s: float = 0) -> bool:
        """Whether it has ended, or does so in that time; then ``code`` is set, below 0 for a signal."""
        if self.code is None and self._end.poll(within_s * 1000):
            self.code = self._forks.ask({"wait": self.pid})
            os.close(self._descriptor)
        return self.code is not None

    def kill(self) -> int:
        """Kill -9; its code."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)  # it is not waited for yet, so the number is still its own
        return self.wait()

    def wait(self, timeout_s: float = 120) -> int:
        """Until it ends; its code."""
        if not self.ended(timeout_s):
            raise AssertionError(f"the process does not end: {self.err}")
        assert self.code is not None
        return self.code

    @property
    def out(self) -> str:
        """What is on standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What is on standard error so far."""
        return self._err.read_text()


class Forks:
    """Starts programs, each a fork of one process that has imported all they need."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.study.program_fork_server"],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._count = 0

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request, and get the answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, folder: Path, *arguments: object, mark: str = "") -> Forked:
        """Start a program.

        Args:
            folder: for its output.
            arguments: of ``tests.study.study_programs``.
            mark: what ``marked`` finds the processes by that it starts.
        """
        self._count += 1
        out, err = (folder / f".{name}-{self._count}" for name in ("out", "err"))
        for path in (out, err):
            path.touch()
        texts = [str(one) for one in arguments]
        pid = self.ask({"argv": texts, "out": str(out), "err": str(err), "mark": mark})
        return Forked(self, pid, out, err)

    def close(self) -> None:
        """End the server."""
        self._server.communicate(timeout=30)


def new_mark() -> str:
    """A text that no other test has."""
    return secrets.token_hex(8)


def has_mark(pid: int, mark: str) -> bool:
    """Whether that process lives and was started below a program with that mark."""
    try:
        return f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")  # "" of a zombie
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """The processes that live and were started below a program with that mark (not the program itself)."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and has_mark(int(name), mark)]


def until(condition: Callable[[], object], failure: str, timeout_s: float = 60) -> None:
    """Wait for what other processes do."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(failure)
        time.sleep(0.002)


# ---- the server


def serve() -> None:
    """Answer requests until there are no more."""
    gc.collect()
    gc.freeze()  # what is here now is not looked at again, nor copied, by the forks
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            answer = os.fork()
            if answer == 0:
                _become(request)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        print(json.dumps(answer), flush=True)


def _become(request: dict[str, Any]) -> None:
    code = 99
    try:
        os.environ[_MARK] = request["mark"]
        for target, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_APPEND), target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = study_programs.main(*request["argv"])
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
