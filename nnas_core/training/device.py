"""The device of a training by its name, and the memory that was used there."""

from __future__ import annotations

import resource

import torch

from nnas_core.errors import EnvironmentFailure
from nnas_core.training.settings import check_device

__all__ = ["choose_device", "peak_memory_mb"]


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        EnvironmentFailure: the machine has no such device.
        UsageError: no such name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(name)
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFailure(
            f"the device {name} is not there ({torch.cuda.device_count()} GPUs found)",
            hint="use `device` cpu or auto",
        )
    return device


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far, in MiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
