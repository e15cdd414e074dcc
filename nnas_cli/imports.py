"""Importing torch takes most of the time of a short command; here is what can be saved of it."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

__all__ = ["without_collection"]


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Import for the first time without looking for garbage meanwhile.

    What modules make at their import stays for good, and looking through it again and again takes an eighth of the
    import of torch, so it is also left out of all later searches for garbage.
    """
    if not gc.isenabled() or "torch" in sys.modules:
        yield  # as somebody wants it, or done before in this process
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
