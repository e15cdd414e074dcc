"""``nnas retrain``: train one architecture alone, as a plain model, and measure it once on the test data."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nnas_core.files import atomic_writer, finite_only
from nnas_core.mutables.settling import settle
from nnas_core.runs.cadence import CheckpointCadence
from nnas_core.runs.digests import Digests
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import Recorder, StopSignal, Usage
from nnas_core.space.architecture import Architecture
from nnas_core.training.evaluation import measure, require_finite
from nnas_core.training.settings import to_options
from nnas_core.training.trainer import Callback, Trainer
from nnas_core.workflows.settings import RetrainSettings
from nnas_core.workflows.setup import Setup

__all__ = ["RetrainReport", "retrain"]


@dataclass(frozen=True)
class RetrainReport:
    """The numbers of a retraining.

    Attributes:
        valid: of the last epoch.
        test: measured once at the end.
        tested_on: ``"test"``, or ``"validation"`` where the module has no test data.
        parameters: trainable numbers of the extracted model.
        weights: the file of the trained model's ``state_dict``.
        usage: time and memory.
    """

    valid: dict[str, float]
    test: dict[str, float]
    tested_on: str
    parameters: int
    weights: str
    usage: Usage


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
    training = settings.training
    cadence = CheckpointCadence(training.checkpoint_every)
    setup = Setup(training)
    architecture = setup.space.parse(settings.architecture, architecture_from)
    if settings.checkpoint is not None:
        setup.inherit(settings.checkpoint)
    child = settle(setup.model, architecture).to(setup.device)
    recorder = Recorder(
        run,
        {
            "command": "retrain",
            "model": training.model.model,
            "model_arg": dict(training.model.model_arg),
            "seed": training.seed,
        },
        None,
        cadence,
        should_stop,
        started,
    )
    trainer = setup.trainer(child, training, [*callbacks, recorder])
    setup.try_data(trainer, tests=True)
    digests = Digests(code=setup.code(), samples=setup.samples, architecture=_digest(architecture))
    documents = {"search_space.json": setup.space.to_json(), "architecture.json": architecture.masks()}
    configuration = {"retrain": to_options(settings)}
    recorder.begin(configuration, documents, digests, warn, model=training.model.model, seed=training.seed)
    if run.goes_on:
        run.reconfigure("retrain", epochs=training.epochs)
    recorder.train()
    return _tested(setup, trainer, recorder, run.path / "weights.pt")


def _digest(architecture: Architecture) -> str:
    return f"sha256:{hashlib.sha256(architecture.canonical.encode()).hexdigest()}"


def _tested(setup: Setup, trainer: Trainer, recorder: Recorder, weights: Path) -> RetrainReport:
    """Write the weights of the trained model, and measure it on the test data."""
    child = trainer.model
    with atomic_writer(weights) as stream:  # first: whatever the measurement meets, the training is not lost
        torch.save(dict(child.state_dict()), stream)
    held_out, tested_on = setup.held_out
    test = measure(child, setup.task, held_out.epoch(0), setup.device, recorder.poll)
    require_finite(test, tested_on)
    return RetrainReport(
        valid=trainer.history[-1].valid,
        test=test,
        tested_on=tested_on,
        parameters=sum(p.numel() for p in child.parameters() if p.requires_grad),
        weights=str(weights),
        usage=recorder.finish(test=finite_only(test), tested_on=tested_on),
    )
