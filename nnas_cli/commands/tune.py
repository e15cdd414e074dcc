"""``nnas tune``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from nnas_cli import options
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_core.errors import UsageError
from nnas_core.files import check_writable, dump_json

if TYPE_CHECKING:
    from nnas_core.architecture import Architecture
    from nnas_core.study.records import TrialRecord

__all__ = ["command"]


class _Duration(click.ParamType[float]):
    """Seconds, or with a unit: ``90s``, ``30m``, ``2h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no duration; give 90s, 30m, 2h or 1d", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


# They decide how a trial is trained, and on what; with inherited weights, the search has decided that.
_FOR_TRAINING = (
    "clip_grad",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "min_learning_rate",
    "valid_fraction",
)


@click.command("tune")
@click.argument("model", metavar="MODEL", required=False)
@click.option(
    "--tuner",
    default="evolution",
    show_default=True,
    metavar="NAME",
    help="See `nnas list tuners`, or file.py:Class.",
)
@options.arguments_of("tuner")
@click.option("--checkpoint", metavar="FILE", help="Trials inherit the weights of this supernet.")
@click.option(
    "--train-epochs",
    "epochs",
    type=click.IntRange(1),
    help="Without --checkpoint: train each trial from scratch for so long.",
)
@options.recalibrate
@click.option("--trials", type=click.IntRange(1), help="Finished trials that the study shall have.  [default: 100]")
@click.option("--duration", type=_Duration(), metavar="TIME", help="Begin no trial after 90s, 30m, 2h.")
@click.option("--study", metavar="NAME", help="Name of the study.  [default: MODEL-TUNER]")
@click.option(
    "--storage", default="sqlite:///nnas.db", show_default=True, metavar="URL", help="Where studies are kept."
)
@click.option("--resume", is_flag=True, help="Go on with a study.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Trials in the final table.")
@options.training
@options.with_output("File for the best architecture; - is standard output.")
@options.loads_model
@options.common
def command(
    model: str | None,
    study: str | None,
    storage: str,
    tuner: str,
    checkpoint: str | None,
    epochs: int | None,
    trials: int | None,
    duration: float | None,
    resume: bool,
    top: int,
    output: str,
    out: Output,
    **values: Any,
) -> None:
    """Search architectures of MODEL by trials.

    With --checkpoint a trial is measured with the weights that it inherits from a supernet: an estimate. Without it, a
    trial is trained from scratch for --train-epochs. Every finished trial is stored at once; after Ctrl-C, kill -9 or a
    power cut, --resume goes on with the next one.

    \b
    Examples:
      nnas tune model.py --checkpoint run/checkpoint.pt --trials 200 -o best.json
      nnas tune model.py --train-epochs 5 --tuner random --duration 2h
      nnas tune model.py --checkpoint run/checkpoint.pt --trials 400 --resume
      nnas tune model.py --checkpoint run/checkpoint.pt --tuner mine.py:MyTuner
    """
    from nnas_cli.commands.search import stem

    options.require(model=model)
    model = str(model)
    if model.endswith(".json"):
        raise UsageError(
            "a search space alone cannot be evaluated", where=model, hint="give the Python file of the model"
        )
    if (checkpoint is None) == (epochs is None):
        raise UsageError(
            "give either --checkpoint (inherited weights) or --train-epochs (training from scratch)",
            hint="a checkpoint comes from `nnas search`",
        )
    if checkpoint is None:
        options.refuse_idle(("recalibrate",), "--train-epochs")
    else:
        options.refuse_idle(_FOR_TRAINING, "--checkpoint")
    if trials is None and duration is None:
        trials = 100
    if output != "-":
        check_writable(output)  # now, not after the last trial

    with without_collection():
        from nnas_cli.progress import StudyProgress
        from nnas_cli.seeding import seed_globals
        from nnas_cli.signals import StopRequest
        from nnas_core.study.coordinator import REASONS
        from nnas_core.study.database import without_password
        from nnas_core.study.store import StudyStore
        from nnas_core.tuning import TuneSettings, tune

    settings = TuneSettings(
        model=model,
        study=study or f"{stem(model)}-{stem(tuner)}",
        tuner=tuner,
        checkpoint=checkpoint,
        epochs=epochs or 0,
        **values,
    )

    with StopRequest() as stop, StudyStore.open(storage) as store:
        seed_globals(settings.seed)
        progress = StudyProgress(out, settings.study, trials)
        try:
            result = tune(
                settings,
                store,
                trials=trials,
                duration_s=duration,
                resume=resume,
                should_stop=stop,
                on_start=progress.started,
                on_trial=progress.ended,
            )
        finally:
            progress.close()
        best_trials = store.top(result.study, top)
    best = result.best
    trained = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    measured = "inherited weights (an estimate)" if checkpoint else f"{trained} from scratch"
    rows = [[str(trial.number), f"{trial.value:.4f}", _shown(trial.architecture)] for trial in best_trials]
    out.table(["trial", f"validation, {measured}", "architecture"], rows)
    out.note(f"{result.finished} trials, {result.failed} failed; {REASONS[result.reason]}")
    masks = best.architecture.masks()
    if out.as_json:
        if output != "-":
            out.write(output, dump_json(masks))
        document = {
            "study": settings.study,
            "storage": without_password(storage),
            "seed": settings.seed,
            "tuner": tuner,
            "finished": result.finished,
            "failed": result.failed,
            "recovered": result.recovered,
            "reason": result.reason,
            "measured_on": f"validation data, {measured}",
            "best": _document(best),
            "top": [_document(trial) for trial in best_trials],
        }
        out.answer_json(document)
        return
    out.write(output, dump_json(masks))


def _document(trial: TrialRecord) -> dict[str, Any]:
    """A trial without its times, which the study has: equal command lines give equal bytes."""
    kept = ("number", "value", "metrics", "architecture")
    return {name: value for name, value in trial.to_json().items() if name in kept}


def _shown(architecture: Architecture) -> str:
    """``stem=conv3x3 skip=node1,node2``."""
    parts = []
    for key, names in architecture.names().items():
        chosen = names if isinstance(names, list) else [names]
        parts.append(f"{key}={','.join(map(str, chosen)) or '-'}")
    return " ".join(parts)
