"""``nnas study kill``."""

from __future__ import annotations

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


@click.command("kill", cls=SectionedCommand)
@studies.of_a_trial
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, number: int, output: str, out: Output) -> int:
    """End a running trial.

    Its processes end within seconds, and the study goes on with the next trial. It counts as stopped early, and a
    result that it has written already counts. Exit code 1 if it does not run.

    \b
    Examples:
      nnas study kill 7
      nnas study kill model-bayes 7
    """
    state = store.request_kill(study, number)
    document = {"study": study.name, "trial": number, "asked": state is None, "state": state or "running"}
    if state is None:
        text = f"trial {number} of study {study.name!r} will be ended\n"
    else:
        text = f"trial {number} of study {study.name!r} does not run: it is {state}\n"
    studies.answer(out, output, "study-kill-report", document, text)
    return ExitCode.DONE if state is None else ExitCode.CHECK_FAILED
