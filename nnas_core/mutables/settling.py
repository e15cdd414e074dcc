"""A model becomes one of its architectures, for good and in place, as ``extract`` makes a copy become it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, cast

import torch.nn as nn

from nnas_core.mutables.base import MutableScope
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.extraction import replacement
from nnas_core.mutables.fixed import FixedArchitecture
from nnas_core.space.architecture import Architecture

__all__ = ["settle"]


def settle(model: nn.Module, architecture: Architecture | Mapping[str, Any]) -> nn.Module:
    """Make ``model`` the plain module that ``extract`` gives, without a copy.

    Functions that close over the model, hooks and scripted parts go on working, because everything stays what it is.
    The weights that are not used are gone.

    Args:
        model: the supernet, bound to no mutator.
        architecture: an ``Architecture``, or any form of one.

    Returns:
        The model; a choice that is the model itself gives what stands for it.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        UserCodeError: as ``extract``.
    """
    fixed = FixedArchitecture(model, architecture)
    fixed.reset()  # for what the replacements below do not reach, such as a choice that a function closes over
    masks = {key: mask.tolist() for key, mask in fixed.sample_search().items()}
    modules = list(model.modules())
    made: dict[int, object] = {}
    for mutable in fixed.undedup_mutables:
        made[id(mutable._given_key)] = mutable.key  # where the model stored it before it was numbered
        if isinstance(mutable, LayerChoice | InputChoice):
            made[id(mutable)] = replacement(mutable, masks[mutable.key], lambda candidate: candidate)
    seen: set[int] = set()
    for module in modules:
        if isinstance(module, LayerChoice | InputChoice):
            continue
        for name, value in list(vars(module).items()):
            new = _replaced(value, made, seen)
            if new is not value:
                vars(module)[name] = new
        if isinstance(module, MutableScope):
            module.retire()
            module.release()
    return cast("nn.Module", made.get(id(model), model))


def _replaced(value: object, made: Mapping[int, object], seen: set[int]) -> object:
    """``value``, in which choices are replaced, within collections too; these stay the objects that they are."""
    if id(value) in made:
        return made[id(value)]
    if type(value) is tuple:
        new = tuple(_replaced(one, made, seen) for one in value)
        return value if all(map(operator.is_, new, value)) else new
    if id(value) in seen:
        return value
    if isinstance(value, list):
        seen.add(id(value))
        value[:] = [_replaced(one, made, seen) for one in value]
    elif isinstance(value, dict):
        seen.add(id(value))
        for key in list(value):
            value[key] = _replaced(value[key], made, seen)
    return value
