"""Sizes that nobody can read are shown by their power of ten."""

from __future__ import annotations

import json

import pytest

from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.space.sizes import size_as_json, size_in_words

# 2^20000 = 10^(20000 * 0.30102999566...) = 10^6020.6
HUGE = SearchSpace([Choice("in", "input_choice", tuple(f"c{number}" for number in range(20_000)), None)])


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0"),
        (576, "576"),
        (10**4298, "1" + "0" * 4298),
        (10**4301, "about 10^4301"),
        (2**20000, "about 10^6020"),
        (-(2**20000), "about -10^6020"),
    ],
    ids=["zero", "small", "4,299 digits", "4,302 digits", "huge", "below zero"],
)
def test_a_size_is_exact_or_its_power_of_ten(size: int, words: str) -> None:
    assert size_in_words(size) == words
    assert json.loads(json.dumps(size_as_json(size))) in (size, words)


def test_thousands_may_be_separated() -> None:
    assert size_in_words(1_234_567, ",") == "1,234,567"
    assert size_in_words(2**20000, ",") == "about 10^6020"


def test_a_huge_space_can_be_shown_and_its_errors_too() -> None:
    assert HUGE.size == 2**20000
    assert repr(HUGE) == "SearchSpace(1 keys, size about 10^6020)"
    with pytest.raises(IndexError, match=r"architecture about 10\^6020 of about 10\^6020"):
        HUGE.at(2**20000)
    with pytest.raises(IndexError, match=r"decision -1 of about 10\^6020 at 'in'"):
        HUGE["in"].decision(-1)


class TestCovering:
    def test_every_candidate_is_chosen(self):
        space = SearchSpace(
            [
                Choice("a", "layer_choice", ("x", "y", "z"), 1),
                Choice("b", "input_choice", tuple("stuvw"), 2),
                Choice("c", "input_choice", tuple("pq"), None),
            ]
        )
        found = [one.indices() for one in space.covering()]
        assert [one["a"] for one in found] == [(0,), (1,), (2,)]
        assert [one["b"] for one in found] == [(0, 1), (2, 3), (0, 4)]
        assert [one["c"] for one in found] == [(0, 1)] * 3
