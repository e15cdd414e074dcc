"""Each signal, to a process and to its group, of each command, with loader processes and without, at any moment.

Batch systems, service managers and terminals signal whole groups. The command ends with the code of the signal, its
state is saved, it says how to go on, and no process is left.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nnas_core.files import read_json_lines
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import MODEL, Cli, ForkServer, Process, wait_until

pytestmark = [pytest.mark.kill, pytest.mark.slow]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
MOMENTS = 2
LONG = ("--epochs", 10_000, "--batch-size", 16)
RUNS = {
    "search": ("search", "model.py", "--mutator", "random", *LONG),
    "retrain": ("retrain", "model.py", "--architecture", "a.json", *LONG),
}
TUNE = ("tune", "model.py", "--train-epochs", 3, "--batch-size", 16, "--trials", 18, "--tuner", "random")
TABLE = list(itertools.product(CODES, (False, True), (0, 2)))


@pytest.fixture
def folder(tmp_path: Path, small_model: Path) -> Path:
    """With a model and an architecture of it."""
    (tmp_path / "a.json").write_text('{"op": "deep", "act": "tanh", "link": "act"}')
    return tmp_path


def wait_a_moment(moment: random.Random, seconds: float) -> None:
    """Some of the time, at random."""
    time.sleep(moment.uniform(0, seconds))


def last_event(run: Path) -> dict[str, object]:
    """The last line of its events."""
    return read_json_lines(run / "events.jsonl")[-1]


def goes(run: Path) -> bool:
    """Whether the run has begun, or goes on."""
    events = read_json_lines(run / "events.jsonl") if (run / "events.jsonl").exists() else []
    return bool(events) and events[-1]["event"] in ("started", "resumed", "epoch")


@pytest.mark.parametrize("command", RUNS)
def test_a_run_saves_its_state_at_any_moment(forks: ForkServer, folder: Path, command: str) -> None:
    moment = random.Random()  # other moments in every run
    wrong = []
    for number, group, workers in TABLE * MOMENTS:
        run = folder / f"{number.name}-{group}-{workers}"
        again = ("--resume", run.name) if run.exists() else (*RUNS[command][1:], "-o", run.name)
        process = forks.start(folder, command, *again, "--workers", workers)
        wait_until(lambda run=run: goes(run), process)  # type: ignore[misc]
        wait_a_moment(moment, 0.3)
        process.signal(number, group=group)
        result = process.wait()
        step = read_checkpoint(run / "checkpoint.pt")["header"]["progress"]["step"]
        said = (
            f"nnas: error: interrupted; checkpoint at step {step}: {run.name}/checkpoint.pt\n"
            f"hint: nnas {command} --resume {run.name}\n"
        )
        event = last_event(run)
        ended = (event["event"], event.get("signal"), event.get("step")) == ("interrupted", number, step)
        if (result.code, result.out) != (CODES[number], "") or not result.err.endswith(said) or not ended:
            wrong.append((number.name, group, workers, result, event))
        if process.left():
            wrong.append((number.name, group, workers, "processes are left"))
    assert not wrong


def values(name: str) -> list[tuple[str, float | None]]:
    """The finished trials of a study, in order."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        trials = store.trials(store.study(name), state="succeeded")
    return [(trial.architecture.canonical, trial.value) for trial in trials]


def study_of(number: signal.Signals, group: bool, workers: int) -> str:
    """The name of the study of one row."""
    return f"{number.name}-{group}-{workers}"


def test_a_study_keeps_its_trials_and_goes_on(forks: ForkServer, nnas: Cli, folder: Path) -> None:
    moment = random.Random()
    wrong = []
    for number, group, workers in TABLE:
        name = study_of(number, group, workers)
        process = forks.start(folder, *TUNE, "--study", name, "--workers", workers)
        wait_until(lambda process=process: "trial " in process.err, process)  # type: ignore[misc]
        wait_a_moment(moment, 0.2)
        process.signal(number, group=group)
        result = process.wait()
        if result.code != CODES[number] or "--resume" not in result.err.splitlines()[-1] or process.left():
            wrong.append((name, result, process.left()))
    assert not wrong
    nnas.ok(*TUNE, "--study", "whole")
    name = study_of(signal.SIGTERM, True, 2)
    nnas.ok(*TUNE, "--study", name, "--resume")
    assert values(name) == values("whole")


