"""The shapes that candidates give, seen in forward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn as nn
from torch import Tensor

from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator

__all__ = ["output_shapes"]

_Shape = tuple[int, ...]


def output_shapes(mutator: Mutator, forward: Callable[[], object]) -> dict[str, list[_Shape | None]]:
    """The shape of the output of every candidate of each LayerChoice, its batch dimension left out.

    There are as many forward passes as the largest choice has candidates. Where a key occurs at several places it is
    the shape at the first; a shape that depends on what other choices take is that of one such case.

    Args:
        mutator: bound to the supernet; what it decided is lost.
        forward: runs the supernet once, without gradients.

    Returns:
        key -> a shape a candidate; None where it gives no tensor, or where the choice is not run.
    """
    layers = {one.key: one for one in mutator.choices if isinstance(one, LayerChoice)}
    found: dict[str, list[_Shape | None]] = {key: [None] * len(layer) for key, layer in layers.items()}
    for architecture in mutator.space.covering():
        mutator.apply_architecture(architecture)
        decisions = architecture.indices()
        seen: dict[str, _Shape] = {}

        def leave(module: nn.Module, args: object, output: object, seen: dict[str, _Shape] = seen) -> None:
            if isinstance(module, LayerChoice) and isinstance(output, Tensor):
                seen.setdefault(module.key, tuple(output.shape[1:]))

        handles = [layer.register_forward_hook(leave) for layer in _all(mutator)]
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
        _note(found, decisions, seen)
    return found


def _all(mutator: Mutator) -> list[LayerChoice]:
    return [one for one in mutator.undedup_mutables if isinstance(one, LayerChoice)]


def _note(
    found: dict[str, list[_Shape | None]], decisions: Mapping[str, tuple[int, ...]], seen: Mapping[str, _Shape]
) -> None:
    for key, shape in seen.items():
        for index in decisions[key]:
            found[key][index] = shape
