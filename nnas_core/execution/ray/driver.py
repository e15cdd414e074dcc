"""The process that is connected to a Ray cluster: it has actors made, and hands jobs to them.

Ray aborts the process that is connected when it loses its cluster, starts threads in it and writes to its output: so
this is not the process that owns the study, and what it does with Ray cannot end that one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nnas_core.errors import EnvironmentFailure, NnasError
from nnas_core.execution.engine import Failed, Finished, Intermediate
from nnas_core.execution.protocol import (
    Cancel,
    Channel,
    Close,
    Gone,
    Message,
    Ready,
    SentJob,
    Unable,
    begin_to_serve,
    decode,
    encode,
)
from nnas_core.execution.ray.connection import abandon, connect, first_line, given_up_with, leave
from nnas_core.execution.ray.host import Host
from nnas_core.execution.ray.settings import DriverSettings

__all__ = ["main", "refuse_impossible"]

_TICK_S = 5.0
"""How often, at least, it is looked for actors that nobody needs, or that no node can ever hold."""

_MOST_STILLBORN = 3
"""Actors in a row that may be lost before they begin."""

_END_S = 3.0
"""How long an engine may take to end, beyond the grace of its trials."""


@dataclass(eq=False)
class _Actor:
    handle: Any
    node: str | None = None  # its ID, once the actor runs
    job: SentJob | None = None
    begin: float = 0.0  # of its job, or of its idleness
    ended_as: str | None = None  # why its job is being ended, if it is
    ending: bool = False


def main(jobs: int, reports: int) -> None:
    """Connects as the first message says, then serves the others until one is ``Close``, or nobody sends any more.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
    """
    channel, first, waiting = begin_to_serve(jobs, reports)
    if first is None:
        return
    settings = DriverSettings.from_json(first.setting)
    try:
        with contextlib.suppress(OSError):  # nobody listens any more
            try:
                with given_up_with(channel, settings):
                    connect(settings)
                _Driver(settings, channel).work(waiting)
            except NnasError as error:
                channel.send(Unable(error))
    finally:
        leave(settings)


class _Driver:
    def __init__(self, settings: DriverSettings, channel: Channel) -> None:
        import ray

        self._settings = settings
        self._channel = channel
        self._threads = settings.node.local.threads
        self._needs_gpu = settings.gpu_each
        remote: Any = ray.remote  # its types do not know `concurrency_groups`
        self._tick_s = min(_TICK_S, settings.idle_s)
        self._class = remote(
            num_cpus=self._threads,
            num_gpus=int(self._needs_gpu),
            max_restarts=0,  # whether a trial is tried again is decided elsewhere, and once
            max_task_retries=0,
            concurrency_groups={"tell": 1, "hear": 1},
        )(Host)
        self._actors: list[_Actor] = []
        self._queue: deque[SentJob] = deque()
        self._heard: queue.SimpleQueue[tuple[_Actor, Future[str]]] = queue.SimpleQueue()
        self._wake_read, self._wake = os.pipe()
        for descriptor in (self._wake_read, self._wake):
            os.set_blocking(descriptor, False)
        self._made = 0
        self._was_possible = False  # to run a trial on some node
        self._stillborn = 0
        self._looked = time.monotonic()

    def work(self, waiting: list[Message]) -> None:
        """Serves until the other side closes, or is gone."""
        incoming = self._channel.incoming
        try:
            self._refuse_impossible()
            self._channel.send(Ready())
            while True:
                for message in waiting + incoming.receive():
                    if isinstance(message, Close):
                        return
                    self._asked(message)
                if incoming.closed:
                    break
                waiting = []
                self._dispatch()
                select.select([incoming.fileno(), self._wake_read], [], [], self._tick_s)
                self._take_answers()
                if time.monotonic() - self._looked >= self._tick_s:
                    self._look()
            if self._settings.address is None:
                abandon(self._settings)
        finally:
            self._end_all()

    # ---- jobs

    def _asked(self, message: Message) -> None:
        if isinstance(message, SentJob):
            self._queue.append(message)
        elif isinstance(message, Cancel):
            self._cancel(message)

    def _cancel(self, message: Cancel) -> None:
        this = (message.number, message.attempt)
        for job in self._queue:
            if (job.number, job.attempt) == this:
                self._queue.remove(job)
                self._report_failed(job, message.reason, 0.0)
                return
        for actor in self._actors:
            if actor.job is not None and (actor.job.number, actor.job.attempt) == this:
                actor.ended_as = message.reason
                self._tell(actor, message)

    def _dispatch(self) -> None:
        """Gives jobs to actors that are free, and asks for as many more as there are jobs left.

        A job waits here and not at an actor: which of them gets its resources first, nobody knows.
        """
        for actor in self._actors:
            if self._queue and actor.node is not None and actor.job is None and not actor.ending:
                actor.job, actor.begin = self._queue.popleft(), time.monotonic()
                self._tell(actor, actor.job)
        for _ in range(len(self._queue) - sum(actor.node is None for actor in self._actors)):
            node = self._settings.node.of_actor(self._made)
            self._made += 1
            actor = _Actor(self._class.remote(json.dumps(node.to_json())))
            self._actors.append(actor)
            self._listen(actor)

    @staticmethod
    def _tell(actor: _Actor, message: Message) -> None:
        actor.handle.tell.options(concurrency_group="tell").remote(json.dumps(encode(message)))

    def _listen(self, actor: _Actor) -> None:
        def arrived(future: Future[str]) -> None:
            self._heard.put((actor, future))
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b".")

        actor.handle.hear.options(concurrency_group="hear").remote().future().add_done_callback(arrived)

    # ---- answers

    def _answers(self) -> Iterator[tuple[_Actor, Future[str]]]:
        """Returns what actors have answered since the last call, without those that were dropped."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 1 << 16)
        while not self._heard.empty():
            actor, answer = self._heard.get()
            if actor in self._actors:
                yield actor, answer

    def _take_answers(self) -> None:
        for actor, answer in self._answers():
            error = answer.exception()
            if error is not None:
                self._lost(actor, error)
                continue
            for message in _messages(answer):
                self._take(actor, message)
            if actor in self._actors:
                self._listen(actor)

    def _take(self, actor: _Actor, message: Message) -> None:
        if isinstance(message, Unable):
            self._drop(actor)
            error = message.error
            text = f"{error.message} (on a node of the Ray cluster)"
            raise EnvironmentFailure(text, where=error.where, hint=error.hint)
        if isinstance(message, Gone):
            self._lost(actor, RuntimeError(message.why))
        elif isinstance(message, Ready):
            actor.node, actor.begin = message.node, time.monotonic()
            self._stillborn = 0
        elif isinstance(message, (Intermediate, Finished, Failed)):
            self._channel.send(message)
            if not isinstance(message, Intermediate):
                actor.job, actor.ended_as, actor.begin = None, None, time.monotonic()

    def _drop(self, actor: _Actor) -> None:
        import ray

        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _lost(self, actor: _Actor, error: BaseException) -> None:
        self._drop(actor)
        if actor.job is not None:
            why = actor.ended_as or self._loss(actor)
            self._report_failed(actor.job, why, time.monotonic() - actor.begin, lost=actor.ended_as is None)
        elif actor.node is None:
            self._stillborn += 1
            if self._stillborn == _MOST_STILLBORN:
                raise EnvironmentFailure(
                    f"no actor begins on the Ray cluster: {first_line(error)}",
                    hint="install nnas on every node, in the same version",
                )

    def _report_failed(self, job: SentJob, message: str, seconds: float, lost: bool = False) -> None:
        self._channel.send(Failed(job.number, job.attempt, message, seconds, lost))

    # ---- the cluster

    @staticmethod
    def _loss(actor: _Actor) -> str:
        for node in _nodes():
            if node["NodeID"] == actor.node:
                name = node["NodeManagerAddress"]
                return f"Ray lost its worker on {name}" if node["Alive"] else f"Ray lost node {name}"
        return "Ray lost its worker"

    def _look(self) -> None:
        self._looked = time.monotonic()
        for actor in self._actors:
            if (
                actor.node is not None
                and actor.job is None
                and not actor.ending
                and self._looked - actor.begin >= self._settings.idle_s
            ):
                actor.ending = True
                self._tell(actor, Close())
        if self._queue:
            self._refuse_impossible()

    def _refuse_impossible(self) -> None:
        """Says what would wait for ever: no node has what a trial needs, even when it is free."""
        alive = [node["Resources"] for node in _nodes() if node["Alive"]]
        refuse_impossible(alive, {"CPU": self._threads, "GPU": int(self._needs_gpu)}, self._was_possible)
        self._was_possible = True

    def _end_all(self) -> None:
        """Ends all trials in order, as long as that takes; then the actors."""
        for actor in self._actors:
            if actor.node is not None and not actor.ending:
                self._tell(actor, Close())
        deadline = time.monotonic() + self._settings.node.local.grace_s + _END_S
        while any(actor.node is not None for actor in self._actors) and time.monotonic() < deadline:
            select.select([self._wake_read], [], [], max(0.0, deadline - time.monotonic()))
            for actor, answer in self._answers():
                if answer.exception() or any(isinstance(message, Gone) for message in _messages(answer)):
                    self._drop(actor)
                else:
                    self._listen(actor)
        for actor in self._actors[:]:
            self._drop(actor)