def test_a_study_with_worker_processes_too(forks: ForkServer, nnas: Cli, folder: Path) -> None:
    process = forks.start(folder, *TUNE, "--concurrency", 2, "--workers", 1)
    wait_until(lambda: "trial " in process.err, process, timeout_s=90)
    process.signal(signal.SIGTERM, group=True)
    result = process.wait()
    assert (result.code, process.left()) == (143, [])
    assert result.err.endswith("hint: run the command again with --resume to go on\n")
    assert {trial.state for trial in stored()} <= {"succeeded", "waiting"}


def stored() -> list[object]:
    """All trials of the study."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return list(store.trials(store.study("model-random")))


def loaders(process: Process) -> list[int]:
    """The loader processes of a command."""
    return [pid for pid in process.left() if pid != process.pid]


SLOW = MODEL.replace(
    "def train_dataset():\n    return data(60, 1)",
    """
class Slow(TensorDataset):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


def train_dataset():
    return Slow(*data(60, 1).tensors)
""",
).replace("import torch\n", "import time\n\nimport torch\n", 1)


def test_loader_processes_end_with_a_command_that_is_killed(forks: ForkServer, folder: Path) -> None:
    (folder / "model.py").write_text(SLOW)
    process = forks.start(folder, *RUNS["search"], "-o", "run", "--workers", 2)
    wait_until(lambda: (folder / "run" / "checkpoint.pt").exists() and len(loaders(process)) == 2, process)
    process.signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not process.left(), timeout_s=3)  # torch alone looks every five seconds


def test_a_loader_process_that_dies_of_the_signal_does_not_hide_it(forks: ForkServer, folder: Path) -> None:
    (folder / "model.py").write_text(SLOW)
    process = forks.start(folder, *RUNS["search"], "-o", "run", "--workers", 2, "--checkpoint-every", 1)
    wait_until(lambda: (folder / "run" / "checkpoint.previous.pt").exists() and len(loaders(process)) == 2, process)
    process.signal(signal.SIGSTOP)
    while not (found := loaders(process)):  # it is between two data sets
        process.signal(signal.SIGCONT)
        time.sleep(0.01)
        process.signal(signal.SIGSTOP)
    process.signal(signal.SIGTERM)
    with suppress(ProcessLookupError):  # it was ending
        os.kill(found[0], signal.SIGKILL)
    process.signal(signal.SIGCONT)
    result = process.wait()
    assert result.code == 143
    assert result.err.endswith("hint: nnas search --resume run\n")


def test_the_second_signal_stops_at_once_with_the_code_of_the_first(forks: ForkServer, folder: Path) -> None:
    (folder / "model.py").write_text(SLOW.replace("time.sleep(0.05)", "open('here', 'w').close(); time.sleep(30)"))
    process = forks.start(folder, *RUNS["search"], "-o", "run")  # it waits for its first batch, before the run begins
    wait_until((folder / "here").exists, process)
    # two, and of two kinds: of one kind, both could count as one; the lower number is handled first, if both wait
    process.signal(signal.SIGINT)
    process.signal(signal.SIGTERM)
    result = process.wait()
    assert (result.code, result.out, result.err) == (130, "", "nnas: error: stopped at once\n")


def test_a_signal_while_a_command_begins_has_the_same_code(forks: ForkServer, folder: Path) -> None:
    moment = random.Random()
    wrong = []
    for number, group, _ in TABLE:
        process = forks.start(folder, *RUNS["search"], "-o", "run")
        wait_a_moment(moment, 0.15)
        process.signal(number, group=group)
        result = process.wait()
        # until the fork server's child has come to the command, the signal has its usual effect
        if result.code != CODES[number] and not (result.code == -number and not (folder / "run").exists()):
            wrong.append((number.name, result))
        shutil.rmtree(folder / "run", ignore_errors=True)
    assert not wrong
