"""The model of a command with all that belongs to it: search space, task, data, device, inherited weights."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import ModuleType

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import UsageError
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.untouched import untouched
from nnas_core.plugins.loading import digests, load
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.runs.weights import check_space, load_weights
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import Batches, architecture_batches, build_batches, test_batches, to_device
from nnas_core.training.device import choose_device
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.first_batches import (
    FirstBatch,
    has_lazy_layers,
    initialize_lazy_layers,
    try_first_batches,
)
from nnas_core.training.model import build_model
from nnas_core.training.recipe import GENERATOR, RecipeTrainer, refuse_idle
from nnas_core.training.settings import RecipeSettings, SetupSettings, TrainingSettings
from nnas_core.training.side_paths import side_paths
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["Setup"]


class Setup:
    """Makes of settings what ``search``, ``retrain``, ``evaluate``, ``tune`` and its workers share.

    The model is built at once. The user's other code runs when what it gives is first asked for, and once, so that
    each command keeps the order in which it draws random numbers and finds mistakes.

    Args:
        settings: of the model, its data, its optimizer and its device.
        dtype: of the weights; None: as they are built.

    Attributes:
        device: where it is to run.
        model: the supernet, on the CPU until ``to_device``.
        data: how data is divided and loaded; after ``inherit`` with the split of the search.
    """

    def __init__(self, settings: SetupSettings, dtype: torch.dtype | None = None) -> None:
        self.device = choose_device(settings.device)
        self.data = settings.data
        self._settings = settings
        self._dtype = dtype
        self.model, self._user = build_model(settings.model.model, settings.model.model_arg)
        self._initialize(self.model)

    def _initialize(self, model: nn.Module) -> None:
        if has_lazy_layers(model):  # only then is data needed this early
            initialize_lazy_layers(model, self.task, self.train_batches)

    def to_device(self, module: nn.Module) -> None:
        """Move a module to the device, with weights of ``dtype``."""
        module.to(self.device, self._dtype)

    def rebuilt(self, arguments: Mapping[str, object]) -> nn.Module:
        """The model built once more, with some other arguments, on the device."""
        reference = self._settings.model
        model, _ = build_model(reference.model, {**reference.model_arg, **arguments})
        self._initialize(model)
        self.to_device(model)
        return model

    @cached_property
    def space(self) -> SearchSpace:
        """All choices of the model."""
        return SearchSpace.from_model(self.model)

    @cached_property
    def task(self) -> Task:
        """The task that the model is trained for."""
        file = self._settings.model.task
        return Task(load(file) if file else self._user, self._settings.optimizer)

    @cached_property
    def _batches(self) -> tuple[Batches, Batches]:
        return build_batches(self.task, self.data)

    @property
    def train_batches(self) -> Batches:
        """Batches of the training data."""
        return self._batches[0]

    @property
    def valid_batches(self) -> Batches:
        """Batches of the validation data."""
        return self._batches[1]

    def architecture_batches(self) -> Batches:
        """The validation data once more, to train an architecture on."""
        return architecture_batches(self.task, self.data)

    @cached_property
    def test_batches(self) -> Batches | None:
        """Batches of the test data, if the task has any.

        What they draw while they are made leaves no trace, so that it does not matter when they are.
        """
        with random_state.untouched({}):
            return test_batches(self.task, self.data)

    @property
    def held_out(self) -> tuple[Batches, str]:
        """The data that a result is measured on, and which they are: ``"test"``, or ``"validation"`` without any."""
        return (self.valid_batches, "validation") if self.test_batches is None else (self.test_batches, "test")

    @property
    def samples(self) -> dict[str, int]:
        """Sizes of the data that a training is made of, by name, where they are known."""
        sizes = {"training": self.train_batches.samples, "validation": self.valid_batches.samples}
        return {name: size for name, size in sizes.items() if size is not None}

    @property
    def modules(self) -> list[ModuleType]:
        """The modules of the user's that the model is made of."""
        return self._user.modules

    def code(self, *more: str | None) -> dict[str, str]:
        """Digests of the files that the model and its task are made of, see ``plugins.loading.digests``.

        Args:
            more: what else may name code of the user's, as ``file.py:Class``.
        """
        model = self._settings.model
        return digests(self._user, [model.task, *more])

    def try_data(self, trainer: Trainer, *, tests: bool = False) -> None:
        """Try the first batches of a training, before anything of it is written.

        Args:
            trainer: of the training.
            tests: true if the test data is measured at its end.

        Raises:
            UserCodeError: see ``training.first_batches.try_first_batches``.
        """
        data = [
            FirstBatch("training", trainer.train_batches, training=True),
            FirstBatch("validation", trainer.valid_batches),
        ]
        if tests and self.test_batches is not None:
            data.append(FirstBatch("test", self.test_batches))
        try_first_batches(
            trainer.model,
            self.task,
            data,
            trainer.to_device,
            mutator=trainer.mutator,
            generators=trainer.generators,
            autocast=trainer.autocast(),
        )

    def try_validation(self) -> None:
        """Try the first batch of the validation data alone, as an evaluation needs it; see ``try_data``."""
        prepare = functools.partial(to_device, device=self.device)
        try_first_batches(self.model, self.task, [FirstBatch("validation", self.valid_batches)], prepare)

    def trainer(self, model: nn.Module, training: TrainingSettings, callbacks: Sequence[Callback]) -> Trainer:
        """The loop of a plain model."""
        return Trainer(
            model,
            self.task,
            self.train_batches,
            self.valid_batches,
            training.epochs,
            clip_grad=training.clip_grad,
            device=self.device,
            callbacks=callbacks,
        )

    def recipe_trainer(
        self,
        model: nn.Module,
        training: TrainingSettings,
        callbacks: Sequence[Callback],
        recipe: RecipeSettings,
        places: Iterable[tuple[nn.Module, str]],
    ) -> Trainer:
        """The loop of a plain model with a recipe, which is tried on the first batch.

        Args:
            places: where it was decided, see ``training.side_paths``.

        Raises:
            UsageError: a part of the recipe means nothing here.
        """
        if recipe == RecipeSettings():
            return self.trainer(model, training, callbacks)
        with random_state.untouched({}):
            batch = to_device(next(self.train_batches.epoch(0)), self.device)

        def run() -> object:
            return self.task.forward_batch(model, batch)[0]

        with untouched(model), torch.no_grad():
            model.train()
            refuse_idle(recipe, self.task, batch, run())
        paths = side_paths(model, places, run) if recipe.drop_path else []
        if recipe.drop_path and not paths:
            raise UsageError(
                "`drop_path` does nothing, no chosen layer of this network has a path beside it", hint="leave it out"
            )
        return RecipeTrainer(
            model,
            self.task,
            self.train_batches,
            self.valid_batches,
            training.epochs,
            clip_grad=training.clip_grad,
            device=self.device,
            callbacks=callbacks,
            generators={GENERATOR: random_state.torch_generator(training.seed, GENERATOR)},
            recipe=recipe,
            paths=paths,
        )

    def split_of(self, checkpoint: str) -> None:
        """Let the split of a supernet's training hold, and nothing else of it.

        Raises:
            InputError: it cannot be read, or is of another space.
        """
        header = read_checkpoint(checkpoint)["header"]
        check_space(header, self.space, checkpoint)
        self.data = self.data.with_split(header.get("split"))

    # ---- weights of a supernet

    def inherit(self, checkpoint: str) -> None:
        """Load the weights of a supernet; its split of the training set holds from here on.

        Raises:
            InputError: it cannot be read, or is of another space or model.
        """
        header = load_weights(self.model, checkpoint, self.space)
        self.data = self.data.with_split(header.get("split"))

    def inherited_weights(self, recalibrate: int, batches: Batches | None = None) -> InheritedWeights:
        """Prepares to measure architectures with the weights of the model.

        Args:
            recalibrate: training batches for the BatchNorm statistics; 0: those of the supernet.
            batches: to measure on; None: of the validation data.
        """
        measured = self.valid_batches if batches is None else batches
        return InheritedWeights(Mutator(self.model), self.task, self.train_batches, measured, self.device, recalibrate)
