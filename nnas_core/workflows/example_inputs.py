"""What a model is given in one forward pass: the first samples of its training data, or random numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import UsageError, UserCodeError
from nnas_core.mutables.cost import count_flops
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import changed
from nnas_core.mutables.untouched import untouched
from nnas_core.random_state import torch_generator
from nnas_core.space.sizes import size_in_words
from nnas_core.training.data import batch_size_of, build_batches, to_device, to_float64
from nnas_core.training.profiling import Arguments, arguments_of
from nnas_core.workflows.setup import Setup

__all__ = ["ExampleInputs", "multiply_adds", "running"]

_MOST_NUMBERS = 2**28
"""Of a random input: a gibibyte."""

_V = TypeVar("_V")


class ExampleInputs:
    """Arguments of a model for as many samples as are asked for.

    Args:
        setup: of the model; its task says how a batch becomes arguments.
        model: on the device of ``setup``.
        shape: of one sample, for random numbers; None: the training data.
        mutator: bound to ``model``; None if it has no choices.
    """

    def __init__(
        self, setup: Setup, model: nn.Module, shape: tuple[int, ...] | None, mutator: Mutator | None = None
    ) -> None:
        self._setup = setup
        self._model = model
        self._shape = shape
        self._mutator = mutator

    def of(self, size: int) -> Arguments:
        """The arguments of a forward pass of so many samples.

        Raises:
            UsageError: the training data has fewer, or random numbers need too much memory.
            UserCodeError: there is no training data, or a forward pass is not one call of the model.
        """
        if self._shape is not None:
            return self._fitting(((self._random_numbers((size, *self._shape)),), {}))
        setup = self._setup
        if not (setup.task.has("train_dataset") or setup.task.has("build_dataloaders")):
            raise UserCodeError(
                "it defines no train_dataset(), whose samples the model could be given",
                where=setup.task.user.reference,
                hint="give `input_shape`, the shape of one sample, or name a file with data with `task` FILE",
            )
        batches, _ = build_batches(setup.task, dataclasses.replace(setup.data, batch_size=size))
        if batches.samples is not None and batches.samples < size:
            raise UsageError(
                f"the training data has {batches.samples:,} samples, fewer than a batch of {size:,}",
                hint="give `input_shape`, or take fewer samples at a time",
            )
        batch = next(iter(batches.epoch(0)), None)
        if batch is None:
            raise UserCodeError("the training data has no batches", where=setup.task.user.reference)
        if setup.task.has("build_dataloaders"):  # whose batches may be of a size of their own
            batch = _first_samples(batch, size, setup.task.user.reference)
        return arguments_of(setup.task, self._model, self._fitting(to_device(batch, setup.device)), self._mutator)

    def _fitting(self, value: _V) -> _V:
        """``value`` in the precision of the model."""
        is_double = any(one.dtype == torch.float64 for one in self._model.parameters())
        return to_float64(value) if is_double else value

    def _random_numbers(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        if count > _MOST_NUMBERS:
            raise UsageError(
                f"an input of {'x'.join(map(str, shape))} has {size_in_words(count, ',')} numbers, the most is "
                f"{_MOST_NUMBERS:,}",
                hint="give a smaller `input_shape` or `batch_size`",
            )
        source = torch_generator(self._setup.data.seed, "profile", "inputs")
        return torch.randn(shape, generator=source).to(self._setup.device)


def _first_samples(batch: object, size: int, where: str) -> object:
    """The first samples of a batch: those of each tensor and list that is for as many as the target."""
    parts = batch if isinstance(batch, list | tuple) and batch else [batch]
    count = batch_size_of(parts[-1])
    if count == size:
        return batch
    if count < size:
        raise UserCodeError(
            f"build_dataloaders() gives batches of {count}, fewer than {size}",
            where=where,
            hint="let it heed its batch_size, or give `input_shape`, the shape of one sample",
        )

    def is_listed(one: object) -> bool:
        if not isinstance(one, list | tuple) or one is batch or len(one) != count:
            return False
        return not any(isinstance(part, Tensor) and count in part.shape for part in one)

    def first(one: object) -> object:
        if isinstance(one, Tensor) and count in one.shape:
            return one.narrow(one.shape.index(count), 0, size)
        return one[:size] if isinstance(one, list | tuple) else one

    return changed(batch, first, is_listed)


def running(network: nn.Module, inputs: Arguments) -> Callable[[], object]:
    """Returns a function that runs a network on inputs."""
    args, kwargs = inputs
    return lambda: network(*args, **kwargs)


def multiply_adds(network: nn.Module, inputs: Arguments) -> int:
    """The multiply-adds of a forward pass in evaluation mode: half of its FLOPs, see ``mutables.cost``."""
    with untouched(network), torch.no_grad():
        network.eval()
        return count_flops(running(network, inputs)) // 2
