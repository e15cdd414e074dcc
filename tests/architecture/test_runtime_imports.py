"""What never needs torch never loads it, and ``nnas --help`` loads next to nothing: seen in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core.study.storage.store import StudyStore
from tests.study.known_studies import make

SPACE = {"op": {"_type": "layer_choice", "_value": ["a", "b"]}}

HEAVY = {"torch", "rich", "jsonschema", "sqlalchemy", "numpy"}

# Runs a command or an import, and writes what it loaded beside it: commands say nothing else on standard output.
PROBE = """
import json, pathlib, sys
if sys.argv[1] == "import":
    __import__(sys.argv[2])
    code = 0
else:
    from nnas_cli.main import entry
    code = entry(sys.argv[2:])
pathlib.Path("loaded.json").write_text(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""

COMMANDS = ("ss-gen", "search", "export", "tune", "retrain", "evaluate", "study", "validate", "list", "info")


def loaded(folder: Path, kind: str, *arguments: str, **environment: str) -> set[str]:
    """The names of the modules in the process after a command or an import."""
    (folder / "space.json").write_text(json.dumps(SPACE))
    completed = subprocess.run(
        [sys.executable, "-c", PROBE, kind, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    return set(json.loads((folder / "loaded.json").read_text()))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("import", ["nnas_core"]),
        ("import", ["nnas_core.workflows.tune_command"]),
        ("import", ["nnas_core.study.storage.store"]),
        ("import", ["nnas_core.study.coordinator"]),
        ("import", ["nnas_core.tuners.evolution"]),
        ("command", ["validate", "space.json"]),
        ("import", ["nnas_core.assessors.hyperband"]),
        ("command", ["list", "tuners"]),
        ("command", ["list", "assessors", "--verbose"]),
        ("command", ["list", "mutators"]),
        ("command", ["list", "mutators", "--verbose"]),
        *(("command", [name, "--help"]) for name in COMMANDS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_torch_is_not_loaded_by(kind: str, arguments: list[str], tmp_path: Path) -> None:
    assert "torch" not in loaded(tmp_path, kind, *arguments)


def test_torch_is_not_loaded_by_a_study_of_a_command(tmp_path: Path) -> None:
    program = 'import os; open(os.environ["NNAS_RESULT"], "w").write("1")'
    command = shlex.join([sys.executable, "-I", "-S", "-c", program])
    arguments = ["space.json", "--trial-command", command, "--trials", "1", "-o", "best.json"]
    assert "torch" not in loaded(tmp_path, "command", "tune", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show"],
        ["trials", "--head", "2"],
        ["top"],
        ["export", "--format", "csv"],
        ["export", "--optuna", "sqlite:///optuna.db"],
        ["import", "results.json"],
        ["backup", "-o", "copy.db"],
        ["delete", "--yes"],
    ],
    ids=" ".join,
)
def test_torch_is_not_loaded_by_a_command_of_studies(arguments: list[str], tmp_path: Path) -> None:
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        make(store)
    (tmp_path / "results.json").write_text("[]")
    assert "torch" not in loaded(tmp_path, "command", "study", *arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"], ["study", "-h"]], ids=" ".join)
def test_nothing_heavy_is_loaded_by(arguments: list[str], tmp_path: Path) -> None:
    assert HEAVY & loaded(tmp_path, "command", *arguments) == set()


@pytest.mark.parametrize(
    ("words", "instruction"),
    [(None, "bash_source"), ("nnas se", "bash_complete"), ("nnas search --mu", "bash_complete")],
    ids=["source", "of a command", "of an option"],
)
def test_nothing_heavy_is_loaded_by_completion(words: str | None, instruction: str, tmp_path: Path) -> None:
    environment = {"_NNAS_COMPLETE": instruction}
    if words is not None:
        environment.update(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert HEAVY & loaded(tmp_path, "command", **environment) == set()
