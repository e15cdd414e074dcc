"""An engine of this machine in a process of its own: jobs come over one pipe, reports go over another.

The first message says what the engine does, then each is a job, or a word to cancel one. When nobody sends any more,
because that is over or because whoever did was killed, all trials are ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnas_core.errors import NnasError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Intermediate
from nnas_core.execution.factory import engine_of
from nnas_core.execution.messages import Receiver, begin_to_serve, send
from nnas_core.execution.wire import error_to_json, job_from_json, report_to_json
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace

__all__ = ["main"]

_POLL_S = 0.1
"""How long a word to cancel may wait for a trial that has nothing to report."""


def main(jobs: int, reports: int) -> None:
    """Work until the other side is gone.

    Args:
        jobs: the pipe to read from.
        reports: the pipe to write to.
    """
    received, waiting = begin_to_serve(jobs, reports)
    if waiting:
        with contextlib.suppress(OSError):  # nobody listens any more
            _work(waiting.pop(0), waiting, received, reports)


def _work(setting: Mapping[str, Any], waiting: list[dict[str, Any]], received: Receiver, reports: int) -> None:
    choices = {key: Choice.from_json(key, entry) for key, entry in setting["space"].items()}
    local = setting["local"]
    settings = LocalSettings(Path(local["folder"]), local["threads"], (), local["log_bytes"], local["grace_s"])
    engine = engine_of(setting["work"], SearchSpace(choices.values()), settings, None)
    running = 0
    try:
        send(reports, {"ready": True})
        while not received.closed:
            if not running and not waiting:
                received.wait(None)
            for message in waiting + received.receive():
                if "cancel" in message:
                    engine.cancel(message["number"], message["attempt"], message["cancel"])
                else:
                    engine.submit(job_from_json(message, choices))
                    running += 1
            waiting = []
            for report in engine.poll(_POLL_S if running else 0.0):
                send(reports, report_to_json(report))
                running -= not isinstance(report, Intermediate)
    except NnasError as error:
        send(reports, {"unable": error_to_json(error)})
    finally:
        engine.close()
