"""The types that options and arguments are read with; a value from a file or a variable passes them as well.

What a type takes can be computed with, printed and stored: numbers are finite and of a size that means something, texts
are UTF-8 without a zero byte.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import click

from nnas_core._json_text import literal
from nnas_core._listing import shortened
from nnas_core.errors import InputError, UsageError
from nnas_core.training.settings import cadence, check_device

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "ASSIGNMENT",
    "CADENCE",
    "COMMAND_LINE",
    "CONSTRAINT",
    "DEVICE",
    "DURATION",
    "FILE",
    "FILE_OR_CONTENT",
    "GPUS",
    "MOST_PROCESSES",
    "MOST_SEED",
    "OBJECTIVE",
    "SHAPE",
    "TEXT",
    "Count",
    "Number",
    "OrNone",
    "with_checked_texts",
]

_MOST = 10**9
"""The largest number of an option, unless it says otherwise: seconds are 31 years then, steps more than any run has."""

MOST_PROCESSES = 4096
"""Loaders, trials at once, or threads of one."""

MOST_SEED = 2**63 - 1
"""What databases can store."""


class Count(click.IntRange):
    """A whole number from ``least`` to ``most``."""

    def __init__(self, least: int, most: int = _MOST) -> None:
        super().__init__(least)  # only the lower end stands in the help
        self._most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = _shown(value)
        if isinstance(value, (bool, float)) or (isinstance(value, str) and len(value) > 40):
            self.fail(f"{text} is not a whole number that means something here", param, ctx)
        number: int = super().convert(cast("int", value), param, ctx)
        if number > self._most:
            self.fail(f"{text} is too large, the most is {self._most}", param, ctx)
        return number


class Number(click.FloatRange):
    """A finite number in an interval, and of a size that means something."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number: float = super().convert(cast("float", value), param, ctx)
        except OverflowError:
            number = math.inf
        if isinstance(value, bool) or not math.isfinite(number):
            self.fail(f"{_shown(value)} is not a finite number", param, ctx)
        if abs(number) > _MOST:
            self.fail(f"{_shown(value)} is too large, the most is {_MOST}", param, ctx)
        return number + 0.0  # there is one zero


def _shown(value: object) -> str:
    """The value as a message has it; one that is long is shortened, and a number of thousands of digits has no text."""
    try:
        return shortened(value if isinstance(value, str) else repr(value), 60)
    except ValueError:
        return "a number of thousands of digits"


class _Completed(click.types.StringParamType):
    """A text that a shell completes, see ``nnas_cli.completion``."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from nnas_cli.completion import offered  # late: only shells ask

        return offered(ctx, param, incomplete)


class _Text(_Completed):
    """A text that can be part of a path, a database and a JSON document.

    Args:
        most: characters that it can have.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        reason = _reason_against(text, self._most)
        if reason is not None:
            scheme, is_url, _ = text.partition("://")  # which may have a password in it
            shown = f"{scheme}://..." if is_url else text
            self.fail(f"{shortened(shown, 80)!r} {reason}", param, ctx)
        return text


TEXT = _Text()

COMMAND_LINE = _Text(100_000)


class _File(_Completed):
    """The name of a file that is read; one that no file of ours could have is a bad input."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        reason = _reason_against(text, 4096)
        if reason is not None:
            raise InputError(f"the name {reason}", where=shortened(text, 80), hint="give the file another name")
        return text


FILE = _File()


class _Anything(click.types.UnprocessedParamType):
    """The name of a file, or what a configuration has in its place."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from nnas_cli.completion import offered  # late: as above

        return offered(ctx, param, incomplete)


FILE_OR_CONTENT = _Anything()


def _reason_against(text: str, most: int) -> str | None:
    if len(text) > most:
        return f"is too long, the most is {most} characters"
    if "\0" in text:
        return "has a zero byte in it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    return None


