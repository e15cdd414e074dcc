"""``nnas retrain``: train one architecture alone, as a plain model, and measure it once on the test data."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import UsageError, UserCodeError
from nnas_core.files import atomic_writer, finite_only
from nnas_core.mutables.settling import settle
from nnas_core.mutables.untouched import untouched
from nnas_core.plugins.loading import load, split_reference
from nnas_core.runs.cadence import CheckpointCadence
from nnas_core.runs.digests import Digests
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import Recorder, StopSignal, Usage
from nnas_core.space.architecture import Architecture
from nnas_core.training.data import batch_size_of, to_device
from nnas_core.training.evaluation import measure, require_finite
from nnas_core.training.metrics import EpochRecord
from nnas_core.training.profiling import arguments_of
from nnas_core.training.recipe import RecipeTrainer
from nnas_core.training.settings import to_options
from nnas_core.training.side_paths import places_of_choices
from nnas_core.training.trainer import Callback, Trainer
from nnas_core.workflows.example_inputs import multiply_adds
from nnas_core.workflows.settings import RetrainSettings
from nnas_core.workflows.setup import Setup

__all__ = ["RetrainReport", "check_settings", "mean_and_deviation", "retrain", "trainings"]


@dataclass(frozen=True)
class RetrainReport:
    """The numbers of a retraining.

    Attributes:
        valid: of the last epoch.
        test: measured once at the end.
        tested_on: ``"test"``, or ``"validation"`` where the module has no test data.
        parameters: trainable numbers of the extracted model.
        macs: multiply-adds of one sample; None where its forward pass is not one call.
        weights: the file of the trained model's ``state_dict``.
        curve: what each epoch measured.
        usage: time and memory.
    """

    valid: dict[str, float]
    test: dict[str, float]
    tested_on: str
    parameters: int
    macs: int | None
    weights: str
    curve: Sequence[EpochRecord]
    usage: Usage


def check_settings(settings: RetrainSettings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        UsageError: inherited weights of no checkpoint, or several seeds for a model that is built once.
    """
    if settings.init == "inherited" and settings.checkpoint is None:
        raise UsageError("`init` inherited needs the weights of a supernet", hint="give its `checkpoint`")
    if settings.seeds > 1:
        source, name = split_reference(settings.training.model.model)
        if name is not None and isinstance(getattr(load(source).module, name, None), nn.Module):
            raise UsageError(
                f"{name} is one module, which every one of the `seeds` would go on with",
                hint="name a class or a function",
            )


def trainings(settings: RetrainSettings, run: RunFolder) -> Iterator[tuple[RetrainSettings, RunFolder]]:
    """The trainings of a retraining, one a seed: each with its settings and its folder, which its caller closes.

    The first is in the folder of the run, the others are in folders of it, ``seed-N``. Those that have begun are gone
    on with.
    """
    yield settings, run
    for seed in range(settings.training.seed + 1, settings.training.seed + settings.seeds):
        data = replace(settings.training.data, seed=seed)
        own = replace(settings, training=replace(settings.training, data=data), seeds=1)
        folder = run.path / f"seed-{seed}"
        if _is_of(folder, own):
            yield own, RunFolder.resume(folder, "retrain", {})
        else:
            yield own, RunFolder.create(folder, force=True)


_ELSEWHERE = ("device", "workers", "checkpoint_every", "epochs")
"""Options that a run may go on with otherwise."""


def _is_of(folder: Path, settings: RetrainSettings) -> bool:
    """True if a folder holds a run of these settings that can be gone on with."""
    if not (folder / "config.json").is_file() or not (folder / "checkpoint.pt").is_file():
        return False
    before, now = RunFolder(folder).configuration("retrain"), to_options(settings)
    kept = [{name: one for name, one in options.items() if name not in _ELSEWHERE} for options in (before, now)]
    texts = [json.dumps(one, sort_keys=True) for one in kept]
    return texts[0] == texts[1]


