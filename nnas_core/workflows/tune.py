"""``nnas tune`` with a model: one trial, and a study of many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import InputError, Interrupted, NnasError, NoResultError, UserCodeError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Engine, EvaluateAttended, InProcessEngine, TrialFailed, TrialResult
from nnas_core.execution.factory import engine_of
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import WorkerTrials
from nnas_core.execution.worker import EvaluateInSteps
from nnas_core.machine import Machine, this_machine
from nnas_core.mutables.extraction import extract
from nnas_core.mutables.settling import settle
from nnas_core.plugins.loading import as_user_error
from nnas_core.runs.machine import machine_of
from nnas_core.runs.recording import StopSignal
from nnas_core.runs.weights import weights_digest
from nnas_core.space.architecture import Architecture
from nnas_core.space.region import Region
from nnas_core.study.cooperation import SharedResult
from nnas_core.study.coordinator import StudyResult
from nnas_core.study.limits import RunSettings
from nnas_core.study.opening import run_described
from nnas_core.study.storage.origin import Origin
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.evaluation import first_metric, require_finite
from nnas_core.training.settings import from_options, to_options
from nnas_core.training.trainer import Callback
from nnas_core.workflows.model_costs import ModelCosts, MultiplyAdds, check_names
from nnas_core.workflows.settings import GoalSettings, TuneSettings
from nnas_core.workflows.setup import Setup

__all__ = ["prepare_worker", "tune"]


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
        settings: of the study and its trials.
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
    setup, weights = _set_up(settings, None if local is None else "cpu")
    _try_data(setup, settings)
    run, metric, costs = _aimed(settings.goals, setup, run, runs=local is None)
    machine = _machine(setup, local, cluster)
    study_settings = _describe(settings, setup, weights, metric, costs, machine)
    with contextlib.ExitStack() as stack:
        engine: Engine  # before the tuner: what its constructor draws is not drawn in a worker
        if local is None:
            engine = InProcessEngine.attended(_trial_of(setup, settings).in_this_process(run.should_stop))
        else:
            worker = {"settings": to_options(settings), "random": random_state.to_json(begin), "weights": weights}
            if cluster is not None and join:
                cluster = replace(cluster, go_on="join")
            kind = WorkerTrials("nnas_core.workflows.tune_worker", worker)
            engine = stack.enter_context(contextlib.closing(engine_of(kind, setup.space, local, cluster)))
        return run_described(store, study_settings, engine, run, resume=resume, join=join)


def _set_up(settings: TuneSettings, device: str | None = None) -> tuple[Setup, str | None]:
    """Load what all trials share, perhaps on another device, and say which weights they inherit."""
    setup = Setup(settings.training if device is None else replace(settings.training, device=device))
    weights = None
    if settings.checkpoint is not None:
        setup.inherit(settings.checkpoint)
        weights = weights_digest(setup.model)
    else:
        _ = setup.space  # a mistake in it comes first
    setup.to_device(setup.model)
    _ = setup.train_batches  # loaded here, so that a mistake in the data is none of the first trial
    return setup, weights


def _try_data(setup: Setup, settings: TuneSettings) -> None:
    """Try the first batches, so that a mistake in data, loss or metrics is none of the first trial.

    An architecture that fails otherwise costs its own trial only, also if it is the one that is tried.
    """
    try:
        with random_state.untouched({}):
            if settings.checkpoint is None:
                child = extract(setup.model, next(setup.space.covering()))
                setup.try_data(setup.trainer(child, settings.training, []))
            else:
                setup.try_validation()
    except NnasError:
        raise
    except Exception:  # noqa: BLE001  (whatever the model raises)
        return


def _aimed(
    goals: GoalSettings, setup: Setup, run: RunSettings, *, runs: bool
) -> tuple[RunSettings, str | None, list[str]]:
    """Says what architectures cost and which may be tried; the name of the metric, if that had to be known; the costs.

    Args:
        goals: of the study.
        setup: its model.
        run: what is completed.
        runs: trials run the model in this process; else it is run here only to measure what the goals are about.

    Raises:
        UsageError: a constraint or an objective is about a number that nobody measures.
        NoResultError: no architecture meets the constraints.
    """
    costs = ModelCosts(setup, goals.names, goals.latency_table, runs=runs)
    reported = check_names(setup, costs, goals.constraints, goals.objectives)
    before = [one for one in goals.constraints if one.name in costs.names]
    region = Region(setup.space, before, costs) if before else None
    return replace(run, costs=costs, region=region), reported[0] if reported else None, costs.available


def _describe(
    settings: TuneSettings,
    setup: Setup,
    weights: str | None,
    metric: str | None,
    costs: Sequence[str],
    machine: Machine,
) -> StudySettings:
    mode = "minimize" if setup.task.metric_mode == "min" else "maximize"
    config = {**settings.config(weights), **settings.goals.config(metric, mode, costs)}
    described = settings.algorithms.study(settings.study, setup.space, settings.seed, mode, config, metric)
    origin = Origin.of(_programs(settings), Path.cwd())
    split = setup.data.split
    paths = {"checkpoint": settings.checkpoint, "latency_table": settings.goals.latency_table}
    origin = replace(
        origin,
        paths={name: path for name, path in paths.items() if path is not None},
        machine=machine,
        samples=setup.samples,
        split={"seed": split["seed"], "valid_fraction": split["valid_fraction"]},
    )
    return replace(described, origin=origin)


def _machine(setup: Setup, local: LocalSettings | None, cluster: RaySettings | None) -> Machine:
    """Where the study begins; the device is only known of trials in this process, nothing of a cluster's."""
    if local is None:
        return machine_of(setup.device)
    return this_machine(("torch", "numpy"), local.threads if cluster is None else None)


