"""Mutables that are given no key get one here, and a ``choose_from`` that holds it can follow when it changes."""

from __future__ import annotations

import itertools
from typing import Any

__all__ = ["AutoKey", "automatic_key"]

_serials = itertools.count(1)


class AutoKey(str):
    """The key of a mutable that was given none, until its model is parsed.

    It compares as text, but remembers the mutable it stands for: when the keys of a model are numbered, a
    ``choose_from`` that holds it follows.
    """

    serial: int

    def __new__(cls, text: str, serial: int) -> AutoKey:
        key = super().__new__(cls, text)
        key.serial = serial
        return key

    def __reduce__(self) -> tuple[Any, ...]:
        return (AutoKey, (str(self), self.serial))


def automatic_key(owner: object) -> AutoKey:
    """A new key for a mutable: its class and a number that grows with every call in this process."""
    serial = next(_serials)
    return AutoKey(f"{type(owner).__name__}{serial}", serial)
