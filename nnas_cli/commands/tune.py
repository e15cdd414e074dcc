"""``nnas tune``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from nnas_cli import next_steps, options, studies
from nnas_cli.default_places import default_study, study_folder
from nnas_cli.detaching import detach as go_on_in_background
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.leaving import tell_background, tell_left
from nnas_cli.output import Output
from nnas_cli.parameter_types import DURATION, FILE, Count
from nnas_cli.trial_numbers import costs_as_json, front_lines, number_columns
from nnas_cli.trial_options import Running, TrialKind, how_trials_run, space_of, what_a_trial_is
from nnas_core.errors import UsageError
from nnas_core.files import check_writable, dump_json
from nnas_core.training.settings import TrainingSettings
from nnas_core.workflows.settings import AlgorithmSettings, CommandSettings, GoalSettings, TuneSettings

if TYPE_CHECKING:
    from nnas_core.study.cooperation import SharedResult
    from nnas_core.study.coordinator import StudyResult
    from nnas_core.study.pareto import Front
    from nnas_core.study.storage.records import StudySettings, TrialRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]

_TURNS_S = 600.0
"""The time that one of many processes waits for the others, which take turns."""

_TRIALS = 100
"""Finished trials that a study shall have, if no limit is given."""


@dataclass(frozen=True)
class _StudyPlace:
    """The study: its name, where it is kept, and whether it is there already."""

    study: str | None
    storage: str
    resume: bool
    join: bool
    wait: bool
    retry_failed: bool

    @property
    def go_on(self) -> str:
        """The parameter that goes on with the study after an error."""
        return "join" if self.join else "resume"


@dataclass(frozen=True)
class _StudyLimits:
    """The limits of the study: finished trials, and seconds."""

    trials: int | None
    duration: float | None


@dataclass(frozen=True)
class _Study:
    """A study with a name, and all that decides how it goes."""

    name: str
    training: TrainingSettings
    trial: TrialKind
    goals: GoalSettings
    algorithms: AlgorithmSettings
    running: Running
    place: _StudyPlace
    limits: _StudyLimits

    @property
    def storage(self) -> str:
        """The URL of the storage, as it may be shown."""
        from nnas_core.study.storage.database import without_password

        return without_password(self.place.storage)

    @property
    def shown(self) -> Callable[[float | None], str]:
        """Writes a value: programs report numbers of any size, models mostly fractions."""
        return studies.number if self.trial.trial_command else "{:.4f}".format


@dataclass(frozen=True)
class _Outcome:
    """The end of a study, or of the part of this process in it."""

    ended: StudyResult | SharedResult
    top: Sequence[TrialRecord]
    stopped: int
    infeasible: int
    front: Front | None


@click.command("tune", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL", required=False)
@options.of_field(
    "--tuner",
    AlgorithmSettings,
    None,
    "Propose by this: see `nnas list tuners`, or file.py:Class.",
    metavar="NAME",
)
@options.arguments_of("tuner")
@options.goals
@what_a_trial_is
@click.option("--trials", type=Count(1), help=f"Stop when so many trials have ended.  [default: {_TRIALS}]")
@click.option("--duration", type=DURATION, metavar="TIME", help="Begin no trial after 90s, 30m, 2h.")
@how_trials_run
@click.option("--study", metavar="NAME", help="Give the study this name.  [default: MODEL-TUNER]")
@click.option("--storage", default=studies.STORAGE, show_default=True, metavar="URL", help="Keep studies here.")
@click.option("--resume", is_flag=True, help="Go on with a study.")
@click.option("--join", is_flag=True, help="Work on a study beside other processes that do, on any machines.")
@click.option("--wait", is_flag=True, help="Wait while another process has the study; with --resume or --join.")
@click.option("--retry-failed", is_flag=True, help="Try trials again that failed; with --resume.")
@click.option("--detach", is_flag=True, help="Go on in the background; says how to follow and to stop it.")
@click.option("--top", type=Count(1), default=5, show_default=True, help="Show so many trials in the final table.")
@options.training
@options.with_output("Write the best architecture to PATH; - is standard output.")
@options.loads_model
@options.part("goals", GoalSettings)
@options.part("trial", TrialKind)
@options.part("training", TrainingSettings)
@options.part("algorithms", AlgorithmSettings)
@options.part("running", Running)
@options.part("place", _StudyPlace)
@options.part("limits", _StudyLimits)
@options.common
def command(
    training: TrainingSettings | None,
    trial: TrialKind,
    goals: GoalSettings,
    algorithms: AlgorithmSettings,
    running: Running,
    place: _StudyPlace,
    limits: _StudyLimits,
    detach: bool,
    top: int,
    output: str,
    out: Output,
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
      nnas tune model.py --checkpoint run/checkpoint.pt --constraint "parameters<=1e6" --constraint "latency_ms<=5"
      nnas tune model.py --train-epochs 5 --objective accuracy --objective macs:min
      nnas tune space.json --trial-command "python train.py" --concurrency 4 --trial-timeout 1h
      nnas tune model.py --train-epochs 5 --storage postgresql+psycopg://nas@db/nas --join
      nnas tune model.py --train-epochs 5 --duration 8h --detach
    """
    study = _checked(options.required(training, "MODEL"), trial, goals, algorithms, running, place, limits)
    if output != "-":
        check_writable(output)  # now, not after the last trial
    begun: Callable[[], None] | None = None
    if detach:
        log = study_folder(study.name) / "tune.log"
        background = go_on_in_background(log)
        if isinstance(background, int):
            tell_background(out, study.name, study.storage, background, log)
            return
        begun = background
    outcome = _run(study, top, out, begun)
    _report(study, outcome, output, out)


