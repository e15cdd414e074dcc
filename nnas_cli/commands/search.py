"""``nnas search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.default_places import default_run
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE, Count
from nnas_cli.run_folders import RunPlace, command_of_run, resumed, trains_in_a_run_folder
from nnas_core.files import finite_only
from nnas_core.space.sizes import size_as_json
from nnas_core.training.settings import AccelerationSettings
from nnas_core.workflows.settings import CheckpointedSettings, SearchSettings

if TYPE_CHECKING:
    from nnas_core.runs.folder import RunFolder
    from nnas_core.space.architecture import Architecture
    from nnas_core.workflows.derive import Derivation
    from nnas_core.workflows.search import SearchReport

__all__ = ["command"]

_LINES = 20
"""Keys of the architecture that are shown."""

_WIDTH = 24
"""Characters of a name that are shown."""


@click.command("search", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL", required=False)
@click.option(
    "--mutator",
    metavar="NAME",
    help="Search by this: see `nnas list mutators`, or file.py:Class.  [required]",
)
@options.arguments_of("mutator")
@options.constraint
@click.option(
    "--latency-table",
    metavar="FILE",
    help="Give the mutator its argument latency_table, how long candidates take; --constraint latency_ms is by it too.",
)
@click.option("--trainer", metavar="NAME", help="Train with another loop: that of another mutator, or file.py:Class.")
@options.of_field(
    "--precision",
    SearchSettings,
    click.Choice(["float32", "float64", "bfloat16"]),
    "Compute with weights and batches of this precision; bfloat16 is autocast.",
)
@options.of_field(
    "--memory-format",
    AccelerationSettings,
    click.Choice(["auto", "contiguous", "channels-last"]),
    "Store images and their weights so; auto takes the quicker form where all candidates run in every step.",
)
@click.option("--compile", is_flag=True, help="Let torch.compile make one program of the supernet; takes minutes.")
@click.option("--recompute", is_flag=True, help="Run candidates again in the backward pass, to need less memory.")
@options.epochs
@click.option(
    "--try-candidates/--no-try-candidates",
    default=SearchSettings.try_candidates,
    show_default=True,
    help="Run each candidate once on the first batch before training, and list all that fail.",
)
@click.option(
    "--derive",
    type=Count(0),
    default=SearchSettings.derive,
    metavar="K",
    help="Measure K architectures with the supernet's weights, and hand out the best on validation data; 0: what the "
    "algorithm says.  [default: as many as a fifth of the search pays for, all of 100 or fewer]",
)
@trains_in_a_run_folder("Keep the run in the folder PATH.  [default: runs/MODEL-MUTATOR]")
@options.part("acceleration", AccelerationSettings)
def command(
    training: CheckpointedSettings | None,
    mutator: str | None,
    mutator_arg: dict[str, object],
    constraint: tuple[str, ...],
    latency_table: str | None,
    trainer: str | None,
    precision: str,
    acceleration: AccelerationSettings,
    derive: int | None,
    try_candidates: bool,
    place: RunPlace,
    out: Output,
) -> None:
    """Train a supernet one-shot and find an architecture.

    The run folder gets checkpoint.pt and the one before it, events.jsonl, config.json, search_space.json and
    architecture.json. After Ctrl-C or a crash, --resume goes on from the newest checkpoint, to the bit on the same
    machine. With --derive it also takes another architecture from a finished run, and with more --epochs it trains
    that on.

    The architecture is the best of several on validation data with the weights of the supernet: an estimate, and for
    most algorithms a better guide than their own choice, which is shown beside it.

    \b
    Examples:
      nnas search model.py --mutator random --epochs 50 -o run
      nnas search --resume run
      nnas search --resume run --derive 20
      nnas search --resume run --epochs 80
      nnas search --config run/config.json --seed 1 -o run-1
      nnas search model.py --mutator darts --constraint "parameters<=1e6" -o small
      nnas search model.py --mutator mine.py:MyMutator --mutator-arg temperature=5
    """
    if place.resume is not None:
        options.refuse_idle(["latency_table"], "--resume: the run has its table")
        run, settings = resumed("search", SearchSettings, place.resume)
    else:
        limits_latency = any(text.lstrip().startswith("latency_ms") for text in constraint)
        table = {} if latency_table is None or limits_latency else {"latency_table": latency_table}
        settings = SearchSettings(
            training=options.required(training, "MODEL"),
            mutator=options.required(mutator, "--mutator"),
            mutator_arg={**mutator_arg, **table},
            constraint=constraint,
            latency_table=None if table else latency_table,
            trainer=trainer,
            precision=precision,
            acceleration=acceleration,
            derive=derive,
            try_candidates=try_candidates,
        )
        run = place.started(default_run(settings.training.model.model, settings.mutator))
    report = _search(settings, run, out)
    if out.as_json:
        out.report("search-report", _document(report, settings, run))
        return
    _show(report, run, out)
    model = settings.training.model.model
    out.note(f"next: nnas export {run.checkpoint}, or nnas tune {model} --checkpoint {run.checkpoint}")


def _search(settings: SearchSettings, run: RunFolder, out: Output) -> SearchReport:
    out.announce(
        f"{settings.training.model.model} by {settings.mutator}, in {run.path}: loading torch, the model and the data"
    )
    with without_collection():
        from nnas_cli.progress import TrainingProgress
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.workflows.search import search

    with run, command_of_run("search", run), StopRequest() as stop, TrainingProgress(out) as progress:
        seed_globals(settings.training.seed)
        return search(
            settings,
            run,
            callbacks=[progress],
            should_stop=stop,
            warn=out.warn,
            follow_derivation=progress.on_architecture_measured,
        )


def _document(report: SearchReport, settings: SearchSettings, run: RunFolder) -> dict[str, object]:
    """The answer as JSON; no times are in it: equal command lines give equal bytes, and events.jsonl has them."""
    document: dict[str, object] = {
        "run": str(run.path),
        "seed": settings.training.seed,
        "epochs": report.usage.epochs,
        "metrics": finite_only(report.metrics),
        "measured_on": "validation data, each batch with an architecture that the mutator sampled",
        "device": report.usage.device,
        "space_size": size_as_json(report.space_size),
        "architecture": report.architecture.masks(),
        "proposed": report.proposed.masks(),
    }
    derived = report.derivation
    if derived is not None:
        document["derived"] = {
            "tried": derived.tried,
            "whole": derived.whole,
            "metric": derived.metric,
            "mode": derived.mode,
            "metrics": finite_only(derived.metrics),
            "proposed_metrics": finite_only(derived.proposed_metrics),
            "measured_on": "validation data, inherited weights (an estimate; of the best of those tried: optimistic)",
        }
    return document


def _show(report: SearchReport, run: RunFolder, out: Output) -> None:
    from nnas_cli.progress import described, usage_rows

    rows = [
        ["run", str(run.path)],
        ["validation (sampled architectures)", described(report.metrics)],
        *_derived(report.derivation),
        *usage_rows(report.usage),
    ]
    out.table(["", report.usage.device], rows, answer=True)
    out.answer("\n")
    out.table(*_architecture(report), answer=True)


def _derived(derived: Derivation | None) -> list[list[str]]:
    """The lines of the table about what was measured with inherited weights."""
    if derived is None:
        return []
    of = f"all {derived.tried}" if derived.whole else f"{derived.tried} measured"
    return [
        [f"best of {of} (validation, inherited weights: optimistic)", f"{derived.metric} {derived.value:.4f}"],
        ["what the algorithm says (likewise)", f"{derived.metric} {derived.proposed_value:.4f}"],
    ]


def _architecture(report: SearchReport) -> tuple[list[str], list[list[str]]]:
    """The table of what was found, a line a key; beside it what the algorithm says, where that is something else."""
    found, proposed = _by_key(report.architecture), _by_key(report.proposed)
    differs = report.architecture != report.proposed
    columns = ["key", "architecture", *(["the algorithm says"] if differs else [])]
    keys = list(found)[:_LINES]
    rows = [[_cut(key), found[key], *([proposed[key]] if differs else [])] for key in keys]
    if len(found) > len(keys):
        rows.append([f"... and {len(found) - len(keys)} more", "", *([""] if differs else [])])
    return columns, rows


def _by_key(architecture: Architecture) -> dict[str, str]:
    """The names of the chosen candidates, or the weights of all."""
    if architecture.is_hard:
        return {
            key: _cut(", ".join(map(str, chosen if isinstance(chosen, list) else [chosen])) or "none")
            for key, chosen in architecture.names().items()
        }
    return {key: _cut(" ".join(f"{one:.2f}" for one in mask)) for key, mask in architecture.masks().items()}


def _cut(text: str) -> str:
    """A name that fits into a column."""
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
