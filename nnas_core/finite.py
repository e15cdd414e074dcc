"""JSON knows no NaN and no infinity, and neither ranks: only finite numbers are ever stored."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "finite_only", "not_finite"]


def finite(value: Any) -> float | None:
    """``value`` as a float if it is a finite number, else None; truth values and texts are no numbers."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def finite_only(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers, as floats; what UTF-8 does not have in a name is escaped."""
    pairs = ((_encodable(name), finite(value)) for name, value in values.items())
    return {name: number for name, number in pairs if number is not None}


def _encodable(name: str) -> str:
    return str(name).encode("utf-8", "backslashreplace").decode()


def not_finite(value: Any) -> str:
    """The message about a metric that ``finite`` does not take."""
    text = str(value) if isinstance(value, float) else repr(value)
    return f"metric is not a finite number: {text[:80]}"
