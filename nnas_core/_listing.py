"""What people read of texts and lists that may be of any length."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed", "shortened"]

_MOST_LINES = 50
_MOST_CHARACTERS = 1000


def shortened(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Returns ``text``, or of one that has more than ``most`` characters the first and ``...``."""
    return text if len(text) <= most else text[: most - 3] + "..."


def listed(problems: Sequence[str], *, and_more: bool = False) -> list[str]:
    """Returns what people read of a list: its first lines, each shortened, and how many more there are.

    Args:
        problems: one line each.
        and_more: they are not all, and nobody counted the others.
    """
    if len(problems) <= _MOST_LINES and not and_more:
        return [shortened(problem) for problem in problems]
    shown = problems[: _MOST_LINES - 1]
    left = max(len(problems) - len(shown), 1)
    return [*map(shortened, shown), f"... and {'at least ' if and_more else ''}{left} more"]
