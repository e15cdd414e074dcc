"""A search space, and programs that ``nnas tune --trial-command`` runs over it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nnas_core.study.storage.records import TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, Result

__all__ = ["BEGIN", "COMMAND", "RESULT", "SPACE", "errors", "program", "stored", "tune", "write_files"]

SPACE = {
    "op": {"_type": "layer_choice", "_value": ["a", "b", "c"]},
    "n": {"_type": "layer_choice", "_value": ["1", "2", "3"]},
}

BEGIN = """
import json, os, signal, sys, time
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
op, n = (parameters[key]["_idx"] for key in ("op", "n"))
trial, attempt = int(os.environ["NNAS_TRIAL"]), int(os.environ["NNAS_ATTEMPT"])

def write(text):
    with open(os.environ["NNAS_RESULT"] + ".part", "w") as file:
        file.write(text)
    os.replace(file.name, os.environ["NNAS_RESULT"])

def report(value):
    with open(os.environ["NNAS_INTERMEDIATE"], "a") as file:
        file.write(json.dumps({"value": value}) + chr(10))

def meet(other):
    # wait until the other trial has begun too
    open(f"begun-{trial}", "w").close()
    while not os.path.exists(f"begun-{other}"):
        time.sleep(0.005)
"""

RESULT = "\nwrite(json.dumps({'value': 10 * op + n}))\n"

COMMAND = f"{sys.executable} -I -S trial.py"


def write_files(folder: Path) -> None:
    """``space.json``, and the ``trial.py`` whose result is 10 times the index at ``op``, plus that at ``n``."""
    (folder / "space.json").write_text(json.dumps(SPACE))
    (folder / "trial.py").write_text(BEGIN + RESULT)


def tune(nnas: Cli, *arguments: object, trials: int = 9, command: str = COMMAND) -> Result:
    """The nine trials in the order of the grid."""
    return nnas("tune", "space.json", "--trial-command", command, "--tuner", "grid", "--trials", trials, *arguments)


def program(text: str, result: str = RESULT) -> None:
    """What ``trial.py`` does between its begin and its end."""
    Path("trial.py").write_text(BEGIN + text + result)


def stored(study: str = "space-grid") -> list[TrialRecord]:
    """What the store has."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return store.trials(store.study(study))


def errors(study: str = "space-grid") -> dict[int, str | None]:
    """Why trials failed, by their numbers."""
    return {trial.number: trial.error for trial in stored(study) if trial.state == "failed"}
