"""Progress on a terminal: only where both streams are one and nothing speaks against it, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from tests.cli.terminals import Terminal
from tests.cli_support import ForkServer, wait_until

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run")
TUNE = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--trials", 3)
BAR = "\x1b[?25l"  # rich hides the cursor while a bar is there


def test_search_shows_a_bar_on_a_terminal_and_a_line_an_epoch(
    forks: ForkServer, small_model: Path, tmp_path: Path, terminal: Terminal
) -> None:
    env = {"TERM": "xterm"}
    assert forks.run(tmp_path, *SEARCH, stdout=terminal.path, stderr=terminal.path, env=env).code == 0
    text = terminal.text()
    assert BAR in text
    assert text.count("epoch 1/2: train loss") == 1
    assert text.count("epoch 2/2: train loss") == 1


def test_tune_shows_a_bar_on_a_terminal(forks: ForkServer, small_run: Path, tmp_path: Path, terminal: Terminal) -> None:
    env = {"TERM": "xterm"}
    assert forks.run(tmp_path, *TUNE, stdout=terminal.path, stderr=terminal.path, env=env).code == 0
    text = terminal.text()
    assert BAR in text
    assert "study model-bayes" in text


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (("--no-progress",), {"TERM": "xterm"}),
        (("-q",), {"TERM": "xterm"}),
        (("--json",), {"TERM": "xterm"}),
        ((), {"TERM": "dumb"}),
        ((), {"TERM": "xterm", "CI": "true"}),
    ],
)
def test_a_bar_can_be_spoken_against(
    forks: ForkServer,
    small_model: Path,
    tmp_path: Path,
    terminal: Terminal,
    options: tuple[str, ...],
    env: dict[str, str],
) -> None:
    process = forks.run(tmp_path, *SEARCH, *options, stdout=terminal.path, stderr=terminal.path, env=env)
    assert process.code == 0
    assert BAR not in terminal.text()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_terminal_is_not_enough_for_a_bar(
    forks: ForkServer, small_model: Path, tmp_path: Path, terminal: Terminal, stream: str
) -> None:
    result = forks.run(tmp_path, *SEARCH, env={"TERM": "xterm"}, **{stream: terminal.path})
    assert result.code == 0
    assert BAR not in terminal.text() + result.out + result.err


# ---- what is seen


def run_on(terminal: Terminal, forks: ForkServer, folder: Path, *arguments: object) -> None:
    """Run a command whose streams are the terminal; it must end well."""
    env = {"TERM": "xterm"}
    assert forks.run(folder, *arguments, stdout=terminal.path, stderr=terminal.path, env=env).code == 0


def matches(pattern: str, screens: list[list[str]]) -> bool:
    """Whether a line of any screen is what the pattern says."""
    return any(re.fullmatch(pattern, line) for screen in screens for line in screen)


def test_a_search_shows_epochs_steps_losses_and_the_time_left(
    forks: ForkServer, small_model: Path, tmp_path: Path, terminal: Terminal
) -> None:
    run_on(terminal, forks, tmp_path, *SEARCH, "--batch-size", 8)
    screens = terminal.screens()
    assert screens[-1][:2] == [
        "model.py by random, in run: loading torch, the model and the data",
        "cpu; 290 parameters; 18 architectures; 48 training and 12 validation samples",
    ]
    assert matches(r"epoch [12]/2  ━{24}  step \d/6", screens)
    assert matches(r"epoch [12]/2  ━{24}  validation [12]/2", screens)
    assert matches(r"in all     ━{24}  (about \d+ s left|\d+ s so far)", screens)
    assert matches(r"train loss \d\.\d{4}, accuracy \d\.\d{4}", screens)
    assert matches(r"valid loss \d\.\d{4}, accuracy \d\.\d{4} \(epoch 1\)", screens)
    assert matches(r"deriving  ━{24}  architecture \d+/18", screens)
    assert matches(r"accuracy with inherited weights: best so far \d\.\d{4}", screens)
    assert screens[-1].count("deriving: the best of 18 architectures on the validation data") == 1
    assert sum(word in line for word in ("step", "in all", "━") for line in screens[-1]) == 0  # gone at the end
    text = " ".join(screens[-1])
    assert re.search(r"epoch 2/2: train loss \d\.\d{4}, accuracy \d\.\d{4}; valid .*? \d+ samples/s ", text)
    assert max(map(len, (line for screen in screens for line in screen if "next:" not in line))) <= terminal.columns


def test_a_retraining_does_too(forks: ForkServer, small_run: Path, tmp_path: Path, terminal: Terminal) -> None:
    arguments = ("retrain", "model.py", "--architecture", "run/architecture.json", "--epochs", 2, "-o", "final")
    run_on(terminal, forks, tmp_path, *arguments, "--batch-size", 8)
    screens = terminal.screens()
    assert screens[-1][0] == "model.py alone, in final: loading torch, the model and the data"
    assert re.fullmatch(r"cpu; \d+ parameters; 48 training and 12 validation samples", screens[-1][1])
    assert matches(r"epoch [12]/2  ━{24}  step \d/6", screens)


def test_the_first_line_of_a_search_comes_before_torch_is_loaded(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(99)\n")
    code = "import sys; from nnas_cli.main import entry; entry(sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, SEARCH), "-v"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.stderr.startswith("model.py by random, in run: loading torch, the model and the data\n")


PROGRAM = """
import json, os, sys
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
number = parameters["op"]["_idx"]
if number == 1: sys.exit("no memory for b")
json.dump(number, open(os.environ["NNAS_RESULT"], "w"))
"""


def test_a_study_shows_the_best_what_runs_and_why_trials_failed(
    forks: ForkServer, tmp_path: Path, terminal: Terminal
) -> None:
    (tmp_path / "space.json").write_text(json.dumps({"op": {"_type": "layer_choice", "_value": ["a", "b", "c"]}}))
    (tmp_path / "trial.py").write_text(PROGRAM)
    program = shlex.join([sys.executable, "-I", "-S", "trial.py"])
    arguments = ("tune", "space.json", "--trial-command", program, "--tuner", "grid", "--study", "s", "-o", "b.json")
    run_on(terminal, forks, tmp_path, *arguments, "--max-failures", "none")
    screens = terminal.screens()
    assert matches(r"study s  ━{24}  [123]/100 trials(, 1 failed)?(, about .* left)?", screens)
    assert matches(r"best [02] \(trial \d\)", screens)
    assert matches(r"running: trial \d \(0 s\)", screens)
    last = screens[-1]
    assert any(re.match(r"trial \d: 2 \(\d", line) for line in last)
    assert re.search(r"trial \d: failed: .*no memory for b", " ".join(last))
    assert last[-2] == "next: nnas study trials s --head 5"
    assert not any(line.startswith("running:") for line in last)


def test_top_shows_a_line_a_trial_and_what_runs_first_on_a_small_screen(
    forks: ForkServer, tmp_path: Path, terminal: Terminal
) -> None:
    keys = [f"encoder.block{index}.attention.output.projection.operation" for index in range(60)]
    space = SearchSpace.from_json({key: {"_type": "layer_choice", "_value": ["a", "b"]} for key in keys})
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        study = store.create_study(StudySettings("wide", space, "random"))
        with store.acquire(study) as session:
            running = session.trials.start(space.at(0))
            for number in range(1, 40):
                trial = session.trials.start(space.at(number))
                if number % 2:
                    session.trials.fail(trial, "out of memory " * 20, 1.5)
                else:
                    session.trials.succeed(trial, number / 4, {}, {}, 1.5)
            process = forks.start(
                tmp_path, "study", "top", stdout=terminal.path, stderr=terminal.path, env={"TERM": "xterm"}
            )
            wait_until(lambda: "  30  " in terminal.so_far(), process)
            process.signal(signal.SIGINT)
            process.wait()
    screen = terminal.screens()[0]
    assert len(screen) <= terminal.rows
    assert max(map(len, screen)) <= terminal.columns
    table = screen[[line.startswith("trial ") for line in screen].index(True) :]
    assert table[2].split()[:2] == [str(running.number), "running"]
    assert [line.split()[:2] for line in table[3:7]] == [
        ["39", "failed"],
        ["38", "succeeded"],
        ["37", "failed"],
        ["36", "succeeded"],
    ]
    assert table[3].endswith("…")
    assert "out of memory" in table[3]
    assert len(table) >= 15
