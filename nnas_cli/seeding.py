"""The global random generators are seeded here, once a command, for user code that draws from them."""

from __future__ import annotations

import random

import numpy as np
import torch

from nnas_core.randomness import derive_seed

__all__ = ["seed_globals"]


def seed_globals(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))
