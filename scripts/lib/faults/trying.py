"""Faults tried one at a time in a copy of the tree: torch and pytest are imported once, every trial is a fork."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.lib.faults.executed import PYTEST

__all__ = ["Outcome", "Tree"]

_LOADED_ONCE = (
    "jsonschema",
    "numpy",
    "rich.console",
    "sqlalchemy.dialects.sqlite",
    "torch",
    "torch.optim.lr_scheduler",
)
_MEMORY = 8 * 2**30
_NOT_RUN = 97  # no exit code of pytest
_SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Outcome:
    """How tests went.

    Attributes:
        how: ``passed``, ``failed`` or ``hung``.
        test: the first that failed; empty if the fault broke the collection.
        seconds: that it took.
    """

    how: str
    test: str
    seconds: float


class Tree:
    """A copy of what git knows of the working tree, to be broken.

    Args:
        root: the working tree.
        copy: where the copy will be.
    """

    def __init__(self, root: Path, copy: Path) -> None:
        self.path = copy = copy.resolve()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            stdout=subprocess.PIPE,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source, target = root / name, copy / name
            if name and source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
                target.chmod(source.stat().st_mode)
                _forget_compiled(target)
        for name in _LOADED_ONCE:
            importlib.import_module(name)

    def run(self, tests: Sequence[str], limit_s: float) -> Outcome:
        """Run tests until one fails; whatever they started is gone afterwards."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        began = time.monotonic()
        failed = self.path / ".failed-test"
        failed.unlink(missing_ok=True)
        # other runs of pytest remove old folders of theirs from the common place
        temporary = tempfile.mkdtemp(prefix="nnas-faults-")
        pid = os.fork()
        if not pid:
            self._child(tests, failed, temporary)
        code = None
        while code is None and time.monotonic() - began < limit_s:
            time.sleep(0.02)
            found, status = os.waitpid(pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if found else None
        if code is None:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _end_orphans()
        shutil.rmtree(temporary, ignore_errors=True)
        seconds = time.monotonic() - began
        if code is None:
            return Outcome("hung", "", seconds)
        if code == _NOT_RUN:
            raise SystemExit(f"mutate: error: pytest does not start in {self.path}")
        if code == pytest.ExitCode.OK:
            return Outcome("passed", "", seconds)
        return Outcome("failed", failed.read_text("utf-8") if failed.exists() else "", seconds)

    def _child(self, tests: Sequence[str], failed: Path, temporary: str) -> None:
        code: int = _NOT_RUN
        try:
            os.setsid()
            os.chdir(self.path)
            log = os.open(self.path / ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
            os.environ["PYTHONPATH"] = str(self.path)  # for the processes that tests start
            sys.path.insert(0, str(self.path))
            options = ("-x", "--tb=short", f"--basetemp={temporary}")
            code = pytest.main([*PYTEST, *options, *tests], plugins=[_First(failed)])
            sys.stdout.flush()
        finally:
            os._exit(code)

    @contextlib.contextmanager
    def broken(self, file: str, source: str) -> Iterator[None]:
        """Within the context, a file has another source."""
        path = self.path / file
        sound = path.read_bytes()
        try:
            _write(path, source.encode())
            yield
        finally:
            _write(path, sound)


class _First:
    """Notes the first test that fails."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._file.exists():
            self._file.write_text(report.nodeid, encoding="utf-8")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _forget_compiled(path)


def _forget_compiled(path: Path) -> None:
    """Python takes compiled code for that of a source with the same size and second."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _end_orphans() -> None:
    """End what a trial left running: orphans are this process's children, because it asked for that."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    while children := own.read_text("ascii").split():
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
