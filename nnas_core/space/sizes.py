"""How sizes of search spaces are shown: exactly, or by their power of ten where no reader takes the digits."""

from __future__ import annotations

import math

__all__ = ["size_as_json", "size_in_words"]

_MOST_DIGITS = 4299
"""Python reads and writes whole numbers of 4,300 digits, unless a program says otherwise; one less for rounding."""


def size_in_words(size: int, separator: str = "") -> str:
    """``576``, or ``about 10^6020`` for a number of thousands of digits.

    Args:
        size: a whole number.
        separator: of thousands.
    """
    exponent = _exponent(size)
    if exponent < _MOST_DIGITS:
        return f"{size:{separator}}"
    return f"about {'-' if size < 0 else ''}10^{exponent}"


def size_as_json(size: int) -> int | str:
    """The number itself, or ``size_in_words`` where no reader of JSON would take it."""
    return size if _exponent(size) < _MOST_DIGITS else size_in_words(size)


def _exponent(size: int) -> int:
    """The power of ten, rounded down: one less than the digits, but next to a power of ten perhaps as many."""
    return math.floor(math.log10(abs(size))) if size else 0
