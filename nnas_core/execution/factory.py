"""From what trials are, and where they run, to the engine that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Engine
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.space.search_space import SearchSpace

__all__ = ["engine_of"]


def engine_of(work: Mapping[str, Any], space: SearchSpace, local: LocalSettings, cluster: RaySettings | None) -> Engine:
    """An engine, which the caller closes.

    Args:
        work: ``{"command": [...]}``, or ``{"module": ..., "setting": ...}``, see ``CommandEngine`` and ``WorkerPool``.
        space: whose architectures come.
        local: how trials run on their machine.
        cluster: where; None: on this machine.

    Raises:
        UsageError, EnvironmentFailure: see ``RayEngine``.
    """
    if cluster is not None:
        return RayEngine(work, space, local, cluster)
    if "command" in work:
        return CommandEngine(work["command"], local)
    return WorkerPool(work["module"], work["setting"], local)
