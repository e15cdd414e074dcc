"""``nnas list``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.output import Output
from nnas_core.files import dump_json

__all__ = ["command"]


@click.command("list")
@click.argument("group", type=click.Choice(["mutators", "tuners"]))
@options.with_output("File to write; - is standard output.")
@options.common
def command(group: str, output: str, seed: int, out: Output) -> None:
    """List what --mutator or --tuner takes, with sources.

    \b
    Examples:
      nnas list mutators
      nnas list tuners --json
    """
    from nnas_core.registry import entries

    found = list(entries(group).values())
    if out.as_json or output != "-":
        document = [
            {"name": one.name, "summary": one.summary, "source": one.source, "class": one.target} for one in found
        ]
        out.write(output, dump_json({group: document}))
        return
    out.table(["name", "summary", "source"], [[one.name, one.summary, one.source] for one in found], answer=True)
