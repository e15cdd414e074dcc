"""On a node of a Ray cluster runs an actor that hands messages to an engine in a process below it, and back.

The engine is in a process of its own because Ray kills the direct children of a worker that it ends. The pipes of this
one close then, and it ends what it has started in its own way, with all that those have started.
"""

from __future__ import annotations

import json
import os
import subprocess

from nnas_core.errors import NnasError
from nnas_core.execution.process import served_by
from nnas_core.execution.protocol import Close, Gone, Message, Prepare, Ready, Unable, decode, encode, open_channel
from nnas_core.execution.ray.settings import NodeSettings
from nnas_core.files import environment_failure

__all__ = ["Host"]


class Host:
    """The actor; ``tell`` and ``hear`` are called at the same time, each from one thread.

    Args:
        setting: ``NodeSettings``, as a JSON text.
    """

    def __init__(self, setting: str) -> None:
        settings = NodeSettings.from_json(json.loads(setting))
        self._unable: NnasError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._channel, theirs = open_channel()
        try:
            self._process = subprocess.Popen(
                served_by("nnas_core.execution.ray.child", *theirs, settings.path),
                stdin=subprocess.DEVNULL,
                cwd=settings.cwd,
                pass_fds=theirs,
                start_new_session=True,
            )
        except OSError as error:
            self._unable = environment_failure(error, settings.cwd, "work there")
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        if self._process is not None:
            self._channel.send(Prepare(settings.to_json()))

    def tell(self, text: str) -> None:
        """Hands on a message; ``Close`` ends the engine and its trials."""
        message = decode(json.loads(text))
        if isinstance(message, Close):
            self._channel.hang_up()
        else:
            self._channel.try_to_send(message)  # where the engine is gone, ``hear`` says so

    def hear(self) -> str:
        """Returns all new messages of the engine, a JSON list; waits for one.

        ``Ready`` comes with the node's ID, ``Gone`` is the last.
        """
        return json.dumps([encode(message) for message in self._heard()])

    def _heard(self) -> list[Message]:
        import ray

        if self._unable is not None:
            return [Unable(self._unable)]
        incoming = self._channel.incoming
        incoming.wait(None)
        messages = incoming.receive()
        node: str = ray.get_runtime_context().get_node_id()
        messages = [Ready(node) if isinstance(message, Ready) else message for message in messages]
        if incoming.closed and self._process is not None:
            messages.append(Gone(f"its engine ended ({self._process.wait()})"))
        return messages
