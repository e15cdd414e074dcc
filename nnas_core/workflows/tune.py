"""``nnas tune`` with a model: what one trial is, and a study of many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import InputError, Interrupted, NnasError, NoResultError, UserCodeError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Engine, Evaluate, TrialFailed, TrialResult
from nnas_core.execution.factory import engine_of
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import WorkerTrials
from nnas_core.execution.worker import EvaluateInSteps
from nnas_core.mutables.extraction import extract
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins.loading import as_user_error, load
from nnas_core.runs.recording import StopSignal, choose_device, load_weights, weights_digest
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.cooperation import SharedResult
from nnas_core.study.coordinator import StudyResult
from nnas_core.study.limits import RunSettings
from nnas_core.study.opening import run_described
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.data import build_batches, held_out_batches
from nnas_core.training.evaluation import Evaluation, InheritedWeights, first_metric, require_finite
from nnas_core.training.model import build_model
from nnas_core.training.settings import TrainingSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["EvaluateSettings", "TuneSettings", "evaluate_once", "prepare_worker", "tune"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(TrainingSettings):
    """Every option that decides what an evaluation with inherited weights measures.

    Attributes:
        checkpoint: of the supernet.
        recalibrate: training batches for the BatchNorm statistics; 0: off.
        on: ``"valid"`` or ``"test"``: the data to measure on.
    """

    epochs: int = 0
    checkpoint: str
    recalibrate: int = 10
    on: str = "valid"


@dataclass(frozen=True, kw_only=True)
class TuneSettings(TrainingSettings):
    """Every option that decides which trials a study makes and what they measure.

    Attributes:
        study: its name.
        tuner: a registered name, or ``file.py:Class``.
        tuner_arg: for its constructor.
        epochs: of a trial that trains from scratch; 0 with a checkpoint.
        checkpoint: whose weights a trial inherits; None trains from scratch.
        recalibrate: as for ``EvaluateSettings``.
        assessor: ends trials from scratch early; a registered name, or ``file.py:Class``. None: they all end by
            themselves.
        assessor_arg: for its constructor.
    """

    study: str
    tuner: str
    tuner_arg: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    recalibrate: int = 10
    assessor: str | None = None
    assessor_arg: Mapping[str, Any] = field(default_factory=dict)

    def config(self, weights: str | None) -> dict[str, Any]:
        """What a resumed study must have again besides space, tuner and seed; where it runs does not matter.

        Args:
            weights: digest of what a trial inherits: a checkpoint may be overwritten, and have several paths.
        """
        kept = ["model", "model_arg", "task", "batch_size", "drop_last"]
        if self.checkpoint is not None:
            kept.append("recalibrate")
        else:
            kept += ["epochs", "valid_fraction", "clip_grad", "learning_rate", "momentum"]
            kept += ["weight_decay", "schedule", "min_learning_rate"]
        if self.assessor is not None:
            kept += ["assessor", "assessor_arg"]
        config = {name: getattr(self, name) for name in kept}
        return config if weights is None else {**config, "weights": weights}


class _Setting:
    """The supernet, its data and its device: what all trials of a study share."""

    def __init__(self, settings: TrainingSettings, checkpoint: str | None) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        model, user = build_model(settings.model, settings.model_arg)
        self.space = SearchSpace.from_model(model)
        data = settings.data()
        self.weights: str | None = None
        if checkpoint is not None:
            data = data.with_split(load_weights(model, checkpoint, self.space).get("split"))
            self.weights = weights_digest(model)
        self.data = data
        self.model: nn.Module = model.to(self.device)
        self.task = Task(load(settings.task) if settings.task else user, settings.optimizer())
        self.train_batches, self.valid_batches = build_batches(self.task, data)

    def inherited(self, recalibrate: int) -> InheritedWeights:
        return InheritedWeights(
            Mutator(self.model), self.task, self.train_batches, self.valid_batches, self.device, recalibrate
        )


def evaluate_once(
    settings: EvaluateSettings, document: Any, where: str | None = None
) -> tuple[Architecture, Evaluation, str]:
    """Measure one architecture with inherited weights.

    Args:
        settings: of what, on what.
        document: the architecture, in any form.
        where: the file that it is from, for errors.

    Returns:
        The architecture, what was measured, and on which data: ``"validation"`` or ``"test"``.

    Raises:
        InputError: checkpoint and model do not belong together.
        ArchitectureError: the architecture does not fit the model.
        NoResultError: what was measured is not finite.
    """
    setting = _Setting(settings, settings.checkpoint)
    architecture = setting.space.parse(document, where)
    data = "validation"
    if settings.on == "test":
        setting.valid_batches, data = held_out_batches(setting.task, setting.data)
    evaluation = setting.inherited(settings.recalibrate).evaluate(architecture)
    require_finite(evaluation.metrics, data)
    return architecture, evaluation, data


def tune(
    settings: TuneSettings,
    store: StudyStore,
    local: LocalSettings | None = None,
    cluster: RaySettings | None = None,
    *,
    run: RunSettings | None = None,
    resume: bool = False,
    join: bool = False,
) -> StudyResult | SharedResult:
    """Run a study of a model.

    A trial gives the same value in a worker process as in this one: a worker loads what was loaded here, from the same
    random state, and a trial depends on its architecture alone. Only the number of threads, which is
    ``LocalSettings.threads`` there, can show in the last digits of a sum.

    Args:
        settings: what a trial is.
        store: where the study is, or will be.
        local: how worker processes evaluate; None evaluates in this process, one trial at a time, without time-outs
            and assessors.
        cluster: where those processes are, if not on this machine; only with ``local``.
        run: until when, and who is told; the trials at hand wait for the next run when it says stop.
        resume, join: see ``run_described``.

    Raises:
        UsageError, InputError: the study exists, does not exist, or was made with other settings.
        EnvironmentFailure: the cluster cannot be used.
        NoResultError: no trial succeeded.
        Interrupted: everything is stored.
    """
    run = run or RunSettings()
    begin = random_state.capture() if local else {}
    setting = _Setting(settings if local is None else replace(settings, device="cpu"), settings.checkpoint)
    minimize = setting.task.metric_mode == "min"
    study_settings = StudySettings(
        name=settings.study,
        space=setting.space,
        tuner=settings.tuner,
        tuner_args=settings.tuner_arg,
        seed=settings.seed,
        optimize_mode="minimize" if minimize else "maximize",
        config=settings.config(setting.weights),
    )
    with contextlib.ExitStack() as stack:
        engine: Engine | Evaluate  # before the tuner: what its constructor draws is not drawn in a worker
        if local is None:
            engine = _trial_of(setting, settings).in_this_process(run.should_stop)
        else:
            worker = {"settings": asdict(settings), "random": random_state.to_json(begin), "weights": setting.weights}
            kind = WorkerTrials("nnas_core.workflows.tune_worker", worker)
            engine = stack.enter_context(contextlib.closing(engine_of(kind, setting.space, local, cluster)))
        return run_described(
            store,
            study_settings,
            engine,
            run,
            assessor=settings.assessor,
            assessor_args=settings.assessor_arg,
            resume=resume,
            join=join,
        )


def prepare_worker(document: Mapping[str, Any]) -> EvaluateInSteps:
    """Load in a worker process what ``tune`` has loaded, from the same random state.

    Args:
        document: ``settings``, ``random`` and ``weights``, as ``tune`` sends them.

    Returns:
        What measures an architecture there.

    Raises:
        InputError: the checkpoint has other weights by now.
    """
    random_state.restore(random_state.from_json(document["random"]))
    settings = TuneSettings(**document["settings"])
    setting = _Setting(settings, settings.checkpoint)
    if setting.weights != document["weights"]:
        raise InputError(
            "the checkpoint has changed since the study began", where=settings.checkpoint, hint="tune with a copy of it"
        )
    trial = _trial_of(setting, settings)

    def evaluate(canonical: str, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        return trial(Architecture.from_canonical(canonical, setting.space.choices), poll, report)

    return evaluate


def _trial_of(setting: _Setting, settings: TuneSettings) -> _Trial:
    return _InheritedTrial(setting, settings) if settings.checkpoint else _ScratchTrial(setting)


class _Trial:
    """Evaluations, one after the other; ``poll`` is called between batches, ``report`` with intermediate values."""

    def __call__(
        self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]
    ) -> TrialResult:
        try:
            return self.run(architecture, poll, report)
        except NnasError:
            raise
        except Exception as error:
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                raise UserCodeError("out of memory", hint="lower --batch-size") from error
            failure = as_user_error(error)
            if failure is None:
                raise
            raise failure from error

    def in_this_process(self, should_stop: StopSignal) -> Callable[[Architecture], TrialResult]:
        """The evaluation that ends when a signal came; there is nobody to report to on the way."""

        def poll() -> None:
            number = should_stop()
            if number is not None:
                raise Interrupted(number, "interrupted; all finished trials are stored", hint="go on with --resume")

        return lambda architecture: self(architecture, poll, lambda value: None)

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        """Measure the architecture."""
        raise NotImplementedError


def _require_finite(metrics: Mapping[str, float]) -> None:
    try:
        require_finite(metrics, "validation")
    except NoResultError as error:
        raise TrialFailed(error.message) from error


class _InheritedTrial(_Trial):
    def __init__(self, setting: _Setting, settings: TuneSettings) -> None:
        self._inherited = setting.inherited(settings.recalibrate)

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        found = self._inherited.evaluate(architecture, poll)
        _require_finite(found.metrics)
        metrics = dict(found.metrics)
        for name, value in (found.before or {}).items():
            metrics[f"{name}_before_recalibration"] = value
        return TrialResult(first_metric(found.metrics)[1], metrics, {"seconds": found.seconds})


class _ScratchTrial(_Trial):
    """Train an extracted model; every trial starts from the same weights and the same random state."""

    def __init__(self, setting: _Setting) -> None:
        self._setting = setting
        self._random = random_state.capture()

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        setting = self._setting
        random_state.restore(self._random)
        child = extract(setting.model, architecture)
        trainer = Trainer(
            child,
            setting.task,
            setting.train_batches,
            setting.valid_batches,
            setting.settings.epochs,
            clip_grad=setting.settings.clip_grad,
            device=setting.device,
            callbacks=[_Following(poll, report)],
        )
        try:
            trainer.train()
        except NoResultError as error:
            raise TrialFailed(error.message) from error
        last = trainer.history[-1]
        _require_finite(last.valid)
        parameters = sum(p.numel() for p in child.parameters() if p.requires_grad)
        seconds = sum(record.seconds for record in trainer.history)
        return TrialResult(first_metric(last.valid)[1], last.valid, {"seconds": seconds, "parameters": parameters})


class _Following(Callback):
    def __init__(self, poll: Callable[[], None], report: Callable[[float], None]) -> None:
        self._poll = poll
        self._report = report

    def on_batch_end(self, epoch: int) -> None:
        self._poll()

    def on_validation_batch(self, epoch: int) -> None:
        self._poll()

    def on_epoch_end(self, epoch: int) -> None:
        self._report(first_metric(self.trainer.history[-1].valid)[1])
