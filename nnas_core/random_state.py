"""torch's side of randomness: generators for each purpose, and the global states that a checkpoint must keep."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from nnas_core.randomness import derive_seed

__all__ = ["bookmark", "capture", "from_json", "restore", "to_json", "torch_generator"]


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Returns a private CPU generator for the purpose ``names``."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def capture() -> dict[str, Any]:
    """Returns the global random states of torch (all devices), Python and numpy, as tensors and plain data."""
    version, state, gauss = random.getstate()
    numbers = np.random.get_state(legacy=False)
    twister = numbers["state"]
    captured: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(state, dtype=torch.int64), gauss],
        "numpy": [
            torch.from_numpy(twister["key"].astype(np.int64)),
            int(twister["pos"]),
            int(numbers["has_gauss"]),
            float(numbers["gauss"]),
        ],
    }
    if torch.cuda.is_available():
        captured["cuda"] = torch.cuda.get_rng_state_all()
    return captured


def restore(captured: Mapping[str, Any]) -> None:
    """Sets the global random states to what ``capture`` saw."""
    torch.set_rng_state(captured["torch"])
    version, state, gauss = captured["python"]
    random.setstate((version, tuple(state.tolist()), gauss))
    keys, position, has_gauss, cached = captured["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in captured and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(captured["cuda"])


def to_json(captured: Mapping[str, Any]) -> dict[str, Any]:
    """Writes what ``capture`` saw for another process."""
    version, state, gauss = captured["python"]
    keys, *rest = captured["numpy"]
    document = {
        "torch": captured["torch"].tolist(),
        "python": [version, state.tolist(), gauss],
        "numpy": [keys.tolist(), *rest],
    }
    return {**document, "cuda": [one.tolist() for one in captured["cuda"]]} if "cuda" in captured else document


def from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what ``to_json`` wrote; of GPUs, as many as this process has."""
    version, state, gauss = document["python"]
    keys, *rest = document["numpy"]
    captured: dict[str, Any] = {
        "torch": torch.tensor(document["torch"], dtype=torch.uint8),
        "python": [version, torch.tensor(state, dtype=torch.int64), gauss],
        "numpy": [torch.tensor(keys, dtype=torch.int64), *rest],
    }
    if "cuda" in document:
        states = document["cuda"][: torch.cuda.device_count()]
        captured["cuda"] = [torch.tensor(one, dtype=torch.uint8) for one in states]
    return captured


def bookmark() -> Callable[[], None]:
    """Returns a function that brings the present global random states back; quicker than ``capture``."""
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None

    def back() -> None:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if of_cuda is not None:
            torch.cuda.set_rng_state_all(of_cuda)

    return back
