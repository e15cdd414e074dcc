"""What trials of tests measure, with as few imports as workers need that start many times."""

from __future__ import annotations

import os
from typing import Any

from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace

__all__ = ["TRIAL_S", "Log", "additive", "evaluate", "space_of_all_kinds"]

TRIAL_S = 0.02
"""How long workers take for a trial, at least."""


def space_of_all_kinds() -> SearchSpace:
    """Every kind of choice; 3 * 1 * 8 * 1 * 4 * 6 = 576 architectures."""

    def inputs(count: int, n_chosen: int | None) -> dict[str, Any]:
        names = [f"node{index}" for index in range(count)]
        return {"_type": "input_choice", "_value": {"candidates": names, "n_chosen": n_chosen}}

    return SearchSpace.from_json(
        {
            "layer": {"_type": "layer_choice", "_value": ["conv", "pool", "skip"]},
            "only": {"_type": "layer_choice", "_value": ["conv"]},
            "any": inputs(3, None),
            "none": inputs(3, 0),
            "one": inputs(4, 1),
            "two": inputs(4, 2),
        }
    )


def additive(architecture: Architecture) -> float:
    """An objective with one optimum: every decision adds its own part, later candidates more."""
    return sum(
        (place + 1) * sum(index + 1 for index in decision)
        for place, decision in enumerate(architecture.indices().values())
    )


def evaluate(architecture: Architecture) -> TrialResult:
    """``additive``, and one architecture in ten fails."""
    value = additive(architecture)
    if value % 10 == 3:
        raise TrialFailed(f"{value} does not work")
    return TrialResult(value, {"value": value}, {"parts": len(architecture)})


class Log:
    """Lines that are on disk when ``write`` returns; a torn line cannot come from one write."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())
