"""An engine of this machine in a process of its own: jobs come over one pipe, reports go over another.

The first message says what the engine does, then each is a job, or a word to cancel one. When nobody sends any more,
because that is over or because whoever did was killed, all trials are ended.
"""

from __future__ import annotations

import contextlib

from nnas_core.errors import NnasError
from nnas_core.execution.engine import Intermediate
from nnas_core.execution.factory import local_engine
from nnas_core.execution.protocol import Cancel, Channel, Message, Ready, SentJob, Unable, begin_to_serve
from nnas_core.execution.ray.settings import NodeSettings

__all__ = ["main"]

_POLL_S = 0.1
"""How long a word to cancel may wait for a trial that has nothing to report."""


def main(jobs: int, reports: int) -> None:
    """Works until the other side is gone.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
    """
    channel, first, waiting = begin_to_serve(jobs, reports)
    if first is not None:
        with contextlib.suppress(OSError):  # nobody listens any more
            _work(NodeSettings.from_json(first.setting), waiting, channel)


def _work(settings: NodeSettings, waiting: list[Message], channel: Channel) -> None:
    choices = settings.choices
    engine = local_engine(settings.kind, settings.local)
    running = 0
    try:
        channel.send(Ready())
        while not channel.incoming.closed:
            if not running and not waiting:
                channel.incoming.wait(None)
            for message in waiting + channel.incoming.receive():
                if isinstance(message, Cancel):
                    engine.cancel(message.number, message.attempt, message.reason)
                elif isinstance(message, SentJob):
                    engine.submit(message.job(choices))
                    running += 1
            waiting = []
            for report in engine.poll(_POLL_S if running else 0.0):
                channel.send(report)
                running -= not isinstance(report, Intermediate)
    except NnasError as error:
        channel.send(Unable(error))
    finally:
        engine.close()
