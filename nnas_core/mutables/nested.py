"""Batches, targets and arguments are tensors in nested lists, tuples and dictionaries: one way to walk through them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TypeVar, cast

from torch import Tensor

__all__ = ["changed", "copied", "first_row", "merged", "tensors"]

V = TypeVar("V")


def changed(value: V, change: Callable[[object], object], whole: Callable[[object], bool] = lambda one: False) -> V:
    """Return the same nesting with ``change`` applied to everything in it that is no collection.

    Lists, tuples, named tuples and mappings keep their class; a mapping that cannot be made anew becomes a dictionary.

    Args:
        value: nested collections.
        change: of one thing.
        whole: true for a collection that ``change`` takes as it is.
    """
    if whole(value):
        return cast("V", change(value))
    result: object
    if isinstance(value, Mapping):
        result = _of_class(value, {name: changed(entry, change, whole) for name, entry in value.items()})
    elif isinstance(value, (list, tuple)):
        result = _like(value, [changed(entry, change, whole) for entry in value])
    else:
        result = change(value)
    return cast("V", result)


def copied(value: V) -> V:
    """Return the same nesting with copies of its tensors, which may be changed in place."""
    return changed(value, lambda one: one.clone() if isinstance(one, Tensor) else one)


def merged(values: Sequence[object], merge: Callable[[Sequence[object]], object]) -> object:
    """Return one nesting of several equal ones: ``merge`` makes one entry of those that stand in the same place.

    Where they are not equal, ``merge`` gets the collections that differ.
    """
    first = values[0]
    if isinstance(first, Mapping) and all(isinstance(one, Mapping) and one.keys() == first.keys() for one in values):
        named = cast("Sequence[Mapping[object, object]]", values)
        return {name: merged([one[name] for one in named], merge) for name in first}
    if isinstance(first, (list, tuple)) and all(type(one) is type(first) and len(one) == len(first) for one in values):
        together = zip(*cast("Sequence[tuple[object]]", values), strict=True)
        return _like(first, [merged(entries, merge) for entries in together])
    return merge(values)


def _like(like: list[object] | tuple[object, ...], entries: list[object]) -> object:
    """A list or tuple of the class of ``like`` with other entries, whatever its constructor takes."""
    if isinstance(like, list):
        items = copy.copy(like)  # with its attributes
        items[:] = entries
        return items
    make = cast("Callable[..., object]", type(like))
    if hasattr(like, "_fields"):
        return make(*entries)
    try:
        return make(entries)
    except TypeError:
        another = tuple.__new__(type(like), entries)
        getattr(another, "__dict__", {}).update(getattr(like, "__dict__", {}))
        return another


def _of_class(like: Mapping[object, object], entries: dict[object, object]) -> Mapping[object, object]:
    """A mapping of the class of ``like`` with other entries under the same names."""
    if type(like) is dict:
        return entries
    try:
        if isinstance(like, MutableMapping):  # a copy keeps what else there is: a default, attributes
            another = copy.copy(like)
            another.update(entries)
            return another
        make: Callable[[Mapping[object, object]], Mapping[object, object]] = type(like)
        return make(entries)
    except TypeError:
        return entries


def first_row(batch: V) -> V | None:
    """The first sample of a batch: the first row of every tensor that has as many rows as the first one.

    Returns:
        Copies, nested as the batch is; None if it has no tensor with rows.
    """
    rows = next((len(tensor) for tensor in tensors(batch) if tensor.dim() and len(tensor)), None)
    if rows is None:
        return None

    def first(one: object) -> object:
        return one[:1].detach().clone() if isinstance(one, Tensor) and one.dim() and len(one) == rows else one

    return changed(batch, first)


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
