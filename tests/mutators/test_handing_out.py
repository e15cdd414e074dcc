"""Which mutators let a search hand out the best estimate, and what they accept as one."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice, Mutator
from nnas_core.mutators import PdartsMutator, SposMutator
from nnas_core.plugins import registry


class Three(nn.Module):
    """Three places with a convolution or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LayerChoice(OrderedDict(linear=nn.Linear(2, 2), skip=nn.Identity()), key=f"layer{number}")
            for number in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 2] -> [N, 2]."""
        for layer in self.layers:
            x = layer(x)
        return x


def accepted(mutator: Mutator) -> list[int]:
    """How many skips there are in the architectures that are accepted, sorted."""
    every = map(mutator.space.at, range(mutator.space.size))
    return sorted(list(one.names().values()).count("skip") for one in every if mutator.accepts(one))


def test_those_that_heed_latencies_or_choose_better_by_themselves_hand_out_their_own() -> None:
    own = {name for name, entry in registry.entries("mutators").items() if not entry.load().derives}
    assert own == {"fbnet", "proxyless"}
    assert not Mutator.derives


@pytest.mark.parametrize(("limit", "expected"), [(None, [0, 1, 1, 1, 2, 2, 2, 3]), (1, [0, 1, 1, 1]), (0, [0])])
def test_pdarts_accepts_no_more_skips_than_its_limit(limit: int | None, expected: list[int]) -> None:
    mutator = PdartsMutator(Three(), drop=[0], skip_dropout=[0.0], max_skips=limit)
    assert accepted(mutator) == expected


def test_spos_accepts_what_is_within_its_bounds() -> None:
    # a linear layer has six parameters
    assert accepted(SposMutator(Three(), params=[6, 12], bins=1)) == [1, 1, 1, 2, 2, 2]
    assert accepted(SposMutator(Three())) == [0, 1, 1, 1, 2, 2, 2, 3]


def test_spos_accepts_by_measured_flops() -> None:
    mutator = SposMutator(Three(), flops=[None, 20], bins=1)
    mutator.measure_costs(torch.zeros(1, 2))
    few = accepted(mutator)
    assert few
    assert min(few) > 0
    assert few == [skips for skips in [0, 1, 1, 1, 2, 2, 2, 3] if skips >= min(few)]
