"""``nnas search``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnas_cli import options
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_core.plugins.loading import split_reference

if TYPE_CHECKING:
    from nnas_core.workflows.derive import Derivation

__all__ = ["command", "stem"]


@click.command("search")
@click.argument("model", metavar="MODEL", required=False)
@click.option("--mutator", metavar="NAME", help="Algorithm: see `nnas list mutators`, or file.py:Class.  [required]")
@options.arguments_of("mutator")
@click.option(
    "--latency-table", metavar="FILE", help="JSON: how long each candidate takes; the mutator argument latency_table."
)
@click.option("--trainer", metavar="NAME", help="Its loop instead: of another mutator, or file.py:Class.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of weights and batches; bfloat16 is autocast.",
)
@click.option(
    "--memory-format",
    type=click.Choice(["auto", "contiguous", "channels-last"]),
    default="auto",
    show_default=True,
    help="Of images and their weights; auto: the quicker one, where all candidates run in every step.",
)
@click.option("--compile", is_flag=True, help="Let torch.compile make one program of the supernet; takes minutes.")
@click.option("--recompute", is_flag=True, help="Run candidates again in the backward pass, to need less memory.")
@click.option("--epochs", type=click.IntRange(1), default=50, show_default=True, help="To train in all.")
@click.option(
    "--derive",
    type=click.IntRange(0),
    default=0,
    metavar="K",
    help="Draw K final architectures, keep the best on validation data.  [default: take the first]",
)
@options.training
@options.run_folder
@options.with_output("Run folder.  [default: runs/MODEL-MUTATOR]", default=None)
@options.loads_model
@options.common
def command(
    model: str | None,
    mutator: str | None,
    latency_table: str | None,
    resume: str | None,
    force: bool,
    output: str | None,
    out: Output,
    **values: Any,
) -> None:
    """Train a supernet one-shot and find an architecture.

    The run folder gets checkpoint.pt, events.jsonl, config.json, search_space.json and architecture.json. After Ctrl-C
    or a crash, --resume goes on from the newest checkpoint, to the bit on the same machine; with --derive it also takes
    another architecture from a finished run.

    \b
    Examples:
      nnas search model.py --mutator random --epochs 50 -o run
      nnas search --resume run
      nnas search --resume run --derive 20
      nnas search --config run/config.json --seed 1 -o run-1
      nnas search model.py --mutator mine.py:MyMutator --mutator-arg temperature=5
    """
    with without_collection():
        from nnas_cli.progress import TrainingProgress, described
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.files import finite_only
        from nnas_core.workflows.search import SearchSettings, search

    values.update(model=model, mutator=mutator)
    if resume is not None:
        options.refuse_idle(["latency_table"], "--resume: the run has its table")
        run, values = options.resumed("search", resume, {**values, "output": output, "force": force})
    else:
        options.require(model=model, mutator=mutator)
        if latency_table is not None:
            values["mutator_arg"] = {**values["mutator_arg"], "latency_table": latency_table}
        run = options.started(output, f"runs/{stem(str(model))}-{stem(str(mutator))}", force)
    with run, StopRequest() as stop:
        settings = SearchSettings(**values)
        progress = TrainingProgress(out)
        seed_globals(settings.seed)
        try:
            report = search(settings, run, callbacks=[progress], should_stop=stop, warn=out.warn)
        finally:
            progress.close()
    # no times in it: equal command lines give equal bytes; events.jsonl has them
    document = {
        "run": str(run.path),
        "seed": settings.seed,
        "epochs": report.epochs,
        "metrics": finite_only(report.metrics),
        "measured_on": "validation data, each batch with an architecture that the mutator sampled",
        "device": report.device,
        "space_size": report.space_size,
        "architecture": report.architecture.masks(),
    }
    derived = report.derivation
    if derived is not None:
        document["derived"] = {
            "drawn": derived.drawn,
            "distinct": derived.distinct,
            "metric": derived.metric,
            "mode": derived.mode,
            "metrics": finite_only(derived.metrics),
            "measured_on": "validation data, inherited weights (an estimate; of the best of those drawn: optimistic)",
        }
    if out.as_json:
        out.answer_json(document)
        return
    rows = [
        ["run", str(run.path)],
        ["validation (sampled architectures)", described(report.metrics)],
        *([_derived(derived)] if derived is not None else []),
        ["throughput", f"{report.samples_per_second:.0f} samples/s"],
        ["time", f"{report.seconds:.1f} s"],
        ["peak memory", f"{report.peak_memory_mb:.0f} MiB"],
    ]
    out.table(["", report.device], rows, answer=True)
    out.note(f"next: nnas export {run.checkpoint}, or nnas tune {settings.model} --checkpoint {run.checkpoint}")


def _derived(derived: Derivation) -> list[str]:
    """The line of the table."""
    of = f"{derived.drawn} drawn" + (f", {derived.distinct} distinct" if derived.distinct < derived.drawn else "")
    return [f"best of {of} (validation, inherited weights: optimistic)", f"{derived.metric} {derived.value:.4f}"]


def stem(reference: str) -> str:
    """A name for folders and studies: ``nets/small.py:Net`` -> ``small``, ``examples/digits/model.py`` -> ``digits``.

    Many a file is called model.py, or space.json; only in the current folder that says enough.
    """
    source = split_reference(reference)[0]
    path = Path(source)
    name = path.stem if path.suffix in (".py", ".json") else source.rpartition(".")[2]
    if path.name in ("model.py", "space.json", "search_space.json") and path.parent != Path():
        name = Path(os.path.abspath(path)).parent.name
    return re.sub(r"[^A-Za-z0-9._-]", "_", name) or "model"
