"""Batches, targets and arguments are tensors in nested lists, tuples and dictionaries: one way to walk through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from torch import Tensor

__all__ = ["changed", "merged", "tensors"]

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


def merged(values: Sequence[object], merge: Callable[[Sequence[object]], object]) -> object:
    """Return one nesting of several equal ones: ``merge`` makes one entry of those that stand in the same place.

    Where they are not equal, ``merge`` gets the collections that differ.
    """
    first = values[0]
    if isinstance(first, Mapping) and all(isinstance(one, Mapping) and one.keys() == first.keys() for one in values):
        named = cast("Sequence[Mapping[object, object]]", values)
        return {name: merged([one[name] for one in named], merge) for name in first}
    if isinstance(first, (list, tuple)) and all(type(one) is type(first) and len(one) == len(first) for one in values):
        kind = cast("Callable[..., object]", type(first))
        entries = [merged(together, merge) for together in zip(*cast("Sequence[tuple[object]]", values), strict=True)]
        return kind(*entries) if hasattr(first, "_fields") else kind(entries)
    return merge(values)


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
