"""``nnas export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, SHAPE, Count
from nnas_core.errors import UsageError
from nnas_core.files import dump_json, read_json, source_name
from nnas_core.workflows.settings import ExportSettings

if TYPE_CHECKING:
    from nnas_core.runs.trained import Trained
    from nnas_core.space.architecture import Architecture
    from nnas_core.workflows.export import ExportReport

__all__ = ["command"]


@click.command("export", cls=SectionedCommand)
@click.argument("checkpoint", type=FILE, metavar="CHECKPOINT|RUN")
@click.option(
    "--format",
    type=click.Choice(["masks", "names", "indices", "parameters", "document"]),
    default="masks",
    show_default=True,
    help="Write the architecture in this form.",
)
@click.option("--architecture", metavar="FILE", help="Take this one, in any form, instead of the checkpoint's.")
@click.option("--weights", metavar="PATH", help="Write the network's weights to PATH: .safetensors, .pt or .pth.")
@click.option("--exported", metavar="PATH", help="Write the network as a program of torch.export to PATH.")
@click.option("--onnx", metavar="PATH", help="Write the network as a model of ONNX to PATH.")
@options.of_field("--opset", ExportSettings, Count(18, 23), "Use this version of ONNX's operators.", metavar="N")
@click.option("--python", metavar="PATH", help="Write the network as source that runs without nnas to PATH.")
@click.option("--model", type=FILE, metavar="MODEL", help="Run this model's code instead of the one in the checkpoint.")
@options.arguments_of("model", "Give the model an argument, instead of those in the checkpoint. Repeatable.", "-a")
@click.option("--task", metavar="FILE", help="Take the data of the example inputs from this Python file.")
@click.option(
    "--input-shape",
    type=SHAPE,
    metavar="N,...",
    help="Try the network on random numbers, of this shape for one sample.  [default: the first training samples]",
)
@options.with_output("Write the architecture to PATH; - is standard output.")
@options.part("wanted", ExportSettings)
@options.common_without_seed
def command(
    checkpoint: str, wanted: ExportSettings, format: str, architecture: str | None, output: str, out: Output
) -> None:
    """Write an architecture, or its network for use without nnas.

    With none but the options of the architecture, that of CHECKPOINT or RUN is written as JSON; no code of the model
    runs. The others write its network: taken out of the model, with the weights that it inherits from the supernet, or
    those of a RUN of `nnas retrain`. Before a file is written it is read back, run, and compared with the supernet:
    equal to the bit, and within 1e-5 for ONNX. A file that cannot be made leaves the others alone. -o writes the
    architecture besides.

    \b
    Examples:
      nnas export run/checkpoint.pt
      nnas export run/checkpoint.pt --format names -o arch.json
      nnas export run --architecture best.json --format document
      nnas export final --weights net.safetensors --onnx net.onnx
      nnas export run --architecture best.json --weights net.pt --python net.py
    """
    with without_collection():
        from nnas_core.runs.trained import read_trained

    if checkpoint == "-":
        raise UsageError("a checkpoint cannot come from standard input", hint="give the path of a file")
    settings = _checked(wanted, format, output)
    trained = read_trained(checkpoint)
    document = None if architecture is None else read_json(architecture)
    where = None if architecture is None else source_name(architecture)
    if not settings.files and not (format == "document" and settings.model is not None):
        out.write(output, _form(trained.chosen(document, where), format, trained, dict(trained.cost)))
        return
    with without_collection():
        from nnas_core.workflows.export import export

    report = export(settings, trained, document, where)
    if output != "-" or not settings.files:
        out.write(output, _form(report.architecture, format, trained, report.cost))
    failure = report.failure(settings)
    if failure is not None:
        raise failure
    if settings.files and out.as_json:
        out.report("export-report", _document(report, trained))
    elif settings.files:
        _show(report, trained, out)


def _checked(settings: ExportSettings, format: str, output: str) -> ExportSettings:
    """The settings, without what the checkpoint says better; what does nothing, or cannot work, is refused."""
    from dataclasses import replace

    from nnas_core.plugins import loading

    given = options.explicit()
    if not settings.files:
        idle = ["opset", "task", "input_shape", "model_arg", "model"]
        options.refuse_idle(idle[:1] if format == "document" and settings.model else idle, "no file for the network")
        return settings
    if settings.onnx is None:
        options.refuse_idle(["opset"], "no --onnx")
    if "output" not in given:
        options.refuse_idle(["format"], "a network and no -o")
    for reference in (settings.model, settings.task):
        if reference is not None:
            loading.check_source(loading.split_reference(reference)[0])
    with without_collection():
        from nnas_core.workflows.export import check_ahead

    check_ahead(settings, output)
    return settings if "model_arg" in given else replace(settings, model_arg=None)


def _form(architecture: Architecture, format: str, trained: Trained, cost: dict[str, float]) -> str:
    """An architecture in a form, as text."""
    from nnas_core.space.architecture import document_of

    if format != "document":
        return dump_json(architecture.to_form(format))
    names = ("model", "mutator", "seed", "progress")
    provenance = {name: value for name, value in trained.header.items() if name in names}
    provenance["checkpoint"] = trained.path
    provenance["nnas_version"] = trained.header["nnas"]
    # the metrics of a search's checkpoint are of its supernet, not of one architecture: none are claimed here
    fingerprint = trained.space.fingerprint
    parts = {"metrics": trained.metrics, "cost": cost, "provenance": provenance}
    return dump_json(document_of(architecture, fingerprint, **parts))


def _document(report: ExportReport, trained: Trained) -> dict[str, object]:
    return {
        "architecture": report.architecture.masks(),
        "weights": {"path": trained.path, "from": "retrain" if report.alone else "supernet"},
        "parameters": report.parameters,
        "macs": report.macs,
        "files": [{"kind": one.kind, "path": one.path, "bytes": one.size} for one in report.files],
    }


def _show(report: ExportReport, trained: Trained, out: Output) -> None:
    from nnas_core.delivery.comparison import TOLERANCE

    reference = "the trained network" if report.alone else "the supernet"
    equal = f"equal to {reference}, to the bit"
    near = f"within {TOLERANCE} of {reference}, by onnxruntime"
    rows = [[one.path, f"{one.size:,} bytes", near if one.kind == "onnx" else equal] for one in report.files]
    out.table(["file", "size", "outputs"], rows, answer=True)
    whose = "trained alone" if report.alone else "inherited from the supernet"
    out.answer(f"{report.parameters:,} parameters, {whose}; {report.macs:,} MACs of 1 sample\n")
