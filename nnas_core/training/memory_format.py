"""In which order the entries of images and of their weights stand in memory: channels last is quicker on many devices.

It changes no value and no shape, only strides, and a tensor keeps them when it is saved.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

__all__ = ["has_images", "laid_out_as", "match_layouts", "set_memory_format"]


def has_images(model: nn.Module) -> bool:
    """Return true if a memory format means something to ``model``: it has weights of four dimensions."""
    return any(parameter.dim() == 4 for parameter in model.parameters())


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Rearrange all parameters and buffers of four dimensions. Inputs may stay: what a convolution returns follows."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.dim() == 4:
                module._buffers[name] = buffer.contiguous(memory_format=memory_format)


def match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of an optimizer the strides of its parameters, as after loading what had others.

    torch's fused optimizers go through memory without looking at strides: they would mix up the entries.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = laid_out_as(parameter, value)


def laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """``value`` with the strides of ``like``, which has its shape; itself if it has them already, or is sparse."""
    if value.is_sparse or value.stride() == like.stride():
        return value
    return torch.empty_like(like, dtype=value.dtype, device=value.device).copy_(value)
