"""``nnas validate``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.escapes import printable
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE
from nnas_core.errors import ExitCode, UsageError

__all__ = ["command"]


@click.command("validate", cls=SectionedCommand)
@click.argument("files", type=FILE, metavar="FILE...", nargs=-1)
@click.option("--space", metavar="FILE", help="Check that architectures, parameters and latencies fit this space.")
@click.option("--kind", metavar="KIND", help="Check as this kind instead of recognising it.")
@click.option("--print-schema", metavar="KIND", help="Print the JSON Schema of a kind; nothing is checked.")
@options.with_output("Write the report to PATH; - is standard output.")
@options.common_without_seed
def command(
    files: tuple[str, ...],
    space: str | None,
    kind: str | None,
    print_schema: str | None,
    output: str,
    out: Output,
) -> int:
    """Check FILEs against their schemas and a search space.

    What nnas writes is recognised, reports of --json too, but for CSV and logs. Exit code 0 if all are valid, 1 if any
    is not. A file that cannot be read at all counts as not valid. Torch is loaded for checkpoints and weights only.

    \b
    Examples:
      nnas validate space.json arch.json --space space.json
      nnas validate run/checkpoint.pt run/events.jsonl
      nnas ss-gen model.py | nnas validate -
      nnas validate --print-schema search-space
    """
    if print_schema is not None:
        if files:
            raise UsageError("FILE does nothing with --print-schema", hint="leave it out")
        _print_schema(print_schema, output, out)
        return ExitCode.DONE
    options.required(files or None, "FILE")
    from nnas_core.files import read_json
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.workflows.validate import validate_file

    against = SearchSpace.from_json(read_json(space), space) if space is not None else None
    results = [validate_file(file, against, kind) for file in files]
    valid = all(not result.problems for result in results)
    if out.as_json:
        out.report("validate-report", {"valid": valid, "files": [result.to_json() for result in results]}, output)
    else:
        lines = []
        for result in results:
            state = "valid" if not result.problems else "NOT VALID"
            lines.append(f"{result.file}: {state} ({result.kind})")
            lines += [f"  {problem}" for problem in result.problems]
        # one line each: a name with a line feed in it must not look like the line of another file
        out.write(output, "".join(f"{printable(line)}\n" for line in lines))
    return ExitCode.DONE if valid else ExitCode.CHECK_FAILED


def _print_schema(kind: str, output: str, out: Output) -> None:
    options.refuse_idle(("space", "kind"), "--print-schema")
    from nnas_core import schema
    from nnas_core.files import dump_json

    schema.check_kind(kind)
    out.write(output, dump_json(schema.load(kind)))
