"""Shares of candidates that learn nothing, against an enumeration of the whole space."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import pytest
import torch.nn as nn
from torch import Tensor

from nnas_core import InputChoice, LayerChoice
from nnas_core.assessment.collapse import collapse_of, kind_by_name, kinds_by_name, tail
from nnas_core.mutables.idle import idle_kinds
from nnas_core.space.search_space import SearchSpace

SPACE = SearchSpace.from_json(
    {
        "a": {"_type": "layer_choice", "_value": ["conv", "skip", "none"]},
        "b": {"_type": "layer_choice", "_value": ["conv3x3", "max_pool_3x3", "conv5x5", "dil"]},
        "c": {"_type": "layer_choice", "_value": ["Identity", "Linear"]},
        "activation": {"_type": "layer_choice", "_value": ["relu", "tanh"]},
        "idle": {"_type": "layer_choice", "_value": ["skip", "pool"]},
        "link": {"_type": "input_choice", "_value": {"candidates": ["skip", "conv"], "n_chosen": 1}},
    }
)
COUNTED = ("a", "b", "c")


def test_names_say_what_learns_nothing() -> None:
    skips = ["skip", "skip_connect", "Identity", "SkipConnect", "nn.Identity", "IDENTITY"]
    assert {kind_by_name(one) for one in skips} == {"skip"}
    assert {kind_by_name(one) for one in ("none", "Zero", "zeroize", "op_none")} == {"zero"}
    pools = ["avg_pool_3x3", "MaxPool2d", "pooling", "AvgPool", "pool5"]
    assert {kind_by_name(one) for one in pools} == {"pool"}
    others = ["conv", "nonequal", "poolside_conv2", "spool", "skipper", "0", "", "relu", "sep_conv_3x3"]
    assert {kind_by_name(one) for one in others} == {None}


def test_shares_and_probability_are_those_of_all_architectures() -> None:
    kinds = kinds_by_name(SPACE)
    all_of_them = [SPACE.at(index) for index in range(SPACE.size)]

    def idle(masks: dict[str, object], kind: str | None = None) -> int:
        named = [dict(zip(SPACE[key].candidates, kinds[key], strict=True)) for key in COUNTED]
        taken = [names[str(masks[key])] for names, key in zip(named, COUNTED, strict=True)]
        return sum(one is not None if kind is None else one == kind for one in taken)

    counts = [idle(one.names()) for one in all_of_them]
    for found in (SPACE.at(0), SPACE.at(SPACE.size - 1), all_of_them[77]):
        got = collapse_of(SPACE, found, kinds, "names")
        assert got is not None
        own = idle(found.names())
        assert (got.choices, got.chosen) == (3, own)
        assert got.mean_share == pytest.approx(sum(counts) / len(counts) / 3)
        assert got.probability == pytest.approx(sum(one >= own for one in counts) / len(counts))
        for kind in ("skip", "zero", "pool"):
            mean = sum(idle(one.names(), kind) for one in all_of_them) / len(all_of_them) / 3
            assert got.mean_kinds[kind] == pytest.approx(mean)


def test_a_convolution_gives_the_probability_of_every_count() -> None:
    chances = [0.2, 0.5, 0.75, 0.1]
    for count in range(5):
        want = 0.0
        for happens in itertools.product([True, False], repeat=4):
            if sum(happens) >= count:
                part = 1.0
                for one, chance in zip(happens, chances, strict=True):
                    part *= chance if one else 1 - chance
                want += part
        assert tail(chances, count) == pytest.approx(want)


def test_within_constraints_the_random_ones_are_counted() -> None:
    names = ({"a": "conv", "b": "dil", "c": "Linear"}, {"a": "skip", "b": "dil", "c": "Linear"})
    rest: dict[str, object] = {"activation": "relu", "idle": "skip", "link": "conv"}
    none, one = (SPACE.parse({**rest, **chosen}) for chosen in names)
    got = collapse_of(SPACE, one, kinds_by_name(SPACE), "names", [none, none, none, one])
    assert got is not None
    assert (got.exact, got.probability, got.mean_share) == (False, 0.25, pytest.approx(1 / 12))


def test_a_collapse_is_what_fewer_than_one_in_twenty_have() -> None:
    wide = SearchSpace.from_json({f"k{n}": {"_type": "layer_choice", "_value": ["conv", "skip"]} for n in range(5)})
    kinds = kinds_by_name(wide)
    found = {count: {f"k{n}": "skip" if n < count else "conv" for n in range(5)} for count in (0, 4, 5)}
    got = {count: collapse_of(wide, wide.parse(names), kinds, "names") for count, names in found.items()}
    assert {count: one is not None and one.collapsed for count, one in got.items()} == {0: False, 4: False, 5: True}
    assert [one and one.probability for one in got.values()] == pytest.approx([1, 6 / 32, 1 / 32])


def test_without_a_choice_of_both_sorts_there_is_nothing_to_say() -> None:
    space = SearchSpace.from_json({"a": {"_type": "layer_choice", "_value": ["relu", "tanh"]}})
    assert collapse_of(space, space.at(0), kinds_by_name(space), "names") is None


class Zero(nn.Module):
    """A user's own operation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


class Scaled(nn.Module):
    """Hands on, but learns how much of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)


class SkipConnect(Scaled):
    """Has the name of a skip, and learns."""


class Mine(nn.Module):
    """Neither its name nor its parts say what it does."""


class Model(nn.Module):
    """A choice of every sort of candidate."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(4)
        candidates = OrderedDict[str, nn.Module](
            learns=nn.Linear(2, 2),
            by_name_only=SkipConnect(),
            hands_on=nn.Identity(),
            normed=nn.Sequential(nn.Identity(), norm),
            dropped=nn.Dropout(0.1),
            pooled=nn.Sequential(nn.AvgPool2d(3), nn.BatchNorm2d(4)),
            adaptive=nn.AdaptiveMaxPool2d(1),
            pooled_conv=nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 1, 1)),
            zeros=Zero(),
            skip_of_mine=Mine(),
            other=Mine(),
            relu=nn.ReLU(),
            flat=nn.Flatten(),
            lazy=nn.LazyLinear(3),
        )
        self.op = LayerChoice(candidates, key="op")
        self.link = InputChoice(n_candidates=2, key="link")


def test_modules_say_what_learns_nothing() -> None:
    kinds = idle_kinds(Model(), kind_by_name)
    assert list(kinds) == ["op"]
    names = SearchSpace.from_model(Model())["op"].candidates
    assert dict(zip(names, kinds["op"], strict=True)) == {
        "learns": None,
        "by_name_only": None,
        "hands_on": "skip",
        "normed": "skip",
        "dropped": "skip",
        "pooled": "pool",
        "adaptive": "pool",
        "pooled_conv": None,
        "zeros": "zero",
        "skip_of_mine": "skip",
        "other": None,
        "relu": None,
        "flat": None,
        "lazy": None,
    }
