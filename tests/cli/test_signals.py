"""Ctrl-C and its relatives, and two processes at one thing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.study.storage.store import StudyStore
from tests.cli.test_search import assert_same_result, events
from tests.cli.trial_programs import COMMAND, stored, write_files
from tests.cli_support import MODEL, Cli, ForkServer, Process, wait_until

# The model says where it is, and waits in training batch 3 until it is let go on.
WAITING = (
    MODEL
    + """

import time
from pathlib import Path

calls = []


def loss(output, target):
    calls.append(1)
    if len(calls) == 3 and not Path("go").exists():
        Path("here").touch()
        while not Path("go").exists():
            time.sleep(0.001)
    return nn.functional.cross_entropy(output, target)
"""
)

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16, "-o", "run")
TUNE = ("tune", "model.py", "--train-epochs", 1, "--batch-size", 16, "--trials", 4, "--tuner", "random")


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """``model.py`` that waits."""
    (tmp_path / "model.py").write_text(WAITING)
    return tmp_path


def at_the_third_batch(forks: ForkServer, folder: Path, *command: object) -> Process:
    """The command, started, waiting in its third batch."""
    process = forks.start(folder, *command)
    wait_until((folder / "here").exists, process)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_search_saves_and_says_how_to_resume(
    forks: ForkServer, nnas: Cli, waiting: Path, number: signal.Signals, code: int
) -> None:
    process = at_the_third_batch(forks, waiting, *SEARCH)
    process.signal(number)
    Path("go").touch()
    result = process.wait()
    assert (result.code, result.out) == (code, "")
    assert result.err == (
        "nnas: error: interrupted; checkpoint at step 3: run/checkpoint.pt\nhint: nnas search --resume run\n"
    )
    assert read_checkpoint("run/checkpoint.pt")["header"]["progress"]["step"] == 3
    nnas.ok("search", "--resume", "run")
    nnas.ok(*SEARCH[:-1], "whole")
    assert_same_result("run", "whole")


THINKING = """
import signal
from pathlib import Path
from nnas_core.tuners.random import RandomTuner

class Thinking(RandomTuner):
    def generate_parameters(self, parameter_id, **kwargs):
        if parameter_id == 1 and not Path("mended").exists():
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it was not interrupted")
        return super().generate_parameters(parameter_id, **kwargs)
