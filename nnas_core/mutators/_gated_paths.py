"""Paths whose choices are gated: what a reset prepares, and what the choices of a model then run.

Source: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
arXiv:1812.00332 (section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import Binding, HardDecisions
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.plans import is_zero
from nnas_core.mutables.reduction import reduce_hard
from nnas_core.mutators._gates import Call, gate_among, gate_layer
from nnas_core.mutators._mixture import Mixture
from nnas_core.space.choice import Decision

__all__ = ["GatedPath", "Gates", "LastGates", "gated_any", "gated_layer", "gated_places"]


class Gates(NamedTuple):
    """Row by row, what a reset with gradients has prepared.

    Attributes:
        chances: the probabilities of a row's gates, differentiable: ``[W]`` or ``[n]``; ``[k, n]`` if it takes k.
        pair: ``[K, W]``, bool: what takes part.
        involved: the same as indices.
        paths: what was chosen.
    """

    chances: list[Tensor]
    pair: Tensor
    involved: list[list[int]]
    paths: list[Decision]


class LastGates:
    """Where forward passes find the gates of the last reset."""

    gates: Gates


class GatedPath(HardDecisions):
    """A path whose choices are gated."""

    def __init__(
        self,
        choices: Mapping[str, AnyChoice],
        decisions: Mapping[str, Decision],
        gates: Gates,
        gating: LastGates,
        mixture: Mixture,
    ) -> None:
        super().__init__(choices, decisions)
        self._gates = gates
        self._gating = gating
        self._mixture = mixture

    def install(self, binding: Binding) -> bool:
        if binding.is_taken_over:
            return super().install(binding)
        self._gating.gates = self._gates
        binding.calls[:] = self._mixture.calls
        return True


def gated_layer(mutable: LayerChoice, index: int, gating: LastGates, device: torch.device, at_once: bool) -> Forward:
    """Returns the call of a LayerChoice: the chosen candidate runs, all that take part get a gradient.

    Args:
        mutable: the LayerChoice.
        index: of its row.
        gating: the gates of the last reset.
        device: of the model.
        at_once: run the other candidates in the forward pass, instead of in the backward pass.
    """
    candidates, reduction = mutable.candidates, mutable.reduction
    silent = {position for position, candidate in enumerate(candidates) if is_zero(candidate)}

    def run(*args: object, **kwargs: object) -> object:
        gates = gating.gates
        (chosen,) = gates.paths[index]
        if not torch.is_grad_enabled():
            return reduce_hard([candidates[chosen](*args, **kwargs)], reduction)
        call = Call(mutable, args, kwargs, device)
        others = [one for one in gates.involved[index] if one != chosen and one not in silent]
        output = gate_layer(call, chosen, others, call.tensors(args, kwargs), gates.chances[index], at_once)
        return reduce_hard([output], reduction)

    return run


def gated_places(mutable: InputChoice, index: int, gating: LastGates) -> Forward:
    """Returns the call of an InputChoice that takes one or k inputs: each place is gated."""
    reduction = mutable.reduction

    def choose(inputs: Sequence[Tensor | None]) -> object:
        gates = gating.gates
        outputs = [inputs[position] for position in gates.paths[index]]
        if torch.is_grad_enabled():
            present = _present(inputs, gates.involved[index])
            chances = gates.chances[index]
            places = zip(outputs, chances if chances.dim() == 2 else chances.unsqueeze(0), strict=True)
            outputs = [None if one is None else gate_among(mutable, one, present, own) for one, own in places]
        return reduce_hard(outputs, reduction)  # type: ignore[arg-type]  # one that is None is handed on

    return choose


def gated_any(mutable: InputChoice, index: int, gating: LastGates) -> Forward:
    """Returns the call of an InputChoice that takes any number: each input has a gate of its own."""
    reduction = mutable.reduction

    def choose(inputs: Sequence[Tensor | None]) -> object:
        path, chances = gating.gates.paths[index], gating.gates.chances[index]
        output = reduce_hard([inputs[position] for position in path], reduction)  # type: ignore[misc]
        if output is None or not torch.is_grad_enabled():
            return output
        present = _present(inputs, range(len(mutable)))
        return gate_among(mutable, output, present, chances, len(path) if reduction == "mean" else 0)

    return choose


def _present(inputs: Sequence[Tensor | None], positions: Iterable[int]) -> dict[int, Tensor]:
    """The inputs at ``positions``; one that is None, as an empty choice is, has a gate without gradient."""
    return {position: tensor for position in positions if (tensor := inputs[position]) is not None}
