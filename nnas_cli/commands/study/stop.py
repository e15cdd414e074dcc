"""``nnas study stop``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_core.errors import ExitCode

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("stop", cls=SectionedCommand)
@studies.of_a_study(running=True)
@click.option("--wait", is_flag=True, help="Return when it has stopped.")
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, wait: bool, output: str, out: Output) -> int:
    """Ask a running study to stop.

    Its finished trials are stored, and those that run wait for `nnas tune --resume`. Exit code 1 if nobody runs the
    study. A process on another machine that was silent for a minute has lost it.

    \b
    Examples:
      nnas study stop
      nnas study stop model-bayes --wait
    """
    asked = store.request_stop(study)
    silent = store.status(study).silent
    if asked and wait:
        while store.in_use_by(study) is not None:
            time.sleep(0.1)
    status = store.status(study)
    document = {"study": study.name, "asked": asked, "state": status.study.state}
    if silent:
        document["silent"] = silent
    if not asked:
        text = f"study {study.name!r} is not running: it is {status.study.state}\n"
    elif wait:
        text = f"study {study.name!r} has stopped\n"
    else:
        text = f"study {study.name!r} was asked to stop" + (f"; its process was {silent}\n" if silent else "\n")
    studies.answer(out, output, "study-stop-report", document, text)
    return ExitCode.DONE if asked else ExitCode.CHECK_FAILED