def with_checked_texts(command: click.Command) -> click.Command:
    """The command, with ``TEXT`` for its parameters that take any text."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = TEXT
    return command


class _Assignment(click.ParamType[tuple[str, object]]):
    """``KEY=VALUE``; the value is a JSON literal, or a text where it is none."""

    name = "key=value"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from nnas_cli.completion import offered  # late: as above

        return offered(ctx, param, incomplete)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, object]:
        if isinstance(value, (tuple, list)):
            key, given = (str(value[0]), value[1]) if len(value) == 2 else ("", None)
            text = self._as_json(key, given, param, ctx)
        else:
            key, equals, text = str(value).partition("=")
            key = key if equals else ""
        if not key.isidentifier():
            shown = key if isinstance(value, (tuple, list)) and key else value
            self.fail(f"{_shown(shown)!r} is not KEY=VALUE", param, ctx)
        reason = _reason_against(text, 1_000_000)
        if reason is not None:
            self.fail(f"{key}: {shortened(text, 80)!r} {reason}", param, ctx)
        try:
            return key, literal(text)
        except InputError as error:
            self.fail(f"{key}: {error.message}", param, ctx)

    def _as_json(self, key: str, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The literal of a value that a configuration has: a date, for one, is none."""
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            self.fail(f"{key}: {_shown(value)} is nothing that JSON has a word for", param, ctx)


ASSIGNMENT = _Assignment()


class _Duration(click.ParamType[float]):
    """Seconds, or with a unit: ``90s``, ``30m``, ``2h``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = _shown(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
        if match is None or float(match[1]) == 0:
            self.fail(f"{_shown(text)!r} is no duration; give 90s, 30m, 2h or 1d", param, ctx)
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
        if seconds > _MOST:
            self.fail(f"{_shown(text)!r} is too long, the most is {_MOST} s", param, ctx)
        return seconds


DURATION = _Duration()


class _Checked(click.ParamType[str]):
    """A text that the library has a check for.

    Args:
        name: of the type.
        check: raises a ``UsageError`` if it is not what it should be.
    """

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = _shown(value) if isinstance(value, int) else str(value)
        try:
            self._check(text)
        except UsageError as error:
            self.fail(f"{error.message.rpartition('` ')[2]}; {error.hint}", param, ctx)
        return text


CADENCE = _Checked("cadence", cadence)

DEVICE = _Checked("device", check_device)


def _check_constraint(text: str) -> None:
    from nnas_core.space.goals import Constraint  # late: only who gives one

    Constraint.parse(text)


def _check_objective(text: str) -> None:
    from nnas_core.space.goals import Objective  # late: as above

    Objective.parse(text)


CONSTRAINT = _Checked("constraint", _check_constraint)

OBJECTIVE = _Checked("objective", _check_objective)


class _Gpus(click.ParamType[tuple[str, ...]]):
    """Numbers or UUIDs, between commas; also a list, as a configuration may have it."""

    name = "list"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        parts = list(value) if isinstance(value, (list, tuple)) else _shown_whole(value).split(",")
        found = tuple(_shown_whole(part).strip() for part in parts)
        if not 1 <= len(found) <= MOST_PROCESSES or not all(map(self._is_one, found)):
            self.fail(f"{_shown(value)!r} is no list of GPUs; give their numbers: 0,1", param, ctx)
        return found

    @staticmethod
    def _is_one(part: str) -> bool:
        return bool(re.fullmatch(r"[0-9]{1,4}|[A-Za-z_][\w/:.-]{0,99}", part, re.ASCII))


GPUS = _Gpus()


def _shown_whole(value: object) -> str:
    return value if isinstance(value, str) else _shown(value)


class _Shape(click.ParamType[tuple[int, ...]]):
    """The sizes of a tensor: ``3,224,224``; also a list, as a configuration may have it."""

    name = "shape"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        given = list(value) if isinstance(value, list | tuple) else _shown_whole(value).split(",")
        parts = [_shown_whole(one).strip() for one in given]
        if not 1 <= len(parts) <= 8 or not all(re.fullmatch(r"[1-9][0-9]{0,8}", part) for part in parts):
            self.fail(f"{_shown(value)!r} is no shape; give the sizes of one sample, as in 3,224,224", param, ctx)
        return tuple(map(int, parts))


SHAPE = _Shape()


class OrNone(click.ParamType[object]):
    """Another type, or ``none``, which becomes the text ``none``."""

    def __init__(self, inner: click.ParamType[object]) -> None:
        self._inner = inner
        self.name = f"{inner.name} or none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return value if value == "none" else self._inner.convert(value, param, ctx)
