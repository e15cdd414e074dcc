"""What runs on a node of a Ray cluster: an actor that hands messages to an engine in a process below it, and back.

The engine is in a process of its own because Ray kills the direct children of a worker that it ends. The pipes of this
one close then, and it ends what it has started in its own way, with all that those have started.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from nnas_core.errors import NnasError
from nnas_core.execution.messages import Receiver, send
from nnas_core.execution.process import served_by
from nnas_core.execution.wire import error_to_json
from nnas_core.files import environment_failure

__all__ = ["Host"]


class Host:
    """The actor; ``tell`` and ``hear`` are called at the same time, each from one thread.

    Args:
        setting: JSON for ``engine_process``, with ``cwd``, the folder to work in, and ``path``, where else to import
            from.
    """

    def __init__(self, setting: str) -> None:
        document: dict[str, Any] = json.loads(setting)
        self._unable: NnasError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        their_jobs, self._jobs = os.pipe()
        reports, their_reports = os.pipe()
        self._reports = Receiver(reports)
        try:
            self._process = subprocess.Popen(
                served_by("nnas_core.execution.ray.child", their_jobs, their_reports, document["path"]),
                stdin=subprocess.DEVNULL,
                cwd=document["cwd"],
                pass_fds=(their_jobs, their_reports),
                start_new_session=True,
            )
        except OSError as error:
            self._unable = environment_failure(error, document["cwd"], "work there")
        finally:
            os.close(their_jobs)
            os.close(their_reports)
        if self._process is not None:
            send(self._jobs, document)

    def tell(self, message: str) -> None:
        """Hand on a message; an empty one ends the engine and its trials."""
        if not message:
            os.close(self._jobs)
            return
        try:
            send(self._jobs, json.loads(message))
        except OSError:  # the engine is gone, which ``hear`` says
            return

    def hear(self) -> str:
        """All new messages of the engine, a JSON list; waits for one.

        ``ready`` comes with the node's ID, ``gone`` is the last.
        """
        import ray

        if self._unable is not None:
            return json.dumps([{"unable": error_to_json(self._unable)}])
        self._reports.wait(None)
        messages = self._reports.receive()
        for message in messages:
            if "ready" in message:
                message["ready"] = ray.get_runtime_context().get_node_id()
        if self._reports.closed and self._process is not None:
            messages.append({"gone": f"its engine ended ({self._process.wait()})"})
        return json.dumps(messages)