def _programs(settings: TuneSettings) -> tuple[str | None, ...]:
    """The code that a study depends on, as its settings name it."""
    model = settings.training.model
    return (model.model, model.task, settings.algorithms.tuner, settings.algorithms.assessor)


def prepare_worker(document: Mapping[str, Any]) -> EvaluateInSteps:
    """Load in a worker process what ``tune`` has loaded, from the same random state.

    Args:
        document: ``settings``, ``random`` and ``weights``, as ``tune`` sends them.

    Returns:
        The function that measures an architecture there.

    Raises:
        InputError: the checkpoint has other weights by now.
    """
    random_state.restore(random_state.from_json(document["random"]))
    settings = from_options(TuneSettings, document["settings"])
    setup, weights = _set_up(settings)
    if weights != document["weights"]:
        raise InputError(
            "the checkpoint has changed since the study began", where=settings.checkpoint, hint="tune with a copy of it"
        )
    trial = _trial_of(setup, settings)
    multiply_adds = MultiplyAdds(setup)

    def evaluate(canonical: str, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        architecture = Architecture.from_canonical(canonical, setup.space.choices)
        result = trial(architecture, poll, report)
        return replace(result, cost={**multiply_adds.of(architecture), **result.cost})

    return evaluate


def _trial_of(setup: Setup, settings: TuneSettings) -> _Trial:
    return _InheritedTrial(setup, settings) if settings.checkpoint else _ScratchTrial(setup, settings)


class _Trial:
    """Evaluations, one after the other; ``poll`` is called between batches, ``report`` with intermediate values."""

    def __call__(
        self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]
    ) -> TrialResult:
        try:
            return self.run(architecture, poll, report)
        except NnasError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:  # the last two are the user's: nobody here raises them
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                raise UserCodeError("out of memory", hint="lower `batch_size`") from error
            failure = as_user_error(error)
            if failure is None:
                raise
            raise failure from error

    def in_this_process(self, should_stop: StopSignal) -> EvaluateAttended:
        """The evaluation that ends when a signal came; there is nobody to report to on the way."""

        def poll(between: Callable[[], None]) -> None:
            between()
            number = should_stop()
            if number is not None:
                raise Interrupted(number, "interrupted; all finished trials are stored", hint="go on with `resume`")

        return lambda architecture, between: self(architecture, partial(poll, between), lambda value: None)

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        """Measure the architecture."""
        raise NotImplementedError


def _require_finite(metrics: Mapping[str, float]) -> None:
    try:
        require_finite(metrics, "validation")
    except NoResultError as error:
        raise TrialFailed(error.message) from error


class _InheritedTrial(_Trial):
    """Measure with the weights of the supernet."""

    def __init__(self, setup: Setup, settings: TuneSettings) -> None:
        self._inherited = setup.inherited_weights(settings.recalibrate)

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        found = self._inherited.evaluate(architecture, poll)
        _require_finite(found.metrics)
        metrics = dict(found.metrics)
        for name, value in (found.before or {}).items():
            metrics[f"{name}_before_recalibration"] = value
        return TrialResult(first_metric(found.metrics)[1], metrics, {"seconds": found.seconds})


class _ScratchTrial(_Trial):
    """Train an extracted model; every trial starts from the same weights and the same random state."""

    def __init__(self, setup: Setup, settings: TuneSettings) -> None:
        self._setup = setup
        self._settings = settings
        self._random = random_state.capture()

    def run(self, architecture: Architecture, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        child = self._alone(architecture)
        random_state.restore(self._random)
        trainer = self._setup.trainer(child, self._settings.training, [_Following(poll, report)])
        try:
            trainer.train()
        except NoResultError as error:
            raise TrialFailed(error.message) from error
        last = trainer.history[-1]
        _require_finite(last.valid)
        seconds = sum(record.seconds for record in trainer.history)
        return TrialResult(first_metric(last.valid)[1], last.valid, {"seconds": seconds})

    def _alone(self, architecture: Architecture) -> nn.Module:
        """The architecture in a model of its own: what closes over a model cannot be copied, so it is built anew."""
        supernet = self._setup.model
        model = self._setup.rebuilt({})
        if model is supernet:  # the module of the user's is no function that builds one
            return extract(supernet, architecture)
        model.load_state_dict(supernet.state_dict())
        return settle(model, architecture)


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
