"""``nnas evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE
from nnas_core.files import check_writable, finite_only, read_json, source_name
from nnas_core.training.settings import SetupSettings
from nnas_core.workflows.settings import EvaluateSettings

if TYPE_CHECKING:
    from nnas_core.workflows.evaluate import EvaluateReport

__all__ = ["command"]


@click.command("evaluate", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL")
@click.option("--checkpoint", metavar="FILE", required=True, help="Inherit the weights of this supernet.")
@click.option(
    "--architecture",
    metavar="FILE",
    required=True,
    help="Measure this one, in any form; - is standard input.",
)
@options.recalibrate
@options.batches
@options.of_field("--on", EvaluateSettings, click.Choice(["valid", "test"]), "Measure on this data.")
@options.with_output("Write the JSON report to PATH; - is standard output, as a table unless --json.")
@options.loads_model
@options.part("setup", SetupSettings)
@options.common
def command(
    setup: SetupSettings,
    checkpoint: str,
    architecture: str,
    recalibrate: int,
    on: str,
    output: str,
    out: Output,
) -> None:
    """Measure an architecture with the weights it inherits.

    What is reported is an estimate: the weights were trained for all architectures at once.

    \b
    Examples:
      nnas evaluate model.py --checkpoint run/checkpoint.pt --architecture best.json
      nnas export run/checkpoint.pt | nnas evaluate model.py --checkpoint run/checkpoint.pt --architecture - --json
    """
    with without_collection():
        from nnas_cli.seeding import seed_globals
        from nnas_core.workflows.evaluate import evaluate

    if output != "-":
        check_writable(output)  # now, not after the measurement
    document = read_json(architecture)
    settings = EvaluateSettings(setup=setup, checkpoint=checkpoint, recalibrate=recalibrate, on=on)
    seed_globals(settings.setup.seed)
    report = evaluate(settings, document, source_name(architecture))
    if out.as_json or output != "-":
        out.report("evaluate-report", _document(report, settings), output)
        return
    _show(report, out)


def _document(report: EvaluateReport, settings: EvaluateSettings) -> dict[str, object]:
    found = report.evaluation
    return {
        "architecture": report.architecture.masks(),
        "metrics": finite_only(found.metrics),
        "before_recalibration": found.before and finite_only(found.before),
        "cost": report.costs,
        "measured_on": f"{report.measured_on} data, inherited weights",
        "recalibrate": settings.recalibrate,
        "seed": settings.setup.seed,
    }


def _show(report: EvaluateReport, out: Output) -> None:
    from nnas_cli.progress import described
    from nnas_cli.trial_numbers import shown, title

    found = report.evaluation
    rows = [[f"{report.measured_on}, inherited weights", described(found.metrics)]]
    if found.before is not None:
        rows.append(["before recalibration", described(found.before)])
    rows += [[title(name), shown(value)] for name, value in report.costs.items()]
    rows.append(["time", f"{found.seconds:.2f} s"])
    out.table(["", "estimate"], rows, answer=True)
