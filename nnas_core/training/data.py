"""Batches come in an order that is a function of the seed and the epoch, so a run can go on in the middle of one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sized
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, Subset

from nnas_core import random_state
from nnas_core.errors import UserCodeError
from nnas_core.mutables.nested import changed
from nnas_core.random_state import torch_generator
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Batch, Task

__all__ = [
    "Batches",
    "Cycle",
    "CyclePosition",
    "architecture_batches",
    "batch_size_of",
    "build_batches",
    "held_out_batches",
    "to_device",
    "to_float64",
]

V = TypeVar("V")


class Batches:
    """The batches of one dataset, epoch by epoch.

    Args:
        loader: a DataLoader.
        order: the sampler that decides the order of ``loader``; None where the user made the loader.
    """

    def __init__(self, loader: DataLoader[Batch], order: _EpochOrder | None) -> None:
        self._loader = loader
        self._order = order

    @property
    def can_skip(self) -> bool:
        """Returns true if the middle of an epoch can be reached whatever the global random state is."""
        return self._order is not None

    def __len__(self) -> int:
        try:
            return len(self._loader)
        except TypeError:
            return 0  # an iterable dataset of unknown length

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` (from 0), without the first ``skip``."""
        # Loader processes draw their own random numbers, batch after batch, so they must load what is skipped.
        loads_all = self._order is None or self._loader.num_workers > 0
        if self._order is not None:
            self._order.start(number, 0 if loads_all else skip)
        return itertools.islice(iter(self._loader), skip if loads_all else 0, None)


CyclePosition = TypedDict("CyclePosition", {"pass": int, "consumed": int, "start": "dict[str, object] | None"})
"""A place in a ``Cycle``: passes through the data, batches of the current one, random states at its beginning."""


