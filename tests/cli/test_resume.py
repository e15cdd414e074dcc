"""``--resume`` of a search or a retraining: the same result to the bit, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from nnas_core.runs.checkpoint import read_checkpoint
from tests.cli.test_search import SEARCH, assert_same_result, events
from tests.cli_support import MODEL, Cli

STOPPING = (
    MODEL
    + """

import os
import signal
from pathlib import Path


def loss(output, target):
    left = Path("stop-at")
    if left.exists():
        if left.read_text() == "":
            left.unlink()
            os.kill(os.getpid(), signal.{signal})
        else:
            left.write_text(left.read_text()[1:])
    return nn.functional.cross_entropy(output, target)
"""
)


def stopping(number: signal.Signals, batches: int) -> None:
    """Let the model send itself a signal in batch ``batches``, once."""
    Path("model.py").write_text(STOPPING.replace("{signal}", number.name))
    Path("stop-at").write_text("." * batches)


@pytest.mark.parametrize("batches", range(8))  # an epoch is 3 training batches and a validation batch
def test_an_interrupted_search_resumed_is_the_uninterrupted_one(nnas: Cli, small_model: Path, batches: int) -> None:
    nnas.ok(*SEARCH, "-o", "whole")
    stopping(signal.SIGINT, batches)
    result = nnas(*SEARCH, "-o", "run")
    assert (result.code, result.out) == (130, "")
    step = read_checkpoint(Path("run/checkpoint.pt"))["header"]["progress"]["step"]
    assert (
        step == {0: 1, 1: 2, 2: 3, 3: 4, 4: 4, 5: 5, 6: 6, 7: 6}[batches]
    )  # the last validation ends before the derivation
    assert result.err.endswith(
        f"nnas: error: interrupted; checkpoint at step {step}: run/checkpoint.pt\nhint: nnas search --resume run\n"
    )
    nnas.ok("search", "--resume", "run")
    assert_same_result("run", "whole")


def test_events_tell_of_interruption_and_resumption(nnas: Cli, small_model: Path) -> None:
    stopping(signal.SIGTERM, 1)
    assert nnas(*SEARCH, "-o", "run").code == 143
    nnas.ok("search", "--resume", "run")
    found = events("run")
    assert [event["event"] for event in found] == [
        "started",
        "interrupted",
        "resumed",
        "epoch",
        "epoch",
        "derived",
        "finished",
    ]
    assert (found[1]["signal"], found[1]["step"], found[2]["step"]) == (15, 2, 2)


def test_training_averages_go_on_in_the_middle_of_an_epoch(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "whole")
    stopping(signal.SIGINT, 1)
    nnas(*SEARCH, "-o", "run")
    nnas.ok("search", "--resume", "run")
    trained = [[event["train"] for event in events(run) if event["event"] == "epoch"] for run in ("whole", "run")]
    assert trained[0] == trained[1]


def test_resuming_a_finished_search_tells_its_result_again(nnas: Cli, small_model: Path) -> None:
    before = nnas.ok(*SEARCH, "-o", "run", "--json").out
    assert nnas.ok("search", "--resume", "run", "--json").out == before


def test_checkpoint_every_step_does_not_change_the_result(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    nnas.ok(*SEARCH, "-o", "often", "--checkpoint-every", 1)
    assert_same_result("run", "often")


@pytest.mark.parametrize("cadence", ["30s", "5m", "1h", "2"])
def test_checkpoint_every_takes_steps_and_times(nnas: Cli, small_model: Path, cadence: str) -> None:
    nnas.ok(*SEARCH, "-o", "run", "--checkpoint-every", cadence)
    assert json.loads(Path("run/config.json").read_text())["search"]["checkpoint_every"] == cadence


def test_an_interrupted_retraining_resumed_is_the_uninterrupted_one(nnas: Cli, small_model: Path) -> None:
    Path("a.json").write_text('{"op": "deep", "act": "tanh", "link": "act"}')
    command = ("retrain", "model.py", "--architecture", "a.json", "--epochs", 2, "--batch-size", 16)
    whole = nnas.ok(*command, "-o", "whole", "--json").json
    stopping(signal.SIGINT, 2)
    result = nnas(*command, "-o", "run")
    assert (result.code, result.out) == (130, "")
    assert result.err.endswith("hint: nnas retrain --resume run\n")
    again = nnas.ok("retrain", "--resume", "run", "--json").json
    assert again["test"] == whole["test"]
    one, other = (torch.load(f"{run}/weights.pt", weights_only=True) for run in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_options_than_before_are_refused_and_named(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    result = nnas("search", "--resume", "run", "--seed", 3, "--batch-size", 2, "-a", "width=9", "--epochs", 2)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run: the run was started with other options\n"
        "  batch_size: 16 before, 2 now\n"
        "  model_arg: {} before, {'width': 9} now\n"
        "  seed: 0 before, 3 now\n"
        "hint: leave them out to resume, or start a new run\n"
    )


def test_another_architecture_than_before_is_refused(nnas: Cli, small_model: Path) -> None:
    Path("a.json").write_text('{"act": "tanh", "link": "act", "op": "deep"}')
    Path("b.json").write_text('{"act": "tanh", "link": "act", "op": "skip"}')
    nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "-o", "run")
    nnas.ok("retrain", "--resume", "run", "--architecture", "a.json")
    result = nnas("retrain", "--resume", "run", "--architecture", "b.json")
    assert (result.code, result.out) == (3, "")
    shown = "{'act': 'tanh', 'link': 'act', 'op': 'deep'} before, {'act': 'tanh', 'link': 'act', 'op': 'skip'} now"
    assert result.err == (
        "nnas: error: run: the run was started with other options\n"
        f"  architecture: {shown}\n"
        "hint: leave them out to resume, or start a new run\n"
    )


def test_where_it_runs_may_change(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    nnas.ok("search", "--resume", "run", "--workers", 1, "--device", "cpu", "--checkpoint-every", 1)


def test_no_run_cannot_be_resumed(nnas: Cli, small_model: Path) -> None:
    Path("empty").mkdir()
    for folder in ("nothing", "empty"):
        result = nnas("search", "--resume", folder)
        assert (result.code, result.out) == (3, "")
        assert result.err == f"nnas: error: {folder}: holds no run of `nnas search`\nhint: check the path\n"


def test_a_run_of_another_command_cannot_be_resumed(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    result = nnas("retrain", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: run/config.json: is no configuration of `nnas retrain`\n"


@pytest.mark.parametrize("extra", [("-o", "other"), ("--force",)])
def test_resume_takes_no_other_folder(nnas: Cli, small_model: Path, extra: tuple[str, ...]) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    result = nnas("search", "--resume", "run", *extra)
    assert (result.code, result.out) == (2, "")
    assert result.err == ("nnas: error: --resume goes on in the run's own folder, it takes no -o and no --force\n")


def test_a_model_that_changed_since_is_refused(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    small_model.write_text(MODEL.replace("tanh=nn.Tanh()", "sigmoid=nn.Sigmoid()"))
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: belongs to another search space\n"
        "  act: layer_choice of [relu, sigmoid] in the model, layer_choice of [relu, tanh] in the checkpoint\n"
        "hint: take the checkpoint of this model, and the same --model-arg as then\n"
    )


def test_other_threads_than_before_are_warned_of(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    torch.set_num_threads(2)
    try:
        result = nnas("search", "--resume", "run")
    finally:
        torch.set_num_threads(1)
    assert result.code == 0
    assert "nnas: warning: resume differs: threads 1 -> 2; the result may differ in its last bits\n" in result.err


def test_a_run_killed_before_its_first_step_goes_on_from_its_beginning(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "whole")
    small_model.write_text(MODEL + "\n\ndef loss(output, target):\n    raise ArithmeticError\n")
    assert nnas(*SEARCH, "-o", "run").code == 4
    assert read_checkpoint("run/checkpoint.pt")["header"]["progress"]["step"] == 0
    small_model.write_text(MODEL)
    Path("run/.checkpoint.pt.abc.tmp").write_bytes(b"half")
    result = nnas.ok("search", "--resume", "run")
    assert "warning: resume differs: model.py has changed since the checkpoint was written\n" in result.err
    assert_same_result("run", "whole")
    assert not list(Path("run").glob("*.tmp"))
    assert not list(Path("run").glob(".*.tmp"))


# ---- more epochs


def epochs_of(run: str) -> list[int]:
    """The epochs in the events of a run."""
    return [event["epoch"] for event in events(run) if event["event"] == "epoch"]


def test_a_finished_search_can_be_trained_on(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    result = nnas("search", "--resume", "run", "--epochs", 4, "--json")
    assert (result.code, result.json["epochs"]) == (0, 4)
    assert epochs_of("run") == [1, 2, 3, 4]
    assert json.loads(Path("run/config.json").read_text())["search"]["epochs"] == 4
    again = nnas("search", "--resume", "run", "--json")
    assert again.json["architecture"] == result.json["architecture"]
    assert epochs_of("run") == [1, 2, 3, 4]
    assert nnas("search", "--resume", "run", "--epochs", 3).code == 3


def test_a_finished_retraining_can_be_trained_on_and_is_tested_again(nnas: Cli, small_model: Path) -> None:
    Path("a.json").write_text('{"act": "relu", "link": "act", "op": "deep"}')
    nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "--batch-size", 16, "-o", "run")
    before = torch.load("run/weights.pt", weights_only=True)
    result = nnas.ok("retrain", "--resume", "run", "--epochs", 3, "--json").json
    assert (result["epochs"], epochs_of("run")) == (3, [1, 2, 3])
    after = torch.load("run/weights.pt", weights_only=True)
    assert not all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize(
    "mutator", [("pdarts", "--mutator-arg", "drop=[1,0]"), ("drnas", "--mutator-arg", "progressive=true")]
)
def test_epochs_that_are_divided_among_stages_stay_as_they_are(
    nnas: Cli, small_model: Path, mutator: tuple[str, ...]
) -> None:
    command = ("search", "model.py", "--mutator", *mutator, "--mutator-arg", "warmup_epochs=0", "--epochs", 2)
    nnas.ok(*command, "--batch-size", 8, "-o", "run")
    result = nnas("search", "--resume", "run", "--epochs", 4)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: run: the 2 epochs of this run were divided among stages, and 4 would be divided in another way\n"
        "hint: begin a new run with so many --epochs\n"
    )
    assert json.loads(Path("run/config.json").read_text())["search"]["epochs"] == 2
