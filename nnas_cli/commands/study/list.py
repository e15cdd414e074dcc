"""``nnas study list``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output

if TYPE_CHECKING:
    from nnas_cli.tables import Table
    from nnas_core.study.administration import StudyStatus

__all__ = ["command"]


@click.command("list", cls=SectionedCommand)
@studies.storage
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(storage: str, output: str, out: Output) -> None:
    """List the studies with their states and best values.

    A study whose process died shows as interrupted. Finished are all trials that ended, those that failed too.

    \b
    Examples:
      nnas study list
      nnas study list --storage sqlite:///runs/nnas.db --json
    """
    with studies.opened(storage) as store, studies.the_rest(store, out, output) as damage:
        found = [store.status(study, damage) for study in store.studies(damage)]
        if out.as_json or output != "-":
            out.report("study-list-report", {"studies": [status.to_json() for status in found]}, output)
        elif found:
            out.show(_table(found), answer=True)
        elif not damage:
            out.note("there are no studies yet")


def _table(found: Sequence[StudyStatus]) -> Table:
    from nnas_cli.tables import Table  # late: help needs none

    columns = ["name", "state", "tuner", "finished", "failed", "running", "waiting", "best", "created"]
    rows = [
        [
            status.study.name,
            status.study.state,
            status.study.settings.tuner,
            str(status.finished),
            *(str(status.counts[state]) for state in ("failed", "running", "waiting")),
            studies.number(status.best.value if status.best else None),
            status.study.created[:16].replace("T", " "),
        ]
        for status in found
    ]
    return Table(columns, rows, left_out=["created", "tuner"])
