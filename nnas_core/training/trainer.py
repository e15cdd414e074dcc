"""One loop trains everything: a supernet with a mutator, or a plain model without one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.errors import BindingError, NoResultError, UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.naming import naming
from nnas_core.training.data import Batches, batch_size_of, to_device, to_float64
from nnas_core.training.gradients import WeightlessPasses, differentiating, optimizer_of_nothing, take_step
from nnas_core.training.in_place import InPlaceChanges, repeated_if_changed_in_place
from nnas_core.training.memory_format import match_layouts
from nnas_core.training.metrics import Averages, EpochRecord, mean_metrics
from nnas_core.training.optimizers import State, clip_gradients, optimizer_state
from nnas_core.training.task import Batch, Output, Target, Task

__all__ = ["Callback", "Trainer"]

M = TypeVar("M", bound=Mutator)


class Callback:
    """Hooks of the loop; override what is needed. Epochs count from 0."""

    trainer: Trainer

    def build(self, model: nn.Module, mutator: Mutator | None, trainer: Trainer) -> None:
        """Called once, before training."""
        self.trainer = trainer

    @property
    def model(self) -> nn.Module:
        """The model that is trained now; an algorithm of several stages has several."""
        return self.trainer.model

    @property
    def mutator(self) -> Mutator | None:
        """The mutator that is bound to it."""
        return self.trainer.mutator

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first batch."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after validation; ``trainer.history[-1]`` is what it measured."""

    def on_batch_begin(self, epoch: int) -> None:
        """Called before each training batch."""

    def on_batch_end(self, epoch: int) -> None:
        """Called after each training step; ``trainer.step`` counts them."""

    def on_validation_batch(self, epoch: int) -> None:
        """Called before each validation batch."""


