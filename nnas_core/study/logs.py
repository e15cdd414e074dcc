"""Where the output of a trial is kept."""

from __future__ import annotations

import os
from pathlib import Path

from nnas_core.errors import InputError
from nnas_core.execution.commands import log_file
from nnas_core.study.storage.records import TrialRecord

__all__ = ["find_log"]


def find_log(trial: TrialRecord, attempt: int | None = None) -> tuple[Path, int]:
    """Returns the file with the output of a trial, and the number of the attempt that it is of.

    Args:
        trial: whose program ran on this machine, or in a folder that it sees.
        attempt: which; None: the last one that left a log.

    Raises:
        InputError: there is no such log.
    """
    name = f"trial {trial.number}"
    if trial.log_folder is None:
        raise InputError(
            f"{name} has no log of its own",
            hint="it was imported, or has not begun, or ran in the process of the study, whose output has what it said",
        )
    folder = Path(trial.log_folder)
    attempts = range(trial.attempt, 0, -1) if attempt is None else (attempt,)
    for number in attempts:
        path = log_file(folder, trial.number, number)
        if os.path.isfile(path):  # a number of any length is in its name
            return path, number
    if next(folder.glob("worker-*.log"), None) is not None:
        raise InputError(f"{name} has no log of its own", hint=f"its worker has: see {folder}/worker-*.log")
    which = "" if attempt is None else f" of attempt {attempt}"
    raise InputError(
        f"{name} has no log{which} in {folder}", hint="it may be on the machine that ran it, or be deleted"
    )
