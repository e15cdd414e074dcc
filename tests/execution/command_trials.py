"""Trials of a Python text, for tests of ``CommandEngine``: what it finds, and how its end is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Failed, Finished, Report
from tests.execution.process_checks import program

Make = Callable[..., CommandEngine]

ENVIRONMENT = "env = {name[5:].lower(): value for name, value in os.environ.items() if name.startswith('NNAS_')}\n"

RESULT = "def result(value, **more): json.dump({'value': value, **more}, open(os.environ['NNAS_RESULT'], 'w'))\n"

WAIT = "while True: signal.pause()"


def engines(folder: Path) -> Iterator[Make]:
    """An engine whose trials run a Python text; their files are in ``trials`` of the folder."""
    made: list[CommandEngine] = []

    def engine(text: str, **settings: Any) -> CommandEngine:
        command = [sys.executable, "-I", "-S", program(folder, ENVIRONMENT + RESULT + text)]
        settings = {"folder": folder / "trials", "grace_s": 0.2, **settings}
        made.append(CommandEngine(command, LocalSettings(**settings)))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def failed(report: Report) -> tuple[int, int, str, bool]:
    """A failure, without its time."""
    assert isinstance(report, Failed)
    assert report.seconds >= 0
    return report.number, report.attempt, report.message, report.lost


def values(reports: list[Report]) -> dict[int, float]:
    """The values by trial."""
    return {report.number: report.result.value for report in reports if isinstance(report, Finished)}
