"""Which paths of a network may be left out for a sample: those that are not the only way from the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.nested import changed, tensors
from nnas_core.mutables.untouched import untouched

__all__ = ["places_of_choices", "side_paths"]

_Place = tuple[nn.Module, str]
"""A module, and the name of a child of it."""


def places_of_choices(model: nn.Module) -> list[_Place]:
    """Where a supernet has its LayerChoices, and what is chosen stands after it was decided in place."""
    return [
        (module, name)
        for module in model.modules()
        for name, child in module._modules.items()
        if isinstance(child, LayerChoice) and not isinstance(module, LayerChoice)
    ]


def side_paths(network: nn.Module, places: Iterable[_Place], run: Callable[[], object]) -> list[nn.Module]:
    """Those modules whose output matters, and without it the network still tells its inputs apart; no identities.

    Args:
        network: the decided model.
        places: of what was chosen.
        run: gives the output of the network for a batch of different samples.
    """
    inside = set(network.modules())
    chosen = dict.fromkeys(parent._modules[name] for parent, name in places if parent in inside)
    whole = _output(network, run)
    found = []
    for module in chosen:
        if module is None or isinstance(module, nn.Identity):
            continue
        handle = module.register_forward_hook(_nothing)
        try:
            without = _output(network, run)
        finally:
            handle.remove()
        is_used = any(not torch.equal(*pair) for pair in zip(whole, without, strict=True))
        if is_used and any(bool((one != one[:1]).any()) for one in without if one.dim()):
            found.append(module)
    return found


def _output(network: nn.Module, run: Callable[[], object]) -> list[Tensor]:
    with untouched(network), torch.no_grad():
        network.eval()
        return list(tensors(run()))


def _nothing(module: nn.Module, args: object, output: object) -> object:
    return changed(output, lambda one: torch.zeros_like(one) if isinstance(one, Tensor) else one)
