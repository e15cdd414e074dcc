"""``nnas evaluate``."""

from __future__ import annotations

from typing import Any

import click

from nnas_cli import options
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_core.files import dump_json, read_json, source_name

__all__ = ["command"]


@click.command("evaluate")
@options.model_argument
@click.option("--checkpoint", metavar="FILE", required=True, help="Of the supernet whose weights are inherited.")
@click.option("--architecture", metavar="FILE", required=True, help="In any form; - is standard input.")
@options.recalibrate
@options.batches
@click.option("--on", type=click.Choice(["valid", "test"]), default="valid", show_default=True, help="Which data.")
@options.with_output("File for the JSON report; - is standard output, as a table unless --json.")
@options.loads_model
@options.common
def command(architecture: str, output: str, out: Output, **values: Any) -> None:
    """Measure an architecture with the weights it inherits.

    What is reported is an estimate: the weights were trained for all architectures at once.

    \b
    Examples:
      nnas evaluate model.py --checkpoint run/checkpoint.pt --architecture best.json
      nnas export run/checkpoint.pt | nnas evaluate model.py --checkpoint run/checkpoint.pt --architecture - --json
    """
    with without_collection():
        from nnas_cli.progress import described
        from nnas_cli.seeding import seed_globals
        from nnas_core.files import finite_only
        from nnas_core.workflows.tune import EvaluateSettings, evaluate_once

    document = read_json(architecture)
    settings = EvaluateSettings(**values)
    seed_globals(settings.seed)
    found, evaluation, data = evaluate_once(settings, document, source_name(architecture))
    report = {
        "architecture": found.masks(),
        "metrics": finite_only(evaluation.metrics),
        "before_recalibration": evaluation.before and finite_only(evaluation.before),
        "measured_on": f"{data} data, inherited weights",
        "recalibrate": settings.recalibrate,
        "seed": settings.seed,
    }
    if out.as_json or output != "-":
        out.write(output, dump_json(report))
        return
    rows = [[f"{data}, inherited weights", described(evaluation.metrics)]]
    if evaluation.before is not None:
        rows.append(["before recalibration", described(evaluation.before)])
    rows.append(["time", f"{evaluation.seconds:.2f} s"])
    out.table(["", "estimate"], rows, answer=True)
