"""Facts of this process: those that may change the last bits of a result stand in the header of each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nnas_core.machine import Machine, this_machine

__all__ = ["machine_changes", "machine_facts", "machine_of"]


def machine_facts() -> dict[str, object]:
    """Threads and the version of torch."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}


def machine_changes(before: Mapping[str, object]) -> list[str]:
    """One line for each fact that is otherwise than in the header of a checkpoint."""
    return [f"{name} {before[name]} -> {value}" for name, value in machine_facts().items() if before[name] != value]


def machine_of(device: torch.device) -> Machine:
    """This machine, for those who report what was computed on ``device``."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return this_machine(("torch", "numpy"), torch.get_num_threads(), str(device), accelerator)
