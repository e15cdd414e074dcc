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
import shutil
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nnas_core.errors import EnvironmentFailure, NnasError
from nnas_core.execution.engine import Failed
from nnas_core.execution.messages import Receiver, begin_to_serve, send
from nnas_core.execution.process_supervisor import descendants
from nnas_core.execution.ray.host import Host
from nnas_core.execution.wire import error_to_json, report_to_json

__all__ = ["main"]

_PROBE_S = 5.0
"""How long a cluster may take to accept a connection."""

_TICK_S = 5.0
"""How often, at least, it is looked for actors that nobody needs, or that no node can ever hold."""

_MOST_STILLBORN = 3
"""Actors in a row that may be lost before they begin."""

_END_S = 3.0
"""How long an engine may take to end, beyond the grace of its trials."""

_OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray takes; what crosses is small


@dataclass(eq=False)
class _Actor:
    handle: Any
    node: str | None = None  # its ID, once the actor runs
    job: dict[str, Any] | None = None
    begin: float = 0.0  # of its job, or of its idleness
    ended_as: str | None = None  # why its job is being ended, if it is
    ending: bool = False


def main(jobs: int, reports: int) -> None:
    """Connect as the first message says, then serve the others until one says ``close``, or nobody sends any more.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
    """
    received, waiting = begin_to_serve(jobs, reports)
    if not waiting:
        return
    setting = waiting.pop(0)
    try:
        with contextlib.suppress(OSError):  # nobody listens any more
            try:
                with _given_up_with(received, setting):
                    _connect(setting)
                _Driver(setting, received, reports).work(waiting)
            except NnasError as error:
                send(reports, {"unable": error_to_json(error)})
    finally:
        _leave(setting)


@contextlib.contextmanager
def _given_up_with(received: Receiver, setting: dict[str, Any]) -> Iterator[None]:
    """End this process when the other side closes meanwhile: Ray cannot be told to give up, nor be interrupted."""
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(received.fileno(), 0)  # its end alone
        while not done.is_set():
            if poll.poll(100):
                _abandon(setting)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _connect(setting: dict[str, Any]) -> None:
    import ray

    address = setting["address"]
    options: dict[str, Any] = {"log_to_driver": False, "namespace": "nnas"}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": setting["cpus"],
            "num_gpus": setting["gpus"],
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": os.path.join(setting["temporary"], "ray"),  # Ray lets everybody write there
        }
    else:
        options["address"] = address
    try:
        host, _, port = str(address).rpartition(":")
        if address is not None and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
        ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = "start Ray" if address is None else f"reach the Ray cluster at {address}"
        raise EnvironmentFailure(
            f"cannot {what}: {_first_line(error)}",
            hint=None if address is None else "give HOST:PORT of its head node, or auto on a node of it",
        ) from error
    # Ray's handler would end the process at once; it ends by itself, in order, when the pipe closes
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _leave(setting: dict[str, Any]) -> None:
    """Leave the cluster, or end it in order if it is our own."""
    import ray

    ray.shutdown()
    if setting["address"] is None:
        shutil.rmtree(setting["temporary"], ignore_errors=True)


def _abandon(setting: dict[str, Any]) -> None:
    """End at once, with a cluster of our own: nobody wants it, and its parts may be ending already, in no order."""
    end = time.monotonic() + _END_S
    while (found := descendants(os.getpid())) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    if setting["address"] is None:
        shutil.rmtree(setting["temporary"], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)  # Ray's way out asks the cluster


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


