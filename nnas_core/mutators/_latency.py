"""Latencies beside logits: a table as a matrix with an entry a candidate, and runs that keep to their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nnas_core.errors import InputError
from nnas_core.mutators._mixture import RelaxedRow
from nnas_core.space.search_space import SearchSpace

__all__ = ["latency_matrix", "require_same_latencies"]


def latency_matrix(latencies: Mapping[str, Sequence[float]], rows: Sequence[RelaxedRow], logits: Tensor) -> Tensor:
    """``[K, W]``: the latency of each candidate, where its logit is; 0 where none is.

    Args:
        latencies: of all candidates by key, as ``read_latencies`` gives them; empty: all are 0.
        rows: of the logits.
        logits: ``[K, W]``, whose device and dtype the result has.
    """
    costs = torch.zeros(logits.shape, dtype=torch.float64)
    for row in rows if latencies else ():
        costs[row.index, : row.count] = torch.tensor(latencies[row.key], dtype=torch.float64)
    return costs.to(logits.device, logits.dtype)


def require_same_latencies(
    before: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]], space: SearchSpace
) -> None:
    """Makes sure that a run goes on with the latencies that it was started with.

    Args:
        before, now: of all candidates of ``space``, by key and in order; empty: there is no table.
        space: names the candidates.

    Raises:
        InputError: they differ; every difference is listed.
    """
    problems = []
    for choice in sorted(space, key=lambda choice: choice.key):
        for index, name in enumerate(choice.candidates):
            old, new = (str(table[choice.key][index]) if table else "none" for table in (before, now))
            if old != new:
                problems.append(f"{choice.key}, {name!r}: {old} before, {new} now")
    if problems:
        raise InputError(
            "the latency table is not the one that the run was started with",
            problems=problems,
            hint="put the old table back, or start a new run",
        )
