"""torch's side of randomness: generators for each purpose, and the global states that a checkpoint must keep."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnas_core.randomness import derive_seed

__all__ = [
    "bookmark",
    "capture",
    "capture_all",
    "from_json",
    "restore",
    "restore_all",
    "seeded",
    "set_torch_states",
    "to_json",
    "torch_generator",
    "torch_states",
    "untouched",
]


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


def capture_all(generators: Mapping[str, torch.Generator]) -> dict[str, Any]:
    """``capture()``, and the states of private generators by name."""
    return {"global": capture(), "generators": {name: one.get_state() for name, one in generators.items()}}


def restore_all(captured: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> None:
    """Set the global random states, and those of ``generators``, to what ``capture_all`` saw."""
    for name, one in generators.items():
        one.set_state(captured["generators"][name])
    restore(captured["global"])


@contextmanager
def untouched(generators: Mapping[str, torch.Generator]) -> Iterator[None]:
    """Bring the global random states, and those of ``generators``, back after the block."""
    # as each library has them: this is done often, and plain data for a checkpoint takes longer to make
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    private = {name: one.get_state() for name, one in generators.items()}
    try:
        yield
    finally:
        for name, one in generators.items():
            one.set_state(private[name])
        torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global random states of torch (CPU), Python and numpy follow from ``seed``; afterwards they are back.

    For user code that draws from them, where what it draws must not depend on what was drawn before.
    """
    of_torch, of_python = torch.Generator().manual_seed(seed), random.Random(seed)
    of_numpy: Any = np.random.MT19937(seed).state
    with untouched({}):
        torch.set_rng_state(of_torch.get_state())
        random.setstate(of_python.getstate())
        np.random.set_state(of_numpy)
        yield


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


def torch_states(device: torch.device) -> list[Tensor]:
    """torch's states on the CPU and on ``device``: all that an operation draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_torch_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Set what ``torch_states`` gave."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


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
