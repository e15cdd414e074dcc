"""``nnas export``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE
from nnas_core.errors import InputError, UsageError
from nnas_core.files import dump_json, read_json, source_name

__all__ = ["command"]


@click.command("export", cls=SectionedCommand)
@click.argument("checkpoint", type=FILE, metavar="CHECKPOINT")
@click.option(
    "--format",
    type=click.Choice(["masks", "names", "indices", "parameters", "document"]),
    default="masks",
    show_default=True,
    help="Write the architecture in this form.",
)
@click.option("--architecture", metavar="FILE", help="Write this one, in any form, instead of the checkpoint's.")
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common_without_seed
def command(checkpoint: str, format: str, architecture: str | None, output: str, out: Output) -> None:
    """Write the architecture of CHECKPOINT as JSON.

    Only the checkpoint is read; no code of the model runs. With --architecture another architecture of the same search
    space is written, for example to change its form.

    \b
    Examples:
      nnas export run/checkpoint.pt
      nnas export run/checkpoint.pt --format names -o arch.json
      nnas export run/checkpoint.pt --architecture best.json --format document
    """
    with without_collection():
        from nnas_core.runs.checkpoint import read_checkpoint
        from nnas_core.space.architecture import document_of
        from nnas_core.space.search_space import SearchSpace

    if checkpoint == "-":
        raise UsageError("a checkpoint cannot come from standard input", hint="give the path of a file")
    header = read_checkpoint(checkpoint)["header"]
    if "space" not in header:
        raise InputError(
            "has no architecture: it is of a plain model", where=checkpoint, hint="take one of `nnas search`"
        )
    if architecture is None and "architecture" not in header:
        raise InputError(
            "has no architecture yet: it is of the beginning of a search",
            where=checkpoint,
            hint="let the search go on, or give --architecture",
        )
    space = SearchSpace.from_json(header["space"], checkpoint)
    if architecture is None:
        found = space.parse(header["architecture"], checkpoint)
    else:
        found = space.parse(read_json(architecture), source_name(architecture))
    if format != "document":
        out.write(output, dump_json(found.to_form(format)))
        return
    names = ("model", "mutator", "seed", "progress")
    provenance = {name: value for name, value in header.items() if name in names}
    provenance["checkpoint"] = checkpoint
    provenance["nnas_version"] = header["nnas"]
    # the checkpoint's metrics are of its supernet, not of one architecture: none are claimed here
    out.write(output, dump_json(document_of(found, space.fingerprint, provenance=provenance)))
