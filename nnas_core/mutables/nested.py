"""Batches, targets and arguments are tensors in nested lists, tuples and dictionaries: one way to walk through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, cast

from torch import Tensor

__all__ = ["changed", "tensors"]

V = TypeVar("V")


def changed(value: V, change: Callable[[object], object]) -> V:
    """Return the same nesting with ``change`` applied to everything in it that is no collection.

    Lists, tuples and named tuples keep their class; a mapping becomes a dictionary.
    """
    result: object
    if isinstance(value, Mapping):
        result = {name: changed(entry, change) for name, entry in value.items()}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        result = type(value)(*(changed(entry, change) for entry in value))
    elif isinstance(value, (list, tuple)):
        result = type(value)(changed(entry, change) for entry in value)
    else:
        result = change(value)
    return cast("V", result)


def tensors(value: object) -> Iterator[Tensor]:
    """Give every tensor of a nesting, in its order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors(entry)
