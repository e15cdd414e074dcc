"""What each column of a study database may hold: SQLite stores anything anywhere, and a disk may turn a bit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping

from nnas_core.files import finite
from nnas_core.study.storage.records import OPTIMIZE_MODES, STUDY_STATES, TRIAL_STATES
from nnas_core.study.storage.stored_json import Unreadable

__all__ = ["CLAIM", "CONTROL", "KINDS", "LEASE", "Columns", "Kind", "misfits", "shown"]

_MOST_ATTEMPTS = 10**6
_MOST = 2**31 - 1


Columns = Mapping[str, object] | RowMapping
"""What the columns of a row hold, by name."""


@dataclass(frozen=True)
class Kind:
    """What a column may hold, and how people call that."""

    said: str
    fits: Callable[[object], bool]


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    return value.isascii() or value.encode("utf-8", "replace") == value.encode("utf-8", "surrogatepass")


def _or_null(kind: Kind) -> Kind:
    fits = kind.fits
    return Kind(f"{kind.said} or NULL", lambda value: value is None or fits(value))


def _one_of(*texts: str) -> Kind:
    return Kind(f"one of {', '.join(texts)}", lambda value: isinstance(value, str) and value in texts)


def _count(most: int = _MOST) -> Kind:
    return Kind(f"an integer from 0 to {most}", lambda value: type(value) is int and 0 <= value <= most)


def _matching(said: str, pattern: str) -> Kind:
    compiled = re.compile(pattern)
    return Kind(said, lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None)


def _is_time(value: object) -> bool:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return time is not None and time.tzinfo is not None and 1970 <= time.year < 9000


def _is_object(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # not a finite number, or what UTF-8 does not have
        return False
    return True


def _is_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_finite, value.values()))


def _is_finite(value: object) -> bool:
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) < 2**1023


def _is_limits(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    counts = (value.get("trials"), value.get("concurrency"))
    seconds = value.get("duration_s")
    fit = all(one is None or (type(one) is int and 0 <= one <= 2**63) for one in counts)
    return fit and (seconds is None or (finite(seconds) or 0) > 0)


def _is_origin(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    folder, files = value.get("folder"), value.get("files", {})
    if folder is not None and not (_is_text(folder) and "\0" not in folder):
        return False
    texts = [files, value.get("paths", {})]
    numbers = [value.get("samples", {}), value.get("split", {})]
    return (
        all(isinstance(one, dict) and all(map(_is_text, (*one, *one.values()))) for one in texts)
        and all(map(_is_numbers, numbers))
        and _is_object(value.get("machine", {}))
    )


_TEXT = Kind("a text", _is_text)
_TIME = Kind("a time", _is_time)
_NUMBER = Kind("a finite number", lambda value: isinstance(value, float) and math.isfinite(value))
_REPORTED = Kind("a number", lambda value: isinstance(value, float) and not math.isnan(value))
_SECONDS = Kind("seconds", lambda value: isinstance(value, float) and 0 <= value < math.inf)
_OBJECT = Kind("a JSON object", _is_object)
_NUMBERS = Kind("a JSON object of finite numbers", _is_numbers)
_COUNT = _count()
_KEYS = {"study_id": _COUNT, "number": _COUNT, "proposed_order": _COUNT, "told_order": _COUNT}

KINDS: Mapping[str, Mapping[str, Kind]] = {
    "studies": {
        "id": _COUNT,
        "name": _TEXT,
        "state": _one_of(*STUDY_STATES),
        "search_space": _OBJECT,
        "fingerprint": _TEXT,
        "tuner": _TEXT,
        "tuner_args": _OBJECT,
        "seed": _matching("an integer as a text", r"-?[0-9]{1,4000}"),
        "optimize_mode": _one_of(*OPTIMIZE_MODES),
        "config": _OBJECT,
        "created": _TIME,
        "nnas_version": _TEXT,
        "limits": Kind("a JSON object of limits", _is_limits),
        "stop_requested": _count(1),
        "origin": Kind("a JSON object of a folder and files", _is_origin),
    },
    "trials": {
        "study_id": _COUNT,
        "number": _COUNT,
        "state": _one_of(*TRIAL_STATES),
        "attempt": _count(_MOST_ATTEMPTS),
        "digest": _matching("64 digits", "[0-9a-f]{64}"),
        "architecture": _TEXT,
        "value": _or_null(_NUMBER),
        "metrics": _NUMBERS,
        "cost": _NUMBERS,
        "error": _or_null(_TEXT),
        "seconds": _or_null(_SECONDS),
        "started": _or_null(_TIME),
        "finished": _or_null(_TIME),
        "proposed_order": _COUNT,
        "told_order": _or_null(_COUNT),
        "worker": _or_null(_TEXT),
        "lease_token": _or_null(_TEXT),
        "losses": _COUNT,
        "log_folder": _or_null(Kind("a path", lambda value: _is_text(value) and "\0" not in str(value))),
        "kill_requested": _count(_MOST_ATTEMPTS),
    },
    "repeats": _KEYS,
    "retries": {name: kind for name, kind in _KEYS.items() if name != "proposed_order"},
    "intermediates": {
        "study_id": _COUNT,
        "number": _COUNT,
        "attempt": _count(_MOST_ATTEMPTS),
        "sequence": _COUNT,
        "value": _REPORTED,
    },
}
"""By table and column."""

LEASE: Mapping[str, Kind] = {
    "host": _TEXT,
    "boot": _TEXT,
    "pid": _COUNT,
    "pid_start": _TEXT,
    "since": _TEXT,
    "expires": _TIME,
}
"""Of both tables of leases, while one is given."""

CLAIM: Mapping[str, Kind] = {"claim": _or_null(_TEXT), "token": _count(2**62)}
"""Of both, always; those that share a study have no token."""


CONTROL = {name: KINDS["studies"][name] for name in ("limits", "stop_requested")}
"""What others may ask of a running study."""


def misfits(kinds: Mapping[str, Kind], row: Columns) -> list[str]:
    """Returns a line for each column that does not hold what it is for.

    Args:
        kinds: by column.
        row: what each column holds.
    """
    wrong = [name for name, kind in kinds.items() if not kind.fits(row[name])]
    return [f"{name}: {shown(row[name])}, expected {kinds[name].said}" for name in wrong]


def shown(value: object) -> str:
    """Names what a column holds, in a line of no length that matters."""
    if value is None:
        return "NULL"
    if isinstance(value, Unreadable):
        return f"{shown(value.stored)}, which is no JSON"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a very large integer"
    return text if len(text) <= 60 else f"{text[:57]}..."