def _checked(
    training: TrainingSettings,
    trial: TrialKind,
    goals: GoalSettings,
    algorithms: AlgorithmSettings,
    running: Running,
    place: _StudyPlace,
    limits: _StudyLimits,
) -> _Study:
    """The study that is asked for, if its options go together.

    Raises:
        UsageError: they do not.
    """
    from nnas_core.study.storage.records import check_name

    trial.check(training.model, algorithms, running, training.device)
    if place.join and place.resume:
        raise UsageError("--join goes on with a study that is there: --resume adds nothing", hint="leave it out")
    if place.wait and not (place.resume or place.join):
        raise UsageError("--wait does nothing without --resume or --join", hint="give one of them, or leave it out")
    if place.retry_failed and not place.resume:
        raise UsageError(
            "--retry-failed does nothing without --resume",
            hint="give both; for processes that share a study, `nnas study retry` before they begin",
        )
    running.check()
    if limits.trials is None and limits.duration is None:
        limits = replace(limits, trials=_TRIALS)
    name = default_study(training.model.model, algorithms.tuner) if place.study is None else place.study
    check_name(name)
    if trial.epochs is not None:
        training = replace(training, epochs=trial.epochs)
    if trial.checkpoint is not None:
        algorithms = replace(algorithms, assessor=None)  # there is nothing on the way
    if running.gpus and trial.trial_command is None:
        # a worker sees one, and a GPU that is not there is no reason to use the processor
        training = replace(training, device="cuda")
    return _Study(name, training, trial, goals, algorithms, running, place, limits)


def _run(study: _Study, top: int, out: Output, begun: Callable[[], None] | None) -> _Outcome:
    """Run the study until a limit is reached.

    Args:
        study: which.
        top: how many of its best trials are asked for.
        out: told how far it is.
        begun: called when the work has begun.
    """
    out.announce(f"study {study.name} of {study.training.model.model}: loading what its trials need")
    with without_collection():
        from nnas_cli.bars import StudyProgress
        from nnas_cli.signals import StopRequest
        from nnas_core.study.limits import Limits, RunSettings
        from nnas_core.study.storage.store import StudyStore

    place, limits = study.place, study.limits
    run = _workflow(study)
    timeout_s = _TURNS_S if place.join else 60.0
    stopping = StopRequest(f"run the command again with `{place.go_on}` to go on")
    opened = StudyStore.open(
        place.storage, create=not place.resume, busy_timeout_s=timeout_s, go_on=place.go_on, late=True
    )
    with stopping as stop, opened as store:
        settings = RunSettings(
            limits=Limits(limits.trials, limits.duration, study.running.at_once),
            rules=study.running.rules,
            wait=place.wait,
            retry_failed=place.retry_failed,
        )
        progress = StudyProgress(out, study.name, limits.trials, study.shown)
        with progress.following(settings, stop, store, begun) as followed:
            ended = run(store, run=followed, resume=place.resume, join=place.join)
        return _outcome(ended, store, top)


def _outcome(ended: StudyResult | SharedResult, store: StudyStore, top: int) -> _Outcome:
    from nnas_core.study.pareto import front_of

    trials = store.trials(ended.study)
    stopped, beyond = sum(one.state == "stopped" for one in trials), sum(not one.feasible for one in trials)
    return _Outcome(ended, store.top(ended.study, top), stopped, beyond, front_of(ended.study.settings, trials))


