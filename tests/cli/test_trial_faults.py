"""Everything that the program of a trial can do wrong costs that trial, is said in one line, and stays in the store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nnas_core.study.storage.records import TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, Result

PROGRAM = """
import json, os, signal, subprocess, sys, time

attempt = int(os.environ["NNAS_ATTEMPT"])


def result(text):
    with open(os.environ["NNAS_RESULT"], "w") as stream:
        stream.write(text)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def twice():
    result('{"value": 1}')
    again = "from nnas_core.trial import report_final; report_final(2)"
    sys.exit(subprocess.call([sys.executable, "-c", again]))


def hang():
    for start in (os.setpgrp, os.setsid, lambda: None):  # children in all places
        if os.fork() == 0:
            start()
            break
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def loud():
    piece = memoryview(b"\\xff\\0" * 500_000)  # no text, and no line
    for _ in range(1000):
        rest = piece
        while rest:
            rest = rest[os.write(1, rest) :]
    with open(f"/proc/{os.getppid()}/status") as stream:  # of who reads it
        peak = next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:"))
    result(json.dumps({"value": 1, "metrics": {"peak_kib": peak}}))


FAULTS = {
    "fine": lambda: result('{"value": 2}'),
    "nan": lambda: result('{"value": NaN}'),
    "infinite": lambda: result('{"value": Infinity}'),
    "null": lambda: result('{"value": null}'),
    "text": lambda: result('{"value": "good"}'),
    "list": lambda: result('{"value": [1, 2]}'),
    "nothing": lambda: result("{}"),
    "twice": twice,
    "half a result": lambda: result('{"value": 0.9'),
    "of another trial": lambda: result('{"trial": 1000, "value": 1}'),
    "no result": lambda: None,
    "status": lambda: sys.exit("boom"),
    "killed in a pipe": lambda: subprocess.call(["sh", "-c", "sh -c 'kill -9 $$' | cat"]),
    "killed each time": kill,
    "killed once": lambda: result('{"value": 1}') if attempt > 1 else kill(),
    "crashed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": hang,
    "loud": loud,
    "steering": lambda: result(json.dumps({"error": chr(27) + "[31mred" + chr(10) + "nnas: error: forged"})),
}
if __name__ == "__main__":
    with open(os.environ["NNAS_PARAMETERS"]) as stream:
        name = json.load(stream)["fault"]["_value"]
    FAULTS.get(name, FAULTS["fine"])()
"""

SILENT = "no result (exit 0): the program wrote no file NNAS_RESULT and did not call report_final; its log is trials/"

ENDS = {
    "fine": None,
    "nan": "metric is not a finite number: nan",
    "infinite": "metric is not a finite number: inf",
    "null": "metric is not a finite number: None",
    "text": "metric is not a finite number: 'good'",
    "list": "metric is not a finite number: [1, 2]",
    "nothing": 'the result has no "value"',
    "twice": "the final result was reported twice",
    "half a result": "the result is not JSON",
    "of another trial": "the result is that of trial 1000",
    "no result": SILENT,
    "status": "no result (exit 1): boom",
    "killed in a pipe": SILENT,
    "killed each time": "killed by signal 9 (out of memory?) 3 times",
    "killed once": None,
    "crashed": "killed by signal 11 (SIGSEGV) 3 times",
}


def tune(nnas: Cli, candidates: Sequence[str], *options: object) -> Result:
    """A study over programs that do those things, each once."""
    space = {"fault": {"_type": "layer_choice", "_value": list(candidates)}}
    Path("space.json").write_text(json.dumps(space))
    Path("program.py").write_text(PROGRAM)
    command = f"'{sys.executable}' program.py"
    given = (
        "tune",
        "space.json",
        "--trial-command",
        command,
        "--tuner",
        "random",
        "--study",
        "study",
        "--trial-log-dir",
        "trials",
    )
    return nnas(*given, "--trials", len(candidates), *options)


def stored() -> dict[Any, TrialRecord]:
    """The trials, by what they did."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return {trial.architecture.names()["fault"]: trial for trial in store.trials(store.study("study"))}


