"""Columns of tables of trials: what architectures cost, and what constraints and objectives are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnas_core.study.pareto import Front
    from nnas_core.study.storage.records import StudySettings, TrialRecord

__all__ = ["costs_as_json", "front_lines", "number_columns", "shown", "title"]

_TITLES = {"parameters": "parameters", "macs": "MACs", "latency_ms": "latency ms", "memory_mib": "memory MiB"}

_MOST_LINES = 20
"""Of a Pareto set."""


def number_columns(trials: Sequence[TrialRecord], made: StudySettings) -> tuple[list[str], list[list[str]], list[str]]:
    """The columns of what trials cost and are asked for.

    Returns:
        Their names; the cells of each trial; and those that can be missed.
    """
    asked = [one.name for one in made.constraints] + [one.name for one in made.objectives[1:]]
    names = [name for name in dict.fromkeys(["parameters", "macs", *asked]) if name != "value"]
    numbers = [trial.numbers for trial in trials]
    names = [name for name in names if any(name in one for one in numbers)]
    rows = [[shown(one.get(name)) for name in names] for one in numbers]
    titles = [title(name) for name in names]
    missed = [title for name, title in zip(names, titles, strict=True) if name not in asked]
    return titles, rows, missed[::-1]


def title(name: str) -> str:
    """The name of a column, or of a line."""
    return _TITLES.get(name, name)


def shown(value: float | None) -> str:
    """A number of a trial: whole ones with all their digits."""
    if value is None:
        return "-"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def costs_as_json(trial: TrialRecord, made: StudySettings) -> dict[str, float]:
    """The costs of a trial that are the same whenever it runs: no times, unless they are of a table."""
    timed = {"seconds", *([] if "latency_table" in made.config else ["latency_ms"])}
    return {name: value for name, value in trial.cost.items() if name not in timed}


def front_lines(front: Front) -> list[str]:
    """The trials of a Pareto set, one a line, and its hypervolume."""
    names = [one.name for one in front.objectives]
    lines = [
        f"trial {trial.number}: " + ", ".join(f"{name} {shown(trial.numbers[name])}" for name in names)
        for trial in front.trials[:_MOST_LINES]
    ]
    more = len(front.trials) - len(lines)
    if more > 0:
        lines.append(f"and {more} more (--json has all)")
    reference = ", ".join(f"{name} {shown(value)}" for name, value in front.reference.items())
    return [*lines, f"hypervolume {front.hypervolume:.6g} beyond {reference}"]
