"""What tests of Ray share: an engine, trials that wait for their release, and all that they report."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from nnas_core.execution.engine import Engine, Intermediate, Job, Report
from nnas_core.space.search_space import SearchSpace
from tests.study.program_fork_server import until

__all__ = ["SPACE", "Trials", "command"]

SPACE = SearchSpace.from_json(
    {key: {"_type": "layer_choice", "_value": ["a", "b", "c"]} for key in ("first", "second", "third")}
)


def command(folder: Path) -> list[str]:
    """The trial: ``ray_trial.py``."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("ray_trial.py")), str(folder)]


def in_order(found: list[Report]) -> list[Report]:
    """Reports by trial, the end of each last."""
    return sorted(found, key=lambda report: (report.number, getattr(report, "sequence", 10**6)))


class Trials:
    """An engine, and the files that trials of ``ray_trial.py`` look for."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self._numbers = count()
        self._seen: list[Report] = []

    def submit(self, *, hold: bool = False, timeout_s: float | None = None) -> int:
        """Begin a trial, which waits for its release if it is held; its number."""
        number = next(self._numbers)
        if hold:
            (self.folder / f"{number}.wait").touch()
        self.engine.submit(Job(number, 1, SPACE.at(number), timeout_s))
        return number

    def release(self, *numbers: int) -> None:
        """Let trials go on."""
        for number in numbers:
            (self.folder / f"{number}.wait").unlink()

    def poll(self) -> bool:
        """Look for reports, and keep them; True."""
        self._seen += self.engine.poll(0.05)
        return True

    def process(self, number: int) -> int:
        """The process ID of a trial, once it has begun."""
        path = self.folder / f"{number}.begun"
        until(lambda: self.poll() and path.exists(), f"trial {number} does not begin")
        return int(path.read_text())

    def reports(self, ends: int) -> list[Report]:
        """All reports that were not asked for before, when so many jobs have ended."""
        until(lambda: self.poll() and self._ends() >= ends, "a job does not end")
        found, self._seen = self._seen, []
        return in_order(found)

    def _ends(self) -> int:
        return sum(not isinstance(report, Intermediate) for report in self._seen)