@pytest.mark.kill
@pytest.mark.slow
def test_a_fault_costs_its_trial_and_is_said_in_one_line(nnas: Cli) -> None:
    result = tune(nnas, list(ENDS), "--concurrency", 4)
    assert result.code == 0
    assert "Traceback" not in result.err
    found = stored()
    ends = {
        name: f"{SILENT}{found[name].number}-1/log.txt" if error is SILENT else error for name, error in ENDS.items()
    }
    assert {name: trial.error for name, trial in found.items()} == ends
    assert {trial.state for trial in found.values()} == {"succeeded", "failed"}
    said = result.err.splitlines()
    for name, error in ends.items():
        number = found[name].number
        line = f"trial {number}: failed: {error} (" if error else f"trial {number}: {found[name].value:g} ("
        assert sum(one.startswith(line) for one in said) == 1, line
    assert {name: trial.attempt for name, trial in found.items() if trial.attempt > 1} == {
        "killed each time": 3,
        "killed once": 2,
        "crashed": 3,
    }
    number = found["killed once"].number
    assert f"trial {number}: killed by signal 9 (out of memory?); attempt 2 begins" in said
    assert json.loads(result.out) == {"fault": [name == "fine" for name in ENDS]}  # what is not finite is never best


@pytest.mark.kill
def test_a_study_of_which_every_trial_is_killed_ends_without_a_result(nnas: Cli) -> None:
    result = tune(nnas, ["killed each time"])
    assert (result.code, result.out) == (5, "")
    assert result.err.endswith(
        "nnas: error: all 1 finished trials of study 'study' failed\n"
        "  trial 0: killed by signal 9 (out of memory?) 3 times\n"
    )
    assert stored()["killed each time"].attempt == 3


@pytest.mark.kill
@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_with_all_that_it_started(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TRIAL_MARK", str(os.getpid()))
    result = tune(nnas, ["hang", "fine"], "--concurrency", 2, "--trial-timeout", "3s")
    assert result.code == 0
    assert {name: trial.error for name, trial in stored().items()} == {"hang": "timed out after 3 s", "fine": None}
    assert f"trial {stored()['hang'].number}: failed: timed out after 3 s (" in result.err
    mine = f"TEST_TRIAL_MARK={os.getpid()}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if mine in content(path).split(b"\0")]


@pytest.mark.slow
def test_a_trial_that_prints_a_gigabyte_fills_neither_memory_nor_disk_nor_the_pipe(nnas: Cli) -> None:
    result = tune(nnas, ["loud"])
    assert result.code == 0
    assert stored()["loud"].metrics["peak_kib"] < 100 * 1024
    log = Path("trials/0-1/log.txt").read_bytes()
    assert log.startswith(b"\xff\0" * 1000)
    assert log.endswith(b"\xff\0" * 1000)
    assert b"\n[nnas left out 98" in log
    assert len(log) < 10 * 2**20 + 10_000


def test_names_of_candidates_are_data_wherever_they_go(nnas: Cli, tmp_path: Path) -> None:
    names = ["../../x", "/etc/x", "$(touch owned)", "`touch owned`", "'; touch owned; '", '"', "a\nb", "-o"]
    before = sorted(tmp_path.parent.iterdir())
    result = tune(nnas, names, "--concurrency", 3, "--top", 20)
    assert result.code == 0
    assert sorted(stored()) == sorted(names)
    assert {trial.value for trial in stored().values()} == {2}
    assert sorted(tmp_path.parent.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nnas.db", "program.py", "space.json", "trials"]
    folders = sorted(path.name for path in Path("trials").iterdir())
    assert folders == [f"{number}-1" for number in range(len(names))]


@pytest.mark.parametrize("answer", [("study", "trials"), ("study", "show"), ("study", "top")])
def test_names_and_errors_of_trials_cannot_steer_the_terminal(nnas: Cli, answer: tuple[str, ...]) -> None:
    result = tune(nnas, ["\x1b[2J\nnnas: error: forged", "steering"])
    assert result.code == 0
    assert stored()["steering"].error == "\x1b[31mred\nnnas: error: forged"
    shown = nnas.ok(*answer)
    for text in (result.err, shown.out):
        assert "\x1b" not in text
        assert "\nnnas: error" not in text
        assert "\\x1b[2J\\nnnas: error:" in text  # a table may go on in another line
    assert f"trial {stored()['steering'].number}: failed: \\x1b[31mred" in result.err


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", "$(id)", "'x'", "-x"])
def test_a_name_of_a_study_that_could_be_something_else_is_refused(nnas: Cli, name: str) -> None:
    result = tune(nnas, ["fine"], f"--study={name}")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"nnas: error: bad study name {name!r}\n"
        "hint: use letters, digits, '.', '_' and '-', a letter or digit first, at most 100\n"
    )
    assert not Path("trials").exists()


def content(path: Path) -> bytes:
    """What is in a file of a process; nothing if it has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
