"""A trial while it runs in this process, and what is made of its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnas_core.execution.engine import Report, TrialResult
from nnas_core.files import finite, finite_only, not_finite
from nnas_core.space.goals import nothing_reports
from nnas_core.space.region import KnownCosts
from nnas_core.study.storage.records import StudySettings, TrialRecord, numbers_of

__all__ = ["RunningTrial", "measured"]


@dataclass
class RunningTrial:
    """A trial that runs here.

    Attributes:
        record: as it is stored.
        losses: how many of its attempts ended because a process died.
        reported: what this attempt has reported on its way; infinity, on the bad side, for what was not finite.
        stored: how many of these values are stored.
        stopping: it is being ended early.
        killed: who but the assessor ends it.
        left: all that it has reported, where it had finished before it was found here; it is not measured again.
    """

    record: TrialRecord
    losses: int = 0
    reported: list[float] = field(default_factory=list)
    stored: int = 0
    stopping: bool = False
    killed: str | None = None
    left: Sequence[Report] = ()


def measured(
    made: StudySettings, costs: KnownCosts | None, trial: TrialRecord, given: TrialResult, *, is_first: bool
) -> TrialResult | str:
    """Returns a result as it is stored: finite numbers, what the architecture costs, and the first objective as value.

    Args:
        made: what the study was made with.
        costs: what is known of architectures without a trial.
        trial: which.
        given: as it was reported.
        is_first: no trial of the study has succeeded before.

    Returns:
        The result; or why it is none.

    Raises:
        UsageError: the first trial lacks a number that a constraint or an objective is about, and so will all.
    """
    value = finite(given.value)
    if value is None:
        return not_finite(given.value)
    known = {} if costs is None else costs.of(trial.architecture)
    metrics, cost = finite_only(given.metrics), {**finite_only(known), **finite_only(given.cost)}
    numbers = numbers_of(value, metrics, cost)
    unreported = made.unreported(numbers)
    if unreported is not None and is_first:
        raise nothing_reports(*unreported, numbers)
    if unreported is not None:
        return f"it reports no {unreported[1]!r}"
    return TrialResult(numbers[made.objectives[0].name] if made.objectives else value, metrics, cost)
