"""``nnas profile``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, SHAPE, Count, Number
from nnas_core.errors import UsageError
from nnas_core.files import check_writable, read_json, source_name
from nnas_core.workflows.settings import ProfileSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnas_core.workflows.profile import Profile, ProfileReport

__all__ = ["command"]

_KEYS = 20
"""Keys whose candidates are shown."""


@click.command("profile", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL")
@click.option("--architecture", metavar="FILE", help="Measure this one, in any form; - is standard input.")
@click.option("--smallest", is_flag=True, help="Measure the architecture with the fewest parameters.")
@click.option("--largest", is_flag=True, help="Measure the architecture with the most parameters.")
@options.of_field("--random", ProfileSettings, Count(0, 100_000), "Measure N random architectures.", metavar="N")
@click.option(
    "--input-shape",
    type=SHAPE,
    metavar="N,...",
    help="Give the model random numbers, of this shape for one sample.  [default: the first training samples]",
)
@click.option(
    "--batch-size", type=Count(1), default=1, show_default=True, help="Measure latencies with so many samples at once."
)
@click.option(
    "--threads", type=Count(1, 4096), metavar="N", help="Let kernels use N threads of the CPU.  [default: torch's]"
)
@options.of_field("--seconds", ProfileSettings, Number(0, 3600, min_open=True), "Measure each latency for so long.")
@click.option(
    "--latency-table",
    metavar="PATH",
    help="Measure every candidate at every key, write the table to PATH, and say how well it predicts.",
)
@options.with_output("Write the JSON report to PATH; - is standard output, as tables unless --json.")
@options.loads_model
@options.part("profiled", ProfileSettings)
@options.common
def command(profiled: ProfileSettings, architecture: str | None, output: str, out: Output) -> None:
    """Measure what architectures and candidates cost.

    Parameters; MACs, the multiply-adds of one sample (half of what torch's FlopCounterMode counts as FLOPs); the most
    memory that input and activations of one sample need at once, without weights; and the latency of a batch, on this
    machine: median and quartiles after a warm-up. Without an architecture named, the smallest and the largest.

    \b
    Examples:
      nnas profile model.py
      nnas profile model.py --architecture best.json --device cuda --batch-size 32
      nnas profile model.py --random 20 --threads 1 --json
      nnas profile model.py:Net --input-shape 3,224,224
      nnas profile model.py --latency-table latency.json
    """
    with without_collection():
        from nnas_cli.seeding import seed_globals
        from nnas_core.workflows.profile import profile

    if profiled.latency_table == "-":
        raise UsageError("`latency_table` needs a file, standard output has the report", hint="give a path")
    for path in (output, profiled.latency_table):
        if path not in (None, "-"):
            check_writable(str(path))  # now, not after the measurement
    document = None if architecture is None else read_json(architecture)
    where = None if architecture is None else source_name(architecture)
    seed_globals(profiled.setup.data.seed)
    with _progress(out) as follow:
        report = profile(profiled, document, where, follow=follow)
    if out.as_json or output != "-":
        out.report("profile-report", _document(report, profiled), output)
        return
    _show(report, out)


@contextlib.contextmanager
def _progress(out: Output) -> Iterator[Callable[[str, int, int], None]]:
    """Show on a terminal how far the measurements are."""
    if not out.shows_bars:
        yield lambda what, done, total: None
        return
    from rich.text import Text

    from nnas_cli.bars import Pinned, bar

    pinned = Pinned(out)
    try:
        yield lambda what, done, total: pinned.draw(
            lambda: [Text("measuring  ") + bar(done, total) + Text(f"  {what} {done}/{total}")]
        )
    finally:
        pinned.close()


def _document(report: ProfileReport, settings: ProfileSettings) -> dict[str, object]:
    check = report.check
    return {
        "measured_on": {
            "device": report.device,
            "threads": report.threads,
            "batch_size": report.batch_size,
            "precision": report.precision,
            "inputs": [list(shape) for shape in report.inputs],
        },
        "architectures": [_as_json(one) for one in report.profiles],
        "candidates": [
            {
                "key": one.key,
                "candidate": one.candidate,
                "parameters": one.parameters,
                "macs": one.macs,
                "output": None if one.output is None else list(one.output),
            }
            for one in report.candidates
        ],
        "fixed": {"parameters": report.fixed[0], "macs": report.fixed[1]},
        "shares_parameters": report.shares,
        "latency_table": None
        if check is None
        else {
            "path": settings.latency_table,
            "architectures": check.architectures,
            "fixed_ms": check.fixed_ms,
            "median_error": check.median_error,
            "worst_error": check.worst_error,
            "kendall_tau": check.tau,
        },
        "seed": settings.setup.data.seed,
    }


def _as_json(one: Profile) -> dict[str, object]:
    return {
        "name": one.name,
        "architecture": None if one.architecture is None else one.architecture.masks(),
        "parameters": one.parameters,
        "macs": one.macs,
        "activation_bytes": one.activation_bytes,
        "latency_ms": {
            "median": one.latency.median,
            "lower_quartile": one.latency.low,
            "upper_quartile": one.latency.high,
            "runs": one.latency.runs,
        },
    }


def _show(report: ProfileReport, out: Output) -> None:
    from nnas_cli.architectures import in_words, shorter
    from nnas_cli.tables import Table

    architectures = [one.architecture for one in report.profiles]
    rows = [
        [
            one.name,
            f"{one.parameters:,}",
            f"{one.macs:,}",
            f"{one.activation_bytes / 1024:,.1f}",
            f"{one.latency.median:.3f}",
            f"{one.latency.low:.3f} to {one.latency.high:.3f}",
            "-" if one.architecture is None else in_words(one.architecture),
        ]
        for one in report.profiles
    ]
    columns = ["", "parameters", "MACs", "activations KiB", "median ms", "quartiles", "architecture"]
    short = shorter(architectures, [one for one in architectures if one is not None])
    out.show(Table(columns, rows, {"architecture": short}, ["architecture", "quartiles"]), answer=True)
    samples = "1 sample" if report.batch_size == 1 else f"a batch of {report.batch_size} samples"
    threads = f", {report.threads} thread{'s' * (report.threads != 1)}" if report.device == "cpu" else ""
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.inputs)
    out.answer(
        f"MACs and activations of 1 sample ({shapes}); latency of {samples} on {report.device}{threads}, "
        f"{report.precision}\n"
    )
    if report.candidates:
        _show_candidates(report, out)
    if report.check is not None:
        check = report.check
        tau = "" if check.tau is None else f", Kendall tau {check.tau:.2f}"
        out.answer(
            f"\nthe latency table predicts {check.architectures} random architectures with errors of "
            f"{100 * check.median_error:.1f} % (median) and {100 * check.worst_error:.1f} % (worst){tau}\n"
        )


def _show_candidates(report: ProfileReport, out: Output) -> None:
    from nnas_cli.tables import Table

    keys = list(dict.fromkeys(one.key for one in report.candidates))
    shown = set(keys[:_KEYS])
    rows = [
        [one.key, one.candidate, f"{one.parameters:,}", "-" if one.macs is None else f"{one.macs:,}"]
        for one in report.candidates
        if one.key in shown
    ]
    parameters, macs = report.fixed
    rows.append(["every architecture", "", f"{parameters:,}", "-" if macs is None else f"{macs:,}"])
    out.answer("\n")
    out.show(Table(["key", "candidate", "parameters", "MACs"], rows, {}, []), answer=True)
    if len(keys) > len(shown):
        out.answer(f"{len(keys) - len(shown)} more keys (--json has all)\n")
    if macs is None:
        out.answer("MACs do not add up here: what a candidate costs depends on other decisions\n")
    if report.shares:
        out.answer(
            "candidates share parameters: an architecture has as many, or more, than the sum of its candidates\n"
        )
