"""Whether a state of a training, which a file brought, has the form of one that a trainer wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["check_form", "check_state"]

_GROUPS = "param_groups"


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], progress: Mapping[str, object]) -> None:
    """Compares a whole state with that of the trainer which is to take it, and with what is told of it.

    Args:
        state: from a file.
        own: the trainer's own.
        progress: the epoch, batch and step that it shall be at.

    Raises:
        ValueError: the first difference.
    """
    if state["progress"] != {name: progress[name] for name in ("epoch", "batch", "step")}:
        raise ValueError("the progress is another one than its header tells")
    for number, record in enumerate(state["history"]):
        for name in ("train", "valid"):
            if not all(isinstance(value, float) for value in record[name].values()):
                raise ValueError(f"state.history[{number}].{name} has a value that is no number")
    check_form(state, own)


def check_form(given: object, own: object, place: str = "state") -> None:
    """Compares a state with that of the trainer which is to take it, as far as both have the same entries.

    Numbers must be finite numbers, tensors of one type, texts texts, and what an optimizer remembers of each of its
    parameters the same things. Weights are compared elsewhere.

    Args:
        given: a state, or a part of it.
        own: the same part of the trainer's own state.
        place: of the part, for the error.

    Raises:
        ValueError: the first difference, with its place.
    """
    if isinstance(own, Mapping):
        if not isinstance(given, Mapping):
            raise ValueError(f"{place} is no dictionary")
        if _GROUPS in own:
            _check_optimizer(given, own, place)
            return
        for name in own:
            if name in given:
                check_form(given[name], own[name], f"{place}.{name}")
    elif isinstance(own, Tensor):
        if not isinstance(given, Tensor) or given.dtype != own.dtype:
            raise ValueError(f"{place} is no tensor of {own.dtype}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(given, (list, tuple)):
            raise ValueError(f"{place} is no list")
    elif own is not None and given is not None:
        _check_leaf(given, own, place)


def _check_leaf(given: object, own: object, place: str) -> None:
    is_number = isinstance(own, (int, float)) and not isinstance(own, bool)
    if is_number and not _is_number(given):
        raise ValueError(f"{place} is no finite number")
    if not is_number and type(given) is not type(own):
        raise ValueError(f"{place} is no {type(own).__name__}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_optimizer(given: Mapping[str, object], own: Mapping[str, object], place: str) -> None:
    theirs, ours = given[_GROUPS], own[_GROUPS]
    if not isinstance(theirs, list) or not isinstance(ours, list) or len(theirs) != len(ours):
        raise ValueError(f"{place} has other groups of parameters")
    for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        if not isinstance(one, Mapping) or set(other) - set(one) or one["params"] != other["params"]:
            raise ValueError(f"{place} has other parameters in group {number}")
        check_form(one, other, f"{place}.{_GROUPS}[{number}]")
    remembered = given["state"]
    if not isinstance(remembered, Mapping) or not all(isinstance(one, Mapping) for one in remembered.values()):
        raise ValueError(f"{place}.state is no dictionary of dictionaries")
    entries = list(remembered.values())
    for entry in entries:
        if set(entry) != set(entries[0]):
            raise ValueError(f"{place}.state has other entries for one parameter than for another")
        for name, value in entry.items():
            if type(value) is not type(entries[0][name]) and None not in (value, entries[0][name]):
                raise ValueError(f"{place}.state has a {name} of another kind for one parameter than for another")
            if not isinstance(value, Tensor) and value is not None and not _is_number(value):
                raise ValueError(f"{place}.state has a {name} that is no number")
        shapes = {value.shape for value in entry.values() if isinstance(value, Tensor) and value.dim() > 0}
        if len(shapes) > 1:
            raise ValueError(f"{place}.state has values of several shapes for one parameter")
