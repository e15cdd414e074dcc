"""What ``nnas assess`` looks at: a run folder or a study, as far as it says how random architectures are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnas_core import schema
from nnas_core.errors import EnvironmentFailure, InputError, NoResultError, UsageError
from nnas_core.files import read_bytes, read_json
from nnas_core.runs.checkpoint import CheckpointHeader, read_checkpoint
from nnas_core.runs.circumstances import read_circumstances
from nnas_core.runs.summary import RunSummary, read_run
from nnas_core.runs.trained import Trained, read_trained
from nnas_core.space.architecture import Architecture
from nnas_core.space.goals import constraints_of
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.settings import RecipeSettings, TrainingSettings, from_options, option_names
from nnas_core.workflows.settings import AssessSettings, GoalSettings

__all__ = ["Assessed", "Compute", "assessed_run", "assessed_study", "seconds_of"]


@dataclass(frozen=True)
class Compute:
    """What the search took, as far as that is recorded.

    Attributes:
        epochs: of training.
        seconds: of work.
        trials: of a program.
    """

    epochs: float | None = None
    seconds: float | None = None
    trials: int | None = None


@dataclass(frozen=True)
class Assessed:
    """A found architecture, and how it and random ones are measured.

    Attributes:
        kind: ``"search"``, ``"retrain"`` or ``"study"``.
        name: of the run folder or the study.
        architecture: the found one.
        space: where it is from.
        training: of the model; None: trials are of a command.
        trial_command: that; None: there is a model.
        mode: of the command's values.
        checkpoint: whose weights are inherited; None: from none.
        goals: constraints and objectives of the search.
        compute: what the search took.
        header: of the checkpoint of the run, or of the supernet.
        weights: the digest of the weights that the study had.
        notes: what has to be known, in a sentence each.
    """

    kind: str
    name: str
    architecture: Architecture
    space: SearchSpace
    training: TrainingSettings | None
    trial_command: str | None = None
    mode: str = "maximize"
    checkpoint: str | None = None
    goals: GoalSettings = field(default_factory=GoalSettings)
    compute: Compute = field(default_factory=Compute)
    header: CheckpointHeader | None = None
    weights: str | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def measured(self) -> str:
        """How: ``"inherited"``, ``"alone"`` or ``"command"``."""
        if self.trial_command is not None:
            return "command"
        return "alone" if self.checkpoint is None else "inherited"


def assessed_run(folder: str, settings: AssessSettings) -> Assessed:
    """Returns what a run of ``nnas search`` or ``nnas retrain`` has found.

    Raises:
        InputError: it holds no run, or not a whole one, or one that is not finished.
        EnvironmentFailure: somebody works in it.
    """
    run = read_run(folder)
    schema.check("config", read_json(Path(folder) / "config.json"), str(Path(folder) / "config.json"))
    if run.state == "running":
        raise EnvironmentFailure("another process works in it", where=folder, hint="wait until it has ended")
    if run.state != "finished":
        raise InputError(
            f"its run is not finished: {run.epochs} of {run.wanted or '?'} epochs are done",
            where=folder,
            hint="go on with it by `resume`, or wait for it",
        )
    trained = read_trained(folder)
    architecture = trained.chosen(None, folder)
    training = _training(run.options, trained.header, settings, folder)
    if run.command == "search":
        return Assessed(
            kind="search",
            name=folder,
            architecture=architecture,
            space=trained.space,
            training=training,
            checkpoint=settings.checkpoint or trained.path,
            goals=_goals_of_run(run, settings),
            compute=Compute(trained.header["progress"]["epoch"], read_circumstances(folder).training_s),
            header=trained.header,
        )
    return _retrained(run, trained, architecture, training, settings)


def _retrained(
    run: RunSummary,
    trained: Trained,
    architecture: Architecture,
    training: TrainingSettings,
    settings: AssessSettings,
) -> Assessed:
    notes = []
    checkpoint, compute = settings.checkpoint, Compute()
    of_run = run.options.get("checkpoint")
    if checkpoint is None and isinstance(of_run, str):
        if Path(of_run).is_file():
            checkpoint = of_run
        else:
            notes.append(f"the supernet of the run, {of_run}, is not there, so nothing has inherited weights")
    if checkpoint is not None:
        compute = Compute(_supernet(checkpoint)["progress"]["epoch"])
    recipe = [name for name in option_names(RecipeSettings) if run.options.get(name)]
    if recipe:
        notes.append(f"trained without {', '.join(recipe)} of the run, the found one too")
    return Assessed(
        kind="retrain",
        name=run.path,
        architecture=architecture,
        space=trained.space,
        training=training,
        checkpoint=checkpoint,
        compute=compute,
        header=trained.header,
        notes=notes,
    )


def _supernet(checkpoint: str) -> CheckpointHeader:
    return read_checkpoint(checkpoint)["header"]


def _training(
    options: Mapping[str, object], header: CheckpointHeader | None, settings: AssessSettings, where: str
) -> TrainingSettings:
    """How a network is trained as it was in the run."""
    known = dict(options)
    if header is not None:  # an algorithm may have given the model arguments of its own
        known.update(model=header["model"], model_arg=header.get("model_arg", {}))
    known.update(device=settings.device, seed=settings.seed, workers=0)
    if settings.model is not None:
        known["model"] = settings.model
    if settings.train_epochs is not None:
        known["epochs"] = settings.train_epochs
    return from_options(TrainingSettings, known, where)


def _goals_of_run(run: RunSummary, settings: AssessSettings) -> GoalSettings:
    texts = run.options.get("constraint")
    constraint = [str(one) for one in texts] if isinstance(texts, list) else []
    table = settings.latency_table or run.options.get("latency_table")
    by_table = any(one.name == "latency_ms" for one in constraints_of(constraint))
    if settings.latency_table is not None and not by_table:
        raise UsageError("`latency_table` does nothing: the run has no constraint on latency_ms", hint="leave it out")
    return GoalSettings(constraint, latency_table=table if by_table and isinstance(table, str) else None)


# ---- a study


def assessed_study(store: StudyStore, name: str, settings: AssessSettings) -> Assessed:
    """Returns what a study has found: the architecture of its best trial.

    Raises:
        InputError: there is no such study, or ``nnas tune`` has not made it.
        UsageError: something is missing that it does not say.
        NoResultError: no trial of it succeeded.
        EnvironmentFailure: somebody works on it.
    """
    study = store.find(name)
    at_work = store.in_use_by(study)
    if at_work is not None:
        raise EnvironmentFailure(f"study {study.name!r} is in use by {at_work}", where=store.where, hint="wait for it")
    best = store.best(study)
    if best is None:
        raise NoResultError(f"no trial of study {study.name!r} succeeded, so it has found nothing", where=store.where)
    trials = [one for one in store.trials(study) if one.state in ENDED_STATES]
    config = study.settings.config
    if settings.checkpoint is None and "weights" in config:
        settings = replace(settings, checkpoint=_file_of(study, "checkpoint"))
    if settings.latency_table is None and "latency_table" in config:
        settings = replace(settings, latency_table=_file_of(study, "latency_table"))
    found = Assessed(
        kind="study",
        name=study.name,
        architecture=best.architecture,
        space=study.settings.space,
        training=None,
        goals=_goals_of_study(study, settings),
        mode=study.settings.optimize_mode,
        compute=Compute(seconds=sum(map(seconds_of, trials)) or None, trials=len(trials)),
    )
    if isinstance(config.get("trial_command"), str):
        if settings.checkpoint is not None:
            raise UsageError("`checkpoint` means nothing for trials of a command", hint="leave it out")
        return replace(found, trial_command=config["trial_command"], notes=_command_notes())
    if not isinstance(config.get("model"), str):
        raise InputError(
            f"study {study.name!r} does not say which model its trials are of",
            where=store.where,
            hint="assess one that `nnas tune` made",
        )
    return _of_model(found, config, settings, store.where)


def _command_notes() -> list[str]:
    return ["trials of a command have no inherited weights, and no seed that nnas gives: each is run once"]


def _of_model(found: Assessed, config: Mapping[str, object], settings: AssessSettings, where: str) -> Assessed:
    weights = config.get("weights")
    if not isinstance(weights, str):
        training = _training(config, None, settings, where)
        each = config.get("epochs")
        epochs = each * (found.compute.trials or 0) if isinstance(each, int) else None
        return replace(
            found,
            training=training,
            checkpoint=settings.checkpoint,
            compute=replace(found.compute, epochs=epochs, trials=None),
        )
    if settings.checkpoint is None:
        raise UsageError(
            f"the supernet whose weights study {found.name!r} has is not where it was", hint="give `checkpoint`"
        )
    header = _supernet(settings.checkpoint)
    folder = Path(settings.checkpoint).parent
    known: Mapping[str, object] = {}
    if (folder / "config.json").is_file():
        known = read_run(folder).options
    own = read_circumstances(folder).training_s if known else None
    training = _training({**known, **config}, None, settings, where)
    if settings.train_epochs is None and "epochs" not in known:
        training = replace(training, epochs=header["progress"]["epoch"])
    return replace(
        found,
        training=training,
        checkpoint=settings.checkpoint,
        compute=Compute(header["progress"]["epoch"], None if own is None else own + (found.compute.seconds or 0)),
        header=header,
        weights=weights,
    )


def _goals_of_study(study: StudyRecord, settings: AssessSettings) -> GoalSettings:
    made = study.settings
    digest = made.config.get("latency_table")
    if isinstance(digest, str):
        if settings.latency_table is None:
            raise UsageError(
                f"the table that study {study.name!r} takes latencies from is not where it was",
                hint="give `latency_table`",
            )
        if f"sha256:{hashlib.sha256(read_bytes(settings.latency_table)).hexdigest()}" != digest:
            raise InputError("is not the table of the study", where=settings.latency_table, hint="give that one")
    elif settings.latency_table is not None:
        raise UsageError(f"`latency_table` does nothing: study {study.name!r} has none", hint="leave it out")
    texts = (list(map(str, made.constraints)), list(map(str, made.objectives)))
    return GoalSettings(*texts, latency_table=settings.latency_table if isinstance(digest, str) else None)


def _file_of(study: StudyRecord, parameter: str) -> str | None:
    """A file that a study says it was made with; None if it says none, or it is not there."""
    origin = study.settings.origin
    path = origin.paths.get(parameter)
    if path is None:
        return None
    file = Path(origin.folder or "") / path
    return str(file) if file.is_file() else None


def seconds_of(trial: TrialRecord) -> float:
    """How long a trial trained or measured, without what prepares it."""
    return trial.cost.get("seconds") or trial.seconds or 0.0
