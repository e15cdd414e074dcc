"""Tables in milliseconds, whatever their unit is."""

from __future__ import annotations

from fractions import Fraction

import pytest

from nnas_core.errors import InputError
from nnas_core.space.costs import latency_costs
from nnas_core.space.latency_table import milliseconds_of
from nnas_core.space.search_space import SearchSpace

SPACE = SearchSpace.from_json({"op": {"_type": "layer_choice", "_value": ["a", "b"]}})


def table(unit: str = "ms", **more: object) -> dict[str, object]:
    """Of one key."""
    return {"format": "nnas.latency-table/1", "unit": unit, "latencies": {"op": {"a": 1, "b": 2.5}}, **more}


@pytest.mark.parametrize(
    ("unit", "scale"), [("s", 1000), ("ms", 1), ("us", Fraction(1, 1000)), ("ns", Fraction(1, 10**6))]
)
def test_what_every_architecture_takes_has_the_unit_of_the_table(unit: str, scale: Fraction) -> None:
    found = milliseconds_of(table(unit, fixed=0.25), SPACE, "table.json")
    assert found.fixed == Fraction(1, 4) * scale
    assert list(found.candidates["op"]) == [scale, Fraction(5, 2) * scale]
    costs = latency_costs(found.candidates, found.fixed)
    assert costs.value({"op": (1,)}) == float(Fraction(11, 4) * scale)


def test_tables_without_it_mean_what_they_meant() -> None:
    found = milliseconds_of(table(), SPACE, "table.json")
    assert latency_costs(found.candidates, found.fixed).value({"op": (0,)}) == 1


@pytest.mark.parametrize(
    ("fixed", "problem"),
    [
        (-1, r"\$.fixed: -1 is less than the minimum of 0"),
        ("x", r"\$.fixed: 'x' is not of type 'number'"),
        (10**400, "fixed: is too large a number"),
    ],
)
def test_what_is_no_time_is_refused(fixed: object, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        milliseconds_of(table(fixed=fixed), SPACE, "table.json")
    assert problem.replace("\\", "") in caught.value.problems
