"""Facts of this process that may change the last bits of a result: they stand in the header of each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["machine_changes", "machine_facts"]


def machine_facts() -> dict[str, object]:
    """Threads and the version of torch."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}


def machine_changes(before: Mapping[str, object]) -> list[str]:
    """One line for each fact that is otherwise than in the header of a checkpoint."""
    return [f"{name} {before[name]} -> {value}" for name, value in machine_facts().items() if before[name] != value]
