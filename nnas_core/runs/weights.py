"""The weights of a supernet come from its checkpoint, after it is seen that both belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import InputError
from nnas_core.runs.checkpoint import CheckpointHeader, read_checkpoint
from nnas_core.space.search_space import SearchSpace

__all__ = ["check_space", "check_weights", "load_weights", "weights_digest"]


def check_space(header: CheckpointHeader, space: SearchSpace, where: str) -> None:
    """Refuse a checkpoint of another search space.

    Raises:
        InputError: with a line for each key that differs.
    """
    if "space" not in header:
        raise InputError(
            "is no checkpoint of a supernet, it has no search space",
            where=where,
            hint="take one of `nnas search`",
        )
    theirs = SearchSpace.from_json(header["space"], where)
    if theirs != space:
        raise InputError(
            "belongs to another search space",
            where=where,
            problems=space.differences(theirs, ("the model", "the checkpoint")),
            hint="take the checkpoint of this model, and the same `model_arg` as then",
        )


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights of another model, before anything is loaded.

    Raises:
        InputError: with the first differences of names and shapes.
    """
    own = model.state_dict()
    problems = [f"{name}: missing in the checkpoint" for name in own if name not in weights]
    problems += [f"{name}: not in the model" for name in weights if name not in own]
    problems += [
        f"{name}: shape {list(weights[name].shape)} in the checkpoint, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        raise InputError(
            f"the weights are of another model ({len(problems)} differences)",
            where=where,
            problems=problems[:3] + more,
            hint="give the `model_arg` that the checkpoint was made with",
        )


def load_weights(model: nn.Module, path: str | Path, space: SearchSpace) -> CheckpointHeader:
    """Load a supernet's weights from a checkpoint of ``nnas search``.

    Returns:
        The checkpoint's header.

    Raises:
        InputError: it cannot be read, or is of another space or model.
    """
    content = read_checkpoint(path)
    check_space(content["header"], space, str(path))
    check_weights(model, content["state"]["model"], str(path))
    model.load_state_dict(content["state"]["model"])
    return content["header"]


def weights_digest(model: nn.Module) -> str:
    """``sha256:`` and the beginning of the hash of all weights and buffers: equal for equal bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
