"""A fixed architecture: the model is decided once and for all, in place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.files import read_json
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.space.architecture import Architecture

__all__ = ["FixedArchitecture", "apply_fixed_architecture"]


class FixedArchitecture(Mutator):
    """Always decides the same.

    Args:
        model: to be bound.
        fixed_arc: any form that ``Architecture.parse`` reads, or an ``Architecture``.
        strict: refuse keys that the model does not have. Missing keys are always refused.

    Raises:
        ArchitectureError: it does not fit the model.
    """

    def __init__(self, model: nn.Module, fixed_arc: Mapping[str, Any] | Architecture, strict: bool = True) -> None:
        super().__init__(model)
        if isinstance(fixed_arc, Architecture):
            fixed_arc = fixed_arc.masks()
        self._architecture = Architecture.parse(fixed_arc, self.space.choices, strict=strict)

    def sample_search(self) -> dict[str, Tensor]:
        """The fixed masks."""
        return {key: torch.tensor(mask) for key, mask in self._architecture.masks().items()}

    def sample_final(self) -> dict[str, Tensor]:
        """The fixed masks."""
        return self.sample_search()

    def replace_layer_choice(self) -> None:
        """Put the chosen candidate in the place of every LayerChoice that chooses exactly one.

        Where the choice takes several candidates, weighs them, or returns its mask, it stays, without the candidates
        that are not run. A LayerChoice that is the model itself stays too. InputChoices and scopes always do: use
        ``extract`` for a model that is free of nnas. A supernet's weights must be loaded before.
        """
        masks = self._architecture.masks()
        replacements: dict[nn.Module, nn.Module] = {}
        for mutable in self.undedup_mutables:
            if not isinstance(mutable, LayerChoice):
                continue
            mask = masks[mutable.key]
            chosen = [index for index, value in enumerate(mask) if value]
            single = len(chosen) == 1 and mask[chosen[0]] in (True, 1.0)
            if single and not mutable.return_mask and mutable.reduction != "none":
                replacements[mutable] = mutable[chosen[0]]
                # forward passes may read the key to name their inputs
                replacements[mutable].__dict__.setdefault("key", mutable.key)
            for index in range(len(mask)):
                if index not in chosen:
                    mutable[index] = None
        for module in list(self.model.modules()):
            for name, child in module._modules.items():
                if child is not None and child in replacements:
                    module._modules[name] = replacements[child]
        self.reset()


def apply_fixed_architecture(
    model: nn.Module, fixed_arc: str | os.PathLike[str] | Mapping[str, Any] | Architecture
) -> FixedArchitecture:
    """Make ``model`` the given architecture, in place, with the names of weights that NNI gives it.

    Args:
        model: contains the mutables.
        fixed_arc: path of a JSON file (``-``: standard input), or its content, in any form.

    Returns:
        The bound mutator.

    Raises:
        InputError: the file cannot be read.
        ArchitectureError: it does not fit the model; every problem is listed.
    """
    content = read_json(os.fspath(fixed_arc)) if isinstance(fixed_arc, (str, os.PathLike)) else fixed_arc
    architecture = FixedArchitecture(model, content)
    architecture.reset()
    architecture.replace_layer_choice()
    return architecture
