"""Batches come in an order that is a function of the seed and the epoch, so a run can go on in the middle of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypedDict, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from nnas_core import random_state
from nnas_core.errors import UserCodeError
from nnas_core.mutables.nested import changed
from nnas_core.plugins.loading import as_user_error, ends_early
from nnas_core.random_state import torch_generator
from nnas_core.training.collation import NoBatch, collation
from nnas_core.training.loader_processes import begun, end_processes
from nnas_core.training.order import EpochOrder, SampledOrder
from nnas_core.training.returned import checked_dataset, checked_loaders, checked_sampler, explaining
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
    "test_batches",
    "to_device",
    "to_float64",
]

V = TypeVar("V")


class Batches:
    """The batches of one dataset, epoch by epoch.

    Args:
        loader: a DataLoader.
        order: the sampler that decides the order of ``loader``; None where the user made the loader.
        where: the user's file, for errors.
        is_own: true if the user made the loader.
    """

    def __init__(
        self, loader: DataLoader[Batch], order: EpochOrder | None, where: str | None = None, is_own: bool = False
    ) -> None:
        self._loader = loader
        self._order = order
        self._where = where
        self._is_own = is_own

    @property
    def can_skip(self) -> bool:
        """Returns true if the middle of an epoch can be reached whatever the global random state is."""
        return self._order is not None

    @property
    def ends_with_one_sample(self) -> bool:
        """Returns true if the last batch of an epoch is known to have one sample, and others have more."""
        return self._order is not None and self._order.ends_with_one_sample

    @property
    def samples(self) -> int | None:
        """Samples of the data set; None where it does not say how many there are."""
        dataset = getattr(self._loader, "dataset", None)
        try:
            return len(dataset) if isinstance(dataset, Sized) else None
        except (TypeError, NotImplementedError):
            return None

    def __len__(self) -> int:
        try:
            return len(self._loader)
        except TypeError:
            return 0  # an iterable dataset of unknown length

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` (from 0), without the first ``skip``.

        Raises:
            UserCodeError: samples make no batch, or a loader fails otherwise.
        """
        # Loader processes draw their own random numbers, batch after batch, so they must load what is skipped.
        loads_all = self._order is None or self._loader.num_workers > 0
        with self._explaining():
            if self._order is not None:
                self._order.start(number, 0 if loads_all else skip)
            batches = begun(self._loader)
        return itertools.islice(self._loaded(batches), skip if loads_all else 0, None)

    def _loaded(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            with self._explaining():
                try:
                    batch = next(batches)
                except StopIteration as end:
                    if ends_early(end):
                        end_processes(batches)
                        raise self._ended_early(end) from end
                    return
                except BaseException:
                    end_processes(batches)
                    raise
            if isinstance(batch, NoBatch):
                raise batch.error(self._where)
            yield batch

    def _ended_early(self, end: StopIteration) -> UserCodeError:
        """The error for a data set that raises what ends the loop over its batches: the rest would never be seen."""
        failure = as_user_error(end)
        found = UserCodeError(
            "the data set raised StopIteration, which would end every epoch there",
            where=self._where if failure is None or failure.where is None else failure.where,
            hint="raise another error; StopIteration ends iterators alone, as `next()` without a default does",
        )
        return found.with_traceback_of_user("" if failure is None else failure.user_traceback)

    def _explaining(self) -> AbstractContextManager[None]:
        if self._is_own:
            hint = "samples that make a batch have one size: pad them in its collate_fn"
            return explaining("a loader of build_dataloaders()", self._where or "", hint)
        return explaining("loading the data", self._where or "")


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


def build_batches(task: Task, settings: DataSettings) -> tuple[Batches, Batches]:
    """Training and validation batches of a task.

    Raises:
        UserCodeError: no dataset, an empty one, one too small for a batch, or one that cannot be split.
    """
    if task.has("build_dataloaders"):
        loaders = _own_loaders(task, settings)
        return loaders["train"], loaders["valid"]
    train = _dataset(task, "train_dataset")
    if task.has("valid_dataset"):
        valid = _dataset(task, "valid_dataset")
    else:
        train, valid = _split(train, settings, task)
    batches = _batches(task, train, settings, True, "train", _sampler(task, train))
    if isinstance(train, Sized) and len(batches) == 0:
        raise UserCodeError(
            f"the {len(train)} training samples make no full batch of {settings.batch_size}",
            where=task.user.reference,
            hint="choose a smaller `batch_size`, or `no_drop_last`",
        )
    return batches, _batches(task, valid, settings, False, "valid")


def architecture_batches(task: Task, settings: DataSettings) -> Batches:
    """The validation data once more, shuffled and in full batches only, to train an architecture on.

    Raises:
        UserCodeError: as ``build_batches``; or the validation data make no full batch.
    """
    if task.has("build_dataloaders"):
        return build_batches(task, settings)[1]
    valid = _validation_dataset(task, settings)
    settings = replace(settings, drop_last=True)
    batches = _batches(task, valid, settings, True, "architecture")
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
    """Batches of the test data, and which data they are: ``"test"``, or ``"validation"`` without a test set.

    Raises:
        UserCodeError: as ``build_batches``.
    """
    test = test_batches(task, settings)
    return (build_batches(task, settings)[1], "validation") if test is None else (test, "test")


def test_batches(task: Task, settings: DataSettings) -> Batches | None:
    """Batches of the loader ``"test"`` of ``build_dataloaders``, else of ``test_dataset()``; None if there is neither.

    Raises:
        UserCodeError: as ``build_batches``.
    """
    if task.has("build_dataloaders"):
        own = _own_loaders(task, settings).get("test")
        if own is not None:
            return own
    if task.has("test_dataset"):
        return _batches(task, _dataset(task, "test_dataset"), settings, False, "test")
    return None


def _own_loaders(task: Task, settings: DataSettings) -> dict[str, Batches]:
    """What the task's ``build_dataloaders`` gives, by name: ``train``, ``valid``, and perhaps ``test``."""
    where = task.user.reference
    loaders = checked_loaders(task.call("build_dataloaders", settings.batch_size, settings.workers), where)
    return {name: Batches(loader, None, where, is_own=True) for name, loader in loaders.items()}


def _dataset(task: Task, name: str) -> Dataset[object]:
    return checked_dataset(task.call(name), name, task.user.reference)


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


def _sampler(task: Task, dataset: Dataset[object]) -> Iterable[object] | None:
    """The task's own sampler of its training data."""
    if not task.has("train_sampler"):
        return None
    if isinstance(dataset, IterableDataset):
        raise UserCodeError(
            "train_sampler() cannot choose from an IterableDataset, which decides its order itself",
            where=task.user.reference,
            hint="leave it out, or give a dataset with __len__ and __getitem__",
        )
    return checked_sampler(task.call("train_sampler", dataset), task.user.reference)


def _batches(
    task: Task,
    dataset: Dataset[object],
    settings: DataSettings,
    shuffle: bool,
    purpose: str,
    sampler: Iterable[object] | None = None,
) -> Batches:
    where = task.user.reference
    collate = collation(task.collate)
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_size=settings.batch_size,
            num_workers=settings.workers,
            drop_last=shuffle and settings.drop_last,
            collate_fn=collate,
        )
        return Batches(loader, None, where)
    if sampler is None:
        order = EpochOrder(len(dataset), settings, shuffle, purpose)
    else:
        order = SampledOrder(sampler, len(dataset), settings, purpose, where)
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=settings.workers,
        generator=order.worker_seeds,
        collate_fn=collate,
    )
    return Batches(loader, order, where)


