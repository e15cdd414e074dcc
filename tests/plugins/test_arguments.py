"""Arguments of algorithms: what fits a constructor, and what is said of the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from nnas_core.errors import UsageError
from nnas_core.plugins.arguments import check_arguments, check_count, check_flag, check_range, sign_of


class Algorithm:
    def __init__(
        self,
        model: Any,
        *,
        order: Literal[1, 2] = 1,
        rate: float = 0.1,
        steps: int = 3,
        zero: bool = True,
        name: str | None = None,
        betas: Sequence[float] = (0.5, 0.9),
        table: Mapping[str, float] | None = None,
        free: Any = None,
    ) -> None:
        pass


class Needy:
    def __init__(self, model: Any, count: int) -> None:
        pass


class Open:
    def __init__(self, model: Any, **options: Any) -> None:
        pass


@pytest.mark.parametrize(
    "given",
    [
        {"order": 2},
        {"rate": 0.5},
        {"steps": 0},
        {"zero": False},
        {"name": "x"},
        {"name": None},
        {"betas": [0, 0.5]},
        {"table": {"a": 1}},
        {"free": [{}]},
    ],
)
def test_what_fits_is_handed_on(given: dict[str, Any]) -> None:
    assert check_arguments(Algorithm, given, "mutator 'x'", ["model"]) == given


def test_whole_numbers_become_floats_where_floats_are_expected() -> None:
    checked = check_arguments(Algorithm, {"rate": 1, "steps": 1}, "mutator 'x'", ["model"])
    assert [type(value) for value in checked.values()] == [float, int]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": 3}, "cannot take order=3, it must be 1 or 2"),
        ({"order": True}, "cannot take order=true, it must be 1 or 2"),
        ({"rate": "fast"}, 'cannot take rate="fast", it must be a number'),
        ({"rate": True}, "cannot take rate=true, it must be a number"),
        ({"steps": 1.5}, "cannot take steps=1.5, it must be a whole number"),
        ({"steps": False}, "cannot take steps=false, it must be a whole number"),
        ({"zero": 1}, "cannot take zero=1, it must be true or false"),
        ({"name": 1}, "cannot take name=1, it must be a text or null"),
        ({"betas": 0.5}, "cannot take betas=0.5, it must be a list, each a number"),
        ({"betas": ["a"]}, 'cannot take betas=["a"], it must be a list, each a number'),
        ({"table": {"a": "b"}}, 'cannot take table={"a": "b"}, it must be an object, each value a number or null'),
        ({"rat": 1}, "takes no argument 'rat'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'the mutator {chr(39)}x{chr(39)} {message}')}$"):
        check_arguments(Algorithm, given, "mutator 'x'", ["model"])


def test_the_hint_lists_what_there_is_and_the_closest_name() -> None:
    with pytest.raises(UsageError) as raised:
        check_arguments(Algorithm, {"rat": 1}, "mutator 'x'", ["model"])
    assert raised.value.hint == "did you mean 'rate'? it takes order, rate, steps, zero, name, betas, table, free"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UsageError, match=r"^the tuner 'x' needs the argument 'count'$") as raised:
        check_arguments(Needy, {}, "tuner 'x'", ["model"])
    assert raised.value.hint == "give --tuner-arg count=..."


def test_a_constructor_that_takes_anything_gets_it() -> None:
    assert check_arguments(Open, {"anything": 1}, "mutator 'x'", ["model"]) == {"anything": 1}


@pytest.mark.parametrize(
    ("value", "interval", "inside"),
    [
        (0, "[0, 1]", True),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (1, "[0, 1)", False),
        (1e9, "(0, inf)", True),
        (float("inf"), "(0, inf)", False),
        (float("nan"), "[0, 1]", False),
        (-1, "[0, inf)", False),
    ],
)
def test_an_interval_is_read_as_mathematics_writes_it(value: float, interval: str, inside: bool) -> None:
    if inside:
        check_range("rate", value, interval)
        return
    with pytest.raises(UsageError, match=f"^rate={re.escape(str(value))} is out of range$") as raised:
        check_range("rate", value, interval)
    assert raised.value.hint == f"it must be in {interval}"


@pytest.mark.parametrize("value", [2, 3, 10**30])
def test_whole_numbers_from_the_least_on_are_counts(value: int) -> None:
    check_count("x: size", value, 2)


@pytest.mark.parametrize("value", [1, -1, 2.0, True, "2", None])
def test_smaller_and_other_values_are_no_counts(value: object) -> None:
    message = re.escape(f"x: size must be a whole number of at least 2, not {value!r}")
    with pytest.raises(UsageError, match=message):
        check_count("x: size", value, 2)


@pytest.mark.parametrize("value", [True, False])
def test_truth_values_are_flags(value: bool) -> None:
    check_flag("x: full", value)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_other_values_are_no_flags(value: object) -> None:
    with pytest.raises(UsageError, match=re.escape(f"x: full must be true or false, not {value!r}")):
        check_flag("x: full", value)


def test_larger_is_better_after_multiplying_by_the_sign() -> None:
    assert sign_of("x: optimize_mode", "maximize") == 1.0
    assert sign_of("x: optimize_mode", "minimize") == -1.0


def test_other_modes_have_no_sign() -> None:
    with pytest.raises(UsageError, match="x: optimize_mode must be maximize or minimize, not 'max'"):
        sign_of("x: optimize_mode", "max")
