"""kill -9 at any moment: what is resumed is, to the bit, what was never killed."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from nnas_core.files import read_json_lines
from nnas_core.plugins.registry import entries
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.study.storage.store import StudyStore
from tests.cli.test_search import assert_same_result
from tests.cli_support import Cli, ForkServer

pytestmark = [pytest.mark.kill, pytest.mark.slow]

KILLS = 30
EPOCHS = 14
TABLE = {
    "format": "nnas.latency-table/1",
    "unit": "us",
    "latencies": {"op": {"linear": 20.0, "skip": 10.0, "deep": 40.0}, "act": {"relu": 1.0, "tanh": 2.0}},
}
OPTIONS = {
    "enas": ("--mutator-arg", "mutator_steps=2", "--mutator-arg", "lstm_size=8", "--mutator-arg", "aggregate=2"),
    "fbnet": ("--latency-table", "table.json"),
    "pcdarts": ("--mutator-arg", "k=1"),
}
SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 20, "--batch-size", 16, "--checkpoint-every", 1)


def size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def modified(path: Path) -> int:
    """When a file was last replaced; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def epochs_logged(run: str) -> list[object]:
    """The epochs in the events, and a digest of what each measured; times are left out."""
    return [
        {name: value for name, value in event.items() if name not in ("time", "seconds", "samples_per_second")}
        for event in read_json_lines(f"{run}/events.jsonl")
        if event["event"] == "epoch"
    ]


def learned(run: str) -> str:
    """All that the mutator has learned, to the bit."""
    return str(plain(read_checkpoint(f"{run}/checkpoint.pt")["state"]["mutator"]))


def plain(value: object) -> object:
    """Tensors as lists, whatever they are in."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {name: plain(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("mutator", sorted(entries("mutators")))
def test_a_search_killed_30_times_is_the_search_that_was_never_killed(
    forks: ForkServer, nnas: Cli, small_model: Path, tmp_path: Path, mutator: str
) -> None:
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    search = ("search", "model.py", "--mutator", mutator, "--epochs", EPOCHS, "--batch-size", 12)
    search = (*search, "--checkpoint-every", 1, *OPTIONS.get(mutator, ()))
    nnas.ok(*search, "-o", "whole")
    moment = random.Random()  # other moments in every run
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    command: tuple[object, ...] = (*search, "-o", "run")
    killed, steps = 0, []
    while killed < KILLS:
        before = modified(checkpoint)
        process = forks.start(tmp_path, *command)
        while modified(checkpoint) == before and not process.ended(within_s=0.002):
            pass  # until it has made a step
        time.sleep(moment.uniform(0, 0.015))
        process.signal(signal.SIGKILL)
        result = process.wait()
        assert result.code == -signal.SIGKILL, result  # or the search was too short
        killed += 1
        # whatever it was doing: the path holds a whole checkpoint
        steps.append(read_checkpoint(checkpoint)["header"]["progress"]["step"])
        command = ("search", "--resume", "run")
    assert steps == sorted(steps)
    nnas.ok("search", "--resume", "run")
    assert_same_result("run", "whole")
    assert learned("run") == learned("whole")
    assert epochs_logged("run") == epochs_logged("whole")
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_a_kill_while_a_checkpoint_is_written_leaves_a_whole_one(
    forks: ForkServer, small_model: Path, nnas: Cli, tmp_path: Path
) -> None:
    # the weights take much longer to write than a step takes: most kills hit the writing
    command: tuple[object, ...] = (*SEARCH, "-o", "run", "-a", "width=700")
    folder = tmp_path / "run"
    hits, steps = 0, []
    moment = random.Random()
    for _ in range(8):
        process = forks.start(tmp_path, *command)
        while not process.ended():
            if size(folder / "checkpoint.pt") and any(size(path) for path in folder.glob(".checkpoint.pt.*.tmp")):
                break
        end = time.monotonic() + moment.uniform(0, 0.01)
        while time.monotonic() < end:
            pass
        process.signal(signal.SIGKILL)
        process.wait()
        hits += bool(list(folder.glob(".checkpoint.pt.*.tmp")))
        content = read_checkpoint(folder / "checkpoint.pt")
        steps.append(content["state"]["progress"]["step"])  # 0: before the first one that the kill hit
        exported = nnas("export", "run/checkpoint.pt")
        assert exported.code == (0 if steps[-1] else 3), exported.err
        assert steps[-1] or "has no architecture yet: it is of the beginning of a search\nhint: " in exported.err
        command = ("search", "--resume", "run")
    assert hits >= 2
    assert steps == sorted(steps)


def test_a_study_killed_between_and_in_trials_is_the_study_that_was_never_killed(
    forks: ForkServer, nnas: Cli, small_model: Path, tmp_path: Path
) -> None:
    nnas.ok(*SEARCH[:4], "--epochs", 1, "-o", "run")
    tune = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--trials", 18, "--json")
    tune = (*tune, "--tuner-arg", "num_init=4")
    whole = nnas.ok(*tune, "--study", "study", "--storage", "sqlite:///whole.db").json
    storage = "sqlite:///killed.db"
    moment = random.Random()
    killed = 0
    for attempt in range(5):
        process = forks.start(
            tmp_path, *tune, "--study", "study", "--storage", storage, *(("--resume",) if attempt else ())
        )
        while not process.ended(within_s=0.002) and finished(storage) < 3 * attempt + 1:
            pass
        end = time.monotonic() + moment.uniform(0, 0.01)
        while time.monotonic() < end:
            pass
        process.signal(signal.SIGKILL)
        killed += process.wait().code == -signal.SIGKILL
    assert killed >= 2
    resumed = nnas.ok(*tune, "--study", "study", "--storage", storage, "--resume").json
    assert resumed["best"] == whole["best"]
    with StudyStore.open("sqlite:///whole.db", create=False) as store:
        expected = store.trials(store.study("study"))
    with StudyStore.open(storage, create=False) as store:
        found = store.trials(store.study("study"))
    assert [(t.number, t.architecture, t.value) for t in found] == [
        (t.number, t.architecture, t.value) for t in expected
    ]
    assert {trial.state for trial in found} == {"succeeded"}
    assert len({trial.architecture.canonical for trial in found}) == 18


def finished(storage: str) -> int:
    """How many trials of the study have ended; 0 while there is no study."""
    if not Path(storage.removeprefix("sqlite:///")).exists():
        return 0
    with StudyStore.open(storage, create=False) as store:
        if not store.studies():
            return 0
        return sum(trial.state == "succeeded" for trial in store.trials(store.study("study")))
