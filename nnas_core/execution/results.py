"""A trial's program says its result in a JSON file, which may be of any hand."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.files import finite, finite_only, not_finite
from nnas_core.json_text import nested_too_deeply

__all__ = ["LONGEST_RESULT", "Reported", "read_result"]

LONGEST_RESULT = 2**20
"""Bytes of a result file; one that is larger is none."""

_LONGEST_REPORT = 1000
_PIECE_BYTES = 1 << 18
_MOST_REPORTS = 100_000


def read_result(path: Path, trial: int, attempt: int) -> TrialResult | None:
    """Reads a result file.

    It is a finite number; or an object with one under ``value``, and with objects of numbers under ``metrics`` and
    ``cost``; or, as NNI's programs report it, an object with one under ``default``, the other numbers being metrics.

    Args:
        path: where it should be.
        trial, attempt: whose it must be, if it says.

    Returns:
        The result; None if there is no file.

    Raises:
        TrialFailed: it is something else, or an ``error``.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise TrialFailed("the result is not a file")
            content = stream.read(LONGEST_RESULT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrialFailed(f"the result cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > LONGEST_RESULT:
        raise TrialFailed(f"the result is larger than {LONGEST_RESULT} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TrialFailed("the result is not JSON") from error
    if nested_too_deeply(document):
        raise TrialFailed("the result is nested too deeply")
    if not isinstance(document, dict):
        document = {"value": document}
    for name, expected in (("trial", trial), ("attempt", attempt)):
        if document.get(name, expected) != expected:
            raise TrialFailed(f"the result is that of {name} {str(document[name])[:20]}")
    if "error" in document:
        raise TrialFailed(str(document["error"])[:1000])
    return _result(document)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe in its place has no writer, and must not hold up the study."""
    return os.open(path, flags | os.O_NONBLOCK)


def _result(document: dict[str, Any]) -> TrialResult:
    if "value" not in document and "default" not in document:
        raise TrialFailed('the result has no "value"')
    given = document["value"] if "value" in document else document["default"]
    value = finite(given)
    if value is None:
        raise TrialFailed(not_finite(given))
    if "value" not in document:
        ours = ("trial", "attempt", "default")
        return TrialResult(value, finite_only({name: one for name, one in document.items() if name not in ours}))
    parts = (document.get("metrics", {}), document.get("cost", {}))
    metrics, cost = (finite_only(part) if isinstance(part, dict) else {} for part in parts)
    return TrialResult(value, metrics, cost)


class Reported:
    """Reads the intermediate values in a file that grows, a JSON object with ``value`` a line.

    Args:
        path: of the file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._left = _MOST_REPORTS
        self._cut = False  # inside a line that is too long: its end is no line

    def new(self, to_the_end: bool = False) -> list[float]:
        """Returns the values that came since the last call; NaN for a number that is not finite, or null.

        Lines that report no number are passed over.

        Args:
            to_the_end: all of them; otherwise some may come with the next call, so that no trial holds up the others.
        """
        values: list[float] = []
        while True:
            begin = self._offset
            values += self._piece()
            if not to_the_end or self._offset == begin:
                return values

    def _piece(self) -> list[float]:
        try:
            if not self._left or os.stat(self._path).st_size <= self._offset:
                return []
            with open(self._path, "rb") as stream:
                stream.seek(self._offset)
                content = stream.read(_PIECE_BYTES)
        except OSError:
            return []
        *lines, rest = content.split(b"\n")
        whole = lines[self._cut :][: self._left]
        self._left -= len(whole)
        self._cut = len(rest) > _LONGEST_REPORT or (self._cut and not lines)
        self._offset += len(content) - (0 if self._cut else len(rest))
        return [value for value in map(_value, whole) if value is not None]


def _value(line: bytes) -> float | None:
    try:
        record = json.loads(line) if len(line) <= _LONGEST_REPORT else None
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and "value" in record and record["value"] is None:
        return math.nan  # as ``report_intermediate`` writes it
    given = record.get("value") if isinstance(record, dict) else record
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    number = finite(given)
    return math.nan if number is None else number
