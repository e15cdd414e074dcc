"""Rows of decisions, and the steps between them, against codes and plain comparison."""

from __future__ import annotations

import numpy as np
import pytest

from nnas_core.space.encoding import Codes
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._coordinates import Coordinates, equal
from tests.tuners.sample_spaces import ALL_KINDS, inputs, layers


@pytest.fixture(scope="module")
def codes() -> Codes:
    return Codes(SearchSpace.from_json(ALL_KINDS))


def test_decisions_of_every_kind_have_their_coordinates() -> None:
    space = SearchSpace.from_json({"any": inputs(3, None), "fixed": layers(1), "op": layers(3), "two": inputs(3, 2)})
    codes = Codes(space)
    coordinates = Coordinates(codes)
    code = codes.parse({"any": [0, 2], "fixed": [0], "op": [2], "two": [1, 2]})
    assert coordinates.rows([code]).tolist() == [[1, 0, 1, 2, 0, 1, 1]]
    assert coordinates.width == 7


def test_a_row_is_its_architecture(codes: Codes) -> None:
    every = list(codes.all())
    rows = Coordinates(codes).rows(every)
    assert [Coordinates(codes).code(row) for row in rows] == every
    assert len({tuple(row) for row in rows.tolist()}) == len(every)


def test_a_space_without_a_choice_has_rows_without_coordinates() -> None:
    codes = Codes(SearchSpace.from_json({"a": layers(1), "b": inputs(2, 2)}))
    coordinates = Coordinates(codes)
    assert coordinates.rows([(0, 0)]).shape == (1, 0)
    assert coordinates.code(coordinates.rows([(0, 0)])[0]) == (0, 0)


def test_steps_are_those_of_codes(codes: Codes) -> None:
    coordinates = Coordinates(codes)
    numbers = np.arange(codes.degree)
    for code in codes.all():
        row = coordinates.rows([code])[0]
        steps = coordinates.steps(row, numbers)
        for number in numbers.tolist():
            reached = codes.neighbour(code, number)
            assert coordinates.code(steps.taken(row, [number])) == reached
            assert reached[steps.keys[number]] != code[steps.keys[number]]


def test_some_steps_are_those_with_their_numbers(codes: Codes) -> None:
    coordinates = Coordinates(codes)
    row = coordinates.rows([codes.sample(np.random.default_rng(0))])[0]
    every = coordinates.steps(row, np.arange(codes.degree))
    some = coordinates.steps(row, np.array([5, 1, 6]))
    for part in ("keys", "where", "what"):
        assert getattr(some, part).tolist() == getattr(every, part)[[5, 1, 6]].tolist()


def test_equal_decisions_are_counted(codes: Codes) -> None:
    coordinates = Coordinates(codes)
    rows = coordinates.rows(list(codes.all()))
    one, other = rows[::5], rows[::7]
    assert equal(one, other).tolist() == [[int((a == b).sum()) for b in other] for a in one]
    assert equal(rows[:0], other).shape == (0, len(other))
    for row in rows[::9]:
        steps = coordinates.steps(row, np.arange(codes.degree))
        after = np.array([steps.taken(row, [number]) for number in range(codes.degree)])
        assert steps.equal(row, other, equal(other, row[None])[:, 0]).tolist() == equal(other, after).tolist()


def test_steps_at_several_keys_are_taken_together(codes: Codes) -> None:
    coordinates = Coordinates(codes)
    code = next(codes.all())
    row = coordinates.rows([code])[0]
    steps = coordinates.steps(row, np.arange(codes.degree))
    last = codes.degree - 1
    assert coordinates.code(steps.taken(row, [0, last])) == codes.neighbour(codes.neighbour(code, 0), last)
