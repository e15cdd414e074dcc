"""Choices of one kind, evaluated together once the states of all steps are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.mutators._controller.steps import Place, Script

__all__ = ["Group", "Inputs", "Layers", "grouped"]

G = TypeVar("G", bound="Group")


class Group(nn.Module):
    """G places of one kind, with n candidates each.

    Attributes:
        steps: ``[G]``.
        columns: ``[G, n]``, in a mask of all candidates.
    """

    steps: Tensor
    columns: Tensor

    def __init__(self, script: Script, numbers: Sequence[int]) -> None:
        super().__init__()
        places = [script.places[number] for number in numbers]
        self.keep("steps", [place.step for place in places])
        self.keep("columns", [range(place.columns.start, place.columns.stop) for place in places])

    def keep(self, name: str, values: Iterable[Any]) -> None:
        """Hold integers on the device of the policy; they are no part of its state."""
        self.register_buffer(
            name, torch.tensor([list(one) if isinstance(one, range) else one for one in values]), False
        )

    def chosen(self, weights: Tensor) -> Tensor:
        """The decisions ``[B, G, n]`` in masks ``[B, N]``."""
        return weights[:, self.columns]

    @staticmethod
    def kind(place: Place) -> object:
        """Return the key that the places of a group have in common; None: a place that belongs to none, here any."""
        return None


class Layers(Group):
    """LayerChoices that share a head.

    Attributes:
        row: the first of the head's rows.
        readers: ``[G]``, the steps that read these decisions; the number of steps where there is none.
    """

    readers: Tensor

    def __init__(self, script: Script, numbers: Sequence[int]) -> None:
        super().__init__(script, numbers)
        self.row = script.places[numbers[0]].row
        reader = {read: step for step, read in enumerate(script.reads)}
        self.keep("readers", [reader.get(number, len(script.reads)) for number in numbers])

    @staticmethod
    def kind(place: Place) -> object:
        """The head."""
        return (place.row, len(place.choice.candidates)) if place.is_layer else None

    def rows_of(self, head: Tensor) -> Tensor:
        """The part ``[n, H]`` of the head."""
        return head[self.row : self.row + self.columns.shape[1]]

    def evaluate(self, logits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy ``[B]`` from the logits ``[G, B, n]``."""
        log_p = logits.log_softmax(2)
        chosen = self.chosen(weights).transpose(0, 1)
        return (chosen * log_p).sum((0, 2)), -(log_p.exp() * log_p).sum((0, 2))


class Inputs(Group):
    """InputChoices of equal counts.

    Attributes:
        anchors: ``[G, n]``, the steps whose states stand for the inputs.
        subsets: ``[S, n]``, all decisions; none where any number of inputs can be taken.
    """

    anchors: Tensor
    subsets: Tensor

    def __init__(self, script: Script, numbers: Sequence[int]) -> None:
        super().__init__(script, numbers)
        self.keep("anchors", [script.places[number].anchors for number in numbers])
        self.first = script.places[numbers[0]]
        self.keep("subsets", [] if self.first.is_any else script.subsets[self.first.choice.key].tolist())

    @staticmethod
    def kind(place: Place) -> object:
        """The counts."""
        return None if place.is_layer else (len(place.choice.candidates), place.choice.n_chosen)

    def shares(self, weights: Tensor) -> Tensor:
        """Return the part of each anchor in the input that is read next ``[B, G, n]``."""
        chosen = self.chosen(weights)
        shares: Tensor = chosen / self.first.divisor(chosen.sum(2, keepdim=True))
        return shares

    def evaluate(
        self, scores: Tensor, weights: Tensor, target: float, mean_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability, entropy and penalty ``[B]`` from the scores ``[B, G, n]``."""
        chosen = self.chosen(weights)
        if not self.first.is_any:
            of_sets = scores @ self.subsets.to(scores.dtype).T  # [B, G, S]
            log_p = of_sets.log_softmax(2)
            of_chosen = (scores * chosen).sum(2) - of_sets.logsumexp(2)
            return of_chosen.sum(1), -(log_p.exp() * log_p).sum((1, 2)), scores.new_zeros(len(scores))
        taken, left = F.logsigmoid(2 * scores), F.logsigmoid(-2 * scores)
        p = taken.exp()
        entropy = -(p * taken + (1 - p) * left)
        penalty = p * (taken - math.log(target)) + (1 - p) * (left - math.log1p(-target))
        entropy = entropy.mean(2) if mean_entropy else entropy.sum(2)
        return (chosen * taken + (1 - chosen) * left).sum((1, 2)), entropy.sum(1), penalty.sum((1, 2))


def grouped(script: Script, group: type[G]) -> Sequence[G]:
    """The places of ``script`` that ``group`` is for, put together by kind, as an ``nn.ModuleList``."""
    numbers: dict[object, list[int]] = {}
    for number, place in enumerate(script.places):
        if (kind := group.kind(place)) is not None:
            numbers.setdefault(kind, []).append(number)
    return nn.ModuleList(group(script, one) for one in numbers.values())  # type: ignore[return-value]
