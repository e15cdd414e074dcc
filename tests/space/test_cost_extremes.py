"""The smallest and the largest architecture, against looking at all of them; and published sizes of networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch.nn as nn

from nnas_core.mutables import InputChoice, LayerChoice
from nnas_core.mutables.cost import parameter_table
from nnas_core.space.cost_extremes import extreme
from nnas_core.space.costs import CostTable
from nnas_core.space.search_space import SearchSpace


def space_of(*counts: int) -> SearchSpace:
    """LayerChoices a, b, ... with so many candidates."""
    names = "abcdefghijklmnopqrstuvwxyz"
    return SearchSpace.from_json(
        {
            names[place]: {"_type": "layer_choice", "_value": [f"op{index}" for index in range(count)]}
            for place, count in enumerate(counts)
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_other_costs_less_or_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = space_of(3, 2, 4, 3)
    candidates = {choice.key: tuple(int(one) for one in rng.integers(0, 9, len(choice.candidates))) for choice in space}
    shared = tuple(
        (frozenset((key, int(rng.integers(len(space[key].candidates)))) for key in rng.choice(space.keys, 2, False)), 7)
        for _ in range(3)
    )
    table = CostTable(5, candidates, shared)
    every = [table.of(space.at(number).indices()) for number in range(space.size)]
    for largest, bound in ((False, min(every)), (True, max(every))):
        found, exact = extreme(space, [table], largest=largest)
        assert exact
        assert table.of(found.indices()) == bound


def test_the_second_table_decides_among_equals() -> None:
    space = space_of(3, 3)
    first = CostTable(0, {"a": (1, 1, 2), "b": (4, 3, 3)})
    second = CostTable(0, {"a": (9, 8, 0), "b": (0, 5, 6)})
    assert extreme(space, [first, second], largest=False)[0].indices() == {"a": (1,), "b": (1,)}
    assert extreme(space, [first, second], largest=True)[0].indices() == {"a": (2,), "b": (0,)}


def test_many_keys_that_share_are_climbed_through_and_it_says_so() -> None:
    space = space_of(*[3] * 9)  # 19,683 combinations
    costs = {choice.key: (2, 1, 3) for choice in space}
    shared = ((frozenset((key, 0) for key in space.keys), 4),)
    table = CostTable(0, costs, shared)
    found, exact = extreme(space, [table], largest=False)
    assert not exact
    assert table.of(found.indices()) == 9
    assert table.of(extreme(space, [table], largest=True)[0].indices()) == 8 * 3 + 2 + 4


def test_ten_thousand_keys_are_no_matter() -> None:
    keys = {f"k{number}": {"_type": "layer_choice", "_value": ["a", "b"]} for number in range(10_000)}
    space = SearchSpace.from_json(keys)
    found, exact = extreme(space, [CostTable(0, dict.fromkeys(keys, (3, 2)))], largest=False)
    assert exact
    assert set(found.indices().values()) == {(1,)}


def test_inputs_are_one_or_all() -> None:
    model = nn.Module()
    model.any = InputChoice(n_candidates=3, key="any")
    model.two = InputChoice(n_candidates=4, n_chosen=2, key="two")
    model.op = LayerChoice([nn.Linear(2, 2), nn.Identity()], key="op")
    space, tables = SearchSpace.from_model(model), [parameter_table(model)]
    small, large = (extreme(space, tables, largest=largest)[0].indices() for largest in (False, True))
    assert small == {"any": (0,), "two": (0, 1), "op": (1,)}
    assert large == {"any": (0, 1, 2), "two": (0, 1), "op": (0,)}


# ---- NAS-Bench-201: Dong and Yang, arXiv:2001.00326, figure 1 and section 2


def relu_conv_norm(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    """The order of operations there."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs))


class NasBench201(nn.Module):
    """Three stages of five equal cells with six edges, and between them a residual block of stride 2; 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
        for stage, channels in enumerate((16, 32, 64)):
            if stage:
                half = channels // 2
                parts += [relu_conv_norm(half, channels, 3, 2), relu_conv_norm(channels, channels, 3)]
                parts += [nn.Conv2d(half, channels, 1, bias=False)]
            parts += [self.edge(channels, number) for _ in range(5) for number in range(6)]
        self.parts = nn.ModuleList([*parts, nn.BatchNorm2d(64), nn.Linear(64, 10)])

    def edge(self, channels: int, number: int) -> nn.Module:
        """One of the six, the same in every cell."""
        small, large = (relu_conv_norm(channels, channels, size) for size in (1, 3))
        pool = nn.AvgPool2d(3, 1, 1)
        return LayerChoice([nn.Identity(), nn.Identity(), small, large, pool], key=f"edge{number}")


PUBLISHED = {
    (0, 0): 73306,
    (1, 0): 101306,
    (0, 1): 316346,
    (2, 1): 372346,
    (2, 3): 858426,
    (4, 2): 671386,
    (6, 0): 241306,
    (5, 1): 456346,
    (3, 3): 886426,
    (0, 6): 1531546,
}
"""(1x1 convolutions, 3x3 convolutions) -> parameters for CIFAR-10, as the table of the benchmark has them."""


def test_the_sizes_of_nas_bench_201() -> None:
    table = parameter_table(NasBench201())
    positions = np.array(list(itertools.product(range(5), repeat=6)))
    costs = table.of_many(positions)
    counts = zip((positions == 2).sum(axis=1), (positions == 3).sum(axis=1), strict=True)
    found = {(int(small), int(large)): int(cost) for (small, large), cost in zip(counts, costs, strict=True)}
    assert {one: found[one] for one in PUBLISHED} == PUBLISHED
    assert found == {one: 73306 + 28000 * one[0] + 243040 * one[1] for one in found}
    space = SearchSpace.from_model(NasBench201())
    sizes = [table.of(extreme(space, [table], largest=largest)[0].indices()) for largest in (False, True)]
    assert sizes == [73306, 1531546]
