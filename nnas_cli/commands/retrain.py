"""``nnas retrain``."""

from __future__ import annotations

from typing import Any

import click

from nnas_cli import options
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_core.files import read_json, source_name

__all__ = ["command"]


@click.command("retrain")
@click.argument("model", metavar="MODEL", required=False)
@click.option(
    "--architecture", type=click.UNPROCESSED, metavar="FILE", help="In any form; - is standard input.  [required]"
)
@click.option("--checkpoint", metavar="FILE", help="Start from the weights of this supernet, not from scratch.")
@click.option("--epochs", type=click.IntRange(1), default=50, show_default=True, help="To train in all.")
@options.training
@options.run_folder
@options.with_output("Run folder; its weights.pt is the trained model.  [default: runs/MODEL-retrain]", default=None)
@options.loads_model
@options.common
def command(
    model: str | None,
    architecture: str | dict[str, Any] | None,
    resume: str | None,
    force: bool,
    output: str | None,
    out: Output,
    **values: Any,
) -> None:
    """Train one architecture of MODEL alone and test it.

    The architecture is taken out of the model as a plain module, with no unused weight in it. weights.pt in the run
    folder is its state_dict. The test data is looked at once, at the end.

    \b
    Examples:
      nnas retrain model.py --architecture best.json --epochs 100 -o final
      nnas tune model.py --checkpoint run/checkpoint.pt | nnas retrain model.py --architecture -
      nnas retrain --resume final
    """
    with without_collection():
        from nnas_cli.commands.search import stem
        from nnas_cli.progress import TrainingProgress, described
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.files import finite_only
        from nnas_core.workflows.retrain import RetrainSettings, retrain

    values["model"] = model
    source = source_name(architecture) if isinstance(architecture, str) else None  # a run's config.json holds it whole
    if resume is not None:
        if options.given({"architecture": architecture}):
            values["architecture"] = _read(architecture)
        run, values = options.resumed("retrain", resume, {**values, "output": output, "force": force})
    else:
        options.require(model=model, architecture=architecture)
        if values["checkpoint"] is not None:
            options.refuse_idle(("valid_fraction",), "--checkpoint")
        run = options.started(output, f"runs/{stem(str(model))}-retrain", force)
        with run.closed_on_error():  # the folder first: standard input may be a study that takes hours
            values["architecture"] = _read(architecture)
    with run, StopRequest() as stop:
        settings = RetrainSettings(**values)
        progress = TrainingProgress(out)
        seed_globals(settings.seed)
        try:
            report = retrain(
                settings, run, callbacks=[progress], should_stop=stop, warn=out.warn, architecture_from=source
            )
        finally:
            progress.close()
    if report.tested_on != "test":
        out.warn("the module has no test_dataset(), so the metric below is of the validation data")
    if out.as_json:
        # no times in it: equal command lines give equal bytes; events.jsonl has them
        document = {
            "run": str(run.path),
            "seed": settings.seed,
            "epochs": report.epochs,
            "test": finite_only(report.test),
            "tested_on": report.tested_on,
            "valid": finite_only(report.valid),
            "parameters": report.parameters,
            "device": report.device,
            "weights": report.weights,
        }
        out.answer_json(document)
        return
    rows = [
        [f"{report.tested_on}", described(report.test)],
        ["validation" if report.tested_on == "test" else "last epoch", described(report.valid)],
        ["parameters", f"{report.parameters}"],
        ["throughput", f"{report.samples_per_second:.0f} samples/s"],
        ["time", f"{report.seconds:.1f} s"],
        ["peak memory", f"{report.peak_memory_mb:.0f} MiB"],
        ["weights", report.weights],
    ]
    out.table(["", report.device], rows, answer=True)


def _read(architecture: str | dict[str, Any] | None) -> Any:
    return read_json(architecture) if isinstance(architecture, str) else architecture
