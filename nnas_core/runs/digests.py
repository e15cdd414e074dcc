"""What a run depends on besides its options, as its checkpoints tell it: code, candidates, sizes of the data."""

from __future__ import annotations

import hashlib
from typing import TypedDict

import torch.nn as nn

from nnas_core.errors import InputError
from nnas_core.mutables.choices import LayerChoice

__all__ = ["Candidates", "Digests", "candidates_of", "check_candidates"]

Candidates = dict[str, dict[str, str]]
"""Key -> name of a candidate -> the classes of its modules."""

_LONGEST = 120
_SHOWN = 10


class Digests(TypedDict, total=False):
    """What the options of a run do not say.

    Attributes:
        code: file of the user's, from the folder of the model -> digest of its content.
        candidates: of a supernet.
        samples: name of a data set -> its size; those of unknown size are left out.
        architecture: digest of the architecture that is trained alone.
    """

    code: dict[str, str]
    candidates: Candidates
    samples: dict[str, int]
    architecture: str


def candidates_of(model: nn.Module) -> Candidates:
    """The classes of all candidates of a model; equal keys share the first one's."""
    found: Candidates = {}
    for module in model.modules():
        if isinstance(module, LayerChoice):
            found.setdefault(module.key, _named_classes(module))
    return found


def _named_classes(choice: LayerChoice) -> dict[str, str]:
    return {name: _classes(module) for name, module in zip(choice.names, choice.candidates, strict=True)}


def _classes(module: nn.Module) -> str:
    """``ReLU``, or ``Sequential(Linear, ReLU)``; long ones are cut, with a digest of the whole."""
    first, *inner = [type(one).__qualname__ for one in module.modules()]
    text = f"{first}({', '.join(inner)})" if inner else first
    return text if len(text) <= _LONGEST else f"{text[:80]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def check_candidates(before: Candidates | None, now: Candidates, where: str) -> None:
    """Refuse a checkpoint whose candidates were of other classes; one of an older nnas does not say.

    Raises:
        InputError: with a line for each candidate that differs.
    """
    problems = [
        f"{key}: {name} is {now[key][name]} in the model, {classes} in the checkpoint"
        for key, named in sorted((before or {}).items())
        for name, classes in named.items()
        if key in now and now[key].get(name, classes) != classes
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise InputError(
            "belongs to a model with other candidates",
            where=where,
            problems=problems[:_SHOWN] + more,
            hint="take the model as it was then, or begin a new search",
        )
