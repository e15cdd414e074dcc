"""Texts of somebody else on a terminal: what would end a line, or move or colour it, becomes an escape."""

from __future__ import annotations

__all__ = ["printable", "shown"]


def printable(text: str) -> str:
    """A text of somebody else in one line: what would end it, or move or colour the terminal, becomes an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(text: str) -> str:
    """A text of several lines for a terminal: each as ``printable`` has it, but for tabs."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)
