"""From what trials are, and where they run, to the engine that runs them."""

from __future__ import annotations

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Engine
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.execution.work import CommandTrials, TrialKind
from nnas_core.space.search_space import SearchSpace

__all__ = ["engine_of", "local_engine"]


def engine_of(kind: TrialKind, space: SearchSpace, local: LocalSettings, cluster: RaySettings | None) -> Engine:
    """Returns an engine, which the caller closes.

    Args:
        kind: what a trial is.
        space: whose architectures come.
        local: how trials run on their machine.
        cluster: where; None: on this machine.

    Raises:
        UsageError, EnvironmentFailure: see ``RayEngine``.
    """
    return local_engine(kind, local) if cluster is None else RayEngine(kind, space, local, cluster)


def local_engine(kind: TrialKind, local: LocalSettings) -> Engine:
    """Returns an engine of this machine, which the caller closes."""
    if isinstance(kind, CommandTrials):
        return CommandEngine(kind.command, local)
    return WorkerPool(kind.module, kind.setting, local)
