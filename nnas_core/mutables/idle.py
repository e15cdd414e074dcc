"""Which candidates of a model learn nothing: skips, zeros and pools, as their modules say."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn as nn
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _NormBase

from nnas_core.mutables.choices import LayerChoice

__all__ = ["idle_kinds"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
_HAND_ON = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Sequential, *_NORMS)


def idle_kinds(model: nn.Module, kind_by_name: Callable[[str], str | None]) -> dict[str, list[str | None]]:
    """Returns the kinds of the candidates of every layer choice, by key.

    A candidate with a parameter, other than those of a normalization, learns. Of the others one with a pooling layer of
    torch's pools, one of nothing but ``nn.Identity``, dropout and normalization is a skip, and of a user's own class
    its name decides, or that of the candidate. So a skip that halves the resolution by a convolution learns, and an
    activation function is no skip.

    Args:
        model: a supernet.
        kind_by_name: the kind that a name says; None: it says none.

    Returns:
        ``"skip"``, ``"zero"`` or ``"pool"`` for each candidate in its order; None for one of no such kind.
    """
    return {
        choice.key: [
            _kind(name, candidate, kind_by_name)
            for name, candidate in zip(choice.names, choice.candidates, strict=True)
        ]
        for choice in model.modules()
        if isinstance(choice, LayerChoice)
    }


def _kind(name: str, candidate: nn.Module, kind_by_name: Callable[[str], str | None]) -> str | None:
    modules = list(candidate.modules())
    if any(True for one in modules if not isinstance(one, _NORMS) for _ in one.parameters(recurse=False)):
        return None
    if any(type(one).__module__ == pooling.__name__ for one in modules):
        return "pool"
    if all(type(one) in _HAND_ON or isinstance(one, _NORMS) for one in modules):
        return "skip"
    own = [type(one).__name__ for one in modules if not type(one).__module__.startswith("torch.")]
    named = (kind_by_name(one) for one in (*own, *([name] if own else [])))
    return next((kind for kind in named if kind is not None), None)
