"""What tests of supervised processes share: which of them live, and jobs for engines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nnas_core.execution.engine import Engine, Intermediate, Job, Report
from tests.study.known_studies import SPACE
from tests.study.program_fork_server import until

__all__ = ["ends", "job", "lives", "pid_in", "program", "until_gone"]


def lives(pid: int) -> bool:
    """Whether there is such a process; a zombie does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_gone(*pids: int) -> None:
    """Wait for the end of all of them."""
    until(lambda: not any(lives(pid) for pid in pids), "something is left")


def pid_in(path: Path) -> int:
    """The number of a process that writes it to a file; waits for that."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} is not written")
    return int(path.read_text())


def program(folder: Path, text: str) -> str:
    """A Python program in a file.

    In it ``say(NAME)`` writes the process's number to ``FOLDER/NAME``, and ``wait_for(NAME)`` waits for such a file.
    """
    path = folder / f"program{len(os.listdir(folder))}.py"
    path.write_text(
        "import json, os, signal, subprocess, sys, time\n"
        "def say(name):\n"
        f"    with open(os.path.join({str(folder)!r}, name), 'w') as stream:\n"
        "        stream.write(f'{os.getpid()}\\n')\n"
        "def wait_for(name):\n"
        f"    while not os.path.exists(os.path.join({str(folder)!r}, name)): time.sleep(0.005)\n" + text
    )
    return str(path)


def job(number: int, attempt: int = 1, timeout_s: float | None = None, at: int | None = None) -> Job:
    """A job of architecture ``at`` of ``SPACE``, that of its number if None."""
    return Job(number, attempt, SPACE.at(number if at is None else at), timeout_s)


def ends(engine: Engine, count: int, each: Callable[[Report], None] = lambda report: None) -> list[Report]:
    """The first ``count`` ends of jobs, in the order in which they come; ``each`` hears of every report."""
    found: list[Report] = []

    def look() -> bool:
        for report in engine.poll(0.1):
            each(report)
            if not isinstance(report, Intermediate):
                found.append(report)
        return len(found) >= count

    until(look, "a job does not end")
    assert len(found) == count
    return found