def _workflow(study: _Study) -> Callable[..., StudyResult | SharedResult]:
    """The workflow for the kind of trials, which runs them in a store, within limits."""
    trial, running = study.trial, study.running
    with without_collection():
        from nnas_cli.seeding import seed_globals

        if trial.trial_command is not None:
            from nnas_core.workflows.tune_command import tune_command
        else:
            from nnas_core.workflows.tune import tune

    seed = study.training.seed
    if trial.trial_command is not None:
        command_settings = CommandSettings(
            study=study.name,
            space=space_of(study.training.model, seed),
            trial_command=trial.trial_command,
            goals=study.goals,
            optimize_mode=trial.optimize_mode,
            algorithms=study.algorithms,
            seed=seed,
        )
        seed_globals(seed)
        return partial(tune_command, command_settings, local=running.local(study.name), cluster=running.cluster)
    settings = TuneSettings(
        training=study.training,
        study=study.name,
        goals=study.goals,
        algorithms=study.algorithms,
        checkpoint=trial.checkpoint,
        recalibrate=trial.recalibrate,
    )
    seed_globals(seed)
    local = running.local(study.name) if running.needs_workers(study.algorithms.assessor) else None
    return partial(tune, settings, local=local, cluster=running.cluster)


# ---- what is said


def _report(study: _Study, outcome: _Outcome, output: str, out: Output) -> None:
    """Say how the study ended, and write the best architecture."""
    from nnas_cli.architectures import in_words, shorter
    from nnas_cli.tables import Table
    from nnas_core.study.cooperation import SharedResult
    from nnas_core.study.limits import REASONS

    result = outcome.ended
    if isinstance(result, SharedResult):
        if result.whole is None:
            document: dict[str, object] = {"study": study.name, "storage": study.storage}
            tell_left(out, result, REASONS[result.reason], document)
            return
        result = result.whole
    data, how = study.trial.measured
    titles, numbers, missed = number_columns(outcome.top, result.study.settings)
    rows = [
        [str(one.number), study.shown(one.value), *own, in_words(one.architecture)]
        for one, own in zip(outcome.top, numbers, strict=True)
    ]
    best = [one.architecture for one in outcome.top]
    columns = ["trial", f"{data}, {how}" if data else how, *titles, "architecture"]
    out.show(Table(columns, rows, {"architecture": shorter(best, best)}, missed))
    early = f", {outcome.stopped} stopped early" if outcome.stopped else ""
    early += f", {outcome.infeasible} beyond the constraints" if outcome.infeasible else ""
    for line in front_lines(outcome.front) if outcome.front is not None else ():
        out.note(f"Pareto set: {line}")
    out.note(f"{result.finished} trials, {result.failed} failed{early}; {REASONS[result.reason]}")
    masks = dump_json(result.best.architecture.masks())
    if not out.as_json:
        out.write(output, masks)
        out.note(f"next: {_next_step(study, output)}")
        return
    if output != "-":
        out.write(output, masks)
    out.report("tune-report", _document(study, result, outcome))


def _next_step(study: _Study, output: str) -> str:
    if study.trial.trial_command is not None:
        return next_steps.after_program(study.name, study.storage)
    return next_steps.after_tune(study.training.model, output, study.name, study.storage)


def _document(study: _Study, result: StudyResult, outcome: _Outcome) -> dict[str, object]:
    made = result.study.settings
    return {
        "study": study.name,
        "storage": study.storage,
        "seed": study.training.seed,
        "tuner": study.algorithms.tuner,
        "finished": result.finished,
        "failed": result.failed,
        "stopped": outcome.stopped,
        "infeasible": outcome.infeasible,
        "constraints": list(map(str, made.constraints)),
        "recovered": result.recovered,
        "reason": result.reason,
        "measured_on": study.trial.measured_on,
        "best": _trial_document(result.best, made),
        "top": [_trial_document(one, made) for one in outcome.top],
        **({} if outcome.front is None else outcome.front.to_json()),
    }


def _trial_document(trial: TrialRecord, made: StudySettings) -> dict[str, object]:
    """A trial without its times, which the study has: equal command lines give equal bytes."""
    kept = ("number", "value", "metrics", "architecture")
    document = {name: value for name, value in trial.to_json().items() if name in kept}
    return {**document, "cost": costs_as_json(trial, made)}