@dataclass
class Trainer:
    """Train a model; with a mutator, a new architecture every step.

    Override what differs in another algorithm: ``train_one_epoch`` calls ``train_batch`` for each batch, that calls
    ``weight_step``, and that ``training_step`` for the loss; then ``validate_one_epoch``.

    Args:
        model: on its device.
        task: loss, metrics, optimizer.
        train_batches, valid_batches: the data.
        epochs: to train in all.
        mutator: bound to ``model``; None trains the model as it is.
        clip_grad: largest gradient norm; 0 for no limit.
        device: where batches go.
        callbacks: called in this order.
        generators: every private generator that training draws from, by name; saved and restored.
        architecture_batches: shuffled held-out data, for algorithms that train the architecture; None: those of
            ``valid_batches``, in their order.
        rebuild: builds the user's model once more, with other arguments than before, for algorithms that train
            several models; None where a program made the model.
        precision: ``"float32"`` or ``"float64"``, which must be the model's, or ``"bfloat16"`` (autocast).
        accelerate: (model, mutator) -> ``network``; see ``Acceleration``.

    Attributes:
        network: what forward passes call: the model, or what ``torch.compile`` made of it.
        model_arguments: the arguments that ``rebuild`` gave to the model of now.

    Raises:
        NoResultError: the loss is not finite.
    """

    model: nn.Module
    task: Task
    train_batches: Batches
    valid_batches: Batches
    epochs: int
    mutator: Mutator | None = None
    clip_grad: float = 5.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    callbacks: Sequence[Callback] = ()
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    architecture_batches: Batches | None = None
    rebuild: Callable[[Mapping[str, object]], nn.Module] | None = None
    precision: str = "float32"
    accelerate: Callable[[nn.Module, Mutator | None], Forward] | None = None

    in_stages = False  # the epochs are divided among stages: with more of them it would be another training

    def __post_init__(self) -> None:
        self.network = self.accelerated()
        self.model_arguments: dict[str, object] = {}
        self.epoch = 0  # of the step to come
        self.batch = 0  # of that epoch, already consumed
        self.step = 0  # in all
        self.history: list[EpochRecord] = []
        self.in_place, self.weightless = InPlaceChanges(), WeightlessPasses()
        self.build_optimizers()
        self._averages = Averages()
        self._batch: Batch = None  # of the last loss
        self._samples, self._elapsed = 0, 0.0
        self._epoch_start: State = {}
        # While it validates, the random states from before it: an interrupted validation is done again.
        self._before_validation: State | None = None
        for callback in self.callbacks:
            callback.build(self.model, self.mutator, self)

    def mutator_of(self, kind: type[M]) -> M:
        """Return the mutator, for a trainer that needs one of a class.

        Raises:
            BindingError: it is another one, or there is none.
        """
        if not isinstance(self.mutator, kind):
            found = "none" if self.mutator is None else _with_article(type(self.mutator))
            raise BindingError(
                f"{type(self).__name__} needs {_with_article(kind)}, not {found}",
                hint="use the trainer of that mutator, or a mutator of the class",
            )
        return self.mutator

    def accelerated(self) -> Forward:
        """``network`` for the model and the mutator of now."""
        return self.model if self.accelerate is None else self.accelerate(self.model, self.mutator)

    def build_optimizers(self) -> None:
        """Make the optimizer and the schedule of the model's weights."""
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.mutator is None and not weights:  # none, or frozen ones: an architecture may well choose no others
            self.optimizer, self.scheduler = optimizer_of_nothing(), None
            return
        if not weights:
            raise UserCodeError("the model has no weights to train", where=self.task.user.reference)
        self.optimizer = self.task.build_optimizer(weights)
        self.scheduler = self.task.build_scheduler(self.optimizer, self.schedule_steps)

    def steps_of(self, epoch: int) -> int:
        """Training steps of an epoch; 0 if the data do not say how many there are."""
        return len(self.train_batches)

    @property
    def total_steps(self) -> int:
        """Training steps of the whole training; 0 if the data do not say how many there are."""
        return self.epochs * len(self.train_batches)

    @property
    def schedule_steps(self) -> int:
        """Steps of the weights until their schedule ends; an algorithm of several stages has several schedules."""
        return self.epochs * len(self.train_batches)

    @property
    def remarks(self) -> Sequence[str]:
        """What users should know before the training begins, in a line each: none, unless an algorithm has some."""
        return ()

    @property
    def training_means(self) -> dict[str, float]:
        """Mean loss and metrics of the training batches of this epoch so far."""
        return self._averages.means()

    # ---- the loop

    def train(self) -> None:
        """Train from wherever ``load_state_dict`` left off to the last epoch; errors carry what was decided."""
        while self.epoch < self.epochs:
            with naming(self.mutator):
                self._train_epoch()
        self.weightless.tell(self.step)

    def _train_epoch(self) -> None:
        if self.batch == 0:
            self.start_epoch(self.epoch)
            self._averages, self._samples, self._elapsed = Averages(), 0, 0.0
            self._epoch_start = random_state.capture()
            self._call("on_epoch_begin")
        self.train_one_epoch(self.epoch)
        self._before_validation = random_state.capture_all(self.generators)
        valid = self.validate_one_epoch(self.epoch)
        self._before_validation = None
        finished, means = self.epoch, self.training_means
        self.history.append(EpochRecord(finished + 1, means, valid, self._samples, self._elapsed, self.step))
        self.epoch, self.batch = finished + 1, 0
        for callback in self.callbacks:
            callback.on_epoch_end(finished)

    def start_epoch(self, epoch: int) -> None:
        """Called before anything of an epoch, and not again where one is gone on with: here, nothing to do."""

    def train_one_epoch(self, epoch: int) -> None:
        """The training steps of one epoch, or what is left of it."""
        self.model.train()
        batches = self.batches_of(epoch)
        started = time.perf_counter()
        for batch in batches:
            self._call("on_batch_begin")
            self._tell_progress()
            self.train_batch(self.to_device(batch))
            self._elapsed += time.perf_counter() - started
            self.batch += 1
            self.step += 1
            self._call("on_batch_end")
            started = time.perf_counter()
        if self.batch == 0:
            raise UserCodeError("the training data has no batches", where=self.task.user.reference)

    def _tell_progress(self) -> None:
        if self.mutator is not None:
            done = self.step / self.total_steps if self.total_steps else self.epoch / self.epochs
            self.mutator.progress = min(1.0, done)

    def batches_of(self, epoch: int) -> Iterator[Batch]:
        """The training batches that are left of an epoch."""
        return self.batches_after(epoch, self.batch)

    def batches_after(self, epoch: int, consumed: int) -> Iterator[Batch]:
        """The training batches of an epoch without the first ``consumed``."""
        if consumed == 0 or self.train_batches.can_skip:
            return self.train_batches.epoch(epoch, consumed)
        # A loader of the user's draws from the global state: repeat the epoch's beginning, then go on as it was.
        now = random_state.capture()
        random_state.restore(self._epoch_start)
        batches = self.train_batches.epoch(epoch)
        for _ in itertools.islice(batches, consumed):
            pass
        random_state.restore(now)
        return batches

    def to_device(self, batch: Batch) -> Batch:
        """A batch where, and in the precision in which, the model is."""
        batch = to_device(batch, self.device)
        return to_float64(batch) if self.precision == "float64" else batch

    def train_batch(self, batch: Batch) -> None:
        """Everything that one training batch brings about: here, one step of the weights."""
        self.weight_step(batch)

    @repeated_if_changed_in_place
    def weight_step(self, batch: Batch) -> None:
        """One update of the weights."""
        self.optimizer.zero_grad()
        loss, output, target = self.training_step(batch)
        self.backward(loss)
        self.update_weights()
        self.record(loss, output, target)

    def training_step(self, batch: Batch) -> tuple[Tensor, Output, Target]:
        """Decide an architecture and compute its loss on one batch.

        Returns:
            The loss, which is then differentiated; the output and the target, for the metrics.
        """
        if self.mutator is not None:
            self.mutator.reset()
        return self.loss_of(batch)

    def loss_of(self, batch: Batch) -> tuple[Tensor, Output, Target]:
        """The loss of a batch with the architecture of now; the output and the target."""
        self._batch = batch
        with self.autocast():
            output, target = self.task.forward_batch(self.network, batch)  # type: ignore[arg-type]
            return self.task.loss(output, target), output, target

    def autocast(self) -> AbstractContextManager[object]:
        """The context of forward passes in the precision asked for."""
        is_half = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if is_half else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those of the weights; a path without weights has none, which is counted.

        Raises:
            NoResultError: the loss is not finite.
            UserCodeError: it cannot be differentiated.
        """
        self.require_finite(loss, "loss")  # before it reaches the weights, and with them a checkpoint
        if not loss.requires_grad and self.weightless.counted(self, self._batch):
            return
        with differentiating():
            torch.autograd.backward(loss)

    def require_finite(self, value: Tensor, what: str) -> None:
        """Refuse a number that is not finite.

        Raises:
            NoResultError: naming it and the step.
        """
        number = value.item()
        if not math.isfinite(number):
            raise NoResultError(
                f"the {what} is not finite ({number}) at step {self.step + 1}, epoch {self.epoch + 1}",
                hint="lower the learning rate, set `clip_grad`, or look for bad input data",
            )

    def update_weights(self) -> None:
        """Clip the gradients, update the weights, and move the schedule on."""
        if self.clip_grad:
            clip_gradients(self.model.parameters(), self.clip_grad)
        take_step(self.optimizer, self.scheduler, self.task.user.reference)

    def record(self, loss: Tensor, output: Output, target: Target) -> None:
        """Count a batch in the means of this epoch."""
        count = batch_size_of(target)
        with torch.no_grad():
            values = {"loss": loss.item(), **self.task.batch_metrics(output, target)}
        self._averages.update(values, count)
        self._samples += count

    def validate_one_epoch(self, epoch: int) -> dict[str, float]:
        """Mean loss and metrics on the validation data; with a mutator, a new architecture a batch."""
        self.model.eval()
        self._tell_progress()  # also where a resumed run begins here

        def before_batch() -> None:
            self._call("on_validation_batch")
            if self.mutator is not None:
                self.mutator.reset()

        batches = (self.to_device(batch) for batch in self.valid_batches.epoch(epoch))
        with self.autocast():
            return mean_metrics(self.network, self.task, batches, before_batch)

    def _call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.epoch)

    # ---- going on later

    def state_dict(self) -> State:
        """Everything that decides the next step, as tensors and plain data."""
        return {
            "model": dict(self.model.state_dict()),
            "mutator": dict(self.mutator.state_dict()) if self.mutator is not None else {},
            **optimizer_state(self.optimizer, self.scheduler),
            "progress": {"epoch": self.epoch, "batch": self.batch, "step": self.step},
            "epoch": {
                "averages": self._averages.state_dict(),
                "samples": self._samples,
                "elapsed": self._elapsed,
                "start": self._epoch_start,
            },
            "history": [vars(record) for record in self.history],
            "random": self._before_validation or random_state.capture_all(self.generators),
            **self.in_place.state_dict(self.model),
            **self.weightless.state_dict(),
        }

    def prepare_for(self, state: Mapping[str, Any]) -> None:
        """Become able to load ``state``: an algorithm of several stages builds the model of its stage."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, to the bit."""
        self.model.load_state_dict(state["model"])
        if self.mutator is not None:
            self.mutator.load_state_dict(state["mutator"])
        self.optimizer.load_state_dict(state["optimizer"])
        match_layouts(self.optimizer)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        progress = state["progress"]
        self.epoch, self.batch, self.step = progress["epoch"], progress["batch"], progress["step"]
        self._averages.load_state_dict(state["epoch"]["averages"])
        self._samples, self._elapsed = state["epoch"]["samples"], state["epoch"]["elapsed"]
        self._epoch_start = state["epoch"]["start"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.in_place.load_state_dict(state, self.model)
        self.weightless.load_state_dict(state)
        random_state.restore_all(state["random"], self.generators)


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
