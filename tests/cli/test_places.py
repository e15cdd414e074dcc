"""Where results go: names of folders and studies, and places that are refused before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnas_cli.default_places import default_run, stem, study_folder
from tests.cli_support import Cli

ARCHITECTURE = '{"op": "deep", "act": "tanh", "link": "act"}'


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("model.py", "model"),
        ("./model.py:Net", "model"),
        ("examples/digits/model.py", "digits"),
        ("examples/digits/model.py:Net", "digits"),
        ("/data/mnist1d/model.py", "mnist1d"),
        ("/model.py", "model"),
        ("nets/small.py:Net", "small"),
        ("package.nets.wide:Net", "wide"),
        ("my nets/model.py", "my_nets"),
        ("random", "random"),
    ],
)
def test_results_are_named_after_the_model(reference: str, name: str) -> None:
    assert stem(reference) == name


def test_a_model_in_the_folder_above_is_named_after_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "digits" / "work")
    assert stem("../model.py") == "digits"


def test_two_models_of_one_file_name_have_a_study_each(nnas: Cli, small_model: Path) -> None:
    for folder in ("digits", "mnist1d"):
        Path(folder).mkdir()
        Path(folder, "model.py").write_text(small_model.read_text())
        tuned = nnas.ok(
            "tune", f"{folder}/model.py", "--train-epochs", 1, "--tuner", "random", "--trials", 1, "--json"
        ).json
        assert tuned["study"] == f"{folder}-random"


RESULT = """sh -c 'echo "{\\"value\\": 1}" > $NNAS_RESULT'"""
"""A trial command."""


@pytest.mark.parametrize("study", ["random", "model-random"])
def test_a_study_and_a_search_of_one_name_keep_out_of_each_other_s_way(
    nnas: Cli, small_model: Path, study: str
) -> None:
    nnas.ok("tune", "model.py", "--trial-command", RESULT, "--tuner", "random", "--trials", 1, "--study", study)
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1)
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "runs/random")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["model-random", "random", "studies"]
    assert [str(path) for path in Path("runs").rglob("log.txt")] == [f"runs/studies/{study}/trials/0-1/log.txt"]


@pytest.mark.parametrize("model", ["studies", "studies.py", "a/studies/model.py"])
def test_no_run_has_the_name_of_the_folder_of_studies(model: str) -> None:
    assert Path(default_run(model, "random")) not in (study_folder("s").parent, study_folder("s"))


@pytest.mark.parametrize(
    "command", [("search", "model.py", "--mutator", "random"), ("retrain", "model.py", "--architecture", "a.json")]
)
def test_a_run_folder_is_not_standard_output(nnas: Cli, small_model: Path, command: tuple[str, ...]) -> None:
    Path("a.json").write_text(ARCHITECTURE)
    result = nnas(*command, "-o", "-")
    assert (result.code, result.out) == (2, "")
    assert result.err == "nnas: error: -o is a folder here, not standard output\n"
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/b.json", "no such directory\nhint: create the directory first"),
        ("folder", "it is a directory\nhint: give the name of a file"),
        ("model.py/b.json", "a part of the path is not a directory\nhint: check the path"),
    ],
)
def test_a_study_whose_answer_cannot_be_written_does_not_begin(
    nnas: Cli, small_model: Path, place: str, reason: str
) -> None:
    Path("folder").mkdir()
    result = nnas("tune", "model.py", "--train-epochs", 1, "--trials", 1, "-o", place)
    assert (result.code, result.out, result.err) == (6, "", f"nnas: error: {place}: cannot write: {reason}\n")
    assert not Path("nnas.db").exists()


def test_retrain_checks_its_folder_before_it_reads_standard_input(nnas: Cli, small_run: Path) -> None:
    result = nnas("retrain", "model.py", "--architecture", "-", "-o", "run", stdin="no JSON")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: run: the folder is not empty\n")


@pytest.mark.parametrize("content", ["no JSON", '{"op": "nothing"}'])
def test_a_retraining_that_cannot_start_leaves_no_folder(nnas: Cli, small_model: Path, content: str) -> None:
    assert nnas("retrain", "model.py", "--architecture", "-", "-o", "run", stdin=content).code == 3
    assert not Path("run").exists()


def test_a_search_that_cannot_start_leaves_a_folder_that_was_there(nnas: Cli, small_model: Path) -> None:
    Path("run").mkdir()
    for folder in ("run", "new"):
        assert nnas("search", "model.py", "--mutator", "nothing", "-o", folder).code == 2
    assert sorted(name for name in os.listdir() if name in ("run", "new")) == ["run"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("class One: ...\nclass Two: ...\n", "write mine.py:Class; there are One, Two"),
        ("class One: ...\n", "write mine.py:Class; there is One"),
        ("raise SystemExit\n", "write mine.py:Class"),
    ],
)
def test_a_file_of_algorithms_needs_the_name_of_a_class(nnas: Cli, small_model: Path, text: str, hint: str) -> None:
    Path("mine.py").write_text(text)
    for command in (("search", "model.py", "--mutator"), ("tune", "model.py", "--train-epochs", 1, "--tuner")):
        result = nnas(*command, "mine.py")
        assert (result.code, result.out) == (2, "")
        assert result.err == f"nnas: error: 'mine.py' names no class\nhint: {hint}\n"


def test_validate_heeds_the_kind_for_lines_and_refuses_it_for_a_checkpoint(nnas: Cli, small_run: Path) -> None:
    result = nnas("validate", "--kind", "trial", "run/events.jsonl", "run/checkpoint.pt")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0] == "run/events.jsonl: NOT VALID (trial)"
    assert lines[1].startswith("  line 1: $")
    assert lines[-2:] == [
        "run/checkpoint.pt: NOT VALID (checkpoint)",
        "  is no JSON, and so not of the kind 'trial'",
    ]
    assert nnas.ok("validate", "--kind", "event", "run/events.jsonl").out == "run/events.jsonl: valid (event)\n"
