"""The inside of a worker: jobs come over one pipe, reports go over another, one evaluation at a time.

The first message is what the worker is prepared with. Then comes a message for each job, and answers to each: any
number of intermediate values, and one end. When nobody sends any more, the worker ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from nnas_core.errors import NnasError
from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.execution.messages import Receiver, send
from nnas_core.execution.wire import error_to_json
from nnas_core.files import finite, finite_only, not_finite

__all__ = ["Cancelled", "Evaluation", "serve"]


class Cancelled(Exception):
    """Raised between the steps of an evaluation that nobody wants any more."""


Evaluation = Callable[[str, Callable[[], None], Callable[[float], None]], TrialResult]
"""Measures the architecture that a canonical text is: calls its second argument between steps (which may raise), and
its third with intermediate values."""


def serve(jobs: int, reports: int, prepare: Callable[[dict[str, Any]], Evaluation]) -> None:
    """Work until the other side is gone.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
        prepare: makes the evaluation of what the first message holds.
    """
    for descriptor in (jobs, reports):
        os.set_inheritable(descriptor, False)
    _Worker(Receiver(jobs), reports).work(prepare)


class _Worker:
    def __init__(self, jobs: Receiver, reports: int) -> None:
        self._jobs = jobs
        self._reports = reports
        self._waiting: list[dict[str, Any]] = []

    def work(self, prepare: Callable[[dict[str, Any]], Evaluation]) -> None:
        first = self._next()
        if first is None:
            return
        try:
            evaluation = prepare(first)
        except NnasError as error:
            self._send({"unable": error_to_json(error)})
            return
        self._send({"ready": True})
        while True:
            job = self._next()
            if job is None:
                return
            if "architecture" in job:  # a word to cancel what has ended says nothing
                self._send(self._run(job, evaluation))

    def _next(self) -> dict[str, Any] | None:
        while not self._waiting:
            if self._jobs.closed:
                return None
            self._jobs.wait(None)
            self._waiting += self._jobs.receive()
        return self._waiting.pop(0)

    def _run(self, job: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
        of = {"number": job["number"], "attempt": job["attempt"]}
        begin = time.monotonic()

        def poll() -> None:
            self._waiting += self._jobs.receive()
            if self._jobs.closed or any(message == {"cancel": of} for message in self._waiting):
                raise Cancelled

        def report(value: float) -> None:
            number = finite(value)
            if number is not None:
                self._send({**of, "intermediate": number})

        try:
            result = evaluation(job["architecture"], poll, report)
            answer = self._finished(result)
        except Cancelled:
            answer = {"failed": "cancelled"}
        except TrialFailed as failure:
            answer = {"failed": failure.message}
        except NnasError as error:
            answer = {"failed": error.message, "error": error_to_json(error)}
        return {**of, **answer, "seconds": time.monotonic() - begin}

    @staticmethod
    def _finished(result: TrialResult) -> dict[str, Any]:
        value = finite(result.value)
        if value is None:
            return {"failed": not_finite(result.value)}
        return {"value": value, "metrics": finite_only(result.metrics), "cost": finite_only(result.cost)}

    def _send(self, message: dict[str, Any]) -> None:
        try:
            send(self._reports, message)
        except OSError:  # nobody listens any more
            self._jobs.closed = True
