"""The global random generators are seeded here, once a command, for user code that draws from them."""

from __future__ import annotations

import random
import sys

import numpy as np

from nnas_core.randomness import derive_seed

__all__ = ["seed_globals"]


def seed_globals(seed: int) -> None:
    """Seed Python and numpy, and torch if it is loaded: a study of a command goes without."""
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    if "torch" in sys.modules:
        import torch

        # where there is no accelerator, torch.manual_seed notes for each kind of it who asked: that takes milliseconds
        seed_torch = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
        seed_torch(derive_seed(seed, "torch"))