def to_device(value: V, device: torch.device) -> V:
    """Move every tensor in nested collections, and what has a ``to(device)`` of its own, such as a packed sequence."""

    def moved(one: object) -> object:
        if isinstance(one, Tensor):
            return one.to(device, non_blocking=True)
        return one.to(device) if _moves_itself(one) else one  # type: ignore[attr-defined]

    return changed(value, moved, _moves_itself)


def _moves_itself(value: object) -> bool:
    return not isinstance(value, (Tensor, type)) and callable(getattr(value, "to", None))


def to_float64(value: V) -> V:
    """Make every floating tensor in nested lists, tuples and dictionaries a double."""
    return changed(value, lambda one: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one)


def batch_size_of(target: object) -> int:
    """How many samples a target is for.

    That is the first dimension of a tensor, of the first entry of a dictionary or a named tuple, and of a list of
    tensors that have it in common (targets of several tasks). Of another list, as detection has it, it is the length;
    of all else 1.
    """
    if isinstance(target, Tensor):
        return len(target) if target.dim() else 1
    if isinstance(target, PackedSequence):
        return int(target.batch_sizes[0])
    if isinstance(target, Mapping) or hasattr(target, "_fields"):
        entries: Iterable[object] = target.values() if isinstance(target, Mapping) else cast("tuple[object]", target)
        return next((batch_size_of(one) for one in entries if isinstance(one, (Tensor, Mapping, list, tuple))), 1)
    if isinstance(target, (list, tuple)):
        sizes = {len(one) if isinstance(one, Tensor) and one.dim() else None for one in target}
        return (sizes.pop() if len(sizes) == 1 else None) or len(target)
    return len(target) if isinstance(target, Sized) and not isinstance(target, (str, bytes)) else 1
