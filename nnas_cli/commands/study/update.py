"""``nnas study update``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import DURATION, MOST_PROCESSES, Count, OrNone
from nnas_core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("update", cls=SectionedCommand)
@studies.of_a_study(running=True)
@click.option(
    "--trials", type=OrNone(Count(1)), metavar="N", help="Stop when so many trials have ended; none is no limit."
)
@click.option(
    "--duration",
    type=OrNone(DURATION),
    metavar="TIME",
    help="Begin no trial after 90s, 30m, 2h of this run; none is no limit.",
)
@click.option("--concurrency", type=Count(1, MOST_PROCESSES), metavar="N", help="Run so many trials at once.")
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(
    store: StudyStore,
    study: StudyRecord,
    trials: int | str | None,
    duration: float | str | None,
    concurrency: int | None,
    output: str,
    out: Output,
) -> int:
    """Change the limits of a running study.

    They hold within seconds. A trial that has begun is not ended by them. Exit code 1 if nobody runs the study: a
    `nnas tune --resume` brings limits of its own.

    \b
    Examples:
      nnas study update --trials 500
      nnas study update model-bayes --duration 4h --concurrency 2
      nnas study update --trials none --duration 30m
    """
    given = {"trials": trials, "duration_s": duration, "concurrency": concurrency}
    changes = {name: None if isinstance(value, str) else value for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("there is nothing to change", hint="give --trials, --duration or --concurrency")
    limits = store.update_limits(study, changes)
    status = store.status(study)
    if limits is None:
        text = f"study {study.name!r} is not running: it is {status.study.state}\n"
    else:
        text = f"study {study.name!r}: {studies.limits_in_words(status)}\n"
    document = {"study": study.name, "state": status.study.state, "limits": limits}
    studies.answer(out, output, "study-update-report", document, text)
    return ExitCode.DONE if limits is not None else ExitCode.CHECK_FAILED
