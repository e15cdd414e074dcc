"""The command line in tests: in this process (fast), or in a forked one (signals, pipes, kills).

A test file that uses it imports the fixtures: ``from tests.cli_support import nnas, small_model``
(and ``_searched`` with ``small_run``, ``_fork_server`` with ``forks``).
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
import pytest
import torch

from nnas_cli.main import entry
from nnas_core.plugins import loading
from nnas_core.study.storage.store import StudyStore

__all__ = [
    "MODEL",
    "Cli",
    "ForkServer",
    "Process",
    "Result",
    "forks",
    "nnas",
    "small_model",
    "small_run",
    "trials_of",
    "wait_until",
]

ROOT = Path(__file__).parents[1]

MODEL = '''"""A model of 18 architectures, and data that it learns in no time."""

from collections import OrderedDict

import torch
import torch.nn as nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        ops = OrderedDict(linear=nn.Linear(width, width), skip=nn.Identity())
        ops["deep"] = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.op = LayerChoice(ops, key="op")
        self.act = LayerChoice(OrderedDict(relu=nn.ReLU(), tanh=nn.Tanh()), key="act")
        self.link = InputChoice(choose_from=["", "op", "act"], n_chosen=1, key="link")
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        a = self.norm(self.stem(x))
        b = self.op(a)
        return self.head(self.link([a, b, self.act(b)]))


def data(count, seed):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] + x[:, 1] > 0).long())


def train_dataset():
    return data(60, 1)


def test_dataset():
    return data(20, 2)
'''


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error object on standard error, of a command with ``--json``."""
        return json.loads(self.err)["error"]


class Cli:
    """Runs ``nnas`` in this process, as if it were a new one: user files are loaded anew, random states come back."""

    def __call__(self, *arguments: object, stdin: bytes | str = b"") -> Result:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        buffers = io.BytesIO(content), io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(buffer, encoding="utf-8") for buffer in buffers]
        with _fresh_process(*streams):
            code = entry([str(argument) for argument in arguments])
        for stream in streams:
            stream.flush()
        return Result(code, *(buffer.getvalue().decode() for buffer in buffers[1:]))

    def ok(self, *arguments: object, stdin: bytes | str = b"") -> Result:
        """The same, and it must end with 0."""
        result = self(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result


@contextmanager
def _fresh_process(stdin: TextIO, stdout: TextIO, stderr: TextIO) -> Iterator[None]:
    before = sys.stdin, sys.stdout, sys.stderr
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    folders, last = set(loading._user_folders), next(reversed(sys.modules))
    loading._loaded.clear()
    sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        loading._user_folders.intersection_update(folders)
        loading._loaded.clear()
        new = itertools.takewhile(lambda name: name != last, reversed(sys.modules))  # of thousands, in order
        for name in [name for name in new if name.startswith("nnas_user_")]:
            del sys.modules[name]


@pytest.fixture
def nnas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``nnas(*arguments, stdin=...)`` -> ``Result``; the current folder is ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    return Cli()


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """``tmp_path/model.py`` with the text of ``MODEL``."""
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="session")
def _searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "model.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Cli().ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "run")
    return folder / "run"


@pytest.fixture
def small_run(small_model: Path, _searched: Path) -> Path:
    """``tmp_path/run``, a finished search of ``small_model`` with one epoch; made once, copied for each test."""
    return Path(shutil.copytree(_searched, small_model.parent / "run"))


# ---- other processes


class Process:
    """A forked ``nnas``; its output goes to files, so that no pipe can fill up."""

    def __init__(self, server: ForkServer, pid: int, out: Path, err: Path) -> None:
        self._server, self.pid, self._out, self._err = server, pid, out, err
        self._end = select.poll()
        self._descriptor = os.pidfd_open(pid)
        self._end.register(self._descriptor, select.POLLIN)
        self.code: int | None = None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal, unless it ended and was waited for; with ``group`` also to the processes that it started."""
        if self.code is None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def left(self) -> list[int]:
        """The living processes of its group, it included."""
        found = []
        for place in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, group = place.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.pid and state not in "ZX":
                    found.append(int(place.parent.name))
        return found

    def ended(self, within_s: float = 0) -> bool:
        """Whether it has ended, or does so in that time; a process that did can still be waited for."""
        if self.code is None and self._end.poll(within_s * 1000):
            self.code = self._server.ask(wait=self.pid)["code"]
            os.close(self._descriptor)
        return self.code is not None

    def wait(self) -> Result:
        """Until it ends; a code below 0 is the number of the signal that killed it."""
        if not self.ended(120):
            pytest.fail(f"the process does not end: {self.err}", pytrace=False)
        assert self.code is not None
        return Result(self.code, self.out, self.err)

    @property
    def out(self) -> str:
        """What is on standard output so far."""
        return self._out.read_text() if self._out.is_file() else ""

    @property
    def err(self) -> str:
        """What is on standard error so far."""
        return self._err.read_text() if self._err.is_file() else ""


class ForkServer:
    """One process that has imported torch, and forks itself for every command."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", f"from tests.cli.fork_server import serve; serve({theirs.fileno()})"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.settimeout(120)  # a process that hangs fails its test, not the whole run
        self._lines: IO[Any] = ours.makefile("rw", encoding="utf-8")
        self._socket = ours
        self._started: list[Process] = []
        self._count = 0

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, and get the answer."""
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def start(self, folder: Path, *arguments: object, **options: Any) -> Process:
        """Start ``nnas`` in ``folder``.

        Args:
            folder: its current folder; its output goes to files there.
            arguments: of the command.
            options: ``stdin``, ``stdout``, ``stderr`` (paths), ``env``, ``file_limit`` (bytes a file may have),
                ``memory_limit`` (bytes of address space).
        """
        self._count += 1
        out, err = (folder / f".{name}-{self._count}" for name in ("out", "err"))
        env = options.pop("env", {})
        options = {"stdout": out, "stderr": err, **options}
        texts = {name: str(value) for name, value in options.items()}
        pid = self.ask(argv=[str(one) for one in arguments], cwd=str(folder), env=env, **texts)["pid"]
        process = Process(self, pid, Path(texts["stdout"]), Path(texts["stderr"]))
        self._started.append(process)
        return process

    def run(self, folder: Path, *arguments: object, **options: Any) -> Result:
        """``start`` and wait."""
        return self.start(folder, *arguments, **options).wait()

    def reap(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.signal(signal.SIGKILL)
            process.wait()
        self._started.clear()

    def close(self) -> None:
        """End the server."""
        self._lines.close()
        self._socket.close()
        self._process.wait(timeout=30)


@pytest.fixture(scope="session")
def _fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def forks(_fork_server: ForkServer) -> Iterator[ForkServer]:
    """Starts commands in processes of their own, and kills those that the test leaves behind."""
    yield _fork_server
    _fork_server.reap()


def wait_until(condition: Callable[[], object], process: Process | None = None, timeout_s: float = 30) -> None:
    """Wait for something that another process does; fail when that process ends first."""
    end = time.monotonic() + timeout_s
    while not condition():
        if process is None:
            time.sleep(0.002)
        elif process.ended(within_s=0.002) and not condition():
            pytest.fail(f"the process ended with {process.code}: {process.err}", pytrace=False)
        if time.monotonic() > end:
            pytest.fail(f"nothing happened for {timeout_s} s", pytrace=False)


def trials_of(study: str) -> list[tuple[object, ...]]:
    """What a study in ``nnas.db`` has found, without its times."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return [
            (trial.number, trial.state, trial.architecture.canonical, trial.value, trial.metrics, trial.error)
            for trial in store.trials(store.study(study))
        ]