def mean_and_deviation(reports: Sequence[RetrainReport]) -> tuple[dict[str, float], dict[str, float]]:
    """Means of the test metrics over several trainings, and their standard deviations (of a sample, ``n - 1``)."""
    names = [name for name in reports[0].test if all(name in one.test for one in reports)]
    columns = {name: [one.test[name] for one in reports] for name in names}
    means = {name: statistics.fmean(column) for name, column in columns.items()}
    return means, {name: statistics.stdev(column) for name, column in columns.items()}


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
        settings: of one training; of several ``seeds``, see ``trainings``, the first.
        run, callbacks, should_stop, warn: as for ``search``.
        architecture_from: the file of the architecture, for errors.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        UsageError: a part of the recipe means nothing for this task.
        Interrupted, NoResultError: as ``search``.
    """
    began = time.perf_counter()
    training = settings.training
    cadence = CheckpointCadence(training.checkpoint_every)
    setup = Setup(training)
    architecture = setup.space.parse(settings.architecture, architecture_from)
    if settings.checkpoint is not None:
        (setup.split_of if settings.init == "scratch" else setup.inherit)(settings.checkpoint)
    places = places_of_choices(setup.model)
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
        began,
    )
    trainer = setup.recipe_trainer(child, training, [*callbacks, recorder], settings.recipe, places)
    with warnings.catch_warnings():
        if settings.recipe.auxiliary_weight is not None:  # who gives it knows what the second output is
            warnings.filterwarnings("ignore", message="the model returns a pair")
        setup.try_data(trainer, tests=True)
    digests = Digests(code=setup.code(), samples=setup.samples, architecture=_digest(architecture))
    documents = {"search_space.json": setup.space.to_json(), "architecture.json": architecture.masks()}
    configuration = {"retrain": to_options(settings)}
    started = {"model": training.model.model, "seed": training.seed, "split": setup.data.split}
    recorder.begin(configuration, documents, digests, warn, **started)
    if run.goes_on:
        run.reconfigure("retrain", epochs=training.epochs)
    recorder.train()
    return _tested(setup, trainer, recorder, run.path / "weights.pt")


def _digest(architecture: Architecture) -> str:
    return f"sha256:{hashlib.sha256(architecture.canonical.encode()).hexdigest()}"


def _tested(setup: Setup, trainer: Trainer, recorder: Recorder, weights: Path) -> RetrainReport:
    """Write the weights of the trained model, and measure it on the test data."""
    child = trainer.model
    if isinstance(trainer, RecipeTrainer):
        trainer.keep_average()
    with atomic_writer(weights) as stream:  # first: whatever the measurement meets, the training is not lost
        torch.save(dict(child.state_dict()), stream)
    held_out, tested_on = setup.held_out
    test = measure(child, setup.task, held_out.epoch(0), setup.device, recorder.poll)
    require_finite(test, tested_on)
    macs = _macs(setup, child)
    parameters = sum(p.numel() for p in child.parameters() if p.requires_grad)
    cost = {"parameters": parameters} if macs is None else {"parameters": parameters, "macs": macs}
    size = {} if held_out.samples is None else {"tested_samples": held_out.samples}
    return RetrainReport(
        valid=trainer.history[-1].valid,
        test=test,
        tested_on=tested_on,
        parameters=parameters,
        macs=macs,
        weights=str(weights),
        curve=list(trainer.history),
        usage=recorder.finish(test=finite_only(test), tested_on=tested_on, cost=cost, **size),
    )


def _macs(setup: Setup, child: nn.Module) -> int | None:
    """The multiply-adds of one sample, from the first training batch; None where its pass is not one call."""
    with random_state.untouched({}):
        batch = to_device(next(setup.train_batches.epoch(0)), setup.device)
    try:
        inputs = arguments_of(setup.task, child, batch)
    except UserCodeError:
        return None
    with untouched(child), torch.no_grad():
        _, target = setup.task.forward_batch(child.eval(), batch)
    return multiply_adds(child, inputs) // batch_size_of(target)
