"""Where trials run: in this process, in processes of this machine, on a Ray cluster; nothing here knows of studies.

    engine: submit a Job, poll for reports, cancel
        InProcessEngine                  a function, in this process
        commands.CommandEngine           a program a trial, with files (results)    --+--> process: supervised, bounded,
        pool.WorkerPool                  workers that load once (worker)            --+    gone when it should be
        ray.engine.RayEngine             the two above, on the nodes of a cluster
    protocol: the messages between these processes, over pipes

Begin with ``Engine``, and ``engine_of``, which makes one from what trials are (``CommandTrials``, ``WorkerTrials``) and
where they run (``LocalSettings``, ``RaySettings``).
"""

from __future__ import annotations

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import (
    Engine,
    Evaluate,
    Failed,
    Finished,
    InProcessEngine,
    Intermediate,
    Job,
    Report,
    TrialFailed,
    TrialResult,
)
from nnas_core.execution.factory import engine_of
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.execution.work import CommandTrials, TrialKind, WorkerTrials
from nnas_core.execution.worker import Cancelled, EvaluateInSteps, serve

__all__ = [
    "Cancelled",
    "CommandEngine",
    "CommandTrials",
    "Engine",
    "Evaluate",
    "EvaluateInSteps",
    "Failed",
    "Finished",
    "InProcessEngine",
    "Intermediate",
    "Job",
    "LocalSettings",
    "RayEngine",
    "RaySettings",
    "Report",
    "TrialFailed",
    "TrialKind",
    "TrialResult",
    "WorkerPool",
    "WorkerTrials",
    "engine_of",
    "serve",
]
