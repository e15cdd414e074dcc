"""Texts of users in pages of Markdown: what could be markup, or end a line, is escaped."""

from __future__ import annotations

import re

__all__ = ["escaped", "plain"]

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def plain(text: str) -> str:
    """One line of characters that every reader may have."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def escaped(text: str) -> str:
    """The same, in which nothing is markup."""
    return _MARKUP.sub(r"\\\1", plain(text))
