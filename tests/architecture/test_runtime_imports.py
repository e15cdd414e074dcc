"""What never needs torch never loads it, and ``nnas --help`` loads next to nothing: seen in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnas_cli.main import COMMANDS
from nnas_core.study.storage.store import StudyStore
from tests.study.known_studies import make

SPACE = {"op": {"_type": "layer_choice", "_value": ["a", "b"]}}

HEAVY = {"torch", "rich", "jsonschema", "sqlalchemy", "numpy"}

# Runs a command, and writes what it loaded beside it: commands say nothing else on standard output.
PROGRAM = """
import json, pathlib, sys
from nnas_cli.main import entry
code = entry(sys.argv[1:])
pathlib.Path("loaded.json").write_text(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""

FREE = (
    "space",
    "plugins",
    "tuners",
    "assessors",
    "execution",
    "study",
    "mutables",
    "training",
    "mutators",
    "workflows",
)
"""Packages that load no torch by themselves: what needs it is loaded with the names that need it."""


def loaded_alone(folder: Path, *arguments: str, **environment: str) -> set[str]:
    """The names of the modules in a process of its own after a command."""
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    return set(json.loads((folder / "loaded.json").read_text()))


class Probe:
    """Commands and imports in forks of one process, which are quicker than processes of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("import_probe.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": ""},
            text=True,
        )

    def loaded(self, folder: Path, kind: str, *arguments: str, code: int = 0) -> set[str]:
        """The names of the modules after a command or an import, those that the process has from the start too."""
        (folder / "space.json").write_text(json.dumps(SPACE))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"folder": str(folder), "kind": kind, "arguments": arguments}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert answer == {"code": code}, (folder / "stderr").read_text()
        return set(json.loads((folder / "loaded.json").read_text()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    """One process for all tests of this file."""
    process = Probe()
    yield process
    process.close()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("import", ["nnas_core"]),
        *(("import", [f"nnas_core.{name}"]) for name in FREE),
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
        ("command", ["runs"]),
        *(("command", [name, "--help"]) for name in COMMANDS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_torch_is_not_loaded_by(probe: Probe, kind: str, arguments: list[str], tmp_path: Path) -> None:
    assert "torch" not in probe.loaded(tmp_path, kind, *arguments)


@pytest.mark.parametrize(
    "line",
    [
        "search model.py",
        "search model.py --mutator nothing",
        "search model.py --mutator darts --mutator-arg nothing=1",
        "search model.py --mutator random --learning-rate nan",
        "search model.py --mutator random --device toaster",
        "search model.py --mutator random --what",
        "tune model.py",
        "tune model.py --train-epochs 1 --tuner nothing",
        "tune model.py --train-epochs 1 --assessor nothing",
        "retrain model.py",
        "evaluate model.py",
        "profile model.py --seconds 0",
        "ss-gen",
    ],
)
def test_torch_is_not_loaded_to_refuse(probe: Probe, line: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("")
    assert "torch" not in probe.loaded(tmp_path, "command", *line.split(), code=2)


def test_torch_is_seen_where_it_is_loaded(probe: Probe, tmp_path: Path) -> None:
    assert "torch" in probe.loaded(tmp_path, "import", "nnas_core.random_state")


def test_torch_is_not_loaded_by_a_study_of_a_command(probe: Probe, tmp_path: Path) -> None:
    program = 'import os; open(os.environ["NNAS_RESULT"], "w").write("1")'
    command = shlex.join([sys.executable, "-I", "-S", "-c", program])
    arguments = ["space.json", "--trial-command", command, "--trials", "1", "-o", "best.json"]
    assert "torch" not in probe.loaded(tmp_path, "command", "tune", *arguments)


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
def test_torch_is_not_loaded_by_a_command_of_studies(probe: Probe, arguments: list[str], tmp_path: Path) -> None:
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        make(store)
    (tmp_path / "results.json").write_text("[]")
    assert "torch" not in probe.loaded(tmp_path, "command", "study", *arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"], ["study", "-h"]], ids=" ".join)
def test_nothing_heavy_is_loaded_by(arguments: list[str], tmp_path: Path) -> None:
    assert HEAVY & loaded_alone(tmp_path, *arguments) == set()


@pytest.mark.parametrize(
    ("words", "instruction"),
    [(None, "bash_source"), ("nnas se", "bash_complete"), ("nnas search --mu", "bash_complete")],
    ids=["source", "of a command", "of an option"],
)
def test_nothing_heavy_is_loaded_by_completion(words: str | None, instruction: str, tmp_path: Path) -> None:
    environment = {"_NNAS_COMPLETE": instruction}
    if words is not None:
        environment.update(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert HEAVY & loaded_alone(tmp_path, **environment) == set()
