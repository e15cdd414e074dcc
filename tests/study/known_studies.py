"""Small studies whose every number is known, for tests of what is done with studies from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.records import StudyRecord, StudySettings
from nnas_core.study.storage.store import StudyStore

SPACE = SearchSpace.from_json(
    {
        "act": {"_type": "layer_choice", "_value": ["relu", "tanh"]},
        "link": {"_type": "input_choice", "_value": {"candidates": ["a", "b", "c"], "n_chosen": 2}},
        "op": {"_type": "layer_choice", "_value": ["conv", "pool"]},
    }
)
"""2 * 3 * 2 = 12 architectures; number 0 is relu, (a, b), conv, number 1 has pool, number 2 has (a, c) and conv."""

VALUES = (0.5, 0.75, None, 0.25)
"""Of the trials of ``make``; None fails."""


def make(
    store: StudyStore,
    name: str = "first",
    values: Sequence[float | None] = VALUES,
    *,
    state: str = "finished",
    intermediate: bool = False,
    **changes: Any,
) -> StudyRecord:
    """A study whose trial ``i`` has architecture ``i`` of the space, took ``i + 1`` seconds, and gave ``values[i]``."""
    settings = StudySettings(name, **{"space": SPACE, "tuner": "random", "config": {"epochs": 1}, **changes})
    study = store.create_study(settings)
    with store.acquire(study) as session:
        session.set_limits({"trials": len(values), "duration_s": None, "concurrency": 1})
        for place, value in enumerate(values):
            trial = session.trials.start(settings.space.at(place))
            if intermediate:
                session.trials.intermediate(trial, 0, place / 10)
            if value is None:
                session.trials.fail(trial, "out of memory", place + 1)
            else:
                session.trials.succeed(
                    trial, value, {"accuracy": value, "loss": 1 - value}, {"parameters": 10}, place + 1
                )
        session.release(state)
    return store.study(name)
