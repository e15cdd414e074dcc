"""The inside of a worker: jobs come over one pipe, reports go over another, one evaluation at a time.

The first message is what the worker is prepared with. Then comes a message for each job, and answers to each: any
number of intermediate values, and one end. When nobody sends any more, the worker ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from nnas_core.errors import NnasError
from nnas_core.execution.engine import Failed, Finished, Intermediate, Report, TrialFailed, TrialResult
from nnas_core.execution.protocol import Cancel, Channel, Message, Ready, SentJob, Unable, begin_to_serve
from nnas_core.files import finite, finite_only, not_finite

__all__ = ["Cancelled", "EvaluateInSteps", "serve"]


class Cancelled(Exception):
    """Raised between the steps of an evaluation that nobody wants any more."""


class EvaluateInSteps(Protocol):
    """Measures the architecture that a canonical text is."""

    def __call__(self, canonical: str, poll: Callable[[], None], report: Callable[[float], None], /) -> TrialResult:
        """Returns what was measured; calls ``poll``, which may raise, between steps, ``report`` with values so far."""


def serve(jobs: int, reports: int, prepare: Callable[[dict[str, Any]], EvaluateInSteps]) -> None:
    """Works until the other side is gone.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
        prepare: makes the evaluation of what the first message holds.
    """
    channel, first, waiting = begin_to_serve(jobs, reports)
    if first is None:
        return
    try:
        evaluate = prepare(dict(first.setting))
    except NnasError as error:
        channel.try_to_send(Unable(error))
        return
    _JobLoop(channel, waiting, evaluate).run()


class _JobLoop:
    def __init__(self, channel: Channel, waiting: list[Message], evaluate: EvaluateInSteps) -> None:
        self._channel = channel
        self._waiting = waiting
        self._evaluate = evaluate

    def run(self) -> None:
        self._send(Ready())
        while True:
            message = self._next()
            if message is None:
                return
            if isinstance(message, SentJob):  # a word to cancel what has ended says nothing
                self._send(self._ended(message))

    def _next(self) -> Message | None:
        while not self._waiting:
            if self._channel.incoming.closed:
                return None
            self._channel.incoming.wait(None)
            self._waiting += self._channel.incoming.receive()
        return self._waiting.pop(0)

    def _ended(self, job: SentJob) -> Report:
        """Evaluates, and returns how that ended."""
        begin = time.monotonic()
        error: NnasError | None = None
        try:
            result = self._evaluate(job.architecture, lambda: self._poll(job), _Reporter(job, self._send))
            value = finite(result.value)
            if value is not None:
                kept = TrialResult(value, finite_only(result.metrics), finite_only(result.cost))
                return Finished(job.number, job.attempt, kept, time.monotonic() - begin)
            why = not_finite(result.value)
        except Cancelled:
            why = "cancelled"
        except TrialFailed as failure:
            why = failure.message
        except NnasError as failure:
            why, error = failure.message, failure
        return Failed(job.number, job.attempt, why, time.monotonic() - begin, error=error)

    def _poll(self, job: SentJob) -> None:
        incoming = self._channel.incoming
        self._waiting += incoming.receive()
        cancelled = {(one.number, one.attempt) for one in self._waiting if isinstance(one, Cancel)}
        if incoming.closed or (job.number, job.attempt) in cancelled:
            raise Cancelled

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except OSError:  # nobody listens any more
            self._channel.incoming.closed = True


class _Reporter:
    """Sends the values that an evaluation has on its way, numbered."""

    def __init__(self, job: SentJob, send: Callable[[Message], None]) -> None:
        self._job = job
        self._send = send
        self._sequence = 0

    def __call__(self, value: float) -> None:
        number = finite(value)
        said = math.nan if number is None else number
        self._send(Intermediate(self._job.number, self._job.attempt, self._sequence, said))
        self._sequence += 1
