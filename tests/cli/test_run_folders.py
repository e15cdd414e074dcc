"""Run folders under attack: what is replaced, damaged, lost or exchanged is said, and never taken without a word."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnas_core import schema
from nnas_core.files import read_json_lines
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.runs.folder import RunFolder
from tests.cli.test_search import assert_same_result, events
from tests.cli_support import MODEL, Cli, ForkServer

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16, "--derive", 0)
A = '{"op": "deep", "act": "tanh", "link": "act"}'


def contents(folder: str) -> dict[str, bytes]:
    """All files of a folder but its lock."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != ".lock"}


def edited(header: Callable[[dict[str, Any]], None], path: str = "run/checkpoint.pt") -> None:
    """Write a checkpoint with another header."""
    content = torch.load(path, weights_only=True)
    header(content["header"])
    torch.save(content, path)


# ---- replacing a run

BROKEN = {
    "no such mutator": (MODEL, ("--mutator", "nothing"), 2),
    "an argument of it": (MODEL, ("--mutator-arg", "nothing=1"), 2),
    "a model that fails": (MODEL.replace("return self.head(", "raise ArithmeticError("), (), 4),
    "data that fails": (MODEL.replace("return data(60, 1)", "raise ArithmeticError"), (), 4),
    "a batch that is too large": (MODEL, ("--batch-size", 64, "--drop-last"), 4),
    "a cadence": (MODEL, ("--checkpoint-every", "never"), 2),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_run_that_cannot_begin_replaces_nothing(nnas: Cli, small_run: Path, case: str) -> None:
    before = contents("run")
    text, options, code = BROKEN[case]
    (small_run.parent / "model.py").write_text(text)
    result = nnas(*SEARCH, "-o", "run", "--force", *options)
    assert (result.code, result.out) == (code, ""), result.err
    assert contents("run") == before


def test_nor_does_one_whose_configuration_cannot_be_written(small_run: Path) -> None:
    before = contents(str(small_run))
    with (
        RunFolder.create(small_run, force=True) as run,
        pytest.raises(ValueError, match="not JSON compliant"),
        run.beginning({"search": {"learning_rate": float("nan")}}) as first,
    ):
        first.write_bytes(b"new")
    assert contents(str(small_run)) == before


def test_nor_does_one_whose_first_checkpoint_finds_a_full_disk(
    forks: ForkServer, small_run: Path, tmp_path: Path
) -> None:
    before = contents(str(small_run))
    result = forks.run(tmp_path, *SEARCH, "-o", "run", "--force", "-a", "width=64", file_limit=20_000)
    assert (result.code, result.out) == (6, "")
    assert contents(str(small_run)) == before


def test_retrain_replaces_nothing_either(nnas: Cli, small_run: Path) -> None:
    before = contents("run")
    Path("a.json").write_text(A.replace("deep", "nothing"))
    assert nnas("retrain", "model.py", "--architecture", "a.json", "-o", "run", "--force").code == 3
    assert contents("run") == before


def test_a_run_that_begins_replaces_all_of_the_other(nnas: Cli, small_run: Path) -> None:
    Path("a.json").write_text(A)
    nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "-o", "run", "--force")
    nnas.ok(*SEARCH, "-o", "run", "--force")
    assert "weights.pt" not in contents("run")
    assert [event["event"] for event in events("run")] == ["started", "epoch", "epoch", "finished"]


@pytest.mark.parametrize("gone", [0, 1, 3, 7])
def test_a_kill_while_one_run_takes_the_place_of_another_leaves_one_of_them(
    nnas: Cli, small_run: Path, gone: int
) -> None:
    nnas.ok(*SEARCH, "--seed", 1, "-o", "new")
    shutil.copy("new/checkpoint.pt", "run/checkpoint.pt.first")
    shutil.copy("new/config.json", "run/config.json.first")
    replaced = ["config.json", "checkpoint.pt", PREVIOUS, "events.jsonl", "search_space.json", "architecture.json"]
    for name in replaced[:gone]:
        Path("run", name).unlink()
    if gone == 7:
        Path("run/checkpoint.pt.first").replace("run/checkpoint.pt")
    nnas.ok("search", "--resume", "run")
    if gone:
        assert_same_result("run", "new")
        assert Path("run/config.json").read_bytes() == Path("new/config.json").read_bytes()
    assert read_checkpoint("run/checkpoint.pt")["header"]["seed"] == (1 if gone else 0)
    assert not list(Path("run").glob("*.first"))


