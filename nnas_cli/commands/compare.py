"""``nnas compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_core._listing import shortened
from nnas_core.errors import InputError

if TYPE_CHECKING:
    from nnas_cli.tables import Table
    from nnas_core.workflows.compare import Compared

__all__ = ["command"]


@click.command("compare", cls=SectionedCommand)
@click.argument("names", metavar="RUN|STUDY...", nargs=-1, required=True)
@studies.storage
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(names: tuple[str, ...], storage: str, output: str, out: Output) -> None:
    """Compare runs and studies in one table.

    What is a folder is a run of `nnas search` or `nnas retrain`, everything else the name of a study, or enough of its
    beginning. There is a line for each, with its last metrics, of a study those of its best trial, with the options
    in which they differ, and with the architecture. Checkpoints are not read.

    \b
    Examples:
      nnas compare runs/net-darts runs/net-random
      nnas compare runs/final net-bayes --json
    """
    from nnas_core.workflows.compare import differing_options

    if all(Path(name).is_dir() for name in names):
        options.refuse_idle(["storage"], "run folders alone")
    found = [_compared(name, storage) for name in names]
    different = differing_options(found)
    if out.as_json or output != "-":
        document = {"compared": [one.to_json() for one in found], "differing_options": different}
        out.report("compare-report", document, output)
    else:
        out.show(_table(found, different), answer=True)


def _compared(name: str, storage: str) -> Compared:
    from nnas_core.workflows.compare import compare_run, compare_study

    if Path(name).is_dir():
        return compare_run(name)
    if Path(name).exists():
        raise InputError("is no run: a folder is needed", where=name, hint="see `nnas runs`")
    if storage == studies.STORAGE and not Path("nnas.db").exists():
        raise InputError("is neither a run folder nor a study", where=name, hint="see `nnas runs`, or give `storage`")
    with studies.opened(storage) as store:
        return compare_study(store, name)


def _table(found: list[Compared], different: list[str]) -> Table:
    from nnas_cli.architectures import in_words, shorter
    from nnas_cli.tables import Table

    rows = []
    for one in found:
        metrics = studies.metrics_in_words(one.metrics, one.measured_on)
        told = [f"{name}={_value(one.options[name])}" for name in different if name in one.options]
        rows.append(
            [
                one.name,
                " ".join(filter(None, (one.kind, one.algorithm))),
                one.state,
                studies.part_of(one.done, one.wanted),
                metrics,
                " ".join(told) or "-",
                "-" if one.architecture is None else in_words(one.architecture),
            ]
        )
    architectures = [one.architecture for one in found]
    short = shorter(architectures, [one for one in architectures if one is not None])
    columns = ["name", "what", "state", "done", "metrics", "differs in", "architecture"]
    return Table(columns, rows, {"architecture": short}, ["state", "done", "what"])


def _value(value: object) -> str:
    return shortened(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False), 40)
