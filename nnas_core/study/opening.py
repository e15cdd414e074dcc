"""A study begins here: a new one, the same one again, its tuner and its assessor; and runs to its end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnas_core.assessors.base import Assessor
from nnas_core.errors import InputError, NnasWarning, UsageError
from nnas_core.execution.engine import Engine, Evaluate
from nnas_core.plugins import registry
from nnas_core.plugins.arguments import construct
from nnas_core.study.cooperation import SharedResult, run_shared
from nnas_core.study.coordinator import StudyResult, run_study
from nnas_core.study.limits import RunSettings
from nnas_core.study.storage.records import StudyRecord, StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner

__all__ = [
    "create_assessor",
    "create_study",
    "create_tuner",
    "join_study",
    "open_study",
    "resume_study",
    "run_described",
]


def run_described(
    store: StudyStore,
    described: StudySettings,
    engine: Engine | Evaluate,
    settings: RunSettings | None = None,
    *,
    resume: bool = False,
    join: bool = False,
) -> StudyResult | SharedResult:
    """Runs a study from its description, with its tuner and its assessor, alone or beside other processes.

    Args:
        store: where it is, or will be.
        described: what it is made with; its assessor ends trials early.
        engine: see ``run_study``.
        settings: how long, how much at once, and who is told.
        resume: go on with a study of that name; else it must be new.
        join: work on it beside other processes, see ``run_shared``; whoever comes first begins it.

    Raises:
        UserCodeError: tuner or assessor are none.
        UsageError, InputError: the study exists, does not exist, or was made with other settings; an argument is wrong.
        EnvironmentFailure, NoResultError, Interrupted: see ``run_study``.
    """
    settings = settings or RunSettings()
    if described.assessor is not None:
        made = create_assessor(described.assessor, described.assessor_args, described.optimize_mode)
        settings = replace(settings, rules=replace(settings.rules, assessor=made))
    study, tuner = open_study(store, described, resume, join)
    run = run_shared if join else run_study
    return run(store, study, tuner, engine, settings)


def create_study(store: StudyStore, settings: StudySettings) -> StudyRecord:
    """Stores a new study.

    Raises:
        UsageError: there is one of that name, which ``resume_study`` would go on with.
    """
    return store.create_study(settings)


def resume_study(store: StudyStore, settings: StudySettings) -> StudyRecord:
    """Finds a study again, and makes sure that what is asked for now is what it was made with.

    Raises:
        InputError: there is no such study, or settings differ; each difference is listed.
    """
    study = store.study(settings.name)
    before, now = study.settings.origin, settings.origin
    differences = study.settings.differences(settings)
    if differences:
        raise InputError(
            f"study {settings.name!r} was made with other settings",
            where=store.where,
            problems=differences,
            hint="use the old ones, or start another study by `study` NAME",
        )
    for name in before.changed(now):
        warnings.warn(
            f"{name} has changed since study {settings.name!r} was begun: its earlier trials ran what was there before",
            NnasWarning,
            stacklevel=2,
        )
    return study


def join_study(store: StudyStore, settings: StudySettings) -> StudyRecord:
    """Returns the study of that name, new if there is none yet; any number of processes may do so at once.

    Raises:
        InputError: there is one of other settings; each difference is listed.
    """
    try:
        return create_study(store, settings)
    except UsageError:  # there is one
        return resume_study(store, settings)


def open_study(
    store: StudyStore, settings: StudySettings, resume: bool, join: bool = False
) -> tuple[StudyRecord, Tuner]:
    """Returns the study that ``settings`` describe, and a fresh tuner for it.

    Args:
        store: where it is, or will be.
        settings: what it is made with.
        resume: go on with a study; else it must be new.
        join: whichever it is.

    Raises:
        UserCodeError: what the tuner's name means is none.
        UsageError, InputError: see ``create_tuner``, ``create_study`` and ``resume_study``.
    """
    kind = registry.find_subclass("tuners", settings.tuner, Tuner)  # type: ignore[type-abstract]  # likewise
    if len(settings.objectives) > 1 and not kind.serves_objectives:
        raise UsageError(
            f"tuner {settings.tuner!r} serves one objective, not {len(settings.objectives)}",
            hint="take bayes, evolution, nsga2 or random for several",
        )
    tuner = create_tuner(
        kind,
        settings.tuner_args,
        name=settings.tuner,
        seed=settings.seed,
        optimize_mode=settings.optimize_mode,
    )
    find = join_study if join else resume_study if resume else create_study
    return find(store, settings), tuner


def create_tuner(kind: type[Tuner], args: Mapping[str, Any], *, name: str, seed: int, optimize_mode: str) -> Tuner:
    """Builds a tuner; ``seed`` and ``optimize_mode`` go to those that name them.

    Args:
        kind: the class.
        args: its arguments by name.
        name: what errors call it.
        seed: of the study.
        optimize_mode: of the study.

    Raises:
        UsageError: arguments that it does not take, or does not get.
    """
    return construct(kind, args, f"tuner {name!r}", provided={"seed": seed, "optimize_mode": optimize_mode})


def create_assessor(name: str, args: Mapping[str, Any], optimize_mode: str) -> Assessor:
    """Builds an assessor; ``optimize_mode`` goes to one that names it.

    Args:
        name: a registered name, or ``file.py:Class``.
        args: its arguments by name.
        optimize_mode: of the study.

    Raises:
        UsageError: no such name, or arguments that it does not take, or does not get.
        UserCodeError: what the name means is no assessor.
    """
    kind = registry.find_subclass("assessors", name, Assessor)  # type: ignore[type-abstract]  # a subclass is found
    return construct(kind, args, f"assessor {name!r}", provided={"optimize_mode": optimize_mode})
