"""``nnas retrain``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from nnas_cli import options
from nnas_cli.default_places import default_run
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, FILE_OR_CONTENT, Count, Number
from nnas_cli.run_folders import RunPlace, command_of_run, resumed, trains_in_a_run_folder
from nnas_core.files import finite_only, read_json, source_name
from nnas_core.training.settings import RecipeSettings
from nnas_core.workflows.settings import CheckpointedSettings, RetrainSettings

if TYPE_CHECKING:
    from nnas_core.runs.folder import RunFolder
    from nnas_core.workflows.retrain import RetrainReport

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., object])


def _recipe(function: F) -> F:
    """Options of the recipe; the function gets it whole."""
    share, pixels = Number(0, 1, max_open=True), Count(0, 100_000)
    beta = "Let pairs of samples be mixed, by Beta(ALPHA, ALPHA)."
    smoothing = "Give this share of a label to all classes alike."
    return options.decorated(
        function,
        options.of_field("--drop-path", RecipeSettings, share, "Leave paths out with this probability, at the end."),
        options.of_field("--cutout", RecipeSettings, pixels, "Replace a square of so many pixels a side by zeros."),
        options.of_field("--mixup", RecipeSettings, Number(0), beta, "ALPHA"),
        options.of_field("--label-smoothing", RecipeSettings, share, smoothing),
        click.option(
            "--auxiliary-weight",
            type=Number(0),
            help="Let the loss of an auxiliary head count so much.  [default: 0.4]",
        ),
        options.of_field("--ema", RecipeSettings, share, "Keep the moving average of the weights, of this decay."),
        options.part("recipe", RecipeSettings),
    )


@click.command("retrain", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL", required=False)
@click.option(
    "--architecture",
    type=FILE_OR_CONTENT,
    metavar="FILE",
    help="Train this one, in any form; - is standard input.  [required]",
)
@click.option("--checkpoint", metavar="FILE", help="Start from the weights of this supernet, not from scratch.")
@click.option(
    "--init",
    type=click.Choice(["scratch", "inherited"]),
    help="Start so; scratch takes no more of --checkpoint than which samples were held out.  [default: inherited with"
    " --checkpoint]",
)
@options.of_field("--seeds", RetrainSettings, Count(1, 1000), "Train with so many seeds; report their mean.", "N")
@_recipe
@options.epochs
@trains_in_a_run_folder("Keep the run, and weights.pt of the trained model, in PATH.  [default: runs/MODEL-retrain]")
def command(
    training: CheckpointedSettings | None,
    architecture: str | dict[str, object] | None,
    checkpoint: str | None,
    init: str | None,
    seeds: int,
    recipe: RecipeSettings,
    place: RunPlace,
    out: Output,
) -> None:
    """Train one architecture of MODEL alone and test it.

    The architecture is taken out of the model as a plain module, with no unused weight in it. weights.pt in the run
    folder is its state_dict. The test data is looked at once, at the end. With --seeds 3 it is trained three times,
    with this seed and the two after it, in the run folder and in folders of it.

    \b
    Examples:
      nnas retrain model.py --architecture best.json --epochs 100 -o final
      nnas tune model.py --checkpoint run/checkpoint.pt | nnas retrain model.py --architecture -
      nnas retrain model.py --architecture best.json --drop-path 0.2 --cutout 16 --ema 0.999 --seeds 3
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
        settings = RetrainSettings(
            training=training, architecture=document, checkpoint=checkpoint, init=init, seeds=seeds, recipe=recipe
        )
    source = source_name(architecture) if isinstance(architecture, str) else None  # a run's config.json holds it whole
    reports = _retrain(settings, run, source, out)
    if reports[0].tested_on != "test":
        out.warn("the module has no test_dataset(), so the metric below is of the validation data")
    if out.as_json:
        out.report("retrain-report", _document(reports, settings, run))
        return
    _show(reports, out)


def _read(architecture: str | dict[str, object] | None) -> object:
    return read_json(architecture) if isinstance(architecture, str) else architecture


def _retrain(settings: RetrainSettings, run: RunFolder, source: str | None, out: Output) -> list[RetrainReport]:
    out.announce(f"{settings.training.model.model} alone, in {run.path}: loading torch, the model and the data")
    with without_collection():
        from nnas_cli.progress import TrainingProgress
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.workflows.retrain import check_settings, retrain, trainings

    reports = []
    with run, command_of_run("retrain", run), StopRequest() as stop:
        check_settings(settings)
        for own, folder in trainings(settings, run):
            if settings.seeds > 1:
                out.note(f"seed {own.training.seed}, in {folder.path}")
            with contextlib.nullcontext() if folder is run else folder, TrainingProgress(out) as progress:
                seed_globals(own.training.seed)
                reports.append(
                    retrain(
                        own, folder, callbacks=[progress], should_stop=stop, warn=out.warn, architecture_from=source
                    )
                )
    return reports


def _document(reports: list[RetrainReport], settings: RetrainSettings, run: RunFolder) -> dict[str, object]:
    """The answer as JSON; no times are in it: equal command lines give equal bytes, and events.jsonl has them."""
    from nnas_core.workflows.retrain import mean_and_deviation

    report, seed = reports[0], settings.training.seed
    several = mean_and_deviation(reports) if len(reports) > 1 else None
    return {
        "run": str(run.path),
        "seed": seed,
        "epochs": report.usage.epochs,
        "test": finite_only(report.test),
        "tested_on": report.tested_on,
        "valid": finite_only(report.valid),
        "parameters": report.parameters,
        "macs": report.macs,
        "device": report.usage.device,
        "weights": report.weights,
        "curve": [
            {"epoch": one.epoch, "train": finite_only(one.train), "valid": finite_only(one.valid)}
            for one in report.curve
        ],
        "trainings": [
            {
                "run": str(Path(one.weights).parent),
                "seed": seed + number,
                "test": finite_only(one.test),
                "valid": finite_only(one.valid),
                "weights": one.weights,
            }
            for number, one in enumerate(reports)
        ],
        "mean": None if several is None else finite_only(several[0]),
        "deviation": None if several is None else finite_only(several[1]),
    }


def _show(reports: list[RetrainReport], out: Output) -> None:
    from nnas_cli.progress import described, usage_rows
    from nnas_core.workflows.retrain import mean_and_deviation

    report = reports[0]
    rows = [
        [report.tested_on, described(report.test)],
        ["validation" if report.tested_on == "test" else "last epoch", described(report.valid)],
        ["parameters", f"{report.parameters}"],
        *([] if report.macs is None else [["MACs of 1 sample", f"{report.macs}"]]),
        *usage_rows(report.usage),
        ["weights", report.weights],
    ]
    if len(reports) > 1:
        means, deviations = mean_and_deviation(reports)
        rows[0][0] += ", first seed"
        shown = ", ".join(f"{name} {means[name]:.4f} \u00b1 {deviations[name]:.4f}" for name in means)
        rows.insert(0, [f"{report.tested_on}, {len(reports)} seeds", shown])
    out.table(["", report.usage.device], rows, answer=True)
