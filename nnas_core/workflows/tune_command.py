"""``nnas tune --trial-command``: each trial is a process of some program; nothing here needs a model, or torch."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.commands import LocalSettings, split_command
from nnas_core.execution.factory import engine_of
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.cooperation import SharedResult
from nnas_core.study.coordinator import StudyResult
from nnas_core.study.limits import RunSettings
from nnas_core.study.opening import run_described
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore

__all__ = ["CommandSettings", "tune_command"]


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """Every option that decides which trials a study makes and what they measure.

    Attributes:
        study: its name.
        space: what the trials choose from.
        trial_command: a command line; its words are split as a shell does, and no shell runs it.
        optimize_mode: which reported values are better: ``"maximize"`` or ``"minimize"``.
        tuner, tuner_arg: a registered name or ``file.py:Class``, and arguments for its constructor.
        seed: of the tuner.
        assessor, assessor_arg: the same, of what ends trials early; None: nothing does.
    """

    study: str
    space: SearchSpace
    trial_command: str
    optimize_mode: str = "maximize"
    tuner: str
    tuner_arg: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    assessor: str | None = None
    assessor_arg: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """What a resumed study must have again besides space, tuner, seed and mode."""
        # the words, quoted one way: spaces between them do not matter
        config: dict[str, Any] = {"trial_command": shlex.join(split_command(self.trial_command))}
        if self.assessor is not None:
            config.update(assessor=self.assessor, assessor_arg=dict(self.assessor_arg))
        return config


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
        settings: what a trial is.
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
            hint="--trial-command takes a program and its arguments: python train.py",
        )
    study_settings = StudySettings(
        name=settings.study,
        space=settings.space,
        tuner=settings.tuner,
        tuner_args=settings.tuner_arg,
        seed=settings.seed,
        optimize_mode=settings.optimize_mode,
        config=settings.config(),
    )
    with contextlib.closing(engine_of(CommandTrials(command), settings.space, local, cluster)) as engine:
        return run_described(
            store,
            study_settings,
            engine,
            run,
            assessor=settings.assessor,
            assessor_args=settings.assessor_arg,
            resume=resume,
            join=join,
        )
