"""``nnas study backup``."""

from __future__ import annotations

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_core.errors import UsageError

__all__ = ["command"]


@click.command("backup", cls=SectionedCommand)
@studies.storage
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@options.with_output("Write the copy to PATH.", default=None)
@options.common_without_seed
def command(storage: str, force: bool, output: str | None, out: Output) -> None:
    """Copy a database of studies, also while they run.

    The copy has all studies as they were at one moment, and is checked before it gets its name; use it as any other
    --storage. Of PostgreSQL, make a copy by pg_dump.

    \b
    Examples:
      nnas study backup -o copy.db
      nnas study backup --storage sqlite:///runs/nnas.db -o copy.db --force
    """
    from nnas_core.study.storage.backup import back_up

    output = options.required(output, "--output")
    if output == "-":
        raise UsageError("-o is a file here, not standard output")
    with studies.opened(storage) as store:
        count = len(store.studies())
        size = back_up(storage, output, overwrite=force)
    if out.as_json:
        out.report("study-backup-report", {"file": output, "studies": count, "bytes": size})
    else:
        out.note(f"wrote {output} ({count} studies)")
