"""Runs one command, and leaves nothing of it behind.

This file is started as a script, one process a command, and imports nothing of nnas. Its standard input is a leash:
when anything comes from there, or its other end is closed because whoever held it died, the command is ended, first
gently, then not. All that the command started ends with it, also what left its session: orphans come to this process.

A command may do to its supervisor what it likes, for both are the same user's. So there are two processes: the
supervisor, and above it a watcher, which lets it go on when it is stopped, and when it is killed, or does not end the
command in time, ends all that is left. Whoever gets past both bears the mark that the environment of all of them has,
and is in the control group that they are in where the system allows for one.

Its argument is a JSON object: ``command``, ``log`` (a path), ``log_bytes``, ``grace_s``, ``fds`` (to hand on), and
``group`` (a folder, or null). On its standard output it says ``{"pid": N}``, then ``{"exit": N}`` or ``{"signal": N}``;
or ``{"error": TEXT, "errno": N}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TypedDict

__all__ = ["MARK", "TAIL_BYTES", "Order", "bearers", "descendants", "end_all", "end_group", "main"]

TAIL_BYTES = 4096
"""How much of the end of a log is kept that grew too long."""

MARK = "_NNAS_SUPERVISED"
"""The variable by which processes of one command are known, wherever they went."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LATE_S = 2.0  # how much longer than the grace a supervisor may take to end its command
_GIVE_UP_S = 10.0  # on processes that not even SIGKILL ends, in a system call that does not return


class Order(TypedDict):
    """The argument of this script."""

    command: list[str]
    log: str
    log_bytes: int
    grace_s: float
    fds: list[int]
    group: str | None


