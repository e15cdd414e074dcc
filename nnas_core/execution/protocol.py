"""The messages between processes that run trials: typed here, JSON objects on the way.

the process of the study                             a worker, or the engine on a node of a Ray cluster
        Prepare  ->   what it is prepared with
                 <-  Ready, or Unable and the reason
        SentJob  ->   one at a time to a worker
         Cancel  ->
                 <-  Intermediate ..., then Finished or Failed
          Close  ->   (a pipe that closes says the same)
                 <-  Gone, from a node whose engine has ended
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nnas_core.errors import EnvironmentFailure, NnasError, UserCodeError
from nnas_core.execution.engine import Failed, Finished, Intermediate, Job, Report, TrialResult
from nnas_core.execution.pipes import Receiver, send_object
from nnas_core.files import environment_failure
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Choice

__all__ = [
    "Cancel",
    "Channel",
    "Close",
    "Gone",
    "Message",
    "Prepare",
    "Ready",
    "SentJob",
    "Unable",
    "begin_to_serve",
    "decode",
    "encode",
    "open_channel",
]


@dataclass(frozen=True)
class Prepare:
    """The first message: plain JSON, of a form that both sides know."""

    setting: Mapping[str, Any]


@dataclass(frozen=True)
class SentJob:
    """A job on its way; what its architecture means, the choices of its space say."""

    number: int
    attempt: int
    architecture: str
    timeout_s: float | None = None

    @classmethod
    def of(cls, job: Job) -> SentJob:
        """Returns a job in the form that is sent."""
        return cls(job.number, job.attempt, job.architecture.canonical, job.timeout_s)

    def job(self, choices: Mapping[str, Choice]) -> Job:
        """Returns the job, for the same space."""
        architecture = Architecture.from_canonical(self.architecture, choices)
        return Job(self.number, self.attempt, architecture, self.timeout_s)


@dataclass(frozen=True)
class Cancel:
    """Nobody wants that attempt of a trial any more."""

    number: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Close:
    """There will be no more jobs, and those at hand are to be ended."""


@dataclass(frozen=True)
class Ready:
    """Jobs may come.

    Attributes:
        node: the ID of the node of a Ray cluster that is ready, once it is known.
    """

    node: str | None = None


@dataclass(frozen=True)
class Unable:
    """No job can be run here, which is no architecture's fault."""

    error: NnasError


@dataclass(frozen=True)
class Gone:
    """The engine on a node has ended; nothing comes after this."""

    why: str


Message = Prepare | SentJob | Cancel | Close | Ready | Unable | Gone | Report

_KINDS: dict[str, type[Message]] = {
    "prepare": Prepare,
    "job": SentJob,
    "cancel": Cancel,
    "close": Close,
    "ready": Ready,
    "unable": Unable,
    "gone": Gone,
    "intermediate": Intermediate,
    "finished": Finished,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


# ---- as JSON


def encode(message: Message) -> dict[str, object]:
    """Returns a message as a JSON object; its numbers come back to the bit."""
    values = {field.name: _plain(getattr(message, field.name)) for field in fields(message)}
    return {"kind": _NAMES[type(message)], **values}


def decode(document: Mapping[str, Any]) -> Message:
    """Returns the message that ``encode`` wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        kind = _KINDS[document["kind"]]
        values = {name: value for name, value in document.items() if name != "kind"}
        if values.get("error") is not None:
            values["error"] = _error_of(**values["error"])
        if "result" in values:
            values["result"] = TrialResult(**values["result"])
        if kind is Intermediate and values.get("value") is None:
            values["value"] = math.nan
        return kind(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no message") from error


def _plain(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return None  # JSON has no word for it; only an ``Intermediate`` may hold it
    if isinstance(value, TrialResult):
        return {"value": value.value, "metrics": dict(value.metrics), "cost": dict(value.cost)}
    if not isinstance(value, NnasError):
        return value
    return {
        "of_user": isinstance(value, UserCodeError),
        "message": value.message,
        "where": value.where,
        "hint": value.hint,
        "problems": list(value.problems),
        "user_traceback": value.user_traceback if isinstance(value, UserCodeError) else "",
    }


def _error_of(
    of_user: bool, message: str, where: str | None, hint: str | None, problems: list[str], user_traceback: str
) -> NnasError:
    """Returns an error as the process has it that hears of it: that of the user's code, or the machine's fault."""
    if not of_user:
        return EnvironmentFailure(message, where=where, hint=hint, problems=problems)
    error = UserCodeError(message, where=where, hint=hint, problems=problems)
    return error.with_traceback_of_user(user_traceback)


# ---- over pipes


class Channel:
    """The two pipes between this process and another one.

    Args:
        incoming: to read from.
        outgoing: to write to.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming: Receiver[Message] = Receiver(incoming, decode)
        self._outgoing: int | None = outgoing

    def send(self, message: Message) -> None:
        """Writes a message.

        Raises:
            OSError: the other side is gone.
        """
        if self._outgoing is not None:
            send_object(self._outgoing, encode(message))

    def try_to_send(self, message: Message) -> None:
        """Writes a message, or none if the other side is gone: that shows when it is listened to."""
        with contextlib.suppress(OSError):
            self.send(message)

    def hang_up(self) -> None:
        """Says that no more messages come; the other side may still say something."""
        if self._outgoing is not None:
            os.close(self._outgoing)
            self._outgoing = None

    def close(self) -> None:
        """Closes both pipes."""
        self.hang_up()
        os.close(self.incoming.fileno())


def open_channel() -> tuple[Channel, tuple[int, int]]:
    """Makes two pipes.

    Returns:
        Our ends, and those of the other process: to read from, and to write to.

    Raises:
        EnvironmentFailure: too many files are open.
    """
    try:
        theirs, outgoing = os.pipe()
        try:
            incoming, answers = os.pipe()
        except OSError:
            os.close(theirs)
            os.close(outgoing)
            raise
    except OSError as error:
        raise environment_failure(error, "a pipe", "open") from error
    return Channel(incoming, outgoing), (theirs, answers)


def begin_to_serve(jobs: int, reports: int) -> tuple[Channel, Prepare | None, list[Message]]:
    """Takes over the two pipes that this process was handed, and waits for what comes first.

    Args:
        jobs: to read from.
        reports: to write to. No process that this one starts has either.

    Returns:
        The pipes; the first message, None if the other side is gone or begins with another one; and what came with it.
    """
    for descriptor in (jobs, reports):
        os.set_inheritable(descriptor, False)
    channel = Channel(jobs, reports)
    first: list[Message] = []
    while not first and not channel.incoming.closed:
        channel.incoming.wait(None)
        first = channel.incoming.receive()
    if first and isinstance(first[0], Prepare):
        return channel, first[0], first[1:]
    return channel, None, []
