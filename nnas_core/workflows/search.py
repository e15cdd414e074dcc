"""``nnas search``: train a supernet one-shot, and keep everything in a run folder."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn as nn

from nnas_core.errors import UserCodeError
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins import registry
from nnas_core.plugins.arguments import check_arguments
from nnas_core.plugins.loading import load
from nnas_core.random_state import torch_generator
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import CheckpointCadence, Recorder, StopSignal, choose_device, peak_memory_mb
from nnas_core.space.architecture import Architecture
from nnas_core.training.acceleration import Acceleration, Rehearsal
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.metrics import EpochRecord
from nnas_core.training.model import build_model
from nnas_core.training.settings import TrainingSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer
from nnas_core.workflows.derive import Derivation, derive

__all__ = ["SearchReport", "SearchSettings", "build_mutator", "find_trainer", "search"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings(TrainingSettings):
    """Every option of a search, resolved.

    Attributes:
        mutator: a registered name, or ``file.py:Class``.
        mutator_arg: for its constructor.
        trainer: whose loop to use instead of the mutator's own: a registered mutator's name, or ``file.py:Class``.
        precision: ``"float32"``, ``"float64"``, or ``"bfloat16"`` (autocast).
        memory_format, compile, recompute: see ``Acceleration``.
        derive: draw this many final architectures and keep the best on validation data; 0: take the first.
    """

    mutator: str
    mutator_arg: Mapping[str, Any] = field(default_factory=dict)
    trainer: str | None = None
    precision: str = "float32"
    memory_format: str = "auto"
    compile: bool = False
    recompute: bool = False
    derive: int = 0

    def acceleration(self) -> Acceleration:
        """The part that concerns speed and memory."""
        return Acceleration(self.memory_format, self.compile, self.recompute)


@dataclass(frozen=True)
class SearchReport:
    """What a search measured.

    Attributes:
        metrics: of the last epoch on the validation data, each batch with an architecture of its own.
        architecture: the final one: the best derived one, or what the mutator exports.
        seconds: wall time of this process.
        samples_per_second: training throughput of the last epoch.
        peak_memory_mb: of the GPU, or of the process.
        epochs: finished in all.
        derivation: how ``architecture`` was chosen; None: it was not derived.
    """

    metrics: dict[str, float]
    architecture: Architecture
    seconds: float
    samples_per_second: float
    peak_memory_mb: float
    epochs: int
    space_size: int
    device: str
    derivation: Derivation | None = None


def build_mutator(name: str, model: nn.Module, arguments: Mapping[str, Any], generator: torch.Generator) -> Mutator:
    """Make the mutator ``name`` (registered, or ``file.py:Class``) for ``model``.

    Args:
        generator: handed over if the class takes one.

    Raises:
        UsageError: no such mutator, or arguments that it does not take.
        UserCodeError: the class is no mutator.
    """
    cls = registry.find("mutators", name)
    if not issubclass(cls, Mutator):
        raise UserCodeError(f"{cls.__name__} is no Mutator", where=name, hint="derive it from nnas_core.Mutator")
    parameters = inspect.signature(cls).parameters
    given = check_arguments(cls, arguments, f"mutator {name!r}", provided=[next(iter(parameters), ""), "generator"])
    if "generator" in parameters:
        given["generator"] = generator
    return cls(model, **given)


def find_trainer(name: str | None, mutator: Mutator) -> type[Trainer]:
    """The loop of a search.

    Args:
        name: of a mutator whose loop to take, or ``file.py:Class``; None: the mutator's own.

    Raises:
        UsageError: no such name.
        UserCodeError: the class is no trainer.
    """
    if name is None:
        return mutator.trainer or Trainer
    if name in registry.entries("mutators"):
        return getattr(registry.find("mutators", name), "trainer", None) or Trainer
    cls = registry.find("mutators", name)  # file.py:Class, or an error that says so
    if not issubclass(cls, Trainer):
        raise UserCodeError(f"{cls.__name__} is no Trainer", where=name, hint="derive it from nnas_core.Trainer")
    return cls


def search(
    settings: SearchSettings,
    run: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: StopSignal = lambda: None,
    warn: Callable[[str], None] = lambda line: None,
) -> SearchReport:
    """Train a supernet in a run folder, from its newest checkpoint if it has one.

    Args:
        settings: what to do.
        run: where; locked by the caller.
        callbacks: more hooks of the loop.
        should_stop: asked between steps.
        warn: told, in one line, what may not be as the user thinks.

    Raises:
        Interrupted: after the checkpoint was written.
        NoResultError: the loss was not finite; the last good checkpoint stays.
    """
    started = time.perf_counter()
    device = choose_device(settings.device)
    cadence = CheckpointCadence(settings.checkpoint_every)
    dtype = torch.float64 if settings.precision == "float64" else None
    model, user = build_model(settings.model, settings.model_arg)
    model.to(device, dtype)
    generator = torch_generator(settings.seed, "mutator")
    mutator = build_mutator(settings.mutator, model, settings.mutator_arg, generator)
    mutator.to(device, dtype)
    acceleration = settings.acceleration()
    acceleration.check(mutator)
    space = mutator.space
    task = Task(load(settings.task) if settings.task else user, settings.optimizer())
    train_batches, valid_batches = build_batches(task, settings.data())
    facts = {
        "command": "search",
        "model": settings.model,
        "model_arg": dict(settings.model_arg),
        "mutator": settings.mutator,
        "seed": settings.seed,
        "split": settings.data().split,
    }
    recorder = Recorder(run, facts, space, cadence, should_stop)
    loop = find_trainer(settings.trainer, mutator)
    held_out = architecture_batches(task, settings.data()) if issubclass(loop, BilevelTrainer) else None
    generators = {"mutator": generator}
    training_data = [train_batches, held_out] if held_out is not None else [train_batches]
    rehearsal = Rehearsal(mutator, task, training_data, [valid_batches], device, settings.precision, generators)

    def rebuild(arguments: Mapping[str, Any]) -> nn.Module:
        return build_model(settings.model, {**settings.model_arg, **arguments})[0].to(device, dtype)

    trainer = loop(
        model,
        task,
        train_batches,
        valid_batches,
        settings.epochs,
        mutator=mutator,
        clip_grad=settings.clip_grad,
        device=device,
        callbacks=[*callbacks, recorder],
        generators=generators,
        architecture_batches=held_out,
        rebuild=rebuild,
        precision=settings.precision,
        accelerate=acceleration.prepare(rehearsal, warn),
    )
    if run.goes_on:
        for difference in recorder.restore():
            warn(f"resume differs: {difference}; the result may differ in its last bits")
        run.log("resumed", step=trainer.step)
        before = run.configuration("search")
        if settings.derive != before.get("derive"):  # the one option that may change what comes out
            run.write("config.json", {"search": {**before, "derive": settings.derive}})
    else:
        run.begin({"search": asdict(settings)})
        run.write("search_space.json", space.to_json())
        run.log("started", model=settings.model, mutator=settings.mutator, seed=settings.seed)
    recorder.train()
    derivation = derive(trainer, settings.derive, recorder.poll) if settings.derive else None
    if derivation is not None:
        recorder.keep(derivation.architecture)
        how = {name: getattr(derivation, name) for name in ("drawn", "distinct", "metric", "mode", "value")}
        run.log("derived", **how)
    architecture = recorder.final_architecture()
    if architecture is None:
        raise UserCodeError("the mutator has no final architecture", where=settings.mutator)
    last: EpochRecord = trainer.history[-1]
    report = SearchReport(
        metrics=last.valid,
        architecture=architecture,
        seconds=time.perf_counter() - started,
        samples_per_second=last.samples_per_second,
        peak_memory_mb=peak_memory_mb(device),
        epochs=len(trainer.history),
        space_size=space.size,
        device=str(device),
        derivation=derivation,
    )
    run.log(
        "finished",
        seconds=report.seconds,
        samples_per_second=report.samples_per_second,
        peak_memory_mb=report.peak_memory_mb,
    )
    return report
