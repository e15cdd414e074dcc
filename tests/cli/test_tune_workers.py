"""``nnas tune`` with trials in processes of their own: the same values, and nothing that outlives the command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from nnas_core.study.storage.records import TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import MODEL, Cli, ForkServer, Process, wait_until

INHERITED = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--tuner", "grid")
SCRATCH = ("tune", "model.py", "--train-epochs", 2, "--tuner", "grid")

BAD = """


class Bad(nn.Module):
    def forward(self, x):
        import os, signal
        if not os.path.exists("was-here"):
            open("was-here", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
"""


def stored(study: str = "model-grid") -> list[TrialRecord]:
    """What the store has."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return store.trials(store.study(study))


def results(study: str) -> dict[str, tuple[float | None, dict[str, float], dict[str, float]]]:
    """Value, metrics and costs but time by architecture, whatever the order of the trials."""
    found = {}
    for trial in stored(study):
        cost = {name: value for name, value in trial.cost.items() if name != "seconds"}
        assert set(cost) == {"parameters", "macs"}
        found[trial.architecture.canonical] = (trial.value, dict(trial.metrics), cost)
    return found


@pytest.mark.slow
def test_two_workers_give_the_values_of_one_process(nnas: Cli, small_run: Path) -> None:
    nnas.ok(*INHERITED, "--trials", 5, "--study", "one")
    assert not Path("runs").exists()
    nnas.ok(*INHERITED, "--trials", 5, "--study", "two", "--concurrency", 2)
    assert results("two") == results("one")
    assert sorted(path.name for path in Path("runs/studies/two/trials").iterdir()) == ["worker-0.log", "worker-1.log"]


ORDER = """
from nnas_core import SearchSpace, Tuner


class Order(Tuner):
    def update_search_space(self, search_space):
        self.space = SearchSpace.from_json(search_space)

    def generate_parameters(self, parameter_id, **kwargs):
        operator = ["linear", "skip"][parameter_id]
        return self.space.parse({"op": operator, "act": "relu", "link": ["op"]}).parameters()

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        pass
"""

ASSESSOR = """
from nnas_core.assessors.base import Assessor


class NeverTwo(Assessor):
    def assess_trial(self, trial_number, history):
        return len(history) < 2
"""


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_begins_again_and_one_that_hangs_fails(nnas: Cli, small_model: Path) -> None:
    # the candidate "skip" ends its process at first, and hangs then
    before, after = MODEL.replace("skip=nn.Identity()", "skip=Bad()").split("\n\nclass Net", 1)
    small_model.write_text(before + BAD + "\n\nclass Net" + after)
    Path("mine.py").write_text(ORDER)
    result = nnas(*SCRATCH[:4], "--tuner", "mine.py:Order", "--trials", 2, "--trial-timeout", "12s")
    assert result.code == 0
    assert "trial 1: killed by signal 9 (out of memory?); attempt 2 begins\n" in result.err
    first, second = stored("model-mine")
    assert (first.state, first.attempt) == ("succeeded", 1)
    assert (second.state, second.attempt, second.error) == ("failed", 2, "timed out after 12 s")


@pytest.mark.slow
def test_an_assessor_ends_training_early(nnas: Cli, small_model: Path) -> None:
    Path("mine.py").write_text(ASSESSOR)
    command = ("tune", "model.py", "--train-epochs", 200, "--tuner", "grid", "--assessor", "mine.py:NeverTwo")
    result = nnas(*command, "--trials", 2)
    assert result.code == 5
    assert result.err.endswith(
        "nnas: error: no trial of study 'model-grid' succeeded: 2 were stopped early, 0 failed\n"
    )
    assert [trial.state for trial in stored()] == ["stopped", "stopped"]


def test_a_gpu_that_is_not_there_is_told_and_not_replaced(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    result = nnas(*SCRATCH, "--gpus", "2", "--trials", 1)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: --gpus 2 is not there: CUDA_VISIBLE_DEVICES=3,5 shows 2, 0 to 1\nhint: count from 0\n"
    )


@pytest.mark.slow
def test_a_broken_model_is_told_as_without_workers(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL.replace("self.stem(x)", "self.stam(x)"))
    here = nnas(*SCRATCH, "--trials", 3)
    there = nnas(*SCRATCH, "--trials", 3, "--attempts", 2, "--study", "other")
    assert (there.code, there.out) == (4, "")
    assert there.err == here.err
    assert there.err.endswith("model.py:25: AttributeError: 'Net' object has no attribute 'stam'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--assessor", "medianstop"), "--assessor does nothing with --checkpoint\nhint: leave it out\n"),
        (("--optimize-mode", "minimize"), "--optimize-mode does nothing with --checkpoint\nhint: leave it out\n"),
        (("--gpus", "0", "--device", "cpu"), "--gpus does nothing with --device cpu\nhint: leave one of them out\n"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    nnas: Cli, small_model: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = nnas(*INHERITED, *arguments)
    assert (result.code, result.out, result.err) == (2, "", f"nnas: error: {message}")


# ---- ends that nobody plans

TRIAL = """
import json, os, time
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
trial = int(os.environ["NNAS_TRIAL"])
if trial >= 2 and not os.path.exists("go"):
    child = os.fork()  # what leaves its session must end as well
    if not child:
        os.setsid()
    open(f"pid-{os.getpid()}", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    if not child:
        os._exit(0)
json.dump(sum(one["_idx"] for one in parameters.values()), open(os.environ["NNAS_RESULT"], "w"))
"""

SPACE = """{"a": {"_type": "layer_choice", "_value": ["x", "y", "z"]},
            "b": {"_type": "layer_choice", "_value": ["x", "y", "z"]}}"""

COMMAND = ("tune", "space.json", "--trial-command", f"{sys.executable} -I -S trial.py", "--trials", 6)

# Waits in its second trial, in whatever process that is.
WAITING = (
    MODEL
    + """

import os
import time
from pathlib import Path

calls = []


def loss(output, target):
    calls.append(1)
    if len(calls) == 3 and not Path("go").exists():
        Path(f"pid-{os.getpid()}").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    return nn.functional.cross_entropy(output, target)
"""
)


def waiting_command(forks: ForkServer, folder: Path) -> tuple[Process, set[int]]:
    """A study whose third trial waits, and the processes of that trial."""
    (folder / "space.json").write_text(SPACE)
    (folder / "trial.py").write_text(TRIAL)
    process = forks.start(folder, *COMMAND)
    wait_until(lambda: len(pids(folder)) == 2, process)
    return process, pids(folder)


def pids(folder: Path) -> set[int]:
    """Processes that have said that they wait."""
    return {int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")}


def gone(processes: set[int]) -> bool:
    """Whether none of them lives; a zombie does not."""
    for pid in processes:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                return False
        except (FileNotFoundError, ProcessLookupError):
            continue
    return True


@pytest.mark.kill
def test_no_trial_outlives_a_killed_command_and_the_study_is_the_one_that_was_never_killed(
    forks: ForkServer, nnas: Cli, tmp_path: Path
) -> None:
    process, waiting = waiting_command(forks, tmp_path)
    process.signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    wait_until(lambda: gone(waiting))
    Path("go").touch()
    resumed = nnas.ok(*COMMAND, "--resume")
    assert resumed.err.startswith("study 'space-bayes': 2 finished trials, 1 recovered\n")
    nnas.ok(*COMMAND, "--study", "whole")
    assert [(t.architecture, t.value) for t in stored("space-bayes")] == [
        (t.architecture, t.value) for t in stored("whole")
    ]
    assert [trial.attempt for trial in stored("space-bayes")] == [1, 1, 2, 1, 1, 1]


@pytest.mark.kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_trials_and_says_how_to_go_on(
    forks: ForkServer, nnas: Cli, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, waiting = waiting_command(forks, tmp_path)
    process.signal(number)
    result = process.wait()
    assert gone(waiting)
    assert (result.code, result.out) == (code, "")
    assert result.err.splitlines()[-2:] == [
        "nnas: error: study 'space-bayes' was interrupted; its 2 finished trials are stored",
        "hint: run the command again with --resume to go on",
    ]
    assert [trial.state for trial in stored("space-bayes")] == ["succeeded", "succeeded", "waiting"]


@pytest.mark.kill
@pytest.mark.slow
def test_no_worker_outlives_a_killed_command_and_the_study_goes_on(
    forks: ForkServer, nnas: Cli, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(WAITING)
    command = (*SCRATCH, "--batch-size", 16, "--trials", 3)
    process = forks.start(tmp_path, *command, "--concurrency", 2)
    wait_until(lambda: len(pids(tmp_path)) == 2, process)
    workers = pids(tmp_path)
    assert process.pid not in workers
    process.signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    wait_until(lambda: gone(workers))
    Path("go").touch()
    assert nnas.ok(*command, "--resume").err.startswith("study 'model-grid': 0 finished trials, 2 recovered\n")
    nnas.ok(*command, "--study", "whole")
    assert results("model-grid") == results("whole")


@pytest.mark.kill
@pytest.mark.slow
def test_ctrl_c_ends_the_workers(forks: ForkServer, nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(WAITING)
    process = forks.start(tmp_path, *SCRATCH, "--batch-size", 16, "--trial-log-dir", "logs")
    wait_until(lambda: len(pids(tmp_path)) == 1, process)
    process.signal(signal.SIGINT)
    assert process.wait().code == 130
    assert gone(pids(tmp_path))
    assert [trial.state for trial in stored()] == ["waiting"]
    assert Path("logs/worker-0.log").is_file()
