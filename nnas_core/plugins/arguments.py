"""The arguments of algorithms: one check of what a user gave against what a constructor takes, for all kinds."""

from __future__ import annotations

import difflib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar, Union

from nnas_core.errors import NnasError, UsageError, shortened
from nnas_core.plugins.loading import as_user_error

__all__ = ["check_arguments", "check_count", "check_flag", "check_range", "construct", "sign_of"]

_T = TypeVar("_T")

_NAMES: dict[object, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}
"""Types in words."""

_SOURCES = {"seed": "`seed`", "optimize_mode": "the metric's mode"}
"""The origin of arguments that nnas gives, and that users may take for theirs."""


def construct(
    cls: type[_T],
    given: Mapping[str, object],
    what: str,
    *positional: object,
    provided: Mapping[str, object] | None = None,
) -> _T:
    """Build a mutator, tuner or assessor.

    Args:
        cls: its class.
        given: of the user, as JSON literals by name.
        what: the algorithm in errors: ``"mutator 'darts'"``.
        positional: the first arguments, whatever the constructor calls them.
        provided: more arguments that nnas gives; the constructor gets those that it names.

    Raises:
        UsageError: as ``check_arguments``, or the constructor cannot do anything with a value.
    """
    provided = provided or {}
    checked = check_arguments(cls, given, what, list(provided), len(positional))
    named = _parameters(cls, (), len(positional))
    make: Callable[..., _T] = cls
    ours = {name: value for name, value in provided.items() if name in named}
    try:
        return make(*positional, **checked, **ours)
    except NnasError:
        raise
    except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
        if not checked or as_user_error(error) is not None:
            raise  # no argument of the user's is to blame, or their own class is
        raise UsageError(
            f"the {what} cannot be made with {_assignments(checked)}: {str(error) or type(error).__name__}",
            hint=f"give other values of `{what.split(' ')[0]}_arg`",
        ) from error


def _assignments(given: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={shortened(json.dumps(value), 80)}" for name, value in given.items())


def check_arguments(
    cls: type[object], given: Mapping[str, object], what: str, provided: Sequence[str] = (), leading: int = 0
) -> dict[str, object]:
    """Compare arguments, as JSON literals, with the signature of a constructor.

    Args:
        cls: whose constructor.
        given: by name.
        what: the algorithm in errors: ``"mutator 'darts'"``.
        provided: parameters that nnas itself fills.
        leading: how many of the first parameters it fills too, whatever they are called.

    Returns:
        ``given``, with whole numbers as floats where floats are expected.

    Raises:
        UsageError: an argument is unknown, missing, or of another type than its annotation says.
    """
    for name in given:
        if name in provided and name in _SOURCES:
            raise UsageError(f"{what}: {name} is not an argument, it comes from {_SOURCES[name]}")
    parameters = _parameters(cls, provided, leading)
    takes = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
    _refuse_unknown(cls, given, parameters, what, takes)
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in given]
    if missing:
        kind = what.split(" ")[0]
        how = "give it a default" if kind == "trainer" else f"give `{kind}_arg` {missing[0]}=..."
        raise UsageError(f"the {what} needs the argument {missing[0]!r}", hint=how)
    hints = _annotations(cls)
    checked = {}
    for name, value in given.items():
        annotation = hints.get(name, object)
        if not _fits(value, annotation):
            raise UsageError(
                f"the {what} cannot take {_assignments({name: value})}, it must be {_described(annotation)}", hint=takes
            )
        _refuse_no_quantity(name, value, what)
        checked[name] = float(value) if annotation is float and isinstance(value, int) else value
    return checked


_MOST = 1e15
"""The largest number that an algorithm can mean; floats count every whole one up to it."""


def _refuse_no_quantity(name: str, value: object, what: str) -> None:
    """Refuse numbers that are no quantities, also within lists and objects."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for one in inner:
        _refuse_no_quantity(name, one, what)
    if isinstance(value, (int, float)) and not -_MOST <= value <= _MOST:  # NaN is neither
        raise UsageError(
            f"the {what} cannot take {name}={shortened(_digits(value), 40)}",
            hint="numbers must be finite, and at most 10^15 in size",
        )


def _digits(value: float) -> str:
    try:
        return str(value)
    except ValueError:
        return "a number of thousands of digits"


def _parameters(cls: type[object], provided: Sequence[str], leading: int) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor that are the user's."""
    every = inspect.signature(cls).parameters.values()
    positional = [one for one in every if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    named = [*positional[leading:], *(one for one in every if one.kind is one.KEYWORD_ONLY)]
    return {one.name: one for one in named if one.name not in provided}


def _refuse_unknown(
    cls: type[object], given: Mapping[str, object], parameters: Mapping[str, object], what: str, takes: str
) -> None:
    unknown = [name for name in given if name not in parameters]
    if not unknown or any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values()):
        return
    near = difflib.get_close_matches(unknown[0], parameters, n=1)
    raise UsageError(
        f"the {what} takes no argument {unknown[0]!r}",
        hint=(f"did you mean {near[0]!r}? " if near else "") + takes,
    )


def check_range(name: str, value: float, interval: str) -> None:
    """Refuse a number outside an interval.

    Args:
        name: of the argument.
        value: of the argument.
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
        value: of the argument; truth values are no numbers.
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
    """The factor of a metric with which larger is better; ``name`` as in ``check_count``.

    Returns:
        1.0 for ``"maximize"``, -1.0 for ``"minimize"``.

    Raises:
        UsageError: it is neither.
    """
    signs = {"maximize": 1.0, "minimize": -1.0}
    if optimize_mode not in signs:
        raise UsageError(f"{name} must be maximize or minimize, not {optimize_mode!r}")
    return signs[optimize_mode]


def _annotations(cls: type[object]) -> dict[str, object]:
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError):  # a class of the user's may name types that exist for its checker only
        return {}


def _fits(value: object, annotation: object) -> bool:
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


def _described(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(json.dumps(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin in (list, Sequence):
        return f"a list, each {_described(arguments[0])}"
    if origin in (dict, Mapping):
        return f"an object, each value {_described(arguments[1])}"
    names: dict[object, str] = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    return names.get(annotation, str(annotation))
