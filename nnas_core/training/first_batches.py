"""What a training needs is tried before it begins: lazy layers get their sizes, each data set its first batch.

Nothing of a trial remains, no random number included: the training is the same without it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from nnas_core import random_state
from nnas_core.errors import NnasWarning, UserCodeError
from nnas_core.mutables.base import Mutable
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import changed
from nnas_core.mutables.untouched import same_modes, untouched
from nnas_core.training.data import Batches
from nnas_core.training.task import Batch, OneSample, Task

__all__ = ["FirstBatch", "has_lazy_layers", "initialize_lazy_layers", "try_first_batches"]


def has_lazy_layers(model: nn.Module) -> bool:
    """Return true if a layer of ``model`` waits for its first input, to learn its sizes."""
    return any(map(is_lazy, itertools.chain(model.parameters(), model.buffers())))


def initialize_lazy_layers(model: nn.Module, task: Task, batches: Batches) -> None:
    """Give all lazy layers their sizes and weights, by passes of one batch through every candidate.

    The weights are drawn from the global random state, as torch's layers do. A model without lazy layers stays alone.

    Args:
        model: on the CPU; with or without mutables.
        task: how a batch goes through the model.
        batches: the training data.

    Raises:
        UserCodeError: there is no batch, or it comes to a layer in no pass.
    """
    if not has_lazy_layers(model):
        return
    with random_state.untouched({}):
        batch = _first(batches, "training", task)
    with torch.no_grad(), same_modes(model), _bound(model, None) as mutator:
        model.eval()  # no statistics, no dropout
        for architecture in mutator.space.covering() if mutator is not None else [None]:
            if mutator is not None and architecture is not None:
                mutator.apply_architecture(architecture)
            task.forward_batch(model, batch)
            if not has_lazy_layers(model):
                break
    waiting = [name for name, one in model.named_modules() if any(map(is_lazy, _own_tensors(one)))]
    if waiting:
        raise UserCodeError(
            f"no pass of a batch came to the lazy layers {', '.join(waiting[:5])}, their sizes are unknown",
            where=task.user.reference,
            hint="use them in forward(), or give their sizes",
        )


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False))


@contextmanager
def _bound(model: nn.Module, mutator: Mutator | None) -> Iterator[Mutator | None]:
    """The mutator of a model; one for the block if it needs one and has none, and None if it has no mutables."""
    if mutator is not None or not any(isinstance(module, Mutable) for module in model.modules()):
        yield mutator
        return
    made = Mutator(model)
    try:
        yield made
    finally:
        made.unbind()


@dataclass(frozen=True)
class FirstBatch:
    """A data set whose first batch is tried.

    Attributes:
        name: for errors: ``"training"``, ``"validation"``, ``"test"``.
        batches: the data.
        training: true if the model is trained on it.
    """

    name: str
    batches: Batches
    training: bool = False


def try_first_batches(
    model: nn.Module,
    task: Task,
    data: Sequence[FirstBatch],
    prepare: Callable[[Batch], Batch],
    *,
    mutator: Mutator | None = None,
    generators: Mapping[str, torch.Generator] | None = None,
    autocast: AbstractContextManager[object] | None = None,
) -> None:
    """Run the model, and what a task has by default, on the first batch of each data set, and forget it.

    A supernet is tried as an architecture of its first candidates. The task's own loss and metrics are called with data
    that looks otherwise than the first set: that one's batches come to them as soon as the training begins, and they
    may count their calls.

    Args:
        model: on its device.
        task: whose functions are tried.
        data: the data sets.
        prepare: makes of a batch what the model gets.
        mutator: that ``model`` is bound to; None if to none.
        generators: private generators that may be drawn from.
        autocast: the context of forward passes.

    Raises:
        UserCodeError: a data set has no batch, or what the task's functions return cannot be used.
    """
    with (
        torch.no_grad(),
        _bound(model, mutator) as bound,
        untouched(model, bound, generators),
        autocast or nullcontext(),
    ):
        if bound is not None:
            bound.apply_architecture(next(bound.space.covering()))
        looks: list[object] = []
        for one in data:
            batch = prepare(_first(one.batches, one.name, task))
            looks.append(_look(batch))
            model.train(one.training)
            note = task.try_batch(model, batch, with_own=looks[-1] != looks[0])
            if note is not None and one.training:
                warnings.warn(note, NnasWarning, stacklevel=2)
            if one.training and one.batches.ends_with_one_sample:
                _try_one_sample(model, task, batch)


def _first(batches: Batches, name: str, task: Task) -> Batch:
    for batch in batches.epoch(0):
        return batch
    raise UserCodeError(f"the {name} data has no batches", where=task.user.reference)


def _look(value: object) -> object:
    """Everything about nested data but its values and the size of its batch."""
    if isinstance(value, Tensor):
        return value.dtype, value.dim(), value.shape[1:]
    if isinstance(value, Mapping):
        return {name: _look(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_look(entry) for entry in value]
    return type(value)


def _try_one_sample(model: nn.Module, task: Task, batch: Batch) -> None:
    """Refuse a last batch of one sample where BatchNorm would, at the end of the first epoch."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    sample = changed(batch, lambda one: one[:1] if isinstance(one, Tensor) and one.dim() else one)
    try:
        task.forward_batch(model, sample)
    except OneSample:
        raise
    except Exception:  # noqa: BLE001  (what cannot be cut so says nothing)
        return
