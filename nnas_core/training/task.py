"""The task of a model: the functions of the user's module beside it, or their defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import UserCodeError
from nnas_core.plugins.loading import UserModule
from nnas_core.training.classification import Classification, taken_as_auxiliary
from nnas_core.training.optimizers import default_optimizer
from nnas_core.training.returned import (
    checked_function,
    checked_loss,
    checked_numbers,
    checked_optimizer,
    checked_pair,
    checked_scheduler,
    described,
    unexplained,
)
from nnas_core.training.settings import OptimizerSettings
from nnas_core.training.whole_sets import WholeSet, is_metric_object, whole_set_maker

__all__ = ["TASK_FUNCTIONS", "Batch", "OneSample", "Output", "Target", "Task", "default_forward_batch"]


# Whatever the functions of a task agree on: nnas hands them on, and looks into none.
Batch: TypeAlias = Any
Output: TypeAlias = Any
Target: TypeAlias = Any

TASK_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "train_dataset": (),
    "valid_dataset": (),
    "test_dataset": (),
    "collate": ("samples",),
    "train_sampler": ("dataset",),
    "build_dataloaders": ("batch_size", "workers"),
    "forward_batch": ("model", "batch"),
    "loss": ("output", "target"),
    "metrics": ("output", "target"),
    "epoch_metrics": ("outputs", "targets"),
    "build_optimizer": ("parameters",),
    "build_scheduler": ("optimizer", "total_steps"),
    "costs": ("model",),
}
"""The functions that a module may define, with the names of what they are called with."""


class OneSample(UserCodeError):
    """A training batch of one sample came to BatchNorm, which needs two to have a variance."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "a training batch has one sample, and BatchNorm needs at least two",
            where=where,
            hint="leave a last batch out that is not full, with `drop_last` (in loaders of your own drop_last=True), or"
            " take another `batch_size`",
        )


