"""``nnas study log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import Count

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("log", cls=SectionedCommand)
@studies.of_a_trial
@click.option("--attempt", type=Count(1), metavar="N", help="Print the log of attempt N.  [default: the last]")
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, number: int, attempt: int | None, output: str, out: Output) -> None:
    """Print what a trial's program printed.

    While the trial runs, what it has printed so far. Logs are files of the machine that ran the trial.

    \b
    Examples:
      nnas study log 7
      nnas study log model-bayes 7 --attempt 1
    """
    from nnas_core.files import read_bytes
    from nnas_core.study.logs import find_log

    path, found = find_log(store.trial(study, number), attempt)
    text = read_bytes(path).decode("utf-8", "replace")
    document = {"study": study.name, "trial": number, "attempt": found, "file": str(path), "text": text}
    if out.as_json:
        out.report("study-log-report", document, output)
    else:
        out.write(output, text)
