"""SPOS: the distribution, counted over all architectures; bounds that are never left; what cannot be served."""

from __future__ import annotations

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from nnas_core import LayerChoice, RandomMutator
from nnas_core.errors import NnasWarning, NoResultError, UsageError
from nnas_core.mutables.cost import parameter_table
from nnas_core.mutators._bounded import AddedCosts, BoundedDraw, MeasuredCosts, Population
from nnas_core.mutators.spos import SposMutator, SposTrainer
from nnas_core.plugins.registry import find
from tests.mutators.enumerable_costs import (
    Long,
    Shrinking,
    Unequal,
    drawn,
    everything,
    expected,
    flops_of,
    is_distributed,
    long_sample,
    params_of,
    quietly,
    sample,
    seeded,
)


class TestUnbounded:
    @pytest.mark.parametrize("n_chosen", [None, 1, 2])
    def test_every_architecture_is_equally_likely(self, n_chosen):
        mutator = SposMutator(Unequal(n_chosen), seeded())
        possible = everything(mutator)
        assert is_distributed(Counter(drawn(mutator, 3000)), dict.fromkeys(possible, 1 / len(possible)))

    @pytest.mark.parametrize("n_chosen", [None, 1, 2])
    def test_it_draws_what_random_draws(self, n_chosen):
        ours, theirs = SposMutator(Unequal(n_chosen), seeded(3)), RandomMutator(Unequal(n_chosen), seeded(3))
        assert list(drawn(ours, 50)) == list(drawn(theirs, 50))
        assert ours.final_architecture() == theirs.final_architecture()

    def test_a_single_path_takes_the_quick_way(self):
        model = nn.Sequential(LayerChoice([nn.Identity(), nn.Tanh()]), LayerChoice([nn.Identity(), nn.ReLU()]))
        mutators = SposMutator(copy.deepcopy(model), seeded()), RandomMutator(model, seeded())
        for mutator in mutators:
            mutator.reset()
        assert type(mutators[0].binding.decision) is type(mutators[1].binding.decision)
        assert mutators[0].status() == mutators[1].status()


@quietly
class TestWithinBounds:
    """Each way of drawing: by a list or by trial, costs that add up or are measured."""

    @pytest.fixture(params=["listed", "tried"])
    def way(self, request, monkeypatch):
        if request.param == "tried":
            monkeypatch.setattr(AddedCosts, "listed_up_to", 0)
            monkeypatch.setattr(MeasuredCosts, "listed_up_to", 0)
            monkeypatch.setattr(MeasuredCosts, "looks", 1.0)
        return request.param

    @pytest.mark.parametrize("bins", [1, 3])
    @pytest.mark.parametrize("n_chosen", [None, 2])
    def test_parameters(self, way, bins, n_chosen):
        mutator = SposMutator(Unequal(n_chosen), seeded(), params=[20, 110], bins=bins)
        costs = {one: params_of(mutator, architecture) for one, architecture in everything(mutator).items()}
        wanted = expected(costs, 20, 110, bins)
        assert 0 < len(wanted) < len(costs)
        assert is_distributed(Counter(drawn(mutator, 1500)), wanted)

    @pytest.mark.parametrize("bins", [1, 4])
    def test_flops_that_add_up(self, way, bins):
        mutator = SposMutator(Unequal(1), seeded(), flops=[20, 170], bins=bins)
        mutator.measure_costs(sample())
        costs = {one: flops_of(mutator, architecture, sample()) for one, architecture in everything(mutator).items()}
        wanted = expected(costs, 20, 170, bins)
        assert 0 < len(wanted) < len(costs)
        assert is_distributed(Counter(drawn(mutator, 1500)), wanted)

    @pytest.mark.parametrize("bins", [1, 4])
    def test_flops_that_do_not_add_up(self, way, bins):
        mutator = SposMutator(Shrinking(), seeded(), flops=[30, 300], bins=bins, tries=400)
        mutator.measure_costs(long_sample())
        costs = {
            one: flops_of(mutator, architecture, long_sample()) for one, architecture in everything(mutator).items()
        }
        wanted = expected(costs, 30, 300, bins)
        assert 0 < len(wanted) < len(costs)
        assert is_distributed(Counter(drawn(mutator, 1000)), wanted)

    @pytest.mark.parametrize("model", [lambda: Unequal(1), Shrinking], ids=["added", "measured"])
    def test_both_bounds_hold_and_the_bins_are_of_flops(self, way, model):
        model, x = model(), sample()
        x = long_sample() if isinstance(model, Shrinking) else x
        mutator = SposMutator(model, seeded(), flops=[20, 100], params=[9, 60], bins=2, tries=1000)
        mutator.measure_costs(x)
        costs = {
            one: flops_of(mutator, architecture, x)
            for one, architecture in everything(mutator).items()
            if 9 <= params_of(mutator, architecture) <= 60
        }
        wanted = expected(costs, 20, 100, 2)
        assert 0 < len(wanted) < len(costs)
        assert is_distributed(Counter(drawn(mutator, 1000)), wanted)

    def test_no_limit_divides_the_range_of_the_space(self, way):
        mutator = SposMutator(Unequal(1), seeded(1), params=[None, None], bins=5)
        costs = {one: params_of(mutator, architecture) for one, architecture in everything(mutator).items()}
        wanted = expected(costs, min(costs.values()), max(costs.values()), 5)
        assert len(wanted) == len(costs)
        assert len(set(wanted.values())) > 1  # not the uniform distribution
        assert is_distributed(Counter(drawn(mutator, 1500)), wanted)

    @pytest.mark.parametrize("ends", [[None, 50], [50, None], [54, 54]])
    def test_one_limit_or_a_point(self, way, ends):
        mutator = SposMutator(Unequal(1), seeded(), params=ends, bins=1)
        low, high = -math.inf if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1]
        costs = {one: params_of(mutator, architecture) for one, architecture in everything(mutator).items()}
        allowed = {one for one, cost in costs.items() if low <= cost <= high}
        assert set(drawn(mutator, 400)) == allowed

    def test_the_final_architecture_too(self, way):
        mutator = SposMutator(Unequal(None), seeded(), params=[20, 50])
        finals = [mutator.final_architecture() for _ in range(100)]
        assert {params_of(mutator, one) for one in finals} == {34, 38}