class _Log:
    """The output of a command: its first bytes as they come, and its last ones at the end."""

    def __init__(self, path: str, most: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._left = most
        self._tail = bytearray()
        self._dropped = 0

    def write(self, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self._put(kept)
        if len(kept) < len(data):
            self._dropped += len(data) - len(kept)
            self._tail += data[len(kept) :][-TAIL_BYTES:]
            del self._tail[:-TAIL_BYTES]

    def close(self) -> None:
        if self._dropped > len(self._tail):
            self._put(b"\n[nnas left out %d bytes here]\n" % (self._dropped - len(self._tail)))
        self._put(bytes(self._tail))
        os.close(self._file)

    def _put(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk costs the log, not the trial
            while data:
                data = data[os.write(self._file, data) :]


class _Supervisor:
    def __init__(self, order: Order) -> None:
        self._grace_s = order["grace_s"]
        self._group = order["group"]
        self._log = _Log(order["log"], order["log_bytes"])
        self._stop = False
        self._ended: int | None = None
        wake_read, self._wake = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        output, theirs = os.pipe()
        os.set_blocking(output, False)
        self._process = subprocess.Popen(
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            pass_fds=order["fds"],
            preexec_fn=_prepare(os.getpid(), self._group),
        )
        for descriptor in (theirs, *order["fds"]):
            os.close(descriptor)
        self._output = output
        self._selector = selectors.DefaultSelector()
        self._selector.register(output, selectors.EVENT_READ)
        self._selector.register(wake_read, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def run(self) -> dict[str, int]:
        """Waits for the end of the command, or brings it about."""
        _say({"pid": self._process.pid})
        deadline: float | None = None
        while self._ended is None:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            for key, _ in self._selector.select(wait):
                self._read(key.fd)
            self._reap()
            if self._stop and deadline is None:
                deadline = time.monotonic() + self._grace_s
                self._send(signal.SIGTERM)
            if deadline is not None and time.monotonic() >= deadline:
                break
        self._sweep()
        while self._drain():
            pass
        self._log.close()
        code = self._ended if self._ended is not None else -signal.SIGKILL
        self._process.returncode = code
        return {"exit": code} if code >= 0 else {"signal": -code}

    def _read(self, descriptor: int) -> None:
        if descriptor == self._output:
            self._drain()
            return
        data = os.read(descriptor, 65536)
        if descriptor == 0:
            self._stop = True
            self._selector.unregister(0)
        elif not data:
            self._selector.unregister(descriptor)

    def _drain(self) -> bool:
        """Logs what the command has written; false if there is nothing more for now, or ever."""
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return False
        if not data and self._output in self._selector.get_map():
            self._selector.unregister(self._output)
        self._log.write(data)
        return bool(data)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._process.pid:
                self._ended = os.waitstatus_to_exitcode(status)

    def _send(self, number: int) -> bool:
        """Signals all that the command started; false if there is nothing left."""
        found = descendants(os.getpid())
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        if not found and self._ended is None:
            with contextlib.suppress(OSError):  # where /proc does not tell; nobody gets a signal twice
                os.killpg(self._process.pid, number)
        return bool(found) or self._ended is None

    def _sweep(self) -> None:
        """Kills until nothing is left: what is killed may just have started something."""
        end = time.monotonic() + _GIVE_UP_S
        while self._send(signal.SIGKILL) and time.monotonic() < end:
            self._drain()
            time.sleep(0.002)
            self._reap()
        end_group(self._group)


class _Watcher:
    """Sees to it that a supervisor, its child, does its work."""

    def __init__(self, supervisor: int, order: Order) -> None:
        self._supervisor = supervisor
        self._late_s = order["grace_s"] + _LATE_S
        self._group = order["group"]
        self._wake_read, wake = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._hand_on)

    def _hand_on(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.kill(self._supervisor, number)

    def run(self) -> None:
        """Waits for the end of the supervisor; ends what it has left."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(0, 0)  # a hang-up is told always; what else comes is the supervisor's
        deadline: float | None = None
        while (code := self._look()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0.0:
                break
            for descriptor, _ in poll.poll(None if left is None else left * 1000):
                if descriptor == 0:
                    poll.unregister(0)
                    deadline = time.monotonic() + self._late_s
                else:
                    os.read(descriptor, 1 << 16)
        if code != 0:
            end_all(os.getpid())
            end_group(self._group)

    def _look(self) -> int | None:
        """Returns how the supervisor ended, None while it lives."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return None
            if pid == self._supervisor and not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            if pid == self._supervisor:
                os.kill(pid, signal.SIGCONT)


def end_all(root: int, mark: str | None = None) -> None:
    """Kills all that is below ``root``, and all that bears a mark, until nothing is left of either.

    Args:
        root: a process, which is not killed itself unless it bears the mark.
        mark: the value of ``MARK``.
    """
    end = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < end:
        found = {*descendants(root), *(bearers(mark) if mark is not None else ())} - {os.getpid()}
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
        with contextlib.suppress(ChildProcessError):
            while root == os.getpid() and os.waitpid(-1, os.WNOHANG)[0]:
                pass


def end_group(group: str | os.PathLike[str] | None) -> None:
    """Kills all that is in a control group, and deletes it; None: there is none."""
    end = time.monotonic() + _GIVE_UP_S
    while group is not None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            Path(group, "cgroup.kill").write_text("1")
        for folder, _, _ in os.walk(group, topdown=False):  # a command may have made groups in its own
            with contextlib.suppress(OSError):  # those in it have not ended yet
                os.rmdir(folder)
        if not os.path.isdir(group):
            return
        time.sleep(0.002)


def bearers(mark: str) -> list[int]:
    """Returns all processes that bear a mark and are no zombies, which have no environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            with contextlib.suppress(OSError):  # of others, or gone
                if wanted in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


def descendants(root: int) -> list[int]:
    """Returns all processes below ``root`` that are no zombies."""
    children: dict[int, list[int]] = {}
    dead = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            with contextlib.suppress(OSError):
                words = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(words[1]), []).append(int(name))
                if words[0] in (b"Z", b"X"):
                    dead.add(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return [pid for pid in found if pid not in dead]


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that the signal wakes the selector."""


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the leash alone must do
        _LIBC.prctl(option, value, 0, 0, 0)


_LIBC = ctypes.CDLL(None)


def _prepare(parent: int, group: str | None) -> Callable[[], None]:
    """Returns what a new child of ``parent`` calls to die with it, and to be in a control group, if it may."""

    def prepare() -> None:
        if group is not None:
            with contextlib.suppress(OSError):
                Path(group, "cgroup.procs").write_text("0")
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def _say(record: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, json.dumps(record).encode() + b"\n")


def main(text: str) -> None:
    """Runs the command that a JSON object describes."""
    order: Order = json.loads(text)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        if (child := os.fork()) != 0:
            for descriptor in order["fds"]:
                os.close(descriptor)
            _Watcher(child, order).run()
            return
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # which a fork does not hand on
        supervisor = _Supervisor(order)
    except OSError as error:
        end_group(order["group"])
        _say({"error": f"{error.filename or 'the command'}: {error.strerror}", "errno": error.errno})
        return
    _say(supervisor.run())


if __name__ == "__main__":
    main(sys.argv[1])
