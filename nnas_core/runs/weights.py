"""The weights of a supernet come from its checkpoint, after it is seen that both belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core._listing import listed
from nnas_core.errors import InputError
from nnas_core.runs.checkpoint import (
    CheckpointHeader,
    RunFacts,
    check_header,
    read_checkpoint,
    read_plain,
    taking_state,
)
from nnas_core.runs.digests import candidates_of, check_candidates
from nnas_core.space.search_space import SearchSpace

__all__ = ["changes", "check_run", "check_space", "check_weights", "examine", "load_weights", "weights_digest"]


def check_run(header: CheckpointHeader, facts: RunFacts, where: str) -> None:
    """Refuse a checkpoint of another run: of another command, mutator, seed, architecture, or with other candidates.

    Raises:
        InputError: with a line for each difference.
    """
    before: Mapping[str, object] = header
    now: Mapping[str, object] = facts
    problems = [
        f"{name}: {before[name]!r} in the checkpoint, {now[name]!r} in the run"
        for name in ("command", "mutator", "mutator_arg", "seed")
        if name in before and name in now and before[name] != now[name]
    ]
    theirs, own = header.get("digests", {}), facts.get("digests", {})
    if theirs.get("architecture", own.get("architecture")) != own.get("architecture"):
        problems.append("architecture: another one in the checkpoint than in the run")
    if problems:
        raise InputError(
            "is a checkpoint of another run",
            where=where,
            problems=problems,
            hint="put the run's own checkpoint back, or begin a new run",
        )
    check_candidates(theirs.get("candidates"), own.get("candidates", {}), where)


def changes(header: CheckpointHeader, facts: RunFacts) -> list[str]:
    """What has changed in code and data since a checkpoint was written, in one line each: it may be meant."""
    before, now = header.get("digests", {}), facts.get("digests", {})
    code, samples = now.get("code", {}), now.get("samples", {})
    found = [
        f"{name} has changed since the checkpoint was written"
        for name, digest in sorted(before.get("code", {}).items())
        if code.get(name, digest) != digest
    ]
    found += [
        f"the {name} data has {samples[name]} samples, and had {size} when the checkpoint was written"
        for name, size in sorted(before.get("samples", {}).items())
        if samples.get(name, size) != size
    ]
    return found


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
    if not isinstance(weights, Mapping):
        raise InputError("is damaged: it has no weights", where=where)
    problems = [f"{name}: missing in the checkpoint" for name in own if name not in weights]
    problems += [f"{name}: not in the model" for name in weights if name not in own]
    problems += [
        f"{name}: {_described(weights[name])} in the checkpoint, {_described(entry)} in the model"
        for name, entry in own.items()
        if name in weights and _described(weights[name]) != _described(entry)
    ]
    if problems:
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        raise InputError(
            f"the weights are of another model ({len(problems)} differences)",
            where=where,
            problems=problems[:3] + more,
            hint="give the `model_arg` that the checkpoint was made with",
        )


def _described(entry: object) -> str:
    """The shape of weights; extra state of a module may be of any kind."""
    return f"shape {list(entry.shape)}" if isinstance(entry, Tensor) else "no tensor"


def load_weights(model: nn.Module, path: str | Path, space: SearchSpace) -> CheckpointHeader:
    """Load a supernet's weights from a checkpoint of ``nnas search``.

    Returns:
        The checkpoint's header.

    Raises:
        InputError: it cannot be read, or is of another space or model.
    """
    content = read_checkpoint(path)
    check_space(content["header"], space, str(path))
    check_candidates(content["header"].get("digests", {}).get("candidates"), candidates_of(model), str(path))
    with taking_state(str(path)):
        check_weights(model, content["state"]["model"], str(path))
        model.load_state_dict(content["state"]["model"])
    return content["header"]


def examine(path: str | Path) -> tuple[CheckpointHeader | None, list[str]]:
    """Look at a file of torch.

    Returns:
        The header of a checkpoint; or None, and what is wrong with weights: they are tensors by name.

    Raises:
        InputError: neither, or damaged.
    """
    content = read_plain(path)
    if "header" in content:
        check_header(content, str(path))
        return cast("CheckpointHeader", content["header"]), []
    wrong = [f"{name!r} is no tensor by name" for name, value in content.items() if not isinstance(value, Tensor)]
    return None, listed(wrong) or ([] if content else ["holds nothing"])


def weights_digest(model: nn.Module) -> str:
    """``sha256:`` and the beginning of the hash of all weights and buffers: equal for equal bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
