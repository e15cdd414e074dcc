"""JSON that others wrote is read within bounds.

What has passed ``parsed`` can be walked by functions that call themselves, printed, and written again.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from nnas_core.errors import InputError, shortened

__all__ = ["NotOurs", "literal", "nested_too_deeply", "parsed"]

_DEEPEST = 100
"""Levels of lists and objects; ours have eight."""

_TOO_DEEP = "not a document of ours: nested too deeply"

_HALF_A_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


class NotOurs(Exception):
    """JSON, or nearly, that no document of ours is; the message says why."""


def parsed(text: str) -> Any:
    """Returns what a JSON document says.

    Raises:
        json.JSONDecodeError: it is no JSON.
        NotOurs: a name twice in one object, a number that is not finite or has thousands of digits, half a character,
            or more than 100 levels.
    """
    try:
        found = json.loads(text, parse_constant=_no_constant, parse_float=_finite_float, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise NotOurs(_TOO_DEEP) from error
    except ValueError as error:  # an integer of thousands of digits
        raise NotOurs("not a document of ours: a number is too long") from error
    if nested_too_deeply(found):
        raise NotOurs(_TOO_DEEP)
    if _HALF_A_CHARACTER.search(text):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])[1:-1]
            raise NotOurs(f"not a document of ours: {half} is half a character, which UTF-8 does not have") from error
    return found


def literal(text: str) -> object:
    """Returns what a JSON literal says; a text that is no JSON stands for itself.

    Raises:
        InputError: it is JSON that ``parsed`` refuses.
    """
    try:
        return parsed(text)
    except json.JSONDecodeError:
        return text
    except NotOurs as error:
        raise InputError(str(error)) from error


def nested_too_deeply(document: object) -> bool:
    """Returns true if a document has more levels of lists and objects than one of ours may."""
    level: list[object] = [document]
    for _ in range(_DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise NotOurs(f"not JSON: {name} is not a number that JSON knows")


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotOurs(f"not a document of ours: {shortened(text, 40)} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise NotOurs(f"not JSON: the name {shortened(repr(name), 80)} stands twice in one object")
            seen.add(name)
    return result
