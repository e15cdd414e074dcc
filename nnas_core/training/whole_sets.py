"""Metrics of a whole data set (F1, AUC, mean average precision, perplexity), which are no means over batches.

A task has them as ``epoch_metrics(outputs, targets)``, or as an object ``metrics`` with ``update(output, target)`` and
``compute()``, the interface of torchmetrics; a class or a function without arguments that makes one serves too.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from nnas_core.errors import UserCodeError
from nnas_core.mutables.nested import changed, tensors
from nnas_core.training.returned import checked_numbers, described, explaining

__all__ = ["WholeSet", "is_metric_object", "whole_set_maker"]


class WholeSet(Protocol):
    """One measurement of a data set, batch after batch."""

    def update(self, output: Any, target: Any) -> None:
        """Take in a batch."""

    def compute(self) -> dict[str, float]:
        """The numbers of all batches so far, by name; NaN where there is no value."""


def is_metric_object(value: object) -> bool:
    """Return true for an object, or a class, with ``update`` and ``compute``, or a function that may make one."""
    if callable(getattr(value, "update", None)) and callable(getattr(value, "compute", None)):
        return True
    if not callable(value):
        return False
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    # one that takes two arguments as well is a function of a batch
    try:
        inspect.signature(value).bind("output", "target")
    except TypeError:
        return True
    return False


def whole_set_maker(
    metric: object, function: Callable[..., object] | None, where: str
) -> Callable[[], WholeSet] | None:
    """What begins a measurement of a whole data set.

    Args:
        metric: the module's ``metrics``.
        function: its ``epoch_metrics``.
        where: the user's file, for errors.

    Returns:
        None where the module has neither an object of metrics nor ``epoch_metrics``.

    Raises:
        UserCodeError: it has both; or a function that should make an object of metrics makes something else.
    """
    is_object = is_metric_object(metric)
    if is_object and function is not None:
        raise UserCodeError(
            "it defines epoch_metrics(), and metrics as an object with update() and compute(): both measure whole sets",
            where=where,
            hint="leave one of them out",
        )
    if is_object:
        return lambda: _Object(metric, where)
    if function is not None:
        return lambda: _Collected(function, where)
    return None


class _Object:
    """A copy of the user's object, so that no measurement sees another's batches."""

    def __init__(self, metric: Any, where: str) -> None:
        has_both = callable(getattr(metric, "update", None)) and callable(getattr(metric, "compute", None))
        with explaining("metrics()", where, "give an object, or what makes one without arguments"):
            self._metric = copy.deepcopy(metric) if has_both and not isinstance(metric, type) else metric()
        if not all(callable(getattr(self._metric, name, None)) for name in ("update", "compute")):
            raise UserCodeError(
                f"metrics() returned {described(self._metric)}, it must return an object with update() and compute()",
                where=where,
                hint="or take the arguments output and target, and return a dictionary of numbers",
            )
        self._where = where
        self._device: torch.device | None = None
        if callable(getattr(self._metric, "reset", None)):
            self._metric.reset()

    def update(self, output: Any, target: Any) -> None:
        """Take in a batch; the object goes to its device."""
        if self._device is None:
            self._device = next((one.device for one in tensors([output, target])), torch.device("cpu"))
            if self._device.type != "cpu" and callable(getattr(self._metric, "to", None)):
                self._metric = self._metric.to(self._device) or self._metric
        with explaining(f"update() of {type(self._metric).__name__}", self._where):
            self._metric.update(output, target)

    def compute(self) -> dict[str, float]:
        with explaining(f"compute() of {type(self._metric).__name__}", self._where):
            values = self._metric.compute()
        if not isinstance(values, Mapping):
            values = {type(self._metric).__name__: values}
        return checked_numbers(values, "compute", self._where)


class _Collected:
    """All outputs and targets, on the CPU, for one call at the end."""

    def __init__(self, function: Callable[..., object], where: str) -> None:
        self._function = function
        self._where = where
        self._outputs: list[Any] = []
        self._targets: list[Any] = []

    def update(self, output: Any, target: Any) -> None:
        self._outputs.append(changed(output, _kept))
        self._targets.append(changed(target, _kept))

    def compute(self) -> dict[str, float]:
        with explaining("epoch_metrics()", self._where):
            values = self._function(_joined(self._outputs), _joined(self._targets))
        return checked_numbers(values, "epoch_metrics", self._where)


def _kept(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    kept = value.detach().cpu()
    return kept.float() if kept.dtype is torch.bfloat16 else kept  # numpy, and what builds on it, has no such type


def _joined(batches: list[Any]) -> Any:
    """Nested tensors of all batches, one after the other along the first dimension; else the list of batches."""
    first = batches[0]
    if isinstance(first, Tensor):
        fits = all(isinstance(one, Tensor) and one.dim() and one.shape[1:] == first.shape[1:] for one in batches)
        return torch.cat(batches) if fits else batches
    if isinstance(first, Mapping):
        if all(isinstance(one, Mapping) and list(one) == list(first) for one in batches):
            return {name: _joined([one[name] for one in batches]) for name in first}
        return batches
    if isinstance(first, (tuple, list)):
        alike = all(isinstance(one, (tuple, list)) and len(one) == len(first) for one in batches)
        if alike and all(isinstance(entry, (Tensor, Mapping, tuple, list)) for entry in first):
            return tuple(_joined([one[place] for one in batches]) for place in range(len(first)))
    return batches