def test_a_space_that_is_too_large_to_list_keeps_its_bounds():
    mutator = SposMutator(Long(), seeded(), params=[60, 140], bins=4)
    table = parameter_table(mutator.model)
    places = Counter()
    for _ in range(800):
        mutator.reset()
        cost = table.of(mutator.binding.decision.decisions)
        assert 60 <= cost <= 140
        places[min((cost - 60) // 20, 3)] += 1
    assert is_distributed(places, dict.fromkeys(range(4), 0.25))


@quietly
def test_equal_generators_draw_equal_architectures():
    first, second = (SposMutator(Long(), seeded(5), params=[60, 140]) for _ in range(2))
    assert list(drawn(first, 20)) == list(drawn(second, 20))


@quietly
@pytest.mark.parametrize("model", [lambda: Unequal(None), Long], ids=["listed", "tried"])
def test_with_a_generator_the_global_state_is_untouched(model):
    mutator = SposMutator(model(), seeded(), params=[30, 140])
    before = torch.get_rng_state()
    list(drawn(mutator, 5))
    mutator.final_architecture()
    assert torch.equal(torch.get_rng_state(), before)


class TestEmptyBins:
    def test_are_left_out_and_told(self):
        with pytest.warns(NnasWarning, match=r"^6 of 7 bins of 20 to 1,000 parameters hold no architecture"):
            mutator = SposMutator(Unequal(1), seeded(), params=[20, 1000])
        assert len(set(drawn(mutator, 300))) == 15  # of 18, three have 18 parameters

    def test_of_a_large_space_are_those_that_draws_would_not_find(self):
        message = r"bins of 0 to 220 parameters hold none, or too few, of 1,000 random architectures; draws come from"
        with pytest.warns(NnasWarning, match=message):
            mutator = SposMutator(Long(), seeded(), params=[0, 220], bins=11, tries=1000)
        table = parameter_table(mutator.model)
        costs = {table.of(dict(zip(mutator.space.keys, one, strict=True))) for one in self.rows(mutator)}
        assert 40 <= min(costs) <= max(costs) < 200

    def rows(self, mutator):
        for masks in drawn(mutator, 300):
            yield tuple(tuple(index for index, value in enumerate(mask) if value) for mask in masks)


class TestImpossibleBounds:
    @pytest.mark.parametrize("ends", [[0, 17], [5000, None]])
    def test_out_of_the_range_of_the_space(self, ends):
        with pytest.raises(NoResultError, match=r"^no architecture has .* parameters, they have 18 to 119$"):
            SposMutator(Unequal(1), params=ends)

    def test_between_two_architectures(self):
        with pytest.raises(NoResultError, match=r"^none of the 6 architectures that differ in cost has 19 to 21 param"):
            SposMutator(Unequal(1), params=[19, 21])

    def test_contradictory(self):
        mutator = SposMutator(Unequal(1), flops=[0, 16], params=[100, None])
        message = r"^none of the 6 architectures that differ in cost has 0 to 16 FLOPs and at least 100 parameters$"
        with pytest.raises(NoResultError, match=message):
            mutator.measure_costs(sample())

    def test_of_flops(self):
        mutator = SposMutator(Unequal(1), flops=[None, 15])
        with pytest.raises(NoResultError, match=r"^no architecture has at most 15 FLOPs, they have 16 to 192$"):
            mutator.measure_costs(sample())
        with pytest.raises(NoResultError, match="no architecture has at most 15 FLOPs"):
            mutator.reset()  # and never a sample without bounds

    def test_of_measured_flops(self):
        mutator = SposMutator(Shrinking(), flops=[1, 3])
        with pytest.raises(NoResultError, match=r"^none of the 27 architectures that differ in cost has 1 to 3 FLOPs$"):
            mutator.measure_costs(long_sample())

    def test_never_met_in_a_large_space(self):
        with pytest.raises(NoResultError, match=r"^none of 500 random architectures has 219 to 220 parameters$"):
            SposMutator(Long(), seeded(), params=[219, 220], tries=500)

    def test_met_too_rarely_to_be_drawn(self):
        with pytest.raises(NoResultError, match=r"^only \d+ of 500 random architectures have at least 200 parameters,"):
            SposMutator(Long(), seeded(), params=[200, None], bins=1, tries=500)

    def test_more_tries_find_what_is_rare(self):
        mutator = SposMutator(Long(), seeded(), params=[200, None], bins=1, tries=50_000)
        table = parameter_table(mutator.model)
        mutator.reset()
        assert table.of(mutator.binding.decision.decisions) >= 200

    def test_a_draw_ends_when_its_tries_do(self):
        class Drying(Population):
            """Has what is asked for only while it is looked at."""

            size, listed_up_to, block, looks = 100, 0, 8, 1.0
            cost = 5

            def draw(self, count, generator):
                return np.full(count, self.cost)

            def costs(self, name, drawn, which):
                return drawn[which]

            def limits(self, name):
                return None

            def at(self, numbers):
                raise AssertionError("it is too large to be listed")

            def of(self, decisions):
                raise AssertionError("nothing was decided")

            def decisions(self, one, generator):
                raise AssertionError("nothing is to be drawn")

        population = Drying({})
        draw = BoundedDraw(population, {"flops": (0, 10)}, 1, 50)
        population.cost = 11
        with pytest.raises(NoResultError, match=r"^none of 50 random architectures is in bin 1 of 1 of 0 to 10 FLOPs$"):
            draw.draw(seeded())


class TestOptions:
    @pytest.mark.parametrize("ends", [[], [1], [1, 2, 3], [5, 4], [-3, -1], [math.nan, 1]])
    @pytest.mark.parametrize("name", ["flops", "params"])
    def test_bounds_are_two_numbers_in_order(self, name, ends):
        with pytest.raises(UsageError, match=rf"^spos: {name} must be \[lowest, highest\]"):
            SposMutator(Unequal(1), **{name: ends})

    @pytest.mark.parametrize("name", ["bins", "tries"])
    def test_counts_are_at_least_one(self, name):
        with pytest.raises(UsageError, match=rf"^spos: {name} must be at least 1, not 0$"):
            SposMutator(Unequal(1), **{name: 0})

    def test_it_is_registered_with_its_trainer(self):
        assert find("mutators", "spos") is SposMutator
        assert SposMutator.trainer is SposTrainer
