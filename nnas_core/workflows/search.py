"""``nnas search``: train a supernet one-shot, and keep everything in a run folder."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn

from nnas_core.errors import NoResultError, UsageError, UserCodeError
from nnas_core.files import finite
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins import registry
from nnas_core.plugins.arguments import check_arguments, construct
from nnas_core.random_state import torch_generator
from nnas_core.runs.cadence import CheckpointCadence
from nnas_core.runs.checkpoint import RunFacts
from nnas_core.runs.digests import Digests, candidates_of
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import Recorder, StopSignal, Usage
from nnas_core.space.architecture import Architecture
from nnas_core.space.goals import Constraint, constraints_of
from nnas_core.training.acceleration import Acceleration, Rehearsal
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.settings import to_options
from nnas_core.training.trainer import Callback, Trainer
from nnas_core.training.trying import try_candidates
from nnas_core.workflows.derive import Derivation, DerivationState, derive
from nnas_core.workflows.model_costs import region_of
from nnas_core.workflows.settings import SearchSettings
from nnas_core.workflows.setup import Setup

__all__ = ["SearchReport", "build_mutator", "find_trainer", "search"]

_GIVEN_TO_TRAINERS = tuple(one.name for one in dataclasses.fields(Trainer))
"""Arguments that every trainer gets, or may have from its base class."""


@dataclass(frozen=True)
class SearchReport:
    """The numbers of a search.

    Attributes:
        metrics: of the last epoch on the validation data, each batch with an architecture of its own.
        architecture: the final one: the best derived one, or ``proposed``.
        proposed: what the mutator exports.
        space_size: the number of architectures.
        usage: time and memory.
        derivation: how ``architecture`` was chosen; None: it was not derived.
    """

    metrics: dict[str, float]
    architecture: Architecture
    proposed: Architecture
    space_size: int
    usage: Usage
    derivation: Derivation | None = None


def build_mutator(name: str, model: nn.Module, arguments: Mapping[str, object], generator: torch.Generator) -> Mutator:
    """Make the mutator ``name`` (registered, or ``file.py:Class``) for ``model``.

    Raises:
        UsageError: no such mutator, or arguments that it does not take.
        UserCodeError: the class is no mutator.
    """
    cls = registry.find_subclass("mutators", name, Mutator)
    return construct(cls, arguments, f"mutator {name!r}", model, provided={"generator": generator})


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
        return registry.find_subclass("mutators", name, Mutator).trainer or Trainer
    return registry.find_subclass("mutators", name, Trainer)  # file.py:Class, or an error that says so


def search(
    settings: SearchSettings,
    run: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: StopSignal = lambda: None,
    warn: Callable[[str], None] = lambda line: None,
    follow_derivation: Callable[[DerivationState], None] = lambda state: None,
) -> SearchReport:
    """Train a supernet in a run folder, from its newest checkpoint if it has one.

    Args:
        settings: of the search.
        run: where; locked by the caller.
        callbacks: more hooks of the loop.
        should_stop: asked between steps.
        warn: told, in one line, of what may not be as the user thinks.
        follow_derivation: told of every architecture that is measured after the training.

    Raises:
        Interrupted: after the checkpoint was written.
        NoResultError: the loss was not finite; the last good checkpoint stays.
    """
    began = time.perf_counter()
    cadence = CheckpointCadence(settings.training.checkpoint_every)
    setup = Setup(settings.training, torch.float64 if settings.precision == "float64" else None)
    setup.to_device(setup.model)
    candidates = candidates_of(setup.model)
    generator = torch_generator(settings.training.seed, "mutator")
    mutator = build_mutator(settings.mutator, setup.model, _mutator_arguments(settings), generator)
    setup.to_device(mutator)
    limits = _limited(settings, setup, mutator)
    acceleration = Acceleration(**dataclasses.asdict(settings.acceleration))
    acceleration.check(mutator)
    recorder = Recorder(run, _facts(settings), mutator.space, cadence, should_stop, began)
    generators = {"mutator": generator}
    if settings.try_candidates and not run.goes_on:
        data, device = [setup.train_batches], setup.device
        rehearsal = Rehearsal(mutator, setup.task, data, [], device, settings.precision, generators)
        try_candidates(mutator.space, rehearsal.attempt, settings.training.model.model)
    trainer = _trainer(settings, setup, mutator, generators, acceleration, [*callbacks, recorder], warn)
    setup.try_data(trainer)
    code = setup.code(settings.mutator, settings.trainer)
    digests = Digests(code=code, candidates=candidates, samples=setup.samples)
    started = {"model": settings.training.model.model, "mutator": settings.mutator, "seed": settings.training.seed}
    documents = {"search_space.json": mutator.space.to_json()}
    configuration = {"search": to_options(settings)}
    recorder.begin(configuration, documents, digests, warn, **started, split=setup.data.split)
    if run.goes_on:  # the options that may change what comes out
        run.reconfigure("search", derive=settings.derive, epochs=settings.training.epochs)
    recorder.train()
    proposed = recorder.final_architecture()
    if proposed is None:
        raise UserCodeError("the mutator has no final architecture", where=settings.mutator)
    derivation = _derive(settings, trainer, recorder, run, warn, follow_derivation, limits)
    return SearchReport(
        metrics=trainer.history[-1].valid,
        architecture=proposed if derivation is None else derivation.architecture,
        proposed=proposed,
        space_size=mutator.space.size,
        usage=recorder.finish(),
        derivation=derivation,
    )


def _mutator_arguments(settings: SearchSettings) -> Mapping[str, object]:
    """The arguments of the mutator; the table of a constraint is one too where it takes such an argument."""
    table = settings.latency_table
    takes = inspect.signature(registry.find_subclass("mutators", settings.mutator, Mutator)).parameters
    return (
        settings.mutator_arg
        if table is None or "latency_table" not in takes
        else {
            **settings.mutator_arg,
            "latency_table": table,
        }
    )


def _limited(settings: SearchSettings, setup: Setup, mutator: Mutator) -> tuple[Constraint, ...]:
    """Let the mutator know what may be handed out; returns the constraints on what only a measurement tells.

    Raises:
        UsageError: a constraint is about a number that nobody measures; or the algorithm's own choice is asked for,
            which need not meet them.
        NoResultError: no architecture meets the constraints.
    """
    constraints = constraints_of(settings.constraint)
    if not constraints:
        return ()
    before, after = region_of(setup, constraints, settings.latency_table, mutator)
    if settings.derive == 0 and (after or not mutator.samples_within):
        raise UsageError(
            f"`derive` 0 hands out what mutator {settings.mutator!r} says, which may be beyond a `constraint`",
            hint="leave it out: of architectures within the constraints, the best is handed out",
        )
    if before is not None:
        mutator.keep_within(before)
    return after


def _facts(settings: SearchSettings) -> RunFacts:
    training = settings.training
    return {
        "command": "search",
        "model": training.model.model,
        "model_arg": dict(training.model.model_arg),
        "mutator": settings.mutator,
        "mutator_arg": dict(settings.mutator_arg),
        "seed": training.seed,
        "split": training.data.split,
    }


def _trainer(
    settings: SearchSettings,
    setup: Setup,
    mutator: Mutator,
    generators: Mapping[str, torch.Generator],
    acceleration: Acceleration,
    callbacks: Sequence[Callback],
    warn: Callable[[str], None],
) -> Trainer:
    """The loop, with all that it needs."""
    train, valid = setup.train_batches, setup.valid_batches
    loop = find_trainer(settings.trainer, mutator)
    held_out = setup.architecture_batches() if issubclass(loop, BilevelTrainer) else None
    training_data = [train] if held_out is None else [train, held_out]
    rehearsal = Rehearsal(mutator, setup.task, training_data, [valid], setup.device, settings.precision, generators)
    check_arguments(loop, {}, f"trainer {settings.trainer or settings.mutator!r}", _GIVEN_TO_TRAINERS, leading=5)
    return loop(
        setup.model,
        setup.task,
        train,
        valid,
        settings.training.epochs,
        mutator=mutator,
        clip_grad=settings.training.clip_grad,
        device=setup.device,
        callbacks=callbacks,
        generators=generators,
        architecture_batches=held_out,
        rebuild=setup.rebuilt,
        precision=settings.precision,
        accelerate=acceleration.prepare(rehearsal, warn),
    )


def _derive(
    settings: SearchSettings,
    trainer: Trainer,
    recorder: Recorder,
    run: RunFolder,
    warn: Callable[[str], None],
    follow: Callable[[DerivationState], None],
    limits: Sequence[Constraint],
) -> Derivation | None:
    """Derive an architecture and keep it; None: the mutator's own is kept."""
    count, mutator = settings.derive, trainer.mutator
    derivation = None
    must = mutator is not None and (bool(limits) or (mutator.region is not None and not mutator.samples_within))
    if count or (count is None and mutator is not None and (mutator.derives or must)):
        try:
            derivation = derive(trainer, settings.training.seed, count, recorder.poll, follow, limits)
        except NoResultError as error:
            if count is not None or must:
                raise
            warn(f"{error.message}; the architecture is what the algorithm says")
    if derivation is None:
        recorder.keep(None)
        return None
    recorder.keep(derivation.architecture)
    run.log(
        "derived",
        tried=derivation.tried,
        whole=derivation.whole,
        metric=derivation.metric,
        mode=derivation.mode,
        value=derivation.value,
        proposed_value=finite(derivation.proposed_value),
        proposed=derivation.proposed.masks(),
    )
    return derivation