def test_what_stops_the_exchange_half_way_loses_neither_run(nnas: Cli, small_run: Path) -> None:
    nnas.ok(*SEARCH, "--seed", 1, "-o", "new")
    Path("run/events.jsonl").unlink()
    Path("run/events.jsonl").mkdir()
    result = nnas(*SEARCH, "--seed", 1, "-o", "run", "--force")
    assert (result.code, result.out) == (6, "")
    assert result.err.startswith("nnas: error: run/events.jsonl: cannot begin the run: ")
    Path("run/events.jsonl").rmdir()
    nnas.ok("search", "--resume", "run")
    assert_same_result("run", "new")


# ---- the checkpoint before


def test_the_checkpoint_before_is_kept(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run", "--checkpoint-every", 2)
    steps = [read_checkpoint(f"run/{name}")["header"]["progress"]["step"] for name in ("checkpoint.pt", PREVIOUS)]
    assert steps == [6, 6]  # that of the step, and that of the epoch, which has its validation
    nnas.ok("search", "--resume", "run", "--epochs", 3, "--checkpoint-every", 100)
    steps = [read_checkpoint(f"run/{name}")["header"]["progress"]["step"] for name in ("checkpoint.pt", PREVIOUS)]
    assert steps == [9, 6]


PREVIOUS = "checkpoint.previous.pt"


@pytest.mark.parametrize("damage", ["cut", "emptied", "a flipped bit"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(nnas: Cli, small_model: Path, damage: str) -> None:
    nnas.ok(*SEARCH, "-o", "whole")
    nnas.ok(*SEARCH, "-o", "run")
    content = bytearray(Path("run/checkpoint.pt").read_bytes())
    if damage == "a flipped bit":
        content[len(content) // 2] ^= 1
    with open("run/checkpoint.pt", "r+b") as stream:  # in place: the one before is another file
        stream.truncate(0)
        stream.write(content[: {"cut": 1000, "emptied": 0}.get(damage, len(content))])
    result = nnas.ok("search", "--resume", "run")
    assert "nnas: warning: run/checkpoint.pt: " in result.err
    assert "; going on from the checkpoint before it, at step 3\n" in result.err
    assert_same_result("run", "whole")
    assert [(event["event"], event.get("epoch")) for event in events("run")] == [
        ("started", None),
        ("epoch", 1),
        ("epoch", 2),
        ("finished", None),
        ("resumed", None),
        ("finished", None),
    ]


def test_where_there_are_no_hard_links_it_is_a_copy(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    nnas.ok(*SEARCH, "-o", "run")
    assert read_checkpoint(f"run/{PREVIOUS}")["header"]["progress"]["step"] == 3


def test_two_damaged_checkpoints_are_an_error_and_stay(nnas: Cli, small_run: Path) -> None:
    for name in ("checkpoint.pt", PREVIOUS):
        Path("run", name).write_bytes(b"damaged")
    before = contents("run")
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: is not a checkpoint of nnas, or it is truncated, and so is the checkpoint "
        "before it\n"
        f"  run/{PREVIOUS}: is not a checkpoint of nnas, or it is truncated\n"
        "hint: put one of them back, or start over with --force\n"
    )
    assert contents("run") == before


@pytest.mark.parametrize("lost", [("checkpoint.pt",), ("checkpoint.pt", PREVIOUS)])
def test_a_missing_checkpoint_is_an_error_and_all_files_stay(nnas: Cli, small_run: Path, lost: tuple[str, ...]) -> None:
    for name in lost:
        Path("run", name).unlink()
    before = contents("run")
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    hint = "put it back, or start over with --force"
    if len(lost) == 1:
        hint = f"rename run/{PREVIOUS}, which is the checkpoint before it"
    assert result.err == (
        f"nnas: error: run/checkpoint.pt: there is no such file, the run cannot go on\nhint: {hint}\n"
    )
    assert contents("run") == before


def test_the_one_before_goes_on_once_it_is_renamed(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "whole")
    nnas.ok(*SEARCH, "-o", "run")
    Path("run", PREVIOUS).replace("run/checkpoint.pt")
    nnas.ok("search", "--resume", "run")
    assert_same_result("run", "whole")


# ---- what has changed since


def test_a_checkpoint_of_another_mutator_is_refused(nnas: Cli, small_run: Path) -> None:
    nnas.ok("search", "model.py", "--mutator", "darts", "--epochs", 1, "--batch-size", 8, "-o", "other")
    shutil.copy("other/checkpoint.pt", "run")
    before = contents("run")
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: is a checkpoint of another run\n"
        "  mutator: 'darts' in the checkpoint, 'random' in the run\n"
        "hint: put the run's own checkpoint back, or begin a new run\n"
    )
    assert contents("run") == before


def test_other_arguments_seeds_and_commands_are_refused_together(nnas: Cli, small_run: Path) -> None:
    edited(lambda header: header.update(command="retrain", seed=3, mutator_arg={"x": 1}))
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines()[1:4] == [
        "  command: 'retrain' in the checkpoint, 'search' in the run",
        "  mutator_arg: {'x': 1} in the checkpoint, {} in the run",
        "  seed: 3 in the checkpoint, 0 in the run",
    ]


@pytest.mark.parametrize("command", ["search --resume run", "evaluate model.py --checkpoint run/checkpoint.pt"])
def test_other_candidates_under_the_same_names_are_refused(nnas: Cli, small_run: Path, command: str) -> None:
    Path("a.json").write_text(A)
    Path("model.py").write_text(
        MODEL.replace("tanh=nn.Tanh()", "tanh=nn.Sigmoid()").replace("nn.ReLU(), nn.L", "nn.GELU(), nn.L")
    )
    architecture = () if command.startswith("search") else ("--architecture", "a.json")
    result = nnas(*command.split(), *architecture)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: belongs to a model with other candidates\n"
        "  act: tanh is Sigmoid in the model, Tanh in the checkpoint\n"
        "  op: deep is Sequential(Linear, GELU, Linear) in the model, Sequential(Linear, ReLU, Linear) in the "
        "checkpoint\n"
        "hint: take the model as it was then, or begin a new search\n"
    )


def test_changed_code_is_warned_of_by_file(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import sizes\n" + MODEL.replace("width=8", "width=sizes.WIDTH"))
    (tmp_path / "sizes.py").write_text("WIDTH = 8\n")
    nnas.ok(*SEARCH, "-o", "run")
    assert "resume differs" not in nnas.ok("search", "--resume", "run").err
    (tmp_path / "sizes.py").write_text("WIDTH = 8  # as ever\n")
    result = nnas.ok("search", "--resume", "run", "--epochs", 3)
    assert "nnas: warning: resume differs: sizes.py has changed since the checkpoint was written\n" in result.err
    assert "resume differs" not in nnas.ok("search", "--resume", "run").err  # what was said once is known


def test_other_data_are_warned_of_by_size(nnas: Cli, small_run: Path) -> None:
    Path("model.py").write_text(MODEL.replace("data(60, 1)", "data(180, 1)"))
    result = nnas.ok("search", "--resume", "run", "--epochs", 2)
    for line in (
        "model.py has changed since the checkpoint was written",
        "the training data has 144 samples, and had 48 when the checkpoint was written",
        "the validation data has 36 samples, and had 12 when the checkpoint was written",
    ):
        assert f"nnas: warning: resume differs: {line}\n" in result.err


def test_a_checkpoint_of_another_architecture_is_refused(nnas: Cli, small_model: Path) -> None:
    for name, act in (("run", "tanh"), ("other", "relu")):
        Path("a.json").write_text(A.replace("tanh", act))
        nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "--batch-size", 16, "-o", name)
    shutil.copy("other/checkpoint.pt", "run")
    result = nnas("retrain", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert "\n  architecture: another one in the checkpoint than in the run\n" in result.err


def test_a_checkpoint_without_digests_goes_on(nnas: Cli, small_run: Path) -> None:
    def older(header: dict[str, Any]) -> None:
        del header["digests"], header["mutator_arg"]

    edited(older)
    Path("model.py").write_text(MODEL + "\n")
    result = nnas.ok("search", "--resume", "run", "--epochs", 2)
    assert "resume differs" not in result.err
    assert "digests" in read_checkpoint("run/checkpoint.pt")["header"]


def test_every_reader_knows_the_header(nnas: Cli, small_run: Path) -> None:
    Path("a.json").write_text(A)
    header = read_checkpoint("run/checkpoint.pt")["header"]
    assert set(header["digests"]) == {"code", "candidates", "samples"}
    assert schema.problems("checkpoint-header", header) == []
    nnas.ok("validate", "run/checkpoint.pt", f"run/{PREVIOUS}")
    nnas.ok("export", "run/checkpoint.pt")
    nnas.ok("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "a.json")
    nnas.ok("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--trials", 1, "--tuner", "random", "-o", "b.json")


def test_a_state_that_is_none_is_refused(nnas: Cli, small_run: Path) -> None:
    content = torch.load("run/checkpoint.pt", weights_only=True)
    del content["state"]["progress"]
    torch.save(content, "run/checkpoint.pt")
    result = nnas("search", "--resume", "run", "--epochs", 2)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: its state cannot be taken: KeyError: 'progress'\n"
        "hint: take a checkpoint that this run wrote\n"
    )


# ---- the configuration


def test_an_option_that_there_is_not_is_named(nnas: Cli, small_run: Path) -> None:
    document = json.loads(Path("run/config.json").read_text())
    document["search"]["batchsize"] = 3
    Path("run/config.json").write_text(json.dumps(document))
    said = "nnas: error: run/config.json: [search]: no option is named 'batchsize'\nhint: did you mean 'batch_size'?\n"
    for command in (("search", "--resume", "run"), ("search", "--config", "run/config.json", "-o", "new")):
        result = nnas(*command)
        assert (result.code, result.out, result.err) == (3, "", said)


def test_a_value_that_cannot_be_is_named(nnas: Cli, small_run: Path) -> None:
    document = json.loads(Path("run/config.json").read_text())
    document["search"].update(batch_size="many", epochs=0)
    Path("run/config.json").write_text(json.dumps(document))
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/config.json: not a config\n"
        "  $.search.batch_size: 'many' is not of type 'integer'\n"
        "  $.search.epochs: 0 is less than the minimum of 1\n"
    )


# ---- events


@pytest.mark.parametrize("torn", [False, True])
def test_a_lost_line_of_the_last_epoch_is_written_and_none_twice(nnas: Cli, small_model: Path, torn: bool) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    lines = Path("run/events.jsonl").read_text().splitlines(keepends=True)
    Path("run/events.jsonl").write_text("".join(lines[:2]) + lines[2][: torn * 20])
    nnas.ok("search", "--resume", "run")
    nnas.ok("search", "--resume", "run")
    kept = [event for event in read_json_lines("run/events.jsonl") if event["event"] == "epoch"]
    expected = [json.loads(line) for line in lines[1:3]]
    assert [{**one, "time": 0} for one in kept] == [{**one, "time": 0} for one in expected]


@pytest.mark.parametrize("epoch", ["[1]", '{"a": 1}', '"1"', "null"])
def test_an_epoch_that_is_no_number_is_none_that_was_logged(nnas: Cli, small_run: Path, epoch: str) -> None:
    lines = Path("run/events.jsonl").read_text().splitlines(keepends=True)
    changed = lines[1].replace('"epoch": 1', f'"epoch": {epoch}', 1)
    assert changed != lines[1]
    Path("run/events.jsonl").write_text(lines[0] + changed + "".join(lines[2:]))
    nnas.ok("search", "--resume", "run")
    kept = [event["epoch"] for event in read_json_lines("run/events.jsonl") if event["event"] == "epoch"]
    assert kept == [json.loads(epoch), 1]


def test_an_architecture_older_than_the_checkpoint_is_written_again(nnas: Cli, small_run: Path) -> None:
    expected = Path("run/architecture.json").read_bytes()
    Path("run/architecture.json").write_text("{}")
    Path("run/search_space.json").unlink()
    nnas.ok("search", "--resume", "run")
    assert Path("run/architecture.json").read_bytes() == expected
    assert Path("run/search_space.json").exists()
