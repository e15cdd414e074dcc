"""A trial while it runs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnas_core.execution.engine import Report
from nnas_core.study.storage.records import TrialRecord

__all__ = ["RunningTrial"]


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
