"""``nnas study retry``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("retry", cls=SectionedCommand)
@studies.of_trials
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, numbers: tuple[int, ...], output: str, out: Output) -> None:
    """Let trials that failed be tried again.

    All that failed, or those of the numbers, which may also have been stopped early. They wait for the next `nnas tune
    --resume`, and run before any new trial; `nnas tune --resume --retry-failed` does both. Nobody may be running the
    study.

    \b
    Examples:
      nnas study retry
      nnas study retry model-bayes 3 7
    """
    waiting = store.retry(study, numbers)
    document = {"study": study.name, "waiting": waiting}
    if waiting:
        which = "trial" if len(waiting) == 1 else "trials"
        text = f"{which} {', '.join(map(str, waiting))} of study {study.name!r}: waiting for `nnas tune --resume`\n"
    else:
        text = f"study {study.name!r} has no trial that failed\n"
    studies.answer(out, output, "study-retry-report", document, text)
