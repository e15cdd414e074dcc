"""``nnas tune`` of a trial command: each trial is a process of some program; nothing here needs a model, or torch."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from pathlib import Path

from nnas_core.execution.commands import LocalSettings, find_program, split_command
from nnas_core.execution.factory import engine_of
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.machine import this_machine
from nnas_core.space.costs import latency_costs
from nnas_core.space.latency_table import read_milliseconds
from nnas_core.space.region import Region, TableCosts
from nnas_core.study.cooperation import SharedResult
from nnas_core.study.coordinator import StudyResult
from nnas_core.study.limits import RunSettings
from nnas_core.study.opening import run_described
from nnas_core.study.storage.origin import Origin
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.whereabouts import folder_of
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
        EnvironmentFailure: the cluster cannot be used, or another process works on the study.
        UsageError, InputError: there is no such program; the study exists, does not exist, or was made with other
            settings.
        NoResultError: no trial succeeded.
        Interrupted: everything is stored.
    """
    command = split_command(settings.trial_command)
    algorithms = settings.algorithms
    programs = (settings.trial_command, algorithms.tuner, algorithms.assessor)
    folder = folder_of(store, settings.study, programs) if resume or join else Path.cwd()
    if cluster is None or cluster.address is None:
        find_program(command, folder)
    table = settings.goals.latency_table
    paths = {} if table is None else {"latency_table": table}
    origin = replace(Origin.of(programs, folder), paths=paths, machine=this_machine())
    study_settings = _describe(settings, command, origin)
    run = _aimed(settings, run or RunSettings())
    local = replace(local, work_in=folder)
    if cluster is not None and join:
        cluster = replace(cluster, go_on="join")
    with contextlib.closing(engine_of(CommandTrials(command), settings.space, local, cluster)) as engine:
        return run_described(store, study_settings, engine, run, resume=resume, join=join)


def _aimed(settings: CommandSettings, run: RunSettings) -> RunSettings:
    """Says what is known of an architecture before its trial: its latency, if there is a table.

    Raises:
        NoResultError: no architecture meets the constraints.
    """
    goals = settings.goals
    if goals.latency_table is None:
        return run
    costs = TableCosts({"latency_ms": latency_costs(read_milliseconds(goals.latency_table, settings.space))})
    before = [one for one in goals.constraints if one.name in costs.names]
    return replace(run, costs=costs, region=Region(settings.space, before, costs) if before else None)


def _describe(settings: CommandSettings, command: list[str], origin: Origin) -> StudySettings:
    # of the command the words, quoted one way: spaces between them do not matter
    config = {"trial_command": shlex.join(command), **settings.goals.config("value", settings.optimize_mode)}
    described = settings.algorithms.study(settings.study, settings.space, settings.seed, settings.optimize_mode, config)
    return replace(described, origin=origin)
