"""Are two modules the same but for their weights? So a constructor is judged by what it makes."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType

import torch
import torch.nn as nn
from torch import Tensor

__all__ = ["alike"]

_IGNORED = frozenset({"training", "key", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})


def alike(one: nn.Module, other: nn.Module) -> bool:
    """True if two modules have the same parts, of the same classes, with the same shapes and attributes.

    Values of weights, and of what else a ``state_dict`` has, do not count; all other tensors do.
    """
    ours, theirs = dict(one.named_modules(remove_duplicate=False)), dict(other.named_modules(remove_duplicate=False))
    if ours.keys() != theirs.keys() or _ties(one) != _ties(other):
        return False
    return all(_same_part(ours[path], theirs[path]) for path in ours)


def _ties(module: nn.Module) -> list[list[str]]:
    places: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        places.setdefault(id(part), []).append(path)
    for path, tensor in module.named_parameters(remove_duplicate=False):
        places.setdefault(id(tensor), []).append(path)
    return sorted(paths for paths in places.values() if len(paths) > 1)


def _same_part(one: nn.Module, other: nn.Module) -> bool:
    if type(one) is not type(other) or one._non_persistent_buffers_set != other._non_persistent_buffers_set:
        return False
    for ours, theirs in ((one._parameters, other._parameters), (one._buffers, other._buffers)):
        if ours.keys() != theirs.keys() or not all(_same_shape(ours[name], theirs[name]) for name in ours):
            return False
    values = all(_same_value(one._buffers[name], other._buffers[name]) for name in one._non_persistent_buffers_set)
    mine, its = _attributes(one), _attributes(other)
    return values and mine.keys() == its.keys() and all(_same_value(mine[name], its[name]) for name in mine)


def _attributes(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in _IGNORED}


def _same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other is None or (one is not None and other is not None and one.shape == other.shape)


def _same_value(one: object, other: object) -> bool:
    if isinstance(one, nn.Parameter) and isinstance(other, nn.Parameter):
        return one.shape == other.shape  # one of its weights once more
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.to(other.dtype), other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_value(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same_value, one, other))
    if isinstance(one, nn.Module):
        return True  # a part of it, which is compared as one
    plain = (bool, int, float, str, bytes, complex, type(None), type, torch.dtype, torch.device, set, frozenset)
    if isinstance(one, plain):
        return one is other or one == other
    if isinstance(one, FunctionType | MethodType):
        return one.__code__ is getattr(other, "__code__", None)
    if isinstance(one, BuiltinFunctionType):
        return one is other
    return True  # an object of the user's: what it does is seen when the source is run
