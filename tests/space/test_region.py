"""What is within bounds, against looking at every architecture; and spaces that nobody can list."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Mapping
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from nnas_core.errors import NoResultError
from nnas_core.space.bounded import Bounded, Limit
from nnas_core.space.choice import Decision
from nnas_core.space.costs import CostTable, latency_costs
from nnas_core.space.encoding import Codes
from nnas_core.space.goals import Constraint, constraints_of
from nnas_core.space.region import KnownCosts, Region, TableCosts
from nnas_core.space.search_space import SearchSpace
from nnas_core.space.unseen import Unseen
from tests.tuners.sample_spaces import ALL_KINDS, layers


def space_of(*counts: int) -> SearchSpace:
    """LayerChoices a0, a1, ... with so many candidates."""
    return SearchSpace.from_json({f"a{place}": layers(count) for place, count in enumerate(counts)})


def drawn_costs(space: SearchSpace, seed: int, most: int = 30) -> CostTable:
    """Random costs of all candidates."""
    rng = np.random.default_rng(seed)
    return CostTable(7, {one.key: tuple(rng.integers(0, most, len(one.candidates)).tolist()) for one in space})


class Measured(KnownCosts):
    """Costs of a table, which do not say that they add up."""

    def __init__(self, table: CostTable) -> None:
        self.tables = {}
        self.names = ["cost"]
        self.calls = 0
        self._table = table

    def measured(self, decisions: Mapping[str, Decision], names: Collection[str]) -> Mapping[str, float]:
        self.calls += 1
        return {"cost": float(self._table.of(decisions))}


def within(space: SearchSpace, constraints: Collection[Constraint], tables: Mapping[str, CostTable]) -> set[str]:
    """All architectures that meet the constraints, found one by one."""
    every = (space.at(number) for number in range(space.size))
    return {
        one.canonical
        for one in every
        if all(limit.holds(tables[limit.name].value(one.indices())) for limit in constraints)
    }


def found(region: Region) -> list[str]:
    """What a region lists."""
    codes = region.codes
    return [codes.space.parse(codes.parameters(code)).canonical for code in region.all()]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "texts",
    [["a<=95"], ["a>=60"], ["a<=100", "ms>=1.5"], ["a>=40", "a<=90", "ms<=4"], ["a<=9999"], ["ms<=4"]],
    ids=" ".join,
)
def test_a_region_has_exactly_what_meets_all_constraints(texts: list[str], seed: int) -> None:
    space = SearchSpace.from_json({**ALL_KINDS, "more": layers(4), "last": layers(2)})
    rng = np.random.default_rng(seed)
    tables = {
        "a": drawn_costs(space, seed),
        "ms": latency_costs({one.key: rng.random(len(one.candidates)).tolist() for one in space}),
    }
    constraints = constraints_of(texts)
    truth = within(space, constraints, tables)
    assert truth
    region = Region(space, constraints, TableCosts(tables))
    listed = found(region)
    assert (region.size, region.counted()) == (len(truth), (len(truth), True))
    assert sorted(listed) == sorted(truth)
    assert sum(code in region for code in region.codes.all()) == len(truth)


def test_bounds_on_numbers_too_large_to_be_one_together_are_as_exact() -> None:
    space = space_of(3, 4, 2, 5)
    small = {name: drawn_costs(space, seed) for seed, name in enumerate("ab")}
    large = {
        name: CostTable(0, {key: tuple(cost << 40 for cost in row) for key, row in table.candidates.items()})
        for name, table in small.items()
    }
    bounds = {"a": 40, "b": 45}
    sizes = []
    for tables, shift in ((small, 0), (large, 40)):
        limits = constraints_of([f"{name}<={tables[name].fixed + (bound << shift)}" for name, bound in bounds.items()])
        sizes.append(Region(space, limits, TableCosts(tables)).size)
    assert sizes[0] == sizes[1]
    assert 0 < (sizes[0] or 0) < space.size


def test_three_tenths_are_three_tenths() -> None:
    space = space_of(2, 2, 2)
    table = latency_costs({key: [0.1, 0.2] for key in space.keys})
    assert Region(space, constraints_of(["ms<=0.3"]), TableCosts({"ms": table})).size == 1


def test_draws_are_uniform() -> None:
    space = space_of(3, 4, 2)
    region = Region(space, constraints_of(["a<=45"]), TableCosts({"a": drawn_costs(space, 3)}))
    rng = np.random.default_rng(0)
    every = list(region.all())
    counts = dict.fromkeys(every, 0)
    for _ in range(200 * len(every)):
        counts[region.draw(rng)] += 1
    assert 3 < len(every) < space.size
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_rounded_costs_let_in_little_and_leave_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnas_core.space.bounded._MOST_STEPS", 60)
    space = space_of(4, 4, 4, 4)
    tables = {"a": drawn_costs(space, 1, 1000), "b": drawn_costs(space, 2, 1000)}
    constraints = constraints_of(["a<=1500", "b<=2500"])
    region = Region(space, constraints, TableCosts(tables))
    truth = within(space, constraints, tables)
    assert region.size is None
    assert len(truth) < region.at_most < space.size
    assert sorted(found(region)) == sorted(truth)
    assert region.counted() == (len(truth), True)
    assert region.draw(np.random.default_rng(0)) in region


def test_shared_parts_count_once() -> None:
    space = space_of(3, 3, 2)
    users = frozenset({("a0", 0), ("a1", 1), ("a2", 0)})
    table = CostTable(5, {key: tuple(range(len(space[key].candidates))) for key in space.keys}, ((users, 4),))
    for texts in (["a<=9"], ["a>=11"], ["a<=11", "a>=8"]):
        constraints = constraints_of(texts)
        region = Region(space, constraints, TableCosts({"a": table}))
        assert sorted(found(region)) == sorted(within(space, constraints, {"a": table}))


def test_where_shared_parts_exclude_nearly_all_every_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnas_core.space.region._TRIES", 1)
    space = space_of(5, 5, 5)
    shared = tuple((frozenset({(key, index)}), 9) for key in space.keys for index in range(1, 5))
    table = CostTable(0, dict.fromkeys(space.keys, (0, 0, 0, 0, 0)), shared)
    region = Region(space, constraints_of(["a<=0"]), TableCosts({"a": table}))
    assert region.draw(np.random.default_rng(0)) == (0, 0, 0)
    monkeypatch.setattr("nnas_core.space.region._MOST_MEASURED", 1)
    with pytest.raises(NoResultError, match="none of the architectures that were looked at has a<=0"):
        Region(space, constraints_of(["a<=0"]), TableCosts({"a": table}))


def test_of_10_to_the_18_architectures_the_smallest_is_told_at_once() -> None:
    space = space_of(*[10] * 18)
    table = drawn_costs(space, 0, 300_000)
    least = 7 + sum(map(min, table.candidates.values()))
    begin = time.process_time()
    with pytest.raises(NoResultError, match=f"no architecture has a<=1000: the smallest is {least:,}"):
        Region(space, constraints_of(["a<=1000"]), TableCosts({"a": table}))
    assert time.process_time() - begin < 1


def test_10_to_the_18_architectures_are_counted() -> None:
    space = space_of(*[10] * 18)
    table = CostTable(0, {key: tuple(range(10)) for key in space.keys})
    region = Region(space, constraints_of(["a<=20"]), TableCosts({"a": table}))
    # digits with a sum of at most 20: by inclusion and exclusion of digits above 9
    truth = sum((-1) ** k * math.comb(18, k) * math.comb(20 - 10 * k + 18, 18) for k in range(3))
    assert region.size == truth
    codes = [region._bounded.at(number) for number in (0, 1, truth // 2, truth - 1)]
    assert len(set(codes)) == 4
    assert max(map(sum, codes)) <= 20


def test_more_than_a_machine_word_counts() -> None:
    space = space_of(*[10] * 40)
    table = CostTable(0, {key: (0, *[1] * 9) for key in space.keys})
    region = Region(space, constraints_of(["a<=39"]), TableCosts({"a": table}))
    assert region.size == 10**40 - 9**40


def test_constraints_that_exclude_each_other_say_what_each_can_be_beside_the_others() -> None:
    space = space_of(2, 2)
    tables = {
        "a": CostTable(0, {"a0": (0, 5), "a1": (0, 5)}),
        "b": CostTable(0, {"a0": (3, 0), "a1": (3, 0)}),
    }
    with pytest.raises(NoResultError, match="no architecture has a<=4 and b<=2") as refused:
        Region(space, constraints_of(["a<=4", "b<=2"]), TableCosts(tables))
    assert refused.value.problems == (
        "a<=4: the smallest is 10 where the others hold",
        "b<=2: the smallest is 6 where the others hold",
    )


def test_the_least_within_bounds_is_that_of_all_that_are_looked_at() -> None:
    space = space_of(3, 4, 3)
    one, other = drawn_costs(space, 5), drawn_costs(space, 6)
    limit = Limit(Constraint("a", True, 50), one)
    bounded = Bounded(Codes(space), [limit])
    inside = [space.at(n).indices() for n in range(space.size) if one.of(space.at(n).indices()) <= 50]
    assert bounded.least(other) == min(map(other.of, inside))
    assert bounded.least(other, largest=True) == max(map(other.of, inside))
    with pytest.raises(IndexError, match="code 99 of"):
        bounded.at(99)


def test_what_does_not_add_up_is_measured_once_and_draws_stay_inside() -> None:
    space = space_of(3, 4, 2)
    table = drawn_costs(space, 3)
    costs = Measured(table)
    region = Region(space, constraints_of(["cost<=45"]), costs)
    truth = within(space, constraints_of(["cost<=45"]), {"cost": table})
    assert region.size is None
    assert sorted(found(region)) == sorted(truth)
    calls = costs.calls
    rng = np.random.default_rng(0)
    assert all(region.draw(rng) in region for _ in range(50))
    assert list(region.all())
    assert costs.calls - calls <= 50 * 20


def test_a_walk_reaches_what_few_draws_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnas_core.space.region._MEASURED", 3)
    space = space_of(*[4] * 8)
    table = CostTable(0, dict.fromkeys(space.keys, (0, 1, 2, 3)))
    region = Region(space, constraints_of(["cost<=2"]), Measured(table))
    assert region.draw(np.random.default_rng(1)) in region


def test_what_no_walk_reaches_is_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnas_core.space.region._MEASURED", 3)
    space = space_of(4, 4)
    table = CostTable(2, dict.fromkeys(space.keys, (0, 1, 2, 3)))
    with pytest.raises(NoResultError, match="no architecture has cost<=1") as refused:
        Region(space, constraints_of(["cost<=1"]), Measured(table))
    assert refused.value.problems == ("cost<=1: the smallest is 2",)
    monkeypatch.setattr("nnas_core.space.region._MOST_MEASURED", 15)
    with pytest.raises(NoResultError, match="looked at has cost<=1") as refused:
        Region(space, constraints_of(["cost<=1"]), Measured(table))
    assert refused.value.problems == ("cost<=1: nearest was 2",)


def test_where_no_walk_leads_all_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnas_core.space.region._MEASURED", 1)
    monkeypatch.setattr("nnas_core.space.region._STEPS", 0)
    space = space_of(5, 5, 5)
    table = CostTable(0, dict.fromkeys(space.keys, (3, 0, 5, 7, 9)))
    region = Region(space, constraints_of(["cost<=0"]), Measured(table))
    assert region.draw(np.random.default_rng(0)) == (1, 1, 1)


def test_decisions_that_are_too_many_to_look_at_are_bounded_by_the_cheapest() -> None:
    many = {"_type": "input_choice", "_value": {"candidates": [f"i{n}" for n in range(30)], "n_chosen": None}}
    space = SearchSpace.from_json({"any": many, "op": layers(2)})
    table = latency_costs({"any": [1.0] * 30, "op": [0.0, 2.0]})
    region = Region(space, constraints_of(["ms<=11"]), TableCosts({"ms": table}))
    count, exact = region.counted()
    truth = sum(math.comb(30, k) for k in range(12)) + sum(math.comb(30, k) for k in range(10))
    assert not exact
    assert count == pytest.approx(truth, rel=0.15)
    assert region.draw(np.random.default_rng(0)) in region


def test_what_no_number_holds_is_infinite_and_within_no_bound() -> None:
    table = latency_costs({"a0": [Fraction(10**311), Fraction(1)], "a1": [1.0, 2.0]})
    region = Region(space_of(2, 2), constraints_of(["ms<=1e308"]), TableCosts({"ms": table}))
    assert region.counted() == (2, True)
    assert region.costs.of(region.codes.space.at(0)) == {"ms": math.inf}


def test_units_are_what_numbers_are_multiplied_by() -> None:
    table = CostTable(1, {"a0": (2, 4)}, unit=Fraction(1, 2))
    assert [table.value({"a0": (index,)}) for index in range(2)] == [1.5, 2.5]


@pytest.mark.parametrize("measured", [False, True])
def test_the_unseen_are_those_of_the_region(measured: bool) -> None:
    space = space_of(3, 4, 2)
    table = drawn_costs(space, 3)
    costs = Measured(table) if measured else TableCosts({"cost": table})
    region = Region(space, constraints_of(["cost<=45"]), costs)
    unseen = Unseen(region.codes, region)
    rng = np.random.default_rng(0)
    outside = next(code for code in region.codes.all() if code not in region)
    assert outside not in unseen
    unseen.see(outside)
    drawn = [unseen.draw(rng) for _ in range(len(list(region.all())))]
    assert sorted(filter(None, drawn)) == sorted(region.all())
    assert unseen.draw(rng) is None
    assert not unseen
    assert all(unseen.any(rng) in region for _ in itertools.repeat(None, 20))
