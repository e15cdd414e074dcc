"""Run candidates once more in the backward pass, instead of keeping what they computed in the forward pass.

Source: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

from nnas_core import random_state
from nnas_core.mutables.base import Forward

__all__ = ["is_second_run", "recomputed"]

_thread = threading.local()


def is_second_run() -> bool:
    """Return true in a run that only saves once more what the backward pass needs: its output is thrown away."""
    return getattr(_thread, "is_second_run", False)


def recomputed(
    run: Forward, module: nn.Module, hold: Callable[[], Callable[[], AbstractContextManager[None]]]
) -> Forward:
    """``run``, but its gradients come from a second run, and nothing between its inputs and its output is kept.

    The second run finds everything as the first one did: parameters and buffers of ``module``, and the random states
    of torch, Python and numpy. What it changes there is lost, so that statistics of BatchNorm count a batch once.

    Args:
        run: calls parts of ``module``.
        module: whose parameters and buffers ``run`` uses.
        hold: called in the first run; what it returns makes a context for the second one, for what else it depends on.
    """

    def run_twice(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return run(*args, **kwargs)
        parts = list(module.modules())
        parameters = [(part._parameters, part._parameters.copy()) for part in parts if part._parameters]
        buffers = [(part._buffers, _copies(part._buffers)) for part in parts if part._buffers]
        then, held = random_state.bookmark(), hold()

        @contextmanager
        def again() -> Iterator[None]:
            now, outer = random_state.bookmark(), is_second_run()
            then()
            copies = [(home, _copies(values)) for home, values in buffers]
            _thread.is_second_run = True
            try:
                with _swapped([*parameters, *copies]), held():
                    yield
            finally:
                _thread.is_second_run = outer
                now()

        return checkpoint(
            run,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # it knows torch's states only
            context_fn=lambda: (nullcontext(), _Repeatable(again)),
            **kwargs,
        )

    return run_twice


class _Repeatable:
    """A context that can be entered several times, as when a graph is differentiated once more."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *details: Any) -> None:
        self._entered.pop().__exit__(*details)


_Tensors = dict[str, Any]  # of Tensor or None


def _copies(buffers: _Tensors) -> _Tensors:
    return {name: None if buffer is None else buffer.detach().clone() for name, buffer in buffers.items()}


@contextmanager
def _swapped(contents: list[tuple[_Tensors, _Tensors]]) -> Iterator[None]:
    """Other tensors in the dictionaries of modules, for the block."""
    own = [home.copy() for home, _ in contents]
    try:
        for home, values in contents:
            home.update(values)
        yield
    finally:
        for (home, _), before in zip(contents, own, strict=True):
            home.clear()
            home.update(before)