"""


def test_a_tuner_that_thinks_for_long_is_interrupted_and_nothing_is_lost(nnas: Cli, tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "mine.py").write_text(THINKING)
    command = ("tune", "space.json", "--trial-command", COMMAND, "--trials", 3, "--study", "s")
    result = nnas(*command, "--tuner", "mine.py:Thinking")
    assert (result.code, result.out) == (143, "")
    assert result.err == (
        "trial 0: 21 (" + result.err.partition("(")[2].partition(")")[0] + ")\n"
        "nnas: error: study 's' was interrupted; its 1 finished trials are stored\n"
        "hint: run the command again with --resume to go on\n"
    )
    assert [trial.state for trial in stored("s")] == ["succeeded"]
    Path("mended").touch()
    nnas.ok(*command, "--tuner", "mine.py:Thinking", "--resume")
    assert [trial.state for trial in stored("s")] == ["succeeded"] * 3


REPLAYED = THINKING.replace("parameter_id == 1 and", "Path('interrupt').exists() and")


def test_a_study_that_is_interrupted_while_its_calls_are_repeated_is_as_it_was(nnas: Cli, tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "mine.py").write_text(REPLAYED)
    command = ("tune", "space.json", "--trial-command", COMMAND, "--study", "s", "--tuner", "mine.py:Thinking")
    nnas.ok(*command, "--trials", 2)
    before = stored("s")
    Path("interrupt").touch()
    result = nnas(*command, "--trials", 3, "--resume")
    assert (result.code, result.out) == (143, "")
    assert "nnas: error: study 's' was interrupted; " in result.err
    assert stored("s") == before


def test_json_of_an_interruption_is_an_error_object(forks: ForkServer, waiting: Path) -> None:
    process = at_the_third_batch(forks, waiting, *SEARCH, "--json")
    process.signal(signal.SIGINT)
    (waiting / "go").touch()
    result = process.wait()
    assert (result.code, result.out) == (130, "")
    assert (result.error["code"], result.error["kind"]) == (130, "interrupted")
    assert result.error["hint"] == "nnas search --resume run"


def test_the_second_ctrl_c_stops_at_once_and_the_old_checkpoint_loads(
    forks: ForkServer, nnas: Cli, waiting: Path
) -> None:
    process = at_the_third_batch(forks, waiting, *SEARCH, "--checkpoint-every", 1)
    process.signal(signal.SIGINT)
    wait_until(lambda: not pending(process.pid, signal.SIGINT), process)
    process.signal(signal.SIGINT)  # the batch never ends
    result = process.wait()
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "nnas: error: stopped at once; the last checkpoint is run/checkpoint.pt\nhint: nnas search --resume run\n"
    )
    assert read_checkpoint("run/checkpoint.pt")["header"]["progress"]["step"] == 2
    Path("go").touch()
    nnas.ok("search", "--resume", "run")
    nnas.ok(*SEARCH[:-1], "whole")
    assert_same_result("run", "whole")


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal was sent that the process has not taken yet."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("SigPnd:", "ShdPnd:")) and int(line.split()[1], 16) >> (number - 1) & 1:
            return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_tune_keeps_the_finished_trials_and_goes_on(
    forks: ForkServer, nnas: Cli, waiting: Path, number: signal.Signals, code: int
) -> None:
    process = at_the_third_batch(forks, waiting, *TUNE)  # 3 training batches a trial: this is the end of the first
    process.signal(number)
    Path("go").touch()
    result = process.wait()
    assert (result.code, result.out) == (code, "")
    assert result.err.splitlines()[-2:] == [
        "nnas: error: interrupted; all finished trials are stored",
        "hint: go on with --resume",
    ]
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        assert [trial.state for trial in store.trials(store.study("model-random"))] == ["waiting"]
    nnas.ok(*TUNE, "--resume")
    nnas.ok(*TUNE, "--study", "whole")
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        resumed, whole = (store.trials(store.study(name)) for name in ("model-random", "whole"))
    assert [(t.architecture, t.value) for t in resumed] == [(t.architecture, t.value) for t in whole]


def test_export_is_interrupted_without_a_trace(forks: ForkServer, nnas: Cli, small_model: Path, tmp_path: Path) -> None:
    nnas.ok(*SEARCH)
    Path("a.json").write_text("precious")
    os.mkfifo("architecture")  # export waits for what nobody writes
    process = forks.start(tmp_path, "export", "run/checkpoint.pt", "--architecture", "architecture", "-o", "a.json")
    pipe: list[int] = []
    wait_until(lambda: opened("architecture", pipe), process)
    wait_until(lambda: sleeps(process.pid), process)
    process.signal(signal.SIGINT)
    os.close(pipe[0])  # a signal that came just before the read does not interrupt it; the end of the pipe does
    result = process.wait()
    assert (result.code, result.out, result.err) == (130, "", "nnas: error: interrupted\n")
    assert Path("a.json").read_text() == "precious"
    assert not list(tmp_path.glob(".a.json*"))


def opened(name: str, pipe: list[int]) -> bool:
    """Whether somebody reads the named pipe; then it is open for writing in ``pipe``."""
    with contextlib.suppress(OSError):
        pipe.append(os.open(name, os.O_WRONLY | os.O_NONBLOCK))
    return bool(pipe)


def sleeps(pid: int) -> bool:
    """Whether a process waits in a system call, ten times in a row: a signal that comes just before one is not seen."""
    for _ in range(10):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            return False
        time.sleep(0.002)
    return True


# ---- two at once


def test_two_searches_in_one_folder(forks: ForkServer, nnas: Cli, waiting: Path) -> None:
    first = at_the_third_batch(forks, waiting, *SEARCH)
    for command in (SEARCH, (*SEARCH, "--force"), ("search", "--resume", "run")):
        result = nnas(*command)
        assert (result.code, result.out) == (6, "")
        assert result.err.startswith(f"nnas: error: run: in use by process {first.pid} since 2")
        assert result.err.endswith("\nhint: wait for it, or choose another -o\n")
    Path("go").touch()
    assert first.wait().code == 0
    assert [event["event"] for event in events("run")] == ["started", "epoch", "epoch", "derived", "finished"]


def test_two_tunes_of_one_study(forks: ForkServer, nnas: Cli, waiting: Path) -> None:
    first = at_the_third_batch(forks, waiting, *TUNE)
    result = nnas(*TUNE, "--resume")
    assert (result.code, result.out) == (6, "")
    assert f"study 'model-random' is in use by process {first.pid} on " in result.err
    assert "Traceback" not in result.err
    Path("go").touch()
    assert first.wait().code == 0
    assert nnas(*TUNE, "--study", "other", "--json").json["finished"] == 4


def test_the_lock_of_a_dead_process_holds_nobody_up(forks: ForkServer, nnas: Cli, waiting: Path) -> None:
    first = at_the_third_batch(forks, waiting, *SEARCH)
    first.signal(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    Path("go").touch()
    nnas.ok("search", "--resume", "run")


RUNNING = (
    MODEL
    + """

from pathlib import Path

calls, forward = [], Net.forward


def counted(self, x):
    calls.append(1)
    if len(calls) == 200:
        Path("here").touch()
    return forward(self, x)


Net.forward = counted
"""
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_profile_ends_in_a_line_and_leaves_no_file(
    forks: ForkServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "model.py").write_text(RUNNING)
    process = forks.start(
        tmp_path, "profile", "model.py", "--seconds", 600, "--latency-table", "t.json", "-o", "r.json"
    )
    wait_until((tmp_path / "here").exists, process)
    process.signal(number)
    result = process.wait()
    assert (result.code, result.out) == (code, "")
    assert result.err == "nnas: error: interrupted\n"
    left = {file.name for file in tmp_path.iterdir() if not file.name.startswith((".out", ".err"))}
    assert left - {"__pycache__"} == {"here", "model.py"}  # the model was loaded