class Task:
    """The functions of a module that ``TASK_FUNCTIONS`` lists, checked: how they are called, and what they return.

    Args:
        user: the loaded module; what it does not define has a default, except ``train_dataset``.
        optimizer: numbers for the default optimizer and schedule.

    Attributes:
        metric_mode: ``"max"`` or ``"min"``: which values of the first metric are better.

    Raises:
        UserCodeError: a function of the module cannot be called as it will be.
    """

    def __init__(self, user: UserModule, optimizer: OptimizerSettings | None = None) -> None:
        self.user = user
        self._settings = optimizer or OptimizerSettings()
        self.metric_mode: str = getattr(user.module, "metric_mode", "max")
        if not isinstance(self.metric_mode, str) or self.metric_mode not in ("max", "min"):
            raise UserCodeError(f"metric_mode is {self.metric_mode!r}, it must be 'max' or 'min'", where=user.reference)
        self._importing: set[int] = set()  # functions with imports in their bodies, by identity
        self._functions: dict[str, Callable[..., Any]] = {}
        defined = vars(user.module)
        metric_object = defined.get("metrics")
        for name, arguments in TASK_FUNCTIONS.items():
            if name == "metrics" and is_metric_object(metric_object):
                continue
            function = checked_function(getattr(user.module, name, None), name, arguments, user.reference)
            if function is not None:
                self._functions[name] = function
        self._whole_set = whole_set_maker(metric_object, self._functions.get("epoch_metrics"), user.reference)
        default = Classification(user.reference)
        self._loss: Callable[[Output, Target], object] = self._functions.get("loss", default.loss)
        self._metrics: Callable[[Output, Target], object] | None = self._functions.get("metrics")
        if self._metrics is None and self._whole_set is None:
            self._metrics = default.metrics
        self._forward_batch = self._functions.get("forward_batch")

    def has(self, name: str) -> bool:
        """Returns true if the module defines the function ``name`` itself."""
        return name in self._functions

    @property
    def collate(self) -> Callable[[list[Any]], Batch] | None:
        """The module's own way to make a batch of samples."""
        return self._functions.get("collate")

    def call(self, name: str, *arguments: object) -> Any:
        """Call a function of the module with its folder importable.

        Raises:
            UserCodeError: the module does not define it.
        """
        function = self._functions.get(name)
        if function is None:
            raise UserCodeError(
                f"it defines no {name}()",
                where=self.user.reference,
                hint=f"define {name}() there, or name the file that does with `task` FILE",
            )
        with self.user.imports():
            return self._called(name, function, *arguments)

    def _called(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return self._run(function, *arguments)
        except Exception as error:
            failure = unexplained(error, f"{name}()", self.user.reference)
            if failure is None:
                raise
            raise failure from error

    def _run(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call what may run in every step: the module's folder is importable only once that turned out to be needed."""
        if id(function) not in self._importing:
            try:
                return function(*arguments)
            except ImportError:
                self._importing.add(id(function))
        with self.user.imports():
            return function(*arguments)

    def forward_batch(self, model: nn.Module, batch: Batch) -> tuple[Output, Target]:
        """The output of ``model`` for a batch, and the target, as the module's ``forward_batch`` gives them.

        Raises:
            UserCodeError: it gave something else; or there is none, and the batch is no input and target.
        """
        try:
            if self._forward_batch is None:
                return self._run(default_forward_batch, model, batch)  # type: ignore[no-any-return]
            pair = self._called("forward_batch", self._forward_batch, model, batch)
        except ValueError as error:
            if str(error).startswith("Expected more than 1 value per channel"):  # as torch's BatchNorm says it
                raise OneSample(self.user.reference) from error
            raise
        return checked_pair(pair, self.user.reference)

    def loss(self, output: Output, target: Target) -> Tensor:
        """The number to minimise, without dimensions.

        Raises:
            UserCodeError: the module's ``loss`` returned something else, or the default cannot compare the two.
        """
        return checked_loss(self._called("loss", self._loss, output, target), self.user.reference)

    def try_batch(self, model: nn.Module, batch: Batch, with_own: bool) -> str | None:
        """Compute output, loss and metrics of a batch, for the errors that this may raise.

        Args:
            with_own: call the module's own loss and metrics too, and not the defaults alone.

        Returns:
            What the author of the model should know, in one line, about how it is understood.
        """
        output, target = self.forward_batch(model, batch)
        has_own = "loss" in self._functions
        if with_own or not has_own:
            self.loss(output, target)
        if with_own:
            self.metrics(output, target)
        elif "metrics" not in self._functions:
            self.batch_metrics(output, target)
        return None if has_own else taken_as_auxiliary(output)

    def batch_metrics(self, output: Output, target: Target) -> dict[str, float]:
        """The metrics that are means over batches, of one batch; none where the module has those of whole sets alone.

        Returns:
            Numbers by name; NaN says that this batch has no value.

        Raises:
            UserCodeError: the module's ``metrics`` returned something else than numbers by name.
        """
        if self._metrics is None:
            return {}
        values = self._called("metrics", self._metrics, output, target)
        return checked_numbers(values, "metrics", self.user.reference)

    def whole_set(self) -> WholeSet | None:
        """Begin to measure a whole data set; None where the module measures batches only."""
        return None if self._whole_set is None else self._whole_set()

    def metrics(self, output: Output, target: Target) -> dict[str, float]:
        """All metrics of one batch alone, as if it were the whole data; the first is *the* metric.

        Raises:
            UserCodeError: the module's functions returned something else than numbers by name.
        """
        whole = self.whole_set()
        if whole is None:
            return self.batch_metrics(output, target)
        whole.update(output, target)
        return {**whole.compute(), **self.batch_metrics(output, target)}

    def costs(self, model: nn.Module) -> dict[str, float]:
        """The further costs of an architecture, by name, as the module's ``costs`` gives them; none without it.

        Args:
            model: an architecture taken out of its supernet; what the function does to it leaves no trace.

        Raises:
            UserCodeError: the function returned something else than numbers by name.
        """
        if not self.has("costs"):
            return {}
        return checked_numbers(self.call("costs", model), "costs", self.user.reference)

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The module's optimizer of the weights, or SGD as ``OptimizerSettings`` says.

        Raises:
            UserCodeError: the module's ``build_optimizer`` returned something else, or one that cannot be used.
        """
        if self.has("build_optimizer"):
            given = list(parameters)
            return checked_optimizer(self.call("build_optimizer", given), given, self.user.reference)
        return default_optimizer(parameters, self._settings)

    def build_scheduler(
        self, optimizer: torch.optim.Optimizer, total_steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """The schedule, stepped after every training step; None for a constant rate.

        Args:
            optimizer: whose rate it sets.
            total_steps: of the whole training; 0 if that is not known, which leaves the default rate constant.

        Raises:
            UserCodeError: the module's ``build_scheduler`` returned something else.
        """
        if self.has("build_scheduler"):
            return checked_scheduler(self.call("build_scheduler", optimizer, total_steps), self.user.reference)
        if self._settings.schedule == "none" or not total_steps:
            return None
        return torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=total_steps, eta_min=self._settings.min_learning_rate
        )


def default_forward_batch(model: nn.Module, batch: Batch) -> tuple[Output, Target]:
    """``x, y = batch``; the output for ``x``, and ``y``.

    Raises:
        UserCodeError: the batch is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        shown = f"{len(batch)} entries" if isinstance(batch, (tuple, list)) else described(batch)
        raise UserCodeError(
            f"a batch has {shown}, not an input and a target"
            if isinstance(batch, (tuple, list))
            else f"a batch is {shown}, not an input and a target",
            hint="define forward_batch(model, batch) beside the model; it returns output and target",
        )
    x, y = batch
    return model(x), y