class _Driver:
    def __init__(self, setting: dict[str, Any], received: Receiver, reports: int) -> None:
        import ray

        self._setting = setting
        self._received = received
        self._reports = reports
        self._threads: int = setting["local"]["threads"]
        self._needs_gpu: bool = setting["gpu_each"]
        remote: Any = ray.remote  # its types do not know `concurrency_groups`
        self._idle_s: float = setting["idle_s"]
        self._tick_s = min(_TICK_S, self._idle_s)
        self._class = remote(
            num_cpus=self._threads,
            num_gpus=int(self._needs_gpu),
            max_restarts=0,  # whether a trial is tried again is decided elsewhere, and once
            max_task_retries=0,
            concurrency_groups={"tell": 1, "hear": 1},
        )(Host)
        self._actors: list[_Actor] = []
        self._queue: deque[dict[str, Any]] = deque()
        self._heard: queue.SimpleQueue[tuple[_Actor, Future[str]]] = queue.SimpleQueue()
        self._wake_read, self._wake = os.pipe()
        for descriptor in (self._wake_read, self._wake):
            os.set_blocking(descriptor, False)
        self._made = 0
        self._stillborn = 0
        self._looked = time.monotonic()

    def work(self, waiting: list[dict[str, Any]]) -> None:
        """Serve until the other side closes, or is gone."""
        try:
            self._refuse_impossible()
            send(self._reports, {"ready": True})
            while True:
                for message in waiting + self._received.receive():
                    if "close" in message:
                        return
                    self._asked(message)
                if self._received.closed:
                    break
                waiting = []
                self._dispatch()
                select.select([self._received.fileno(), self._wake_read], [], [], self._tick_s)
                self._take_answers()
                if time.monotonic() - self._looked >= self._tick_s:
                    self._look()
            if self._setting["address"] is None:
                _abandon(self._setting)
        finally:
            self._end_all()

    # ---- jobs

    def _asked(self, message: dict[str, Any]) -> None:
        if "cancel" not in message:
            self._queue.append(message)
            return
        of = {name: message[name] for name in ("number", "attempt")}
        for job in self._queue:
            if of.items() <= job.items():
                self._queue.remove(job)
                self._report_failed(job, message["cancel"], 0.0)
                return
        for actor in self._actors:
            if actor.job is not None and of.items() <= actor.job.items():
                actor.ended_as = message["cancel"]
                self._tell(actor, message)

    def _dispatch(self) -> None:
        """Give jobs to actors that are free, and ask for as many more as there are jobs left.

        A job waits here and not at an actor: which of them gets its resources first, nobody knows.
        """
        for actor in self._actors:
            if self._queue and actor.node is not None and actor.job is None and not actor.ending:
                actor.job, actor.begin = self._queue.popleft(), time.monotonic()
                self._tell(actor, actor.job)
        for _ in range(len(self._queue) - sum(actor.node is None for actor in self._actors)):
            document = {name: self._setting[name] for name in ("space", "work", "cwd", "path")}
            local = dict(self._setting["local"])
            if "command" not in self._setting["work"]:
                local["folder"] = os.path.join(local["folder"], f"ray-{self._made}")  # for its logs
            self._made += 1
            actor = _Actor(self._class.remote(json.dumps({**document, "local": local})))
            self._actors.append(actor)
            self._listen(actor)

    @staticmethod
    def _tell(actor: _Actor, message: dict[str, Any] | None) -> None:
        text = "" if message is None else json.dumps(message)
        actor.handle.tell.options(concurrency_group="tell").remote(text)

    def _listen(self, actor: _Actor) -> None:
        def arrived(future: Future[str]) -> None:
            self._heard.put((actor, future))
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b".")

        actor.handle.hear.options(concurrency_group="hear").remote().future().add_done_callback(arrived)

    # ---- answers

    def _answers(self) -> Iterator[tuple[_Actor, Future[str]]]:
        """What actors have answered since the last call, without those that were dropped."""
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
            for message in json.loads(answer.result()):
                self._take(actor, message)
            if actor in self._actors:
                self._listen(actor)

    def _take(self, actor: _Actor, message: dict[str, Any]) -> None:
        if "unable" in message:
            self._drop(actor)
            described = message["unable"]
            text = f"{described['message']} (on a node of the Ray cluster)"
            raise EnvironmentFailure(text, where=described["where"], hint=described["hint"])
        if "gone" in message:
            self._lost(actor, RuntimeError(message["gone"]))
        elif "ready" in message:
            actor.node, actor.begin = message["ready"], time.monotonic()
            self._stillborn = 0
        else:
            send(self._reports, message)
            if "intermediate" not in message:
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
                    f"no actor begins on the Ray cluster: {_first_line(error)}",
                    hint="install nnas on every node, in the same version",
                )

    def _report_failed(self, job: dict[str, Any], message: str, seconds: float, lost: bool = False) -> None:
        send(self._reports, report_to_json(Failed(job["number"], job["attempt"], message, seconds, lost)))

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
                and self._looked - actor.begin >= self._idle_s
            ):
                actor.ending = True
                self._tell(actor, None)
        if self._queue:
            self._refuse_impossible()

    def _refuse_impossible(self) -> None:
        """Say what would wait for ever: no node has what a trial needs, even when it is free."""
        found = [node["Resources"] for node in _nodes() if node["Alive"]]
        needed = {"CPU": self._threads, "GPU": int(self._needs_gpu)}
        if any(all(node.get(name, 0) >= number for name, number in needed.items()) for node in found):
            return
        cpus, gpus = (max((node.get(name, 0) for node in found), default=0) for name in needed)
        raise EnvironmentFailure(
            f"a trial needs {_counted(needed['CPU'], 'CPU')}"
            + (" and a GPU" if self._needs_gpu else "")
            + f", and no node of the Ray cluster has that; the largest has {_counted(cpus, 'CPU')}"
            + (f", and {_counted(gpus, 'GPU')}" if self._needs_gpu else ""),
            hint="ask for less, or add a node",
        )

    def _end_all(self) -> None:
        """End all trials in order, as long as that takes; then the actors."""
        for actor in self._actors:
            if actor.node is not None and not actor.ending:
                self._tell(actor, None)
        deadline = time.monotonic() + self._setting["local"]["grace_s"] + _END_S
        while any(actor.node is not None for actor in self._actors) and time.monotonic() < deadline:
            select.select([self._wake_read], [], [], max(0.0, deadline - time.monotonic()))
            for actor, answer in self._answers():
                if answer.exception() is None and '"gone"' not in answer.result():
                    self._listen(actor)
                else:
                    self._drop(actor)
        for actor in self._actors[:]:
            self._drop(actor)


def _nodes() -> list[dict[str, Any]]:
    import ray

    nodes: Any = ray.nodes
    return list(nodes())


def _counted(number: float, name: str) -> str:
    return f"{number:g} {name}" + ("" if number == 1 else "s")
