"""NNI's way to a search space: run the trial once, and it writes its space instead of training.

A program of NNI 1.x that calls ``get_and_apply_next_architecture`` writes its search space to the file that the
environment variable ``NNI_GEN_SEARCH_SPACE`` names, and ends.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from nnas_core.errors import InputError, UsageError, UserCodeError
from nnas_core.files import read_json
from nnas_core.space.search_space import SearchSpace

__all__ = ["VARIABLE", "dry_run"]

VARIABLE = "NNI_GEN_SEARCH_SPACE"


def dry_run(command: str, folder: str) -> SearchSpace:
    """Run a trial command for its search space.

    Args:
        command: split into words as a shell would; no shell runs it. Its output goes to standard error.
        folder: where it runs.

    Raises:
        UsageError: no command, or no such folder.
        InputError: there is no such program, or what it wrote is no search space.
        UserCodeError: it failed, or wrote nothing.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"`trial_command` cannot be split into words: {error}") from error
    if not words:
        raise UsageError("`trial_command` is empty")
    if not Path(folder).is_dir():
        raise UsageError("no such folder", where=folder, hint="check `trial_dir`")
    # a file of our own, so that one from an earlier run is never taken for the answer
    with tempfile.TemporaryDirectory(prefix="nnas-") as temporary:
        answer = Path(temporary) / "search_space.json"
        try:
            ended = subprocess.run(
                words,
                cwd=folder,
                env={**os.environ, VARIABLE: str(answer)},
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                check=False,
            )
        except OSError as error:
            raise InputError(
                f"cannot be run: {error.strerror}", where=words[0], hint="check `trial_command`"
            ) from error
        if ended.returncode != 0:
            raise UserCodeError(f"the trial command ended with exit code {ended.returncode}", where=command)
        if not answer.exists():
            raise UserCodeError(
                "the trial command wrote no search space",
                where=command,
                hint=f"it must write to the file that the environment variable {VARIABLE} names",
            )
        return SearchSpace.from_json(read_json(answer), "what the trial command wrote")
