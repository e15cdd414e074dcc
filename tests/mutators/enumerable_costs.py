"""Models whose costs are small enough to enumerate, and what costs are worth when they are counted in another way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnas_core import InputChoice, LayerChoice, extract

quietly = pytest.mark.filterwarnings("ignore:.*bins of.*:nnas_core.errors.NnasWarning")
"""Bins that hold no architecture are nothing to fail for."""


class Unequal(nn.Module):
    """LayerChoices of 3 and 2, and inputs: 3 * 2 * (8, 3 or 3) architectures."""

    def __init__(self, n_chosen=None):
        super().__init__()
        wide = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 4))
        self.a = LayerChoice([nn.Linear(4, 4), wide, nn.Identity()], key="a")
        self.b = LayerChoice([nn.Linear(4, 4, bias=False), nn.Tanh()], key="b")
        self.pick = InputChoice(3, n_chosen=n_chosen, key="pick")
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        picked = self.pick([x, a, b])
        return self.head(self.norm(b if picked is None else b + picked))


class Shrinking(nn.Module):
    """The first choice decides how much the second one has to do, so FLOPs do not add up: 3 * 3 * 3 architectures."""

    def __init__(self, layers=2):
        super().__init__()
        shrink = nn.Conv1d(1, 1, 3, stride=2, padding=1)
        self.first = LayerChoice([nn.Identity(), shrink, nn.Conv1d(1, 1, 5, stride=4, padding=2)], key="first")
        candidates = ([nn.Identity(), nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 9, padding=4)] for _ in range(9))
        self.rest = nn.Sequential(
            *(LayerChoice(ops, key=f"rest{n}") for n, ops in zip(range(layers), candidates, strict=False))
        )
        self.head = nn.Linear(1, 2)

    def forward(self, x):
        return self.head(self.rest(self.first(x[:, None])).mean(2))


class Long(nn.Module):
    """3^11 architectures: too many to be listed."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                LayerChoice([nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Identity()], key=f"layer{n}")
                for n in range(11)
            )
        )
        self.pick = InputChoice(2, n_chosen=1, key="pick")

    def forward(self, x):
        return self.pick([x, self.layers(x)])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sample():
    return torch.randn(1, 4, generator=seeded())


def long_sample():
    return torch.randn(1, 16, generator=seeded())


def params_of(mutator, architecture):
    """Counted in the extracted model."""
    return sum(one.numel() for one in extract(mutator.model, architecture).parameters())


def flops_of(mutator, architecture, x):
    """Counted by torch in the extracted model."""
    child = extract(mutator.model, architecture).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        child(x)
    return counter.get_total_flops()


def code(mutator, masks):
    return tuple(tuple(bool(value) for value in masks[key].tolist()) for key in mutator.space.keys)


def everything(mutator):
    """Every architecture by its masks."""
    architectures = (mutator.space.at(number) for number in range(mutator.space.size))
    return {tuple(tuple(one.masks()[key]) for key in mutator.space.keys): one for one in architectures}


def drawn(mutator, draws):
    for _ in range(draws):
        mutator.reset()
        yield code(mutator, mutator._cache)


def is_distributed(counts, probabilities):
    """Chi-square at 0.1 % (its upper point after Wilson and Hilferty); nothing of probability 0 was drawn."""
    assert set(counts) <= set(probabilities)
    total = sum(counts.values())
    value = sum((counts[one] - total * p) ** 2 / (total * p) for one, p in probabilities.items())
    freedom = len(probabilities) - 1
    assert min(probabilities.values()) * total >= 5
    return value < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def expected(costs, low, high, bins):
    """Each bin with architectures equally likely, and each architecture of it."""
    groups = {}
    for one, cost in costs.items():
        if low <= cost <= high:
            place = min(int((cost - low) * bins / (high - low)), bins - 1)
            groups.setdefault(place, []).append(one)
    return {one: 1 / len(groups) / len(group) for group in groups.values() for one in group}
