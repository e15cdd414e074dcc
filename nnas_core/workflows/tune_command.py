"""``nnas tune`` of a trial command: each trial is a process of some program; nothing here needs a model, or torch."""

from __future__ import annotations

import contextlib
import shlex
import shutil

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.commands import LocalSettings, split_command
from nnas_core.execution.factory import engine_of
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.study.cooperation import SharedResult
from nnas_core.study.coordinator import StudyResult
from nnas_core.study.limits import RunSettings
from nnas_core.study.opening import run_described
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.workflows.settings import CommandSettings

__all__ = ["tune_command"]


def tune_command(
    settings: CommandSettings,
    store: StudyStore,
    local: LocalSettings,
    cluster: RaySettings | None = None,
    *,
    run: RunSettings | None = None,
    resume: bool = False,
    join: bool = False,
) -> StudyResult | SharedResult:
    """Run a study whose trials are processes of a command; see ``CommandEngine`` for what they find and leave.

    Args:
        settings: of the study and its trials.
        store: where the study is, or will be.
        local: where the files of trials go, and what each gets of its machine.
        cluster: where trials run; None: on this machine.
        run: until when, and who is told.
        resume, join: see ``run_described``.

    Raises:
        EnvironmentFailure: there is no such program, or the cluster cannot be used.
        UsageError, InputError: the study exists, does not exist, or was made with other settings.
        NoResultError: no trial succeeded.
        Interrupted: everything is stored.
    """
    command = split_command(settings.trial_command)
    elsewhere = cluster is not None and cluster.address is not None
    if not elsewhere and shutil.which(command[0]) is None:
        raise EnvironmentFailure(
            "no such program, or one that cannot be executed",
            where=command[0],
            hint="`trial_command` takes a program and its arguments: python train.py",
        )
    study_settings = _describe(settings, command)
    with contextlib.closing(engine_of(CommandTrials(command), settings.space, local, cluster)) as engine:
        return run_described(store, study_settings, engine, run, resume=resume, join=join)


def _describe(settings: CommandSettings, command: list[str]) -> StudySettings:
    # of the command the words, quoted one way: spaces between them do not matter
    config = {"trial_command": shlex.join(command)}
    return settings.algorithms.study(settings.study, settings.space, settings.seed, settings.optimize_mode, config)
