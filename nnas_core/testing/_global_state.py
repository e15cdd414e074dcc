"""The global random states that an algorithm must neither use nor change."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from nnas_core.random_state import untouched

__all__ = ["global_state", "under_other_states"]

T = TypeVar("T")


def under_other_states(call: Callable[[], T]) -> tuple[T, T]:
    """Returns what ``call`` returns under one global random state and under another; both are taken back."""
    return _seeded(3, call), _seeded(4, call)


def _seeded(seed: int, call: Callable[[], T]) -> T:
    with untouched({}):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return call()


def global_state() -> str:
    """Returns all global random states as text."""
    numpy_state = [np.asarray(part).tolist() for part in np.random.get_state()]
    return repr((random.getstate(), numpy_state, torch.get_rng_state().tolist()))
