"""In which order samples come, and in which batches: a function of the seed and the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from nnas_core import random_state
from nnas_core.errors import UserCodeError
from nnas_core.random_state import torch_generator
from nnas_core.randomness import derive_seed
from nnas_core.training.settings import DataSettings

__all__ = ["EpochOrder", "SampledOrder"]


class EpochOrder(Sampler[list[int]]):
    """Batches of indices; their order depends on the seed and the epoch only."""

    def __init__(self, count: int, settings: DataSettings, shuffle: bool, purpose: str) -> None:
        self._count = count
        self._settings = settings
        self._shuffle = shuffle
        self._purpose = purpose
        self._epoch = 0
        self._skip = 0
        self._begun: list[int] | None = None  # the order of the epoch, until it is asked for
        # The loader seeds its workers from it; one of its own keeps torch's global state out of that.
        self.worker_seeds = torch.Generator()

    def start(self, epoch: int, skip: int) -> None:
        """Begin epoch ``epoch`` (from 0) after its first ``skip`` batches.

        A sampler of the user's chooses here: where it fails, no process has been started yet.
        """
        self._epoch, self._skip = epoch, skip
        self._begun = self._order()
        seeds = torch_generator(self._settings.seed, self._purpose, "workers", epoch)
        self.worker_seeds.set_state(seeds.get_state())

    def __len__(self) -> int:
        size = self._settings.batch_size
        return self._count // size if self._drops_last else math.ceil(self._count / size)

    @property
    def ends_with_one_sample(self) -> bool:
        """Returns true if the last batch has one sample, and others have more."""
        size = self._settings.batch_size
        return size > 1 and self._count % size == 1 and not self._drops_last

    @property
    def _drops_last(self) -> bool:
        return self._shuffle and self._settings.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        order, self._begun = self._order() if self._begun is None else self._begun, None
        size = self._settings.batch_size
        for batch in range(self._skip, len(self)):
            yield order[batch * size : (batch + 1) * size]
        self._skip = 0

    def _order(self) -> list[int]:
        if not self._shuffle:
            return list(range(self._count))
        generator = torch_generator(self._settings.seed, self._purpose, "order", self._epoch)
        order: list[int] = torch.randperm(self._count, generator=generator).tolist()
        return order


class SampledOrder(EpochOrder):
    """Batches of what the task's own sampler chooses; seeded anew for each epoch, so that a run can go on in one.

    Args:
        sampler: of indices; it has a length.
        count: samples there are.
        where: the user's file, for errors.
    """

    def __init__(self, sampler: Iterable[object], count: int, settings: DataSettings, purpose: str, where: str) -> None:
        super().__init__(len(cast("Sized", sampler)), settings, True, purpose)
        self._sampler = sampler
        self._samples = count
        self._where = where

    def _order(self) -> list[int]:
        seed = derive_seed(self._settings.seed, self._purpose, "order", self._epoch)
        own = getattr(self._sampler, "generator", None)
        if isinstance(own, torch.Generator):
            own.manual_seed(seed)
        if callable(getattr(self._sampler, "set_epoch", None)):
            self._sampler.set_epoch(self._epoch)  # type: ignore[attr-defined]
        with random_state.seeded(seed):
            chosen = list(self._sampler)
        for one in chosen:
            if not isinstance(one, (int, np.integer, Tensor)) or not 0 <= int(one) < self._samples:
                raise UserCodeError(
                    f"the sampler of train_sampler() chose {one!r}, it must choose samples from 0 to"
                    f" {self._samples - 1}, one after the other",
                    where=self._where,
                    hint="whole batches come from build_dataloaders(batch_size, workers)",
                )
        self._count = len(chosen)
        return [int(cast("int", one)) for one in chosen]
