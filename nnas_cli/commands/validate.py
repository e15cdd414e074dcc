"""``nnas validate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.escapes import printable
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, Number
from nnas_core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from nnas_core.workflows.gates import Gates
    from nnas_core.workflows.validate import FileCheck

__all__ = ["command"]


@dataclass(frozen=True)
class _Limits:
    """What architectures may cost, and in which model."""

    model: str
    model_arg: Mapping[str, object]
    task: str | None
    max_parameters: float | None
    max_macs: float | None
    max_latency_ms: float | None
    constraint: Sequence[str]
    latency_table: str | None


def _gates(limits: _Limits | None) -> Gates | None:
    """The limits in the model; None without one.

    Raises:
        UsageError: there are limits, and no model.
    """
    if limits is None:
        given = options.explicit()
        for name in (one.name for one in fields(_Limits)):
            if given.get(name):
                raise UsageError(f"`{name}` does nothing without --model", hint="give both, or leave it out")
        return None
    with without_collection():
        from nnas_cli.seeding import seed_globals
        from nnas_core.training.settings import DataSettings, ModelReference, SetupSettings
        from nnas_core.workflows.gates import Gates
        from nnas_core.workflows.settings import CountSettings, GoalSettings

    most = {"parameters": limits.max_parameters, "macs": limits.max_macs, "latency_ms": limits.max_latency_ms}
    texts = [f"{name}<={value!r}" for name, value in most.items() if value is not None]
    model = ModelReference(limits.model, limits.model_arg, limits.task)
    goals = GoalSettings([*limits.constraint, *texts], latency_table=limits.latency_table)
    seed_globals(DataSettings.seed)
    return Gates(CountSettings(setup=SetupSettings(model=model, device="cpu"), goals=goals))


@click.command("validate", cls=SectionedCommand)
@click.argument("files", type=FILE, metavar="FILE...", nargs=-1)
@click.option("--space", metavar="FILE", help="Check that architectures, parameters and latencies fit this space.")
@click.option("--kind", metavar="KIND", help="Check as this kind instead of recognising it.")
@click.option("--print-schema", metavar="KIND", help="Print the JSON Schema of a kind; nothing is checked.")
@click.option(
    "--model", type=FILE, metavar="MODEL", help="Check that architectures fit this model, and what they cost."
)
@options.model_arg
@click.option("--task", metavar="FILE", help="Take the data that costs are measured on from this file; with --model.")
@click.option("--max-parameters", type=Number(0), metavar="N", help="Let no architecture have more parameters.")
@click.option("--max-macs", type=Number(0), metavar="N", help="Let no architecture have more MACs, of one sample.")
@click.option(
    "--max-latency-ms",
    type=Number(0),
    metavar="X",
    help="Let no architecture be slower, by --latency-table, or measured here for one sample.",
)
@options.constraint
@options.latency_table
@options.part("limits", _Limits)
@options.with_output("Write the report to PATH; - is standard output.")
@options.common_without_seed
def command(
    files: tuple[str, ...],
    space: str | None,
    kind: str | None,
    print_schema: str | None,
    limits: _Limits | None,
    output: str,
    out: Output,
) -> int:
    """Check FILEs against their schemas and a search space.

    What nnas writes is recognised, reports of --json too, but for CSV and logs. Exit code 0 if all are valid, 1 if any
    is not. A file that cannot be read at all counts as not valid. With --model, an architecture that costs more than a
    limit is not valid; the numbers are shown. Torch is loaded for that, and for checkpoints and weights, only.

    \b
    Examples:
      nnas validate space.json arch.json --space space.json
      nnas validate run/checkpoint.pt run/events.jsonl
      nnas validate arch.json --model model.py --max-parameters 1e6 --max-macs 3e8
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
    gates = _gates(limits)
    if gates is not None and against is None:
        against = gates.space
    results = [validate_file(file, against, kind) for file in files]
    if gates is not None:
        results = gates.check(results)
    valid = all(not result.problems for result in results)
    if out.as_json:
        out.report("validate-report", {"valid": valid, "files": [result.to_json() for result in results]}, output)
    else:
        # one line each: a name with a line feed in it must not look like the line of another file
        out.write(output, "".join(f"{printable(line)}\n" for result in results for line in _lines(result)))
    return ExitCode.DONE if valid else ExitCode.CHECK_FAILED


def _lines(result: FileCheck) -> list[str]:
    from nnas_cli.trial_numbers import shown, title

    state = "valid" if not result.problems else "NOT VALID"
    cost = ", ".join(f"{title(name)} {shown(value)}" for name, value in result.cost.items())
    head = f"{result.file}: {state} ({result.kind})" + (f"; {cost}" if cost else "")
    return [head, *(f"  {problem}" for problem in result.problems)]


def _print_schema(kind: str, output: str, out: Output) -> None:
    options.refuse_idle(("space", "kind"), "--print-schema")
    from nnas_core import schema
    from nnas_core.files import dump_json

    schema.check_kind(kind)
    out.write(output, dump_json(schema.load(kind)))
