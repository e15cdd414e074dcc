"""``nnas validate``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.output import Output
from nnas_core.errors import ExitCode

__all__ = ["command"]


@click.command("validate")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--space", metavar="FILE", help="Search space that architectures, parameters and latencies must fit.")
@click.option("--kind", metavar="KIND", help="Check as this kind instead of recognising it.")
@options.with_output("File for the report; - is standard output.")
@options.common
def command(files: tuple[str, ...], space: str | None, kind: str | None, output: str, seed: int, out: Output) -> int:
    """Check FILEs against their schemas and a search space.

    Exit code 0 if all are valid, 1 if any is not. A file that cannot be read at all counts as not valid. Torch is
    loaded for checkpoints only.

    \b
    Examples:
      nnas validate space.json arch.json --space space.json
      nnas validate run/checkpoint.pt run/events.jsonl
      nnas ss-gen model.py | nnas validate -
    """
    from nnas_core.files import dump_json, read_json
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.workflows.validate import validate_file

    against = SearchSpace.from_json(read_json(space), space) if space is not None else None
    results = [validate_file(file, against, kind) for file in files]
    valid = all(not result.problems for result in results)
    if out.as_json:
        out.write(output, dump_json({"valid": valid, "files": [result.to_json() for result in results]}))
    else:
        lines = []
        for result in results:
            state = "valid" if not result.problems else "NOT VALID"
            lines.append(f"{result.file}: {state} ({result.kind})")
            lines += [f"  {problem}" for problem in result.problems]
        out.write(output, "\n".join(lines) + "\n")
    return ExitCode.DONE if valid else ExitCode.CHECK_FAILED
