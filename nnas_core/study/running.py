"""From the description of a study to its end: with its tuner and its assessor, by one process or beside others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnas_core.execution.engine import Engine, Evaluate
from nnas_core.study.cooperation import JoinedResult, run_joined
from nnas_core.study.coordinator import StudyResult, run_study
from nnas_core.study.limits import TrialRules
from nnas_core.study.opening import create_assessor, open_study
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore

__all__ = ["run_described"]


def run_described(
    store: StudyStore,
    settings: StudySettings,
    engine: Engine | Evaluate,
    assessor: str | None = None,
    assessor_args: Mapping[str, Any] | None = None,
    *,
    rules: TrialRules | None = None,
    resume: bool = False,
    join: bool = False,
    **run: Any,
) -> StudyResult | JoinedResult:
    """Run a study.

    Args:
        store: where it is, or will be.
        settings: what it is made with.
        engine: see ``run_study``.
        assessor, assessor_args: a registered name, or ``file.py:Class``, and arguments for its constructor.
        rules: see ``run_study``; their assessor is this one.
        resume: go on with a study of that name; else it must be new.
        join: work on it beside other processes, see ``run_joined``; whoever comes first begins it.
        run: limits and callbacks, as ``run_study`` and ``run_joined`` have them.

    Raises:
        UserCodeError: tuner or assessor are none.
        UsageError, InputError: the study exists, does not exist, or was made with other settings; an argument is wrong.
        EnvironmentFailure, NoResultError, Interrupted: see ``run_study``.
    """
    if assessor is not None:
        made = create_assessor(assessor, assessor_args or {}, settings.optimize_mode)
        rules = replace(rules or TrialRules(), assessor=made)
    study, tuner = open_study(store, settings, resume, join)
    if join:
        return run_joined(store, study, tuner, engine, rules=rules, **run)
    return run_study(store, study, tuner, engine, rules=rules, **run)
