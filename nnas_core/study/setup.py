"""A study begins here: a new one, the same one again, and the tuner that proposes its trials."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnas_core import registry
from nnas_core.errors import InputError, UsageError, UserCodeError
from nnas_core.study.records import StudyRecord, StudySettings
from nnas_core.tuner import Tuner

if TYPE_CHECKING:
    from nnas_core.study.store import StudyStore

__all__ = ["create_study", "create_tuner", "open_study", "resume_study"]

_OURS = {"seed": "--seed", "optimize_mode": "the metric's mode"}


def create_study(store: StudyStore, settings: StudySettings) -> StudyRecord:
    """Store a new study.

    Raises:
        UsageError: there is one of that name, which ``--resume`` would go on with.
    """
    return store.create_study(settings)


def resume_study(store: StudyStore, settings: StudySettings) -> StudyRecord:
    """Find a study again, and make sure that what is asked for now is what it was made with.

    Raises:
        InputError: there is no such study, or settings differ; each difference is listed.
    """
    study = store.study(settings.name)
    differences = study.settings.differences(settings)
    if differences:
        raise InputError(
            f"study {settings.name!r} was made with other settings",
            where=store.where,
            problems=differences,
            hint="use the old ones, or start another study by --study NAME",
        )
    return study


def open_study(store: StudyStore, settings: StudySettings, resume: bool) -> tuple[StudyRecord, Tuner]:
    """The study that ``settings`` describe, new or to be gone on with, and a fresh tuner for it.

    Raises:
        UserCodeError: what the tuner's name means is none.
        UsageError, InputError: see ``create_tuner``, ``create_study`` and ``resume_study``.
    """
    kind = registry.find("tuners", settings.tuner)
    if not issubclass(kind, Tuner):
        raise UserCodeError(f"{kind.__name__} is no Tuner", where=settings.tuner, hint="derive it from nnas_core.Tuner")
    tuner = create_tuner(
        kind,
        settings.tuner_args,
        name=settings.tuner,
        seed=settings.seed,
        optimize_mode=settings.optimize_mode,
    )
    return (resume_study if resume else create_study)(store, settings), tuner


def create_tuner(kind: type[Tuner], args: Mapping[str, Any], *, name: str, seed: int, optimize_mode: str) -> Tuner:
    """Build a tuner; ``seed`` and ``optimize_mode`` go to those that name them.

    Args:
        kind: the class.
        args: its arguments by name.
        name: what errors call it.
        seed: of the study.
        optimize_mode: of the study.

    Raises:
        UsageError: arguments that it does not take, or does not get.
    """
    parameters = dict(inspect.signature(kind).parameters)
    for reserved, source in _OURS.items():
        if reserved in args:
            raise UsageError(f"tuner {name!r}: {reserved} is not an argument, it comes from {source}")
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = {key: one for key, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    accepted = sorted(set(named) - set(_OURS))
    unknown = sorted(set(args) - set(named))
    takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
    if unknown and not takes_any:
        raise UsageError(f"tuner {name!r} has no argument {', '.join(map(repr, unknown))}", hint=takes)
    missing = [key for key in accepted if named[key].default is inspect.Parameter.empty and key not in args]
    if missing:
        example = f"--tuner-arg {missing[0]}={json.dumps(1)}"
        raise UsageError(
            f"tuner {name!r} needs the argument {', '.join(map(repr, missing))}", hint=f"give it as {example}"
        )
    given: dict[str, Any] = {"seed": seed, "optimize_mode": optimize_mode}
    return kind(**args, **{key: value for key, value in given.items() if key in named})
