"""``nnas tune``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnas_cli import options, studies
from nnas_cli.detaching import detach as go_on_in_background
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.trial_options import Running, check_kind, how_trials_run, measured, space_of, what_a_trial_is
from nnas_core.errors import UsageError
from nnas_core.files import check_writable, dump_json

if TYPE_CHECKING:
    from nnas_core.study.cooperation import SharedResult
    from nnas_core.study.coordinator import StudyResult
    from nnas_core.study.storage.records import TrialRecord

__all__ = ["command"]

_TURNS_S = 600.0
"""How long one of many processes waits for the others, which take turns."""


@click.command("tune")
@click.argument("model", metavar="MODEL", required=False)
@click.option(
    "--tuner",
    default="bayes",
    show_default=True,
    metavar="NAME",
    help="See `nnas list tuners`, or file.py:Class.",
)
@options.arguments_of("tuner")
@what_a_trial_is
@click.option("--trials", type=click.IntRange(1), help="Finished trials that the study shall have.  [default: 100]")
@click.option("--duration", type=options.DURATION, metavar="TIME", help="Begin no trial after 90s, 30m, 2h.")
@how_trials_run
@click.option("--study", metavar="NAME", help="Name of the study.  [default: MODEL-TUNER]")
@click.option("--storage", default=studies.STORAGE, show_default=True, metavar="URL", help="Where studies are kept.")
@click.option("--resume", is_flag=True, help="Go on with a study.")
@click.option("--join", is_flag=True, help="Work on a study beside other processes that do, on any machines.")
@click.option("--detach", is_flag=True, help="Go on in the background; says how to follow and to stop it.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Trials in the final table.")
@options.training
@options.with_output("File for the best architecture; - is standard output.")
@options.loads_model
@options.common
def command(
    model: str | None,
    study: str | None,
    storage: str,
    trials: int | None,
    duration: float | None,
    resume: bool,
    join: bool,
    detach: bool,
    top: int,
    output: str,
    out: Output,
    **values: Any,
) -> None:
    """Search architectures of MODEL by trials.

    With --checkpoint a trial is measured with the weights that it inherits from a supernet: an estimate. With
    --train-epochs it is trained from scratch. With --trial-command it is a process of any program, and MODEL may be the
    file of a search space. Every finished trial is stored at once; after Ctrl-C, kill -9 or a power cut, --resume goes
    on with the next one. With --join any number of processes share a study, and whoever comes first begins it.

    \b
    Examples:
      nnas tune model.py --checkpoint run/checkpoint.pt --trials 200 -o best.json
      nnas tune model.py --train-epochs 5 --tuner random --duration 2h --concurrency 2
      nnas tune model.py --checkpoint run/checkpoint.pt --trials 400 --resume
      nnas tune model.py --checkpoint run/checkpoint.pt --tuner mine.py:MyTuner
      nnas tune space.json --trial-command "python train.py" --concurrency 4 --trial-timeout 1h
      nnas tune model.py --train-epochs 5 --storage postgresql+psycopg://nas@db/nas --join
      nnas tune model.py --train-epochs 5 --duration 8h --detach
    """
    from nnas_cli.commands.search import stem
    from nnas_core.study.storage.database import without_password
    from nnas_core.study.storage.records import check_name

    options.require(model=model)
    model = str(model)
    check_kind(model, values)
    if join and resume:
        raise UsageError("--join goes on with a study that is there: --resume adds nothing", hint="leave it out")
    running = Running.taken_from(values)
    if trials is None and duration is None:
        trials = 100
    study = study or f"{stem(model)}-{stem(values['tuner'])}"
    check_name(study)
    if output != "-":
        check_writable(output)  # now, not after the last trial
    begun: Callable[[], None] | None = None
    if detach:
        log = Path(f"runs/{study}/tune.log")
        background = go_on_in_background(log)
        if isinstance(background, int):
            _tell(out, study, without_password(storage), background, log)
            return
        begun = background

    with without_collection():
        from nnas_cli.bars import StudyProgress
        from nnas_cli.signals import StopRequest
        from nnas_core.study.cooperation import SharedResult
        from nnas_core.study.limits import Limits, RunSettings
        from nnas_core.study.storage.store import StudyStore
        from nnas_core.study.trial_loop import REASONS

    data, how = measured(values)
    shown = studies.number if values["trial_command"] else "{:.4f}".format
    run = _study(model, study, running, values)

    timeout_s, go_on = (_TURNS_S, "join") if join else (60.0, "resume")
    with StopRequest() as stop, StudyStore.open(storage, busy_timeout_s=timeout_s, go_on=go_on) as store:
        progress = StudyProgress(out, study, trials, shown)

        def on_start(finished: int, recovered: int) -> None:
            if begun is not None:
                begun()
            progress.started(finished, recovered)

        try:
            settings = RunSettings(
                limits=Limits(trials, duration, running.concurrency),
                rules=running.rules,
                should_stop=stop,
                on_start=on_start,
                on_trial=progress.ended,
                on_retry=progress.begun_again,
            )
            ended = run(store, run=settings, resume=resume, join=join)
        finally:
            progress.close()
        best_trials = store.top(ended.study, top)
        stopped = len(store.trials(ended.study, state="stopped"))
    if not isinstance(ended, SharedResult):
        result = ended
    elif ended.whole is not None:
        result = ended.whole
    else:
        _leave(out, ended, REASONS[ended.reason], {"study": study, "storage": without_password(storage)})
        return
    best = result.best
    rows = [[str(trial.number), shown(trial.value), studies.in_words(trial.architecture)] for trial in best_trials]
    out.table(["trial", f"{data}, {how}" if data else how, "architecture"], rows)
    early = f", {stopped} stopped early" if stopped else ""
    out.note(f"{result.finished} trials, {result.failed} failed{early}; {REASONS[result.reason]}")
    masks = best.architecture.masks()
    if out.as_json:
        if output != "-":
            out.write(output, dump_json(masks))
        document = {
            "study": study,
            "storage": without_password(storage),
            "seed": values["seed"],
            "tuner": values["tuner"],
            "finished": result.finished,
            "failed": result.failed,
            "stopped": stopped,
            "recovered": result.recovered,
            "reason": result.reason,
            "measured_on": f"{data} data, {how}" if data else how,
            "best": _document(best),
            "top": [_document(trial) for trial in best_trials],
        }
        out.answer_json(document)
        return
    out.write(output, dump_json(masks))


def _study(
    model: str, study: str, running: Running, values: Mapping[str, Any]
) -> Callable[..., StudyResult | SharedResult]:
    """What runs the study in a store, within limits."""
    with without_collection():
        from nnas_cli.seeding import seed_globals

        if values["trial_command"] is not None:
            from nnas_core.workflows.tune_command import CommandSettings, tune_command
        else:
            from nnas_core.workflows.tune import TuneSettings, tune

    if values["trial_command"] is not None:
        space = space_of(model, values["model_arg"], values["seed"])
        names = ("trial_command", "optimize_mode", "tuner", "tuner_arg", "seed", "assessor", "assessor_arg")
        command_settings = CommandSettings(study=study, space=space, **{name: values[name] for name in names})
        seed_globals(values["seed"])
        return partial(tune_command, command_settings, local=running.local(study), cluster=running.cluster)
    values = {name: value for name, value in values.items() if name not in ("trial_command", "optimize_mode")}
    if values["checkpoint"] is not None:
        values["assessor"] = None  # there is nothing on the way
    if running.gpus:
        values["device"] = "cuda"  # a worker sees one, and a GPU that is not there is no reason to use the processor
    settings = TuneSettings(model=model, study=study, **{**values, "epochs": values["epochs"] or 0})
    seed_globals(settings.seed)
    local = running.local(study) if running.needs_workers(settings.assessor) else None
    return partial(tune, settings, local=local, cluster=running.cluster)


def _tell(out: Output, study: str, storage: str, process: int, log: Path) -> None:
    """Say where a study goes on, how to follow and how to stop it."""
    if out.as_json:
        out.answer_json({"study": study, "storage": storage, "process": process, "log": str(log)})
        return
    at = "" if storage == studies.STORAGE else f" --storage {shlex.quote(storage)}"
    out.note(f"study {study!r} runs in the background, process {process}; its output goes to {log}")
    out.note(f"follow it by `nnas study top {study}{at}`, or `tail -f {log}`")
    out.note(f"stop it by `nnas study stop {study}{at}`")


def _leave(out: Output, joined: SharedResult, reason: str, document: dict[str, Any]) -> None:
    """Say how this process ended; the last one says how the study did."""
    ended = "1 trial" if joined.evaluated == 1 else f"{joined.evaluated} trials"
    others = "1 other process goes" if joined.others == 1 else f"{joined.others} other processes go"
    out.note(f"{ended} of {joined.study.name} ended here; {reason}")
    out.note(f"{others} on, and the last one has the best architecture")
    if out.as_json:
        out.answer_json({**document, "reason": joined.reason, "evaluated": joined.evaluated, "others": joined.others})


def _document(trial: TrialRecord) -> dict[str, Any]:
    """A trial without its times, which the study has: equal command lines give equal bytes."""
    kept = ("number", "value", "metrics", "architecture")
    return {name: value for name, value in trial.to_json().items() if name in kept}
