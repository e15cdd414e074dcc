"""Codes name every architecture once, and are drawn and changed uniformly."""

from __future__ import annotations

import collections
import itertools
import math
import operator
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import ArchitectureError, NnasWarning
from nnas_core.space.encoding import Code, Codes, below, shuffled
from nnas_core.space.search_space import SearchSpace
from nnas_core.space.unseen import Unseen
from tests.tuners.sample_spaces import ALL_KINDS, inputs, layers


@pytest.fixture
def codes() -> Codes:
    return Codes(SearchSpace.from_json(ALL_KINDS))


def test_codes_are_the_architectures_in_the_order_of_the_space(codes: Codes) -> None:
    every = list(codes.all())
    assert len(every) == codes.size == len(set(every))
    for number, code in enumerate(every):
        parameters = codes.parameters(code)
        assert parameters == codes.space.at(number).parameters()
        assert codes.read(parameters) == code
        assert codes.parse(codes.space.at(number).masks()) == code


def test_a_mutation_changes_one_key_and_reaches_every_neighbour(codes: Codes) -> None:
    rng = np.random.default_rng(0)
    for start in codes.all():
        before = codes.space.parse(codes.parameters(start)).indices()
        for _ in range(20):
            after = codes.space.parse(codes.parameters(codes.mutate(start, rng))).indices()
            changed = [key for key in before if before[key] != after[key]]
            assert len(changed) == 1
            assert changed[0] not in ("only", "none")  # which have one decision
    start = codes.sample(rng)
    reached = {codes.mutate(start, rng) for _ in range(2000)}
    assert reached == {code for code in codes.all() if sum(map(operator.ne, code, start)) == 1}


def test_a_space_of_one_architecture_has_no_mutation() -> None:
    codes = Codes(SearchSpace.from_json({"a": layers(1), "b": inputs(3, 0)}))
    assert codes.mutate((0, 0), np.random.default_rng(0)) == (0, 0)


def test_choices_beyond_64_bits_are_drawn_and_changed() -> None:
    codes = Codes(SearchSpace.from_json({"huge": inputs(100, None), "half": inputs(80, 40), "small": layers(2)}))
    rng = np.random.default_rng(0)
    drawn = [codes.sample(rng) for _ in range(400)]
    often = np.mean([len(codes.parameters(code)["huge"]["_idx"]) for code in drawn])
    assert abs(often - 50) < 4 * 5 / 400**0.5  # binomial: 100 coins
    for code in drawn[:50]:
        assert codes.read(codes.parameters(code)) == code
        assert sum(a != b for a, b in zip(code, codes.mutate(code, rng), strict=True)) == 1


def test_large_numbers_are_drawn_uniformly() -> None:
    rng = np.random.default_rng(0)
    limit = 3 * 2**70
    thirds = collections.Counter(below(rng, limit) * 3 // limit for _ in range(3000))
    assert sorted(thirds) == [0, 1, 2]
    assert all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in thirds.values())


def test_everything_unseen_is_drawn_once_and_what_was_seen_never(codes: Codes) -> None:
    unseen = Unseen(codes)
    rng = np.random.default_rng(0)
    every = list(codes.all())
    given: list[Code] = []
    for code in every[::3]:
        unseen.see(code)
    while (drawn := unseen.draw(rng)) is not None:
        given.append(drawn)
        if len(given) == codes.size // 2:  # also what is seen while the rest is a list
            unseen.see(next(left for left in every[1::3] if left in unseen))
    assert len(given) == len(set(given)) == codes.size - len(every[::3]) - 1
    assert not set(given) & set(every[::3])
    assert not unseen


def test_architectures_of_strangers_are_checked(codes: Codes) -> None:
    with pytest.raises(ArchitectureError, match="chooses 1 candidates, n_chosen is 2"):
        codes.parse({**codes.parameters(next(iter(codes.all()))), "two": [0]})


# ---- neighbours


def test_a_neighbour_is_the_smallest_step_at_one_key(codes: Codes) -> None:
    """By sets of chosen candidates: one enters or leaves where any number may, two change places elsewhere."""
    every = {code: codes.space.parse(codes.parameters(code)).indices() for code in codes.all()}
    for code, decisions in every.items():
        expected = set()
        for other, others in every.items():
            changed = [set(decisions[key]) ^ set(others[key]) for key in decisions if decisions[key] != others[key]]
            if len(changed) == 1 and len(changed[0]) == (1 if decisions["any"] != others["any"] else 2):
                expected.add(other)
        neighbours = [codes.neighbour(code, index) for index in range(codes.degree)]
        read = codes.space.parse(codes.parameters(code))
        assert neighbours == [codes.parse(one.masks()) for one in codes.space.neighbours(read)]
        assert len(neighbours) == len(set(neighbours)) == 2 + 2 + 1 + 2  # layer, any, one, two
        assert set(neighbours) == expected


@pytest.mark.parametrize("index", [-1, 7])
def test_there_are_no_more_neighbours_than_the_degree(codes: Codes, index: int) -> None:
    with pytest.raises(IndexError, match=f"neighbour {index} of 7"):
        codes.neighbour(next(codes.all()), index)


def test_a_huge_choice_has_few_neighbours() -> None:
    codes = Codes(SearchSpace.from_json({"any": inputs(100, None), "half": inputs(80, 40)}))
    assert codes.degree == 100 + 40 * 40
    start = codes.sample(np.random.default_rng(0))
    decisions = codes.space.parse(codes.parameters(start)).indices()
    for index in (0, 99, 100, codes.degree - 1):
        others = codes.space.parse(codes.parameters(codes.neighbour(start, index))).indices()
        key, changes = ("any", 1) if index < 100 else ("half", 2)
        assert len(set(decisions[key]) ^ set(others[key])) == changes


def test_every_order_is_equally_likely_in_a_shuffle() -> None:
    rng = np.random.default_rng(0)
    counts = collections.Counter(tuple(shuffled(rng, 4)) for _ in range(2400))
    assert set(counts) == set(itertools.permutations(range(4)))
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.728  # 99.9 %, 23 degrees of freedom


def test_a_shuffle_of_any_length_starts_at_once() -> None:
    taken = list(itertools.islice(shuffled(np.random.default_rng(0), 10**40), 100))
    assert len(set(taken)) == 100
    assert all(0 <= number < 10**40 for number in taken)


# ---- trials of elsewhere


def test_trials_of_elsewhere_are_read_in_any_form(codes: Codes) -> None:
    space = codes.space
    data = [{"parameter": space.at(3).masks(), "value": 2}, {"parameter": space.at(5).parameters(), "value": 0.5}]
    every = list(codes.all())
    assert codes.trials(data) == [(every[3], 2.0), (every[5], 0.5)]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True])
def test_values_of_elsewhere_that_are_no_finite_numbers_are_warned_about(codes: Codes, value: Any) -> None:
    with pytest.warns(NnasWarning, match="is not a finite number: the trial only counts as known"):
        read = codes.trials([{"parameter": codes.space.at(0).masks(), "value": value}])
    assert read == [(next(codes.all()), None)]
