"""Trials are of two kinds: runs of a command, or evaluations in worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["CommandTrials", "TrialKind", "WorkerTrials"]


@dataclass(frozen=True)
class CommandTrials:
    """Each trial runs a command, see ``CommandEngine``.

    Attributes:
        command: program and arguments.
    """

    command: Sequence[str]


@dataclass(frozen=True)
class WorkerTrials:
    """Trials are evaluated by workers, see ``WorkerPool``.

    Attributes:
        module: its ``main(jobs, reports)`` calls ``nnas_core.execution.worker.serve``.
        setting: what a worker is prepared with; plain JSON.
    """

    module: str
    setting: Mapping[str, object]


TrialKind = CommandTrials | WorkerTrials
