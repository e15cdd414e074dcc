"""Mutables that are given no key get one here, and a ``choose_from`` that holds it can follow when it changes."""

from __future__ import annotations

import itertools
import sys
import weakref
from types import FrameType
from typing import Any

import torch.nn as nn

__all__ = ["AutoKey", "automatic_key"]

_serials = itertools.count(1)
_made_in: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
"""How many mutables without a key were made so far within the constructor of a module."""


class AutoKey(str):
    """The key of a mutable that was given none, until its model is parsed.

    It compares as text with other texts, but remembers the mutable it stands for: when the keys of a model are
    numbered, a ``choose_from`` that holds it follows.
    """

    serial: int

    def __new__(cls, text: str, serial: int) -> AutoKey:
        key = super().__new__(cls, text)
        key.serial = serial
        return key

    def __eq__(self, other: object) -> bool:
        return self.serial == other.serial if isinstance(other, AutoKey) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return (AutoKey, (str(self), self.serial))


def automatic_key(owner: object) -> AutoKey:
    """A new key for a mutable: its class, and the number that it will have in the model that is being constructed.

    A model may store the key in its constructor, and finds the decision by it later. The number is right if all
    mutables that the constructor makes become parts of the model. Outside of constructors it grows with every call in
    this process.
    """
    serial = next(_serials)
    model = _under_construction(owner)
    if model is None:
        return AutoKey(f"{type(owner).__name__}{serial}", serial)
    number = _made_in[model] = _made_in.get(model, 0) + 1
    return AutoKey(f"{type(owner).__name__}{number}", serial)


def _under_construction(owner: object) -> nn.Module | None:
    """The outermost module whose constructor runs now, apart from ``owner``."""
    found = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount:
            constructed = frame.f_locals.get(code.co_varnames[0])
            if isinstance(constructed, nn.Module) and constructed is not owner:
                found = constructed
        frame = frame.f_back
    return found
