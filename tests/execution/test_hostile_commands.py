"""Commands that stop or kill those who watch them, and hide: nothing of them is left, and no limit is passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core.execution import process as process_module
from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Failed
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.process import End, Supervised
from tests.execution.process_checks import ends, job, lives, pid_in, program, until_gone
from tests.execution.test_supervised import COORDINATOR, PYTHON
from tests.study.conftest import ROOT
from tests.study.known_studies import SPACE

pytestmark = [pytest.mark.kill, pytest.mark.usefixtures("ungrouped")]

HIDE = """
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
supervisor = os.getppid()
watcher = parent(supervisor)
for name in ("orphan", "other session"):
    if os.fork() == 0:
        if name == "orphan" and os.fork() != 0: os._exit(0)
        os.setsid()
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        say(name)
        while True: signal.pause()
for name in ("orphan", "other session"): wait_for(name)
say("command")
"""

NAMES = ("orphan", "other session", "command")

WAIT = "\nwhile True: signal.pause()"


@pytest.fixture
def ungrouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control group can be made, which would end all that gets past those who watch."""
    monkeypatch.setattr(process_module, "new_group", lambda name: None)


def start(folder: Path, text: str) -> Supervised:
    command = [*PYTHON, program(folder, HIDE + text)]
    return Supervised(command, log=folder / "log", log_bytes=1000, env=os.environ, grace_s=0.2)


@pytest.mark.parametrize(
    "attack",
    [
        "os.kill(supervisor, 9)" + WAIT,
        "os.kill(watcher, 9); os.kill(supervisor, 9)" + WAIT,
        "os.kill(watcher, 19); os.kill(supervisor, 9)" + WAIT,
        "os.killpg(os.getpgid(supervisor), 9)" + WAIT,
    ],
)
def test_one_that_kills_its_supervisor_ends_with_all_that_it_started(
    tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_LATE_S", 0.1)
    process = start(tmp_path, attack)
    pids = [pid_in(tmp_path / name) for name in NAMES]
    process.stop()
    process.wait(60)
    assert process.end == End(signal=9)
    until_gone(*pids)


def test_one_that_stops_its_supervisor_is_waited_for_as_any(tmp_path: Path) -> None:
    process = start(tmp_path, "for _ in range(20): os.kill(supervisor, 19)\nsys.exit(5)")
    process.wait(60)
    assert process.end == End(exit=5)
    until_gone(*(pid_in(tmp_path / name) for name in NAMES))


def test_one_that_ends_well_with_its_watcher_stopped_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    process = start(tmp_path, "os.kill(watcher, 19)\nsys.exit(5)")
    process.wait(60)
    assert process.end == End(exit=5)
    until_gone(*(pid_in(tmp_path / name) for name in NAMES))


@pytest.mark.parametrize("attack", ["os.kill(supervisor, 19)", "os.killpg(os.getpgid(supervisor), 19)"])
def test_one_that_stops_its_watchers_ends_when_it_is_asked_to(
    tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_LATE_S", 0.1)
    process = start(tmp_path, attack + "\nsay('done')" + WAIT)
    pids = [pid_in(tmp_path / name) for name in (*NAMES, "done")]
    process.stop()
    process.wait(60)
    assert process.end in (End(signal=9), End(signal=15))
    assert not any(lives(pid) for pid in pids)


@pytest.mark.parametrize("attack", ["os.kill(supervisor, 19)", "os.kill(supervisor, 9)", "os.kill(watcher, 9)"])
def test_one_that_attacks_its_supervisor_ends_with_the_coordinator(tmp_path: Path, attack: str) -> None:
    text = program(tmp_path, HIDE + attack + "\nsay('done')" + WAIT)
    coordinator = subprocess.Popen([sys.executable, "-c", COORDINATOR, text, str(tmp_path / "log")], cwd=ROOT)
    pids = [pid_in(tmp_path / name) for name in NAMES]
    coordinator.kill()
    coordinator.wait()
    until_gone(*pids)


def test_a_trial_that_stops_all_above_it_does_not_outlive_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_LATE_S", 0.1)
    text = HIDE + "while True: os.killpg(os.getpgid(supervisor), 19)"
    settings = LocalSettings(tmp_path / "trials", grace_s=0.1)
    engine = CommandEngine([*PYTHON, program(tmp_path, text)], settings)
    engine.submit(job(0, timeout_s=1.0))
    (report,) = ends(engine, 1)
    engine.close()
    assert isinstance(report, Failed)
    assert (report.message, report.lost) == ("timed out after 1 s", False)
    assert not any(lives(pid_in(tmp_path / name)) for name in NAMES)


def test_a_worker_that_stops_all_above_it_does_not_outlive_the_limit_of_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_LATE_S", 0.1)
    settings = LocalSettings(tmp_path / "trials", grace_s=0.1)
    setting = {"folder": str(tmp_path), "do": {SPACE.at(0).canonical: "stops_all"}}
    pool = WorkerPool("tests.execution.pool_worker", setting, settings)
    pool.submit(job(0, timeout_s=0.5))
    (report,) = ends(pool, 1)
    pool.close()
    assert isinstance(report, Failed)
    assert report.message == "timed out after 0.5 s"
    assert not lives(pid_in(tmp_path / "stops_all"))
