"""Leave no trace: what a forward pass, a decision or a draw may change comes back after a block.

untouched(model, mutator, generators)     all of it
own_buffers(model)                        buffers are copies, such as the statistics of BatchNorm
same_modes(model)                         training or evaluation, module by module
random_state.untouched(generators)        random numbers, the global ones and private ones
mutator.binding.kept()                    what is decided
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn as nn

from nnas_core import random_state

if TYPE_CHECKING:
    from nnas_core.mutables.mutator import BaseMutator

__all__ = ["own_buffers", "same_modes", "untouched"]


@contextmanager
def untouched(
    model: nn.Module, mutator: BaseMutator | None = None, generators: Mapping[str, torch.Generator] | None = None
) -> Iterator[None]:
    """Inside, everything may be run and decided; afterwards all is as it was, but for weights and their gradients.

    Args:
        model: its training modes and buffers are kept.
        mutator: bound to it; its buffers and its decision are kept.
        generators: private ones, by name.
    """
    with ExitStack() as stack:
        stack.enter_context(random_state.untouched(generators or {}))
        stack.enter_context(same_modes(model))
        stack.enter_context(own_buffers(model))
        if mutator is not None:
            stack.enter_context(own_buffers(mutator))
            stack.enter_context(mutator.binding.kept())
        yield


@contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """Put every module back, afterwards, into the training or evaluation mode that it has now."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def own_buffers(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Inside, ``model`` has copies of its buffers; afterwards its own ones, which nothing has changed.

    Yields:
        A function that makes the copies anew: what ran before it then has no effect on what follows. Graphs keep the
        copies that they were made with.
    """
    homes = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]

    def renew() -> None:
        copies: dict[int, torch.Tensor] = {}  # one tensor may be a buffer of several modules
        for home, buffers in homes:
            home.update(buffers)
            for name, buffer in buffers.items():
                if buffer is not None:
                    if id(buffer) not in copies:
                        copies[id(buffer)] = buffer.detach().clone()
                    home[name] = copies[id(buffer)]

    renew()
    try:
        yield renew
    finally:
        for home, buffers in homes:
            home.clear()
            home.update(buffers)
