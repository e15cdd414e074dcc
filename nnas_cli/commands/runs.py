"""``nnas runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE

if TYPE_CHECKING:
    from nnas_cli.tables import Table
    from nnas_core.runs.summary import RunSummary

__all__ = ["command"]


@click.command("runs", cls=SectionedCommand)
@click.argument("folder", type=FILE, metavar="[FOLDER]", default=".")
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(folder: str, output: str, out: Output) -> None:
    """List the run folders below FOLDER, or below here.

    With the state of each run, its epochs, its last metrics and when it changed last (UTC). Checkpoints are not read.
    Folders whose names begin with a dot are left out; links are followed. A run whose configuration is damaged is in
    the list as such.

    \b
    Examples:
      nnas runs
      nnas runs experiments --json
    """
    from nnas_core.runs.summary import find_runs

    found = list(find_runs(folder, out.warn))
    if out.as_json or output != "-":
        out.report("runs-report", {"runs": [run.to_json() for run in found]}, output)
    elif found:
        out.show(_table(found), answer=True)
    else:
        out.note("there are no runs below here" if folder == "." else f"there are no runs below {folder}")


def _table(found: list[RunSummary]) -> Table:
    from nnas_cli.tables import Table  # late: help needs none

    columns = ["run", "what", "state", "epochs", "metrics", "changed"]
    rows = [
        [
            run.path,
            " ".join(filter(None, (run.command, run.mutator))) or "-",
            run.state,
            studies.part_of(run.epochs, run.wanted),
            run.problem or studies.metrics_in_words(run.metrics, run.measured_on),
            "-" if run.changed is None else run.changed[:16].replace("T", " "),
        ]
        for run in found
    ]
    return Table(columns, rows, left_out=["epochs", "what"])
