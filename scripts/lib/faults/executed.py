"""Which tests execute which line of nnas_core, and how long they take: measured once a room by coverage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest

__all__ = ["PYTEST", "Executed", "measure"]

PYTEST = ("-q", "-o", "addopts=--import-mode=importlib", "-p", "no:randomly", "-p", "no:cacheprovider")

# Processes that tests start are measured too; pytest's own variable says for which test.
_SETTINGS = """\
[run]
source = nnas_core
data_file = {data}
parallel = true
context = ${{PYTEST_CURRENT_TEST-}}
patch = subprocess, fork, _exit
disable_warnings = already-imported, couldnt-parse, module-not-imported, module-not-measured, no-data-collected
"""


@dataclass
class Executed:
    """What was measured.

    Attributes:
        seconds: test -> how long it takes, set up included.
        lines: file -> number of a line -> tests that execute it, none if it runs when its module is imported.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def tests_of(self, file: str, line: int) -> set[str]:
        """Returns the tests that execute a line; none if it runs when its module is imported, or was not measured."""
        return self.lines.get(file, {}).get(line, set())

    def tests_of_file(self, file: str) -> set[str]:
        """Returns the tests that execute any line of a file."""
        return set().union(*self.lines.get(file, {}).values())

    def load(self, folder: Path, root: Path) -> None:
        """Add what ``measure`` left in a folder; of files that have changed below ``root``, no single lines."""
        self.seconds.update(json.loads((folder / "seconds.json").read_text("utf-8")))
        now, then = _digests(root), json.loads((folder / "sources.json").read_text("utf-8"))
        changed = {file for file, digest in then.items() if now.get(file) != digest}
        for part in sorted(folder.glob("data.*")):
            try:
                self._add(part, changed)
            except coverage.exceptions.CoverageException:
                continue  # of a process that was killed, or had no room on its disk

    def _add(self, part: Path, changed: set[str]) -> None:
        data = coverage.CoverageData(str(part))
        data.read()
        for measured in data.measured_files():
            file = f"nnas_core/{measured.rpartition('/nnas_core/')[2]}"
            lines = self.lines.setdefault(file, {})
            for line, contexts in data.contexts_by_lineno(measured).items():
                tests = (_test(context) for context in contexts)
                place = 0 if file in changed else line
                lines.setdefault(place, set()).update(test for test in tests if test in self.seconds)


def _digests(root: Path) -> dict[str, str]:
    """File below nnas_core -> a digest of its content."""
    files = sorted((root / "nnas_core").rglob("*.py"))
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _test(context: str) -> str:
    """The test of a context: of a process of its own ``TEST (call)``, of a fork ``TEST (call)|TEST``."""
    name = context.rpartition("|")[2] or context.rstrip("|")
    for phase in (" (setup)", " (call)", " (teardown)"):
        name = name.removesuffix(phase)
    return name


def measure(folder: Path, root: Path, tests: Iterable[str], marks: str) -> None:
    """Run tests of the tree below ``root`` in a process of its own, and leave what they executed in a folder."""
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir(parents=True)
    (folder / "sources.json").write_text(json.dumps(_digests(root)), encoding="utf-8")
    (folder / "settings").write_text(_SETTINGS.format(data=folder / "data"), encoding="utf-8")
    command = [sys.executable, "-m", "scripts.lib.faults.executed", str(folder), "-m", marks, *tests]
    with (folder / "log").open("wb") as log:
        subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=log, stderr=log, check=False
        )


class _Recorder:
    def __init__(self, measured: coverage.Coverage) -> None:
        self.seconds: dict[str, float] = {}
        self._measured = measured

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def _main(folder: Path, arguments: list[str]) -> None:
    measured = coverage.Coverage(config_file=str(folder / "settings"), context="")
    measured.start()
    recorder = _Recorder(measured)
    pytest.main([*PYTEST, *arguments], plugins=[recorder])
    measured.stop()
    measured.save()
    (folder / "seconds.json").write_text(json.dumps(recorder.seconds), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
