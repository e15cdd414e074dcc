"""Processes that join a study, played by one: while a trial of one of them runs, another one does its work."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

from nnas_core.execution.engine import TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.cooperation import SharedResult, run_shared
from nnas_core.study.storage.leases import TERM
from nnas_core.study.storage.records import StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.trial_objective import evaluate

__all__ = ["calls", "change", "check_calls", "during", "join", "leave_after", "lose_contact"]

Evaluate = Callable[[Architecture], TrialResult]


def join(
    store: StudyStore, study: StudyRecord, evaluation: Evaluate = evaluate, term: timedelta = TERM, **how: Any
) -> SharedResult:
    """One more of those who work on the study."""
    return run_shared(
        store, study, study_programs.tuner_of(study), evaluation, study_programs.run_settings(**how), term
    )


def during(trial: int, deed: Callable[[], object]) -> Evaluate:
    """An evaluation in whose so many-th trial, counted from 0, something else happens."""
    count = iter(range(1000))

    def evaluation(architecture: Architecture) -> TrialResult:
        if next(count) == trial:
            deed()
        return evaluate(architecture)

    return evaluation


def leave_after(trials: int) -> dict[str, Any]:
    """Arguments of a joiner to which a signal comes after so many trials."""
    ended: list[TrialRecord] = []
    return {"on_trial": ended.append, "should_stop": lambda: 15 if len(ended) >= trials else None}


def change(store: StudyStore, **values: Any) -> None:
    """Make the rows of all that have joined say something else."""
    columns = ", ".join(f"{name}=?" for name in values)
    with closing(sqlite3.connect(store.where, isolation_level=None)) as connection:
        connection.execute(f"UPDATE joiners SET {columns}", list(values.values()))


def lose_contact(store: StudyStore) -> None:
    """All that have joined seem to be on another machine, and silent for long."""
    change(store, host="elsewhere", expires="2020-01-01T00:00:00+00:00")


def calls(store: StudyStore) -> list[tuple[int, str, int]]:
    """All calls of the tuner in their order, as the tables have them."""
    found = []
    with store._database.read() as connection:
        for table in ("trials", "repeats"):
            query = f"SELECT number, proposed_order, told_order FROM {table}"
            for number, proposed, told in connection.exec_driver_sql(query):
                found.append((proposed, "proposed", number))
                if told is not None:
                    found.append((told, "told", number))
    return sorted(found)


def check_calls(store: StudyStore, *, beside: bool) -> None:
    """One tuner that hears what was told, in that order, proposes what was proposed.

    Args:
        store: has the study.
        beside: whether trials ran at the same time.
    """
    study = store.study("study")
    space = study.settings.space
    tuner = study_programs.tuner_of(study)
    tuner.update_search_space(space.to_json())
    trials = {trial.number: trial for trial in store.trials(study)}
    asked: dict[int, tuple[int, Any]] = {}
    most = proposals = 0
    for place, (order, kind, number) in enumerate(calls(store)):
        assert order == place  # each number once, and none left out
        trial = trials[number]
        if kind == "proposed":
            parameters = tuner.generate_parameters(proposals)
            assert space.parse(parameters) == trial.architecture
            asked[number] = proposals, parameters
            proposals += 1
            most = max(most, len(asked))
        else:
            parameter_id, parameters = asked.pop(number)
            if trial.state == "succeeded":
                tuner.receive_trial_result(parameter_id, parameters, trial.value)
            tuner.trial_end(parameter_id, trial.state == "succeeded")
    assert proposals == len(trials)
    assert (most > 1) == beside
