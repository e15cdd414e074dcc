"""Dispatch modes of torch without its compiler, which nobody here asks for, and whose import takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["uncompiled"]


@contextmanager
def uncompiled(mode: type[TorchDispatchMode]) -> Iterator[None]:
    """Inside, ``mode`` can be entered, and the compiler stays where it is.

    torch hides the method ``__torch_dispatch__`` of every mode from its compiler, and imports the compiler for that
    when the method is first called. While nothing has imported it there is nobody to hide from, and the method itself
    does. Where torch is made otherwise, this changes nothing.
    """
    hidden = mode.__torch_dispatch__
    if "torch._dynamo" not in sys.modules:
        mode.__torch_dispatch__ = getattr(hidden, "__wrapped__", hidden)  # type: ignore[method-assign]
    try:
        yield
    finally:
        mode.__torch_dispatch__ = hidden  # type: ignore[method-assign]