def refuse_impossible(alive: Sequence[Mapping[str, float]], needed: Mapping[str, int], was_possible: bool) -> None:
    """Makes sure that a node can run a trial, now or when it is free.

    Args:
        alive: the resources of the nodes that live; none of one whose raylet is dead.
        needed: CPUs and GPUs of a trial.
        was_possible: a node could.

    Raises:
        EnvironmentFailure: none can.
    """
    found = [node for node in alive if node]
    if any(all(node.get(name, 0) >= number for name, number in needed.items()) for node in found):
        return
    if was_possible or not found:
        raise EnvironmentFailure(
            "the Ray cluster has lost every node that can run a trial" if found else "no node of the Ray cluster lives",
            hint="see Ray's logs, start the nodes again and go on: what was finished is stored",
        )
    cpus, gpus = (max(node.get(name, 0) for node in found) for name in ("CPU", "GPU"))
    raise EnvironmentFailure(
        f"a trial needs {_counted(needed['CPU'], 'CPU')}"
        + (" and a GPU" if needed["GPU"] else "")
        + f", and no node of the Ray cluster has that; the largest has {_counted(cpus, 'CPU')}"
        + (f", and {_counted(gpus, 'GPU')}" if needed["GPU"] else ""),
        hint="ask for less, or add a node",
    )


def _messages(answer: Future[str]) -> list[Message]:
    return [decode(document) for document in json.loads(answer.result())]


def _nodes() -> list[dict[str, Any]]:
    import ray

    nodes: Any = ray.nodes
    return list(nodes())


def _counted(number: float, name: str) -> str:
    return f"{number:g} {name}" + ("" if number == 1 else "s")
