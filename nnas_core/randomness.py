"""All randomness of nnas comes from one seed: each purpose gets its own stream, derived by name.

A stream is a function of (seed, names), not of how many numbers others drew before; that is what lets a
resumed run go on with the numbers it would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive_seed", "generator"]


def derive_seed(seed: int, *names: str | int) -> int:
    """Returns a 63-bit seed for the purpose ``names``, stable over processes, machines and versions of nnas."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns a private numpy generator for the purpose ``names``."""
    return np.random.default_rng(derive_seed(seed, *names))
