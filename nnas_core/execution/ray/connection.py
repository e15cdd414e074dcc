"""The connection of this process to a Ray cluster: made, given up, left."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.process_supervisor import descendants
from nnas_core.execution.protocol import Channel
from nnas_core.execution.ray.settings import DriverSettings

__all__ = ["abandon", "connect", "first_line", "given_up_with", "leave"]

_PROBE_S = 5.0
"""How long a cluster may take to accept a connection."""

_GIVE_UP_S = 3.0
"""How long parts of a cluster may take to die that are killed."""

_OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray takes; what crosses is small


@contextlib.contextmanager
def given_up_with(channel: Channel, settings: DriverSettings) -> Iterator[None]:
    """Ends this process when the other side closes meanwhile: Ray cannot be told to give up, nor be interrupted."""
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(channel.incoming.fileno(), 0)  # its end alone
        while not done.is_set():
            if poll.poll(100):
                abandon(settings)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def connect(settings: DriverSettings) -> None:
    """Connects to a cluster, or starts one.

    Raises:
        EnvironmentFailure: it cannot be reached, or started.
    """
    import ray

    address = settings.address
    options: dict[str, Any] = {"log_to_driver": False, "namespace": "nnas"}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": os.path.join(settings.temporary or "", "ray"),  # Ray lets everybody write there
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
            f"cannot {what}: {first_line(error)}",
            hint=None if address is None else "give HOST:PORT of its head node, or auto on a node of it",
        ) from error
    # Ray's handler would end the process at once; it ends by itself, in order, when the pipe closes
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave(settings: DriverSettings) -> None:
    """Leaves the cluster, or ends it in order if it is our own."""
    import ray

    ray.shutdown()
    _remove_temporary(settings)


def _remove_temporary(settings: DriverSettings) -> None:
    if settings.temporary is not None:
        shutil.rmtree(settings.temporary, ignore_errors=True)


def abandon(settings: DriverSettings) -> None:
    """Ends at once, with a cluster of our own: nobody wants it, and its parts may be ending already, in no order."""
    end = time.monotonic() + _GIVE_UP_S
    while (found := descendants(os.getpid())) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    _remove_temporary(settings)
    os.kill(os.getpid(), signal.SIGKILL)  # Ray's way out asks the cluster


def first_line(error: BaseException) -> str:
    """Returns what an error says, in one line of at most 300 characters."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
