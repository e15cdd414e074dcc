"""The arguments of algorithms: what a constructor takes, and whether what a user gave fits it."""

from __future__ import annotations

import difflib
import inspect
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from nnas_core.errors import UsageError

__all__ = ["check_arguments", "check_count", "check_flag", "check_range", "sign_of"]


def check_arguments(
    cls: type[Any], given: Mapping[str, Any], what: str, provided: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare arguments, as JSON literals, with the signature of a constructor.

    Args:
        cls: whose constructor.
        given: by name.
        what: the algorithm in errors: ``"mutator 'darts'"``.
        provided: parameters that nnas itself fills.

    Returns:
        ``given``, with whole numbers as floats where floats are expected.

    Raises:
        UsageError: an argument is unknown, missing, or of another type than its annotation says.
    """
    parameters = {
        name: one
        for name, one in inspect.signature(cls).parameters.items()
        if name not in provided and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    takes_any = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values())
    takes = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
    unknown = [name for name in given if name not in parameters]
    if unknown and not takes_any:
        near = difflib.get_close_matches(unknown[0], parameters, n=1)
        raise UsageError(
            f"the {what} takes no argument {unknown[0]!r}",
            hint=(f"did you mean {near[0]!r}? " if near else "") + takes,
        )
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in given]
    if missing:
        kind = what.split(" ")[0]
        raise UsageError(f"the {what} needs the argument {missing[0]!r}", hint=f"give --{kind}-arg {missing[0]}=...")
    hints = _annotations(cls)
    checked = {}
    for name, value in given.items():
        annotation = hints.get(name, Any)
        if not _fits(value, annotation):
            raise UsageError(
                f"the {what} cannot take {name}={json.dumps(value)}, it must be {_described(annotation)}", hint=takes
            )
        checked[name] = float(value) if annotation is float and type(value) is int else value
    return checked


def check_range(name: str, value: float, interval: str) -> None:
    """Refuse a number outside an interval.

    Args:
        name: of the argument.
        value: what was given.
        interval: as mathematics writes it: ``"(0, inf)"``, ``"[0, 1)"``; a bracket includes its end.

    Raises:
        UsageError: it lies outside, or is not a number.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if not (above and below):
        raise UsageError(f"{name}={value} is out of range", hint=f"it must be in {interval}")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least``.

    Args:
        name: of the argument, as the message shall name it: ``"evolution: population"``.
        value: what was given; truth values are no numbers.
        least: the smallest that is allowed.

    Raises:
        UsageError: it is smaller, or no ``int``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False; ``name`` as in ``check_count``.

    Raises:
        UsageError: it is something else, 0 and 1 included.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r}")


def sign_of(name: str, optimize_mode: str) -> float:
    """What a metric is multiplied by, so that larger is better; ``name`` as in ``check_count``.

    Returns:
        1.0 for ``"maximize"``, -1.0 for ``"minimize"``.

    Raises:
        UsageError: it is neither.
    """
    signs = {"maximize": 1.0, "minimize": -1.0}
    if optimize_mode not in signs:
        raise UsageError(f"{name} must be maximize or minimize, not {optimize_mode!r}")
    return signs[optimize_mode]


def _annotations(cls: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError):  # a class of the user's may name types that exist for its checker only
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is type(None):
        return value is None
    if origin in (list, Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(one, arguments[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, arguments[1]) for one in value.values())
    return True  # an annotation that no JSON literal can contradict


def _described(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(json.dumps(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin in (list, Sequence):
        return f"a list, each {_described(arguments[0])}"
    if origin in (dict, Mapping):
        return f"an object, each value {_described(arguments[1])}"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(annotation, str(annotation))
