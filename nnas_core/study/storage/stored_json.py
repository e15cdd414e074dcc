"""A column of JSON that is read whatever is stored there, so that it is we who name the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import JSON, Dialect
from sqlalchemy.types import TypeDecorator

__all__ = ["StoredJson", "Unreadable"]


@dataclass(frozen=True)
class Unreadable:
    """Stands for what is no JSON.

    Attributes:
        stored: what is there instead.
    """

    stored: object


class StoredJson(TypeDecorator[object]):
    """JSON, or ``Unreadable``."""

    impl = JSON
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], object] | None:
        """Returns what reads a stored value, and never fails."""
        decode = super().result_processor(dialect, coltype)
        if decode is None:
            return None

        def read(stored: object) -> object:
            try:
                return decode(stored)
            except (ValueError, TypeError, RecursionError):
                return Unreadable(stored)

        return read
