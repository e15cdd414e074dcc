"""Trials on a Ray cluster: one that runs, or one of its own on this machine.

A process of its own is connected to the cluster (``driver.py``) and ends with this one. On the nodes an actor a
trial at once holds its resources; the trials themselves run as they do without Ray, supervised by an engine of that
machine. What crosses is JSON in strings: nothing of a trial is unpickled. Ray retries nothing.

Ray belongs to the extra ``[ray]`` and is never imported in this process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import secrets
import selectors
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.execution.commands import MOST_SLOTS, LocalSettings
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report
from nnas_core.execution.process import GRACE_S, Supervised, last_line, served_by
from nnas_core.execution.protocol import Cancel, Close, Prepare, Ready, SentJob, Unable, open_channel
from nnas_core.execution.ray.settings import DriverSettings, NodeSettings
from nnas_core.execution.work import TrialKind
from nnas_core.files import environment_failure, prepare_folder
from nnas_core.space.search_space import SearchSpace

__all__ = ["RayEngine", "RaySettings", "require_ray"]

_OLDEST = (2, 59)
"""The first version of Ray that asks for a token by default."""

_CONNECT_S = 30.0
_START_S = 120.0

_END_S = 15.0
"""How long the connected process may take to end, once its trials have ended."""


@dataclass(frozen=True)
class RaySettings:
    """Names the cluster, and what a trial needs of it besides its threads.

    Attributes:
        address: of a cluster that runs, ``HOST:PORT`` of its head or ``auto``; None starts one on this machine.
        gpus: for one that is started: those of this machine that it has.
        gpu_each: a trial gets a GPU, alone.
        cpus: for one that is started: how many it has, which bounds how many trials run at once.
        idle_s: how long what a trial had is kept for the next one.
        go_on: the parameter of the command at hand that goes on with the study, for hints: ``"resume"`` or ``"join"``.
    """

    address: str | None = None
    gpus: tuple[str, ...] = ()
    gpu_each: bool = False
    cpus: int = 1
    idle_s: float = 30.0
    go_on: str = "resume"


def require_ray() -> None:
    """Refuses to go on without the extra.

    Raises:
        UsageError: Ray is not there, or too old.
    """
    hint = "pip install 'nnas[ray]'"
    if importlib.util.find_spec("ray") is None:
        raise UsageError("`engine` ray needs the package ray", hint=hint)
    version = importlib.metadata.version("ray")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise UsageError(f"`engine` ray needs ray {'.'.join(map(str, _OLDEST))} or newer, not {version}", hint=hint)


class RayEngine(Engine):
    """Runs jobs on the nodes of a cluster, each where its resources are free; the others wait.

    The nodes need nnas, and the files that a trial reads under the same paths. They work in a folder of the same name
    as the current one here. A time-out is counted from when the trial begins, not while it waits.

    Args:
        kind: what a trial is.
        space: whose architectures come.
        settings: how trials run on their node; ``gpus`` is not looked at, Ray assigns them.
        cluster: where.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        EnvironmentFailure: the cluster cannot be started or reached, or no node has what a trial needs.
    """

    def __init__(self, kind: TrialKind, space: SearchSpace, settings: LocalSettings, cluster: RaySettings) -> None:
        super().__init__()
        require_ray()
        address = cluster.address
        _check_address(address)
        self._log = prepare_folder(settings.folder) / "ray.log"
        self._grace_s = settings.grace_s + _END_S
        self._go_on = cluster.go_on
        cwd = str(settings.work_in or os.getcwd())
        self.log_folder = str(Path(cwd, settings.folder))
        self._temporary = None if address else _temporary_folder()
        self._reached = "the Ray cluster" if address is None else f"the Ray cluster at {address}"
        self._found: list[Report] = []
        self._ready = self._closed = False
        self._channel, theirs = open_channel()
        self._process = self._start(theirs, settings.log_bytes, _environment(cluster))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel.incoming, selectors.EVENT_READ)
        self._selector.register(self._process, selectors.EVENT_READ)
        try:
            driver = self._driver(NodeSettings(kind, space.to_json(), settings, cwd, sys.path), cluster)
            self._channel.try_to_send(Prepare(driver.to_json()))
            self._wait_until_ready(_START_S if address is None else _CONNECT_S)
        except BaseException:
            self.close()
            raise

    def _start(self, pipes: tuple[int, int], log_bytes: int, env: dict[str, str]) -> Supervised:
        """Starts the process that connects to the cluster."""
        try:
            return Supervised(
                served_by("nnas_core.execution.ray.driver", *pipes),
                log=self._log,
                log_bytes=log_bytes,
                env=env,
                fds=pipes,
                grace_s=self._grace_s,
            )
        except OSError as error:
            self._channel.close()
            self._remove_temporary()
            raise environment_failure(error, sys.executable, "start") from error

    def _driver(self, node: NodeSettings, cluster: RaySettings) -> DriverSettings:
        return DriverSettings(
            address=cluster.address,
            cpus=cluster.cpus,
            gpus=len(cluster.gpus),
            gpu_each=cluster.gpu_each,
            idle_s=cluster.idle_s,
            temporary=self._temporary,
            node=node,
        )

    def _wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._ready:
            if time.monotonic() >= deadline:
                raise EnvironmentFailure(
                    f"cannot reach {self._reached}: no answer within {seconds:g} s",
                    hint="see whether it runs, and whether this machine is a node of it",
                )
            self._look(deadline - time.monotonic())

    @property
    def slots(self) -> int:
        """Holds as many as anybody may want; those wait for which no resources are free."""
        return MOST_SLOTS

    def submit(self, job: Job) -> None:
        """Hands the job on."""
        self._channel.try_to_send(SentJob.of(job))

    def poll(self, timeout_s: float) -> list[Report]:
        """Looks for reports.

        Raises:
            EnvironmentFailure: the cluster is lost, a node cannot run trials, or none has what they need any more.
        """
        self._look(timeout_s)
        found, self._found = self._found, []
        return found

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Asks for the end of the job, wherever it is."""
        self._channel.try_to_send(Cancel(number, attempt, reason))

    def _look(self, timeout_s: float) -> None:
        self._selector.select(max(0.0, timeout_s))
        self._process.look()
        for message in self._channel.incoming.receive():
            if isinstance(message, Unable):
                raise message.error
            if isinstance(message, Ready):
                self._ready = True
            elif isinstance(message, (Intermediate, Finished, Failed)):
                self._found.append(message)
        if (self._process.end is not None or self._channel.incoming.closed) and not self._found:
            self._end(GRACE_S)
            said = last_line(self._log)
            what, hint = f"cannot reach {self._reached}", "see whether it runs"
            if self._ready:
                what, hint = f"{self._reached} is lost", f"go on with `{self._go_on}` when it runs again"
            raise EnvironmentFailure(what + (f": {said}" if said else ""), hint=f"{hint}; {self._log} may say more")

    def _end(self, patience_s: float) -> None:
        """Waits for the end of the process, and brings it about when that does not come."""
        deadline = time.monotonic() + patience_s
        while self._process.end is None and time.monotonic() < deadline:
            self._selector.select(0.05)
            self._channel.incoming.receive()
            self._process.look()
        if self._process.end is None:
            self._process.stop()
            self._process.wait(self._grace_s + GRACE_S)

    def close(self) -> None:
        """Ends all trials, leaves the cluster, ends it if it is our own; returns when that is done."""
        if self._closed:
            return
        self._closed = True
        self._channel.try_to_send(Close())
        self._channel.hang_up()
        self._end(self._grace_s if self._ready else GRACE_S)
        self._selector.close()
        self._channel.close()
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:  # the connected process does that too, in case that this one is killed
            shutil.rmtree(self._temporary, ignore_errors=True)


def _check_address(address: str | None) -> None:
    if address is not None and "://" in address:
        raise UsageError(
            f"`ray_address` {address!r} is not that of a node",
            hint="run on a node of the cluster, with HOST:PORT of its head, or auto",
        )


def _temporary_folder() -> str:
    # the paths of Ray's sockets in it may have 107 bytes
    return tempfile.mkdtemp(prefix="nnas-ray-", dir=min(tempfile.gettempdir(), "/tmp", key=len))


def _environment(cluster: RaySettings) -> dict[str, str]:
    env = dict(os.environ)
    env["RAY_USAGE_STATS_ENABLED"] = "0"
    env.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")  # Ray waits a minute for a head that is gone
    if cluster.address is None:
        env.pop("RAY_ADDRESS", None)
        # Ray listens on all interfaces: what comes in must know this
        env.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        if cluster.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(cluster.gpus)
    return env
