"""An engine runs trials, in three calls: submit a job, poll for reports, cancel.

An engine stores nothing and retries nothing. The coordinator does both, and refuses reports of attempts that it has
given up.
"""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nnas_core.errors import NnasError, UserCodeError
from nnas_core.space.architecture import Architecture

__all__ = [
    "Engine",
    "Evaluate",
    "EvaluateAttended",
    "Failed",
    "Finished",
    "InProcessEngine",
    "Intermediate",
    "Job",
    "Report",
    "TrialFailed",
    "TrialResult",
]


class TrialFailed(Exception):
    """Raised by an evaluation: this trial has no result, the study goes on.

    Args:
        message: why, one line; it is stored with the trial.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class TrialResult:
    """The result of an evaluation.

    Attributes:
        value: *the* metric; a trial whose value is not a finite number fails.
        metrics: everything measured, by name; entries that are not finite numbers are not stored.
        cost: what it took (seconds, parameters, FLOPs), by name; the same.
    """

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


Evaluate = Callable[[Architecture], TrialResult]

EvaluateAttended = Callable[[Architecture, Callable[[], None]], TrialResult]
"""Measures an architecture, and calls what it is given between its steps; that may raise, and then it ends."""


@dataclass(frozen=True)
class Job:
    """One attempt of one trial.

    Attributes:
        number: of the trial.
        attempt: from 1.
        architecture: what to evaluate.
        timeout_s: after how long it fails; None for no limit.
    """

    number: int
    attempt: int
    architecture: Architecture
    timeout_s: float | None = None


@dataclass(frozen=True)
class Intermediate:
    """A value that a trial has on its way, ``sequence`` 0, 1, 2, ...; NaN for one that is not finite."""

    number: int
    attempt: int
    sequence: int
    value: float


@dataclass(frozen=True)
class Finished:
    """A trial has ended with a result; whether its value is a finite number, the coordinator judges."""

    number: int
    attempt: int
    result: TrialResult
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A trial has ended without a result.

    Attributes:
        number, attempt: of the job.
        message: why, one line.
        seconds: how long it took.
        lost: its process died, which another attempt may survive.
        error: ended the evaluation, where that may be the fault of all trials. Engines report only errors of the
            user's code; others come out of ``poll``.
    """

    number: int
    attempt: int
    message: str
    seconds: float
    lost: bool = False
    error: NnasError | None = None


Report = Intermediate | Finished | Failed


class Engine(ABC):
    """Runs jobs at the same time, as many as it has ``slots``.

    Attributes:
        label: who runs the trials, for people: ``host:pid``.
        log_folder: where it keeps their logs, absolute; None: nowhere.
        attend: called now and then while ``poll`` evaluates itself; it may cancel what is evaluated.
    """

    def __init__(self) -> None:
        self.attend: Callable[[], None] = lambda: None
        self.log_folder: str | None = None
        self.label = f"{socket.gethostname()}:{os.getpid()}"

    @property
    @abstractmethod
    def slots(self) -> int:
        """Holds the most jobs that it takes at once."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Begins a job, or queues it; no more than ``slots`` are ever given."""

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Report]:
        """Returns what was reported since the last call, in the order of arrival; waits at most so long for a report.

        Each job is reported once as ``Finished`` or ``Failed``, when nothing of it runs any more.
        """

    @abstractmethod
    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Ends a job; it is reported as ``Failed`` with ``reason``, unless its result came first."""

    def left(self, job: Job, begun: datetime) -> list[Report]:
        """Returns all reports of an attempt that had finished when its coordinator died; none if it had not.

        Args:
            job: as it was submitted to an engine with the same ``log_folder``.
            begun: not before that.
        """
        return []

    def close(self) -> None:
        """Ends all jobs without reports, and leaves no process behind; may be called twice."""


class InProcessEngine(Engine):
    """Evaluates one trial at a time in this process, inside ``poll``.

    Args:
        evaluate: measures an architecture; ``TrialFailed`` and ``UserCodeError`` fail the job, any other exception
            comes out of ``poll``.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._unwanted: str | None = None  # why the running job is to end
        self._cancelled: list[Report] = []

    @classmethod
    def attended(cls, evaluate: EvaluateAttended) -> InProcessEngine:
        """Returns an engine whose jobs can be cancelled while they run, between their steps."""
        engine = cls(lambda architecture: evaluate(architecture, engine._between))
        return engine

    def _between(self) -> None:
        self.attend()
        if self._unwanted is not None:
            raise TrialFailed(self._unwanted)

    @property
    def slots(self) -> int:
        """Holds one."""
        return 1

    def submit(self, job: Job) -> None:
        """Keeps the job for the next ``poll``; it cannot be timed out."""
        self._jobs.append(job)

    def poll(self, timeout_s: float) -> list[Report]:
        """Evaluates one job to its end, however long that takes."""
        reports, self._cancelled = self._cancelled, []
        if self._jobs:
            reports.append(self._run(self._jobs.popleft()))
        return reports

    def _run(self, job: Job) -> Report:
        begin = time.monotonic()
        self._running, self._unwanted = job, None
        try:
            result = self._evaluate(job.architecture)
        except TrialFailed as failure:
            return Failed(job.number, job.attempt, failure.message, time.monotonic() - begin)
        except UserCodeError as failure:
            return Failed(job.number, job.attempt, failure.message, time.monotonic() - begin, error=failure)
        finally:
            self._running = None
        return Finished(job.number, job.attempt, result, time.monotonic() - begin)

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Ends a job that has not begun, or one that is attended, at its next step."""
        running = self._running
        if running is not None and (running.number, running.attempt) == (number, attempt):
            self._unwanted = reason
        for job in list(self._jobs):
            if (job.number, job.attempt) == (number, attempt):
                self._jobs.remove(job)
                self._cancelled.append(Failed(number, attempt, reason, 0.0))
