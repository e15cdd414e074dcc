"""What to do after a command, as a command line that can be pasted."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from nnas_cli.studies import STORAGE

if TYPE_CHECKING:
    from nnas_core.training.settings import ModelReference

__all__ = ["after_program", "after_tune", "followed", "stopped"]


def after_tune(model: ModelReference, output: str, study: str, storage: str) -> str:
    """Train the best architecture of a study alone.

    Args:
        model: of the study.
        output: where its best architecture was written to; ``-`` is standard output, which may be anywhere.
        study, storage: where it can be had from then.
    """
    arguments = [f"{key}={json.dumps(value)}" for key, value in model.model_arg.items()]
    words = ["nnas", "retrain", model.model]
    for argument in arguments:
        words += ["-a", argument]
    words += ["--task", model.task] if model.task else []
    retrain = shlex.join([*words, "--architecture", output])
    if output != "-":
        return retrain
    return f"{_of_study('export', study, storage, '--as-architecture')} | {retrain}"


def after_program(study: str, storage: str) -> str:
    """Look at the best trials of a study whose program alone can train."""
    return _of_study("trials", study, storage, "--head", "5")


def followed(study: str, storage: str) -> str:
    """Look at a study that goes on."""
    return _of_study("top", study, storage)


def stopped(study: str, storage: str) -> str:
    """Stop it."""
    return _of_study("stop", study, storage)


def _of_study(verb: str, study: str, storage: str, *more: str) -> str:
    at = [] if storage == STORAGE else ["--storage", storage]
    return shlex.join(["nnas", "study", verb, study, *more, *at])
