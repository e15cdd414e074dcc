"""``nnas retrain``: train one architecture alone, as a plain model, and measure it once on the test data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nnas_core.files import atomic_writer, finite_only
from nnas_core.mutables.extraction import extract
from nnas_core.plugins.loading import load
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import (
    CheckpointCadence,
    Recorder,
    StopSignal,
    choose_device,
    load_weights,
    peak_memory_mb,
)
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import build_batches, held_out_batches
from nnas_core.training.evaluation import measure, require_finite
from nnas_core.training.model import build_model
from nnas_core.training.settings import TrainingSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["RetrainReport", "RetrainSettings", "retrain"]


@dataclass(frozen=True, kw_only=True)
class RetrainSettings(TrainingSettings):
    """Every option of a retraining, resolved.

    Attributes:
        architecture: masks by key.
        checkpoint: of a supernet whose weights are the start; None starts from the model's own.
    """

    architecture: Mapping[str, Any]
    checkpoint: str | None = None


@dataclass(frozen=True)
class RetrainReport:
    """What a retraining measured.

    Attributes:
        valid: of the last epoch.
        test: measured once at the end.
        tested_on: ``"test"``, or ``"validation"`` where the module has no test data.
        parameters: trainable numbers of the extracted model.
    """

    valid: dict[str, float]
    test: dict[str, float]
    tested_on: str
    parameters: int
    epochs: int
    seconds: float
    samples_per_second: float
    peak_memory_mb: float
    weights: str
    device: str


def retrain(
    settings: RetrainSettings,
    run: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: StopSignal = lambda: None,
    warn: Callable[[str], None] = lambda line: None,
    architecture_from: str | None = None,
) -> RetrainReport:
    """Train the architecture of ``settings`` alone in a run folder, from its newest checkpoint if it has one.

    Args:
        settings, run, callbacks, should_stop, warn: as for ``search``.
        architecture_from: the file of the architecture, for errors.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        Interrupted, NoResultError: as ``search``.
    """
    started = time.perf_counter()
    device = choose_device(settings.device)
    cadence = CheckpointCadence(settings.checkpoint_every)
    supernet, user = build_model(settings.model, settings.model_arg)
    space = SearchSpace.from_model(supernet)
    architecture = space.parse(settings.architecture, architecture_from)
    data = settings.data()
    if settings.checkpoint is not None:
        data = data.with_split(load_weights(supernet, settings.checkpoint, space).get("split"))
    child = extract(supernet, architecture).to(device)
    task = Task(load(settings.task) if settings.task else user, settings.optimizer())
    train_batches, valid_batches = build_batches(task, data)
    facts = {
        "command": "retrain",
        "model": settings.model,
        "model_arg": dict(settings.model_arg),
        "seed": settings.seed,
    }
    recorder = Recorder(run, facts, None, cadence, should_stop)
    trainer = Trainer(
        child,
        task,
        train_batches,
        valid_batches,
        settings.epochs,
        clip_grad=settings.clip_grad,
        device=device,
        callbacks=[*callbacks, recorder],
    )
    if run.goes_on:
        for difference in recorder.restore():
            warn(f"resume differs: {difference}; the result may differ in its last bits")
        run.log("resumed", step=trainer.step)
    else:
        run.begin({"retrain": asdict(settings)})
        run.write("search_space.json", space.to_json())
        run.write("architecture.json", architecture.masks())
        run.log("started", model=settings.model, seed=settings.seed)
    recorder.train()
    held_out, tested_on = held_out_batches(task, data)
    test = measure(child, task, held_out.epoch(0), device, recorder.poll)
    require_finite(test, tested_on)
    weights = run.path / "weights.pt"
    with atomic_writer(weights) as stream:
        torch.save(dict(child.state_dict()), stream)
    last = trainer.history[-1]
    report = RetrainReport(
        valid=last.valid,
        test=test,
        tested_on=tested_on,
        parameters=sum(p.numel() for p in child.parameters() if p.requires_grad),
        epochs=len(trainer.history),
        seconds=time.perf_counter() - started,
        samples_per_second=last.samples_per_second,
        peak_memory_mb=peak_memory_mb(device),
        weights=str(weights),
        device=str(device),
    )
    run.log(
        "finished",
        test=finite_only(test),
        tested_on=tested_on,
        seconds=report.seconds,
        samples_per_second=report.samples_per_second,
        peak_memory_mb=report.peak_memory_mb,
    )
    return report
