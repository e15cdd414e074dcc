"""``nnas retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.default_places import default_run
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, FILE_OR_CONTENT
from nnas_cli.run_folders import RunPlace, command_of_run, resumed, trains_in_a_run_folder
from nnas_core.files import finite_only, read_json, source_name
from nnas_core.workflows.settings import CheckpointedSettings, RetrainSettings

if TYPE_CHECKING:
    from nnas_core.runs.folder import RunFolder
    from nnas_core.workflows.retrain import RetrainReport

__all__ = ["command"]


@click.command("retrain", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL", required=False)
@click.option(
    "--architecture",
    type=FILE_OR_CONTENT,
    metavar="FILE",
    help="Train this one, in any form; - is standard input.  [required]",
)
@click.option("--checkpoint", metavar="FILE", help="Start from the weights of this supernet, not from scratch.")
@options.epochs
@trains_in_a_run_folder("Keep the run, and weights.pt of the trained model, in PATH.  [default: runs/MODEL-retrain]")
def command(
    training: CheckpointedSettings | None,
    architecture: str | dict[str, object] | None,
    checkpoint: str | None,
    place: RunPlace,
    out: Output,
) -> None:
    """Train one architecture of MODEL alone and test it.

    The architecture is taken out of the model as a plain module, with no unused weight in it. weights.pt in the run
    folder is its state_dict. The test data is looked at once, at the end.

    \b
    Examples:
      nnas retrain model.py --architecture best.json --epochs 100 -o final
      nnas tune model.py --checkpoint run/checkpoint.pt | nnas retrain model.py --architecture -
      nnas retrain --resume final
      nnas retrain --resume final --epochs 200
    """
    if place.resume is not None:
        given = {"architecture": _read(architecture)} if "architecture" in options.explicit() else {}
        run, settings = resumed("retrain", RetrainSettings, place.resume, **given)
    else:
        training = options.required(training, "MODEL")
        options.required(architecture, "--architecture")
        if checkpoint is not None:
            options.refuse_idle(("valid_fraction",), "--checkpoint")
        run = place.started(default_run(training.model.model, "retrain"))
        with run.closed_on_error():  # the folder first: standard input may be a study that takes hours
            document = _read(architecture)
        settings = RetrainSettings(training=training, architecture=document, checkpoint=checkpoint)
    source = source_name(architecture) if isinstance(architecture, str) else None  # a run's config.json holds it whole
    report = _retrain(settings, run, source, out)
    if report.tested_on != "test":
        out.warn("the module has no test_dataset(), so the metric below is of the validation data")
    if out.as_json:
        out.report("retrain-report", _document(report, settings, run))
        return
    _show(report, out)


def _read(architecture: str | dict[str, object] | None) -> object:
    return read_json(architecture) if isinstance(architecture, str) else architecture


def _retrain(settings: RetrainSettings, run: RunFolder, source: str | None, out: Output) -> RetrainReport:
    out.announce(f"{settings.training.model.model} alone, in {run.path}: loading torch, the model and the data")
    with without_collection():
        from nnas_cli.progress import TrainingProgress
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.workflows.retrain import retrain

    with run, command_of_run("retrain", run), StopRequest() as stop, TrainingProgress(out) as progress:
        seed_globals(settings.training.seed)
        return retrain(settings, run, callbacks=[progress], should_stop=stop, warn=out.warn, architecture_from=source)


def _document(report: RetrainReport, settings: RetrainSettings, run: RunFolder) -> dict[str, object]:
    """The answer as JSON; no times are in it: equal command lines give equal bytes, and events.jsonl has them."""
    return {
        "run": str(run.path),
        "seed": settings.training.seed,
        "epochs": report.usage.epochs,
        "test": finite_only(report.test),
        "tested_on": report.tested_on,
        "valid": finite_only(report.valid),
        "parameters": report.parameters,
        "device": report.usage.device,
        "weights": report.weights,
    }


def _show(report: RetrainReport, out: Output) -> None:
    from nnas_cli.progress import described, usage_rows

    rows = [
        [report.tested_on, described(report.test)],
        ["validation" if report.tested_on == "test" else "last epoch", described(report.valid)],
        ["parameters", f"{report.parameters}"],
        *usage_rows(report.usage),
        ["weights", report.weights],
    ]
    out.table(["", report.usage.device], rows, answer=True)
