"""Every answer of ``--json`` says which report it is, keeps the schema of it, and is recognised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnas_core import schema
from tests.cli_support import Cli, Result

STUDY = ("--study", "s", "--tuner", "random", "--trials", 2, "--json")
TRIAL = ("--trial-command", "sh -c 'echo said; echo 1 > $NNAS_RESULT'")


def of(kind: str, result: Result) -> dict[str, Any]:
    """The report, after it was seen to be one of its kind and complete."""
    document: dict[str, Any] = result.json
    assert document["format"] == f"nnas.{kind}/1"
    assert schema.problems(kind, document) == []
    for name in schema.load(kind)["required"]:
        assert schema.problems(kind, {key: value for key, value in document.items() if key != name}) != []
    assert schema.problems(kind, {**document, "other": 1}) != []
    return document


def test_reports_of_training(nnas: Cli, small_model: Path, small_run: Path) -> None:
    found = of("search-report", nnas("search", "--resume", "run", "--epochs", 2, "--json"))
    assert found["epochs"] == 2
    derived = of("search-report", nnas("search", "--resume", "run", "--derive", 2, "--json"))
    assert derived["derived"]["tried"] == 2
    chosen = ("--architecture", small_run / "architecture.json")
    of("retrain-report", nnas("retrain", "model.py", *chosen, "--epochs", 1, "--json", "-o", "alone"))
    inherited = ("--checkpoint", small_run / "checkpoint.pt")
    of("evaluate-report", nnas("evaluate", "model.py", *chosen, *inherited, "--json"))
    few = ("--random", 2, "--train", 1, "--seeds", 1, "--train-epochs", 1)
    of("assess-report", nnas("assess", "run", *few, "--json"))
    of("profile-report", nnas("profile", "model.py", *chosen, "--seconds", 0.001, "--json"))


def test_reports_of_studies(nnas: Cli, small_model: Path) -> None:
    assert nnas("ss-gen", "model.py", "-o", "space.json").code == 0
    of("tune-report", nnas("tune", "space.json", *TRIAL, *STUDY))
    for verb in ("list", "show", "top", "trials"):
        of(f"study-{verb}-report", nnas("study", verb, "--json"))
    assert of("study-log-report", nnas("study", "log", 0, "--json"))["text"] == "said\n"
    for arguments in (("kill", 0), ("stop",), ("update", "--trials", 3)):
        of(f"study-{arguments[0]}-report", nnas("study", *arguments, "--json"))
    of("study-retry-report", nnas("study", "retry", "--json"))
    assert nnas("study", "export", "-o", "results.json").code == 0
    of("study-import-report", nnas("study", "import", "results.json", "--json"))
    of("study-backup-report", nnas("study", "backup", "-o", "copy.db", "--json"))
    of("study-optuna-report", nnas("study", "export", "--optuna", "sqlite:///optuna.db", "--json"))
    of("study-delete-report", nnas("study", "delete", "s", "--yes", "--json"))


@pytest.mark.parametrize("group", ["mutators", "tuners", "assessors"])
def test_reports_of_what_there_is(nnas: Cli, group: str) -> None:
    assert of("list-report", nnas("list", group, "--json"))[group]


def test_reports_of_versions_and_files(nnas: Cli, tmp_path: Path) -> None:
    of("info-report", nnas("info", "--json"))
    (tmp_path / "space.json").write_text('{"op": {"_type": "layer_choice", "_value": ["a", "b"]}}')
    result = nnas("validate", "space.json", "--json")
    of("validate-report", result)
    assert nnas("validate", "-", stdin=result.out).out == "-: valid (validate-report)\n"
