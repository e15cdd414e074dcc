"""Candidates that were tried: whether they change their input in place is known, so nothing runs but what must."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from nnas_core import LayerChoice

__all__ = ["try_all"]


def try_all(model: nn.Module, *args: Tensor) -> None:
    """Let each candidate of ``model`` be tried on ``args``, as it is before its first pass with gradients."""
    for choice in model.modules():
        if isinstance(choice, LayerChoice):
            for name, candidate in zip(choice.names, choice, strict=True):
                choice.sharing.call(name, candidate)(*args)