class Cycle:
    """Batches without end: epoch after epoch of the same data, in a position that can be saved.

    Args:
        batches: of the data; where there is an order of ours, unfull batches are left out.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._consumed = 0  # of the current pass
        self._pass = 0
        self._start: dict[str, object] | None = None  # the random states at the beginning of the current pass
        self._iterator: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._resumed()
        batch = next(self._iterator, None)
        if batch is None:
            self._pass, self._consumed = self._pass + 1, 0
            self._iterator = self._resumed()
            batch = next(self._iterator, None)
            if batch is None:
                raise UserCodeError(
                    "the validation data have no batches to train the architecture on",
                    hint="an iterable dataset must start anew each time it is iterated",
                )
        self._consumed += 1
        return batch

    def _resumed(self) -> Iterator[Batch]:
        if self._consumed == 0 or self._batches.can_skip or self._start is None:
            self._start = random_state.capture() if not self._batches.can_skip else None
            return self._batches.epoch(self._pass, self._consumed)
        # A loader of the user's draws from the global state: repeat the beginning, then go on as it was.
        now = random_state.capture()
        random_state.restore(self._start)
        batches = self._batches.epoch(self._pass)
        for _ in itertools.islice(batches, self._consumed):
            pass
        random_state.restore(now)
        return batches

    def state_dict(self) -> CyclePosition:
        """The position, as tensors and plain data."""
        return {"pass": self._pass, "consumed": self._consumed, "start": self._start}

    def load_state_dict(self, state: CyclePosition) -> None:
        """Go on from what ``state_dict`` returned."""
        self._pass, self._consumed, self._start = state["pass"], state["consumed"], state["start"]
        self._iterator = None


class _EpochOrder(Sampler[list[int]]):
    """Batches of indices; their order depends on the seed and the epoch only."""

    def __init__(self, count: int, settings: DataSettings, shuffle: bool, purpose: str) -> None:
        self._count = count
        self._settings = settings
        self._shuffle = shuffle
        self._purpose = purpose
        self._epoch = 0
        self._skip = 0
        # The loader seeds its workers from it; one of its own keeps torch's global state out of that.
        self.worker_seeds = torch.Generator()

    def start(self, epoch: int, skip: int) -> None:
        self._epoch, self._skip = epoch, skip
        seeds = torch_generator(self._settings.seed, self._purpose, "workers", epoch)
        self.worker_seeds.set_state(seeds.get_state())

    def __len__(self) -> int:
        size = self._settings.batch_size
        return self._count // size if self._drops_last else math.ceil(self._count / size)

    @property
    def _drops_last(self) -> bool:
        return self._shuffle and self._settings.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        if self._shuffle:
            generator = torch_generator(self._settings.seed, self._purpose, "order", self._epoch)
            order = torch.randperm(self._count, generator=generator).tolist()
        else:
            order = list(range(self._count))
        size = self._settings.batch_size
        for batch in range(self._skip, len(self)):
            yield order[batch * size : (batch + 1) * size]
        self._skip = 0


def build_batches(task: Task, settings: DataSettings) -> tuple[Batches, Batches]:
    """Training and validation batches of a task.

    Raises:
        UserCodeError: no dataset, an empty one, one too small for a batch, or one that cannot be split.
    """
    if task.has("build_dataloaders"):
        loaders = task.call("build_dataloaders", settings.batch_size, settings.workers)
        if not isinstance(loaders, Mapping) or not {"train", "valid"} <= set(loaders):
            raise UserCodeError(
                "build_dataloaders() must return a dictionary with 'train' and 'valid'",
                where=task.user.reference,
            )
        return Batches(loaders["train"], None), Batches(loaders["valid"], None)
    train = _dataset(task, "train_dataset")
    if task.has("valid_dataset"):
        valid = _dataset(task, "valid_dataset")
    else:
        train, valid = _split(train, settings, task)
    batches = _batches(train, settings, True, "train")
    if isinstance(train, Sized) and len(batches) == 0:
        raise UserCodeError(
            f"the {len(train)} training samples make no full batch of {settings.batch_size}",
            where=task.user.reference,
            hint="choose a smaller `batch_size`, or `no_drop_last`",
        )
    return batches, _batches(valid, settings, False, "valid")


def architecture_batches(task: Task, settings: DataSettings) -> Batches:
    """The validation data once more, shuffled and in full batches only, to train an architecture on.

    Raises:
        UserCodeError: as ``build_batches``; or the validation data make no full batch.
    """
    if task.has("build_dataloaders"):
        return build_batches(task, settings)[1]
    valid = _validation_dataset(task, settings)
    settings = replace(settings, drop_last=True)
    batches = _batches(valid, settings, True, "architecture")
    if isinstance(valid, Sized) and len(batches) == 0:
        raise UserCodeError(
            f"the {len(valid)} validation samples make no full batch of {settings.batch_size}, which this algorithm"
            " trains the architecture on",
            where=task.user.reference,
            hint="choose a smaller `batch_size`, or a larger `valid_fraction`",
        )
    return batches


def _validation_dataset(task: Task, settings: DataSettings) -> Dataset[object]:
    if task.has("valid_dataset"):
        return _dataset(task, "valid_dataset")
    return _split(_dataset(task, "train_dataset"), settings, task)[1]


def held_out_batches(task: Task, settings: DataSettings) -> tuple[Batches, str]:
    """Batches of the test data, and which data they are: ``"test"``, or ``"validation"`` without a test set."""
    if task.has("test_dataset"):
        return _batches(_dataset(task, "test_dataset"), settings, False, "test"), "test"
    return build_batches(task, settings)[1], "validation"


def _dataset(task: Task, name: str) -> Dataset[object]:
    dataset = task.call(name)
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise UserCodeError(f"{name}() returned a {type(dataset).__name__}, not a dataset", where=task.user.reference)
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise UserCodeError(
            f"{name}() returned an empty dataset",
            where=task.user.reference,
            hint="check its path and its filter",
        )
    return dataset  # type: ignore[no-any-return]


def _split(train: Dataset[object], settings: DataSettings, task: Task) -> tuple[Dataset[object], Dataset[object]]:
    if isinstance(train, IterableDataset) or not isinstance(train, Sized):
        raise UserCodeError(
            "an iterable training set cannot be split",
            where=task.user.reference,
            hint="define valid_dataset() beside train_dataset()",
        )
    count = len(train)
    held_out = max(1, round(count * settings.valid_fraction))
    if held_out >= count:
        raise UserCodeError(
            f"{count} training samples cannot be split with `valid_fraction` {settings.valid_fraction}",
            where=task.user.reference,
        )
    order = torch.randperm(count, generator=torch_generator(settings.split["seed"], "split")).tolist()
    return Subset(train, order[held_out:]), Subset(train, order[:held_out])


def _batches(dataset: Dataset[object], settings: DataSettings, shuffle: bool, purpose: str) -> Batches:
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_size=settings.batch_size,
            num_workers=settings.workers,
            drop_last=shuffle and settings.drop_last,
        )
        return Batches(loader, None)
    order = _EpochOrder(len(dataset), settings, shuffle, purpose)
    loader = DataLoader(dataset, batch_sampler=order, num_workers=settings.workers, generator=order.worker_seeds)
    return Batches(loader, order)


def to_device(value: V, device: torch.device) -> V:
    """Move every tensor in nested lists, tuples and dictionaries."""
    return changed(value, lambda one: one.to(device, non_blocking=True) if isinstance(one, Tensor) else one)


def to_float64(value: V) -> V:
    """Make every floating tensor in nested lists, tuples and dictionaries a double."""
    return changed(value, lambda one: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one)


def batch_size_of(target: Any) -> int:
    """How many samples a target is for: its first dimension, 1 if it has none."""
    if isinstance(target, Tensor):
        return len(target) if target.dim() else 1
    return len(target) if isinstance(target, Sized) else 1
