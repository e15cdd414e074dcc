"""A command under a supervisor of its own (``process_supervisor.py``), seen from the process that started both."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnas_core.execution import process_supervisor
from nnas_core.execution.control_group import new_group
from nnas_core.execution.pipes import Receiver

__all__ = ["GRACE_S", "End", "Supervised", "environment", "last_line", "served_by"]

GRACE_S = 3.0
"""How long a process has between SIGTERM and SIGKILL."""

_LATE_S = 3.0
"""How much longer than its grace a command may take, which its supervisor and that one's watcher end before."""

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[3:]; from {} import main; main(int(sys.argv[1]), int(sys.argv[2]))"


@dataclass(frozen=True)
class End:
    """Says how a command ended.

    Attributes:
        exit: its exit status, or None.
        signal: what killed it, or None.
        error: why it was never started, or None.
        errno: the number of that error, if the system gave one.
    """

    exit: int | None = None
    signal: int | None = None
    error: str | None = None
    errno: int | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"cannot be started: {self.error}"
        if self.exit is not None:
            return f"ended (exit {self.exit})"
        if self.signal is None:
            return "lost its supervisor"
        if self.signal == signal.SIGKILL:
            return "killed by signal 9 (out of memory?)"
        with contextlib.suppress(ValueError):
            return f"killed by signal {self.signal} ({signal.Signals(self.signal).name})"
        return f"killed by signal {self.signal}"


class Supervised:
    """A running command; nothing of it is left when ``end`` is set, nor after the death of this process.

    Args:
        command: program and arguments; no shell.
        log: the file for its standard output and error.
        log_bytes: how much of them is kept, and a little of their end.
        env: its environment.
        fds: open files to hand on; they are closed here.
        grace_s: how long it has between SIGTERM and SIGKILL.
        cwd: its current folder; None: ours.

    Attributes:
        end: how it ended; None while it runs.

    Raises:
        OSError: the supervisor cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        log_bytes: int,
        env: Mapping[str, str],
        fds: Sequence[int] = (),
        grace_s: float = GRACE_S,
        cwd: Path | None = None,
    ) -> None:
        self.end: End | None = None
        self._pid: int | None = None
        self._mark = secrets.token_hex(16)
        self._group = new_group(self._mark)
        self._overdue: float | None = None  # when it should have ended that was asked to
        self._grace_s = grace_s
        order: process_supervisor.Order = {
            "command": list(command),
            "log": str(log),
            "log_bytes": log_bytes,
            "grace_s": grace_s,
            "fds": list(fds),
            "group": None if self._group is None else str(self._group),
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(process_supervisor.__file__)), json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**env, process_supervisor.MARK: self._mark},
                cwd=cwd,
                pass_fds=fds,
                start_new_session=True,
            )
        except OSError:
            process_supervisor.end_group(self._group)
            raise
        finally:
            for descriptor in fds:
                os.close(descriptor)
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("no pipes")
        self._leash = self._process.stdin
        self._status: Receiver[int | End] = Receiver(self._process.stdout.fileno(), _said)

    def fileno(self) -> int:
        """Returns the pipe that can be read from when ``look`` has something to do."""
        return self._status.fileno()

    def look(self) -> None:
        """Reads what the supervisor said; sets ``end``."""
        if self.end is not None:
            return
        if self._overdue is not None and time.monotonic() >= self._overdue:
            self._force()
        for said in self._status.receive():
            if isinstance(said, End):
                self._ended(said)
            else:
                self._pid = said
        if self._status.closed and self.end is None:
            # supervisor and watcher were killed: their child died with them, what that had started may live
            self._force()
            self._ended(End(signal=signal.SIGKILL))

    def _ended(self, end: End) -> None:
        self.end = end
        with contextlib.suppress(OSError):
            self._leash.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGCONT)  # the command may have stopped the watcher, and ended well
            self._process.wait(_LATE_S)
            return
        self._process.kill()
        self._process.wait()

    def _force(self) -> None:
        """Ends it by ourselves, whatever became of those who should."""
        self._overdue = None
        if self._pid is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)
        process_supervisor.end_all(self._process.pid, self._mark)
        process_supervisor.end_group(self._group)

    def stop(self) -> None:
        """Asks for the end; it comes within the grace and a moment, if ``look`` is called on."""
        if self._overdue is None:
            self._overdue = time.monotonic() + self._grace_s + _LATE_S
        with contextlib.suppress(OSError, ValueError):
            self._leash.close()

    def wait(self, seconds: float) -> None:
        """Waits for the end that was asked for; the last means when it does not come."""
        deadline = time.monotonic() + seconds
        while self.end is None:
            until = deadline if self._overdue is None else min(deadline, self._overdue)
            if not self._status.wait(max(0.0, until - time.monotonic())):
                self._force()
                self._status.wait(seconds)
            self.look()


def _said(record: Mapping[str, object]) -> int | End:
    """Returns what a supervisor says: the number of its child, or how that ended."""
    pid, code, number, error, errno = (record.get(name) for name in ("pid", "exit", "signal", "error", "errno"))
    if isinstance(pid, int):
        return pid
    return End(
        code if isinstance(code, int) else None,
        number if isinstance(number, int) else None,
        None if error is None else str(error),
        errno if isinstance(errno, int) else None,
    )


def served_by(module: str, jobs: int, reports: int, path: Sequence[str] = ()) -> list[str]:
    """Returns the command that calls ``main(jobs, reports)`` of a module, with two pipes.

    Args:
        module: found as it is found here.
        jobs, reports: the pipes' ends.
        path: further folders to import from.
    """
    more = [folder for folder in path if folder not in sys.path]
    return [sys.executable, "-c", _BOOTSTRAP.format(module), str(jobs), str(reports), *sys.path, *more]


def last_line(log: Path) -> str:
    """Returns the last line of a log that says something, shortened; empty if there is none."""
    with contextlib.suppress(OSError):
        with open(log, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - process_supervisor.TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
        lines = ["".join(one if one.isprintable() else " " for one in line).strip() for line in text.splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "")
    return ""


def environment(threads: int, gpu: str | None, **more: object) -> dict[str, str]:
    """Returns the environment of a trial: ours, with as many threads as its share of the cores, and at most one GPU.

    Args:
        threads: for OpenMP and the like; fewer stay as they are.
        gpu: what CUDA shall show it; None: what it shows us.
        more: further variables.
    """
    env = {**os.environ, **{name: str(value) for name, value in more.items()}}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        given = env.get(name, "")
        env[name] = str(min(threads, int(given)) if given.isdecimal() and int(given) > 0 else threads)
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    return env
