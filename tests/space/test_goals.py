"""Limits and objectives as people write them."""

from __future__ import annotations

import math

import pytest

from nnas_core.errors import UsageError
from nnas_core.space.goals import Constraint, Objective, constraints_of, nothing_reports, objectives_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("parameters<=1e6", "parameters<=1000000"),
        ("  latency_ms <= 5.25 ", "latency_ms<=5.25"),
        ("accuracy>=.9", "accuracy>=0.9"),
        ("top-5 error<=-0", "top-5 error<=0"),
        ("macs<=1e300", "macs<=1e+300"),
    ],
)
def test_a_limit_is_written_in_one_way(text: str, shown: str) -> None:
    found = Constraint.parse(text)
    assert str(found) == shown
    assert Constraint.parse(shown) == found


@pytest.mark.parametrize(
    "text",
    ["", "parameters", "parameters<5", "parameters=5", "parameters==5", "parameters<=", "<=5", "parameters<=many",
     "parameters<=nan", "parameters<=inf", "parameters<=1,5", "1<=parameters<=2", "parameters<=5 M", "a" * 101 + "<=5"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no limit") as refused:
        Constraint.parse(text)
    assert refused.value.hint == "give NAME<=VALUE or NAME>=VALUE, as in 'parameters<=1e6'"


def test_both_ends_are_allowed_and_what_is_not_finite_never_is() -> None:
    most, least = Constraint("a", True, 2.0), Constraint("a", False, 2.0)
    assert [most.holds(value) for value in (1.9, 2, 2.1, math.nan, -math.inf)] == [True, True, False, False, False]
    assert [least.holds(value) for value in (1.9, 2, 2.1, math.nan, math.inf)] == [False, True, True, False, False]
    assert [most.excess(value) for value in (1, 3, math.nan)] == [0.0, 0.5, math.inf]
    assert least.excess(1) == 0.5


def test_a_bound_is_what_was_written_not_what_a_float_makes_of_it() -> None:
    assert Constraint.parse("a<=0.3").exact_bound * 10 == 3


def test_constraints_come_in_one_order_and_once() -> None:
    assert [str(one) for one in constraints_of(["b<=2", "a>=1", "b<=2.0", "a<=3"])] == ["a>=1", "a<=3", "b<=2"]


def test_two_that_no_number_meets_are_refused() -> None:
    with pytest.raises(UsageError, match="no number meets both a>=3 and a<=2"):
        constraints_of(["a<=2", "a>=3"])


@pytest.mark.parametrize(
    ("text", "towards", "sign"),
    [
        ("accuracy", "accuracy:min", -1),
        ("f1", "f1:max", 1),
        ("macs", "macs:min", -1),
        ("loss", "loss:min", -1),
        ("macs:max", "macs:max", 1),
        ("a:b:min", "a:b:min", -1),
        ("value", "value:min", -1),
        ("size", "size:min", -1),
    ],
)
def test_an_objective_has_a_direction(text: str, towards: str, sign: int) -> None:
    found = Objective.parse(text).towards("accuracy", "minimize", ["size"])
    assert (str(found), found.sign) == (towards, sign)
    assert str(Objective.parse(text)) == text


@pytest.mark.parametrize("text", ["", ":min", "macs:least", "macs:"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no objective"):
        Objective.parse(text)


def test_an_objective_is_named_once() -> None:
    assert len(objectives_of(["a", "b:min"])) == 2
    with pytest.raises(UsageError, match="'a' is named twice"):
        objectives_of(["a", "a:min"])


def test_a_name_that_nothing_reports_gets_the_closest() -> None:
    near = nothing_reports("constraint", "params", ["accuracy", "parameters", "macs"])
    assert (near.message, near.hint) == ("`constraint`: nothing reports 'params'", "did you mean parameters")
    assert nothing_reports("objective", "xyz", ["b", "a"]).hint == "there are a, b"
    assert nothing_reports("objective", "xyz", []).hint == "there are no name"
