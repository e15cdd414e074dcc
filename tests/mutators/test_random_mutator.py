"""RandomMutator: a uniform distribution, from one generator, and nothing else drawn."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, RandomMutator
from nnas_core.plugins.registry import find
from tests.mutables.sample_models import Everything, OneInput, OneLayer, times

# Upper 0.1 % points of chi-square by degrees of freedom (any table of it).
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 5: 20.52, 7: 24.32, 9: 27.88, 11: 31.26, 23: 49.73}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chi_square(counts, cells):
    expected = sum(counts.values()) / cells
    return sum((count - expected) ** 2 / expected for count in counts.values()) + (cells - len(counts)) * expected


def drawn(model, draws):
    mutator = RandomMutator(model, seeded())
    for _ in range(draws):
        mutator.reset()
        yield {key: tuple(mask.tolist()) for key, mask in mutator._cache.items()}


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        (lambda: OneLayer(times(1, 2, 3), key="k"), [1]),
        (lambda: OneLayer(times(*range(10)), key="k"), [1]),
        (lambda: OneLayer(times(1, 2, 3), return_mask=True, key="k"), [1]),
        (lambda: OneInput(3, key="k"), [0, 1, 2, 3]),
        (lambda: OneInput(4, n_chosen=1, key="k"), [1]),
        (lambda: OneInput(4, n_chosen=2, key="k"), [2]),
        (lambda: OneInput(4, n_chosen=3, key="k"), [3]),
    ],
    ids=["layers", "ten layers", "layers with mask", "any", "one", "two of four", "three of four"],
)
def test_every_decision_is_equally_likely(model, allowed):
    counts = Counter(one["k"] for one in drawn(model(), 6000))
    length = len(next(iter(counts)))
    possible = {mask for mask in itertools.product([False, True], repeat=length) if sum(mask) in allowed}
    assert set(counts) == possible
    assert chi_square(counts, len(possible)) < CHI_SQUARE[len(possible) - 1]


@pytest.mark.parametrize(("n_chosen", "mask"), [(0, (False,) * 3), (3, (True,) * 3)])
def test_none_and_all_are_the_only_decision_there_is(n_chosen, mask):
    assert {one["k"] for one in drawn(OneInput(3, n_chosen=n_chosen, key="k"), 20)} == {mask}


def test_decisions_at_different_keys_are_independent():
    model = nn.ModuleDict({"a": LayerChoice(times(1, 2, 3), key="a"), "b": LayerChoice(times(1, 2, 3, 4), key="b")})
    counts = Counter((one["a"].index(True), one["b"].index(True)) for one in drawn(model, 6000))
    assert chi_square(counts, 12) < CHI_SQUARE[11]


def test_successive_decisions_are_independent():
    sequence = [one["k"].index(True) for one in drawn(OneLayer(times(1, 2, 3), key="k"), 9001)]
    counts = Counter(itertools.pairwise(sequence))
    assert chi_square(counts, 9) < 26.12  # 8 degrees of freedom


def test_sample_final_is_uniform_too():
    mutator = RandomMutator(OneLayer(times(1, 2, 3, 4), key="k"), seeded())
    counts = Counter(int(mutator.export()["k"].int().argmax()) for _ in range(2000))
    assert chi_square(counts, 4) < CHI_SQUARE[3]


def test_equal_keys_are_decided_alike_in_every_draw():
    model = nn.Sequential(*(LayerChoice(times(2, 3, 5), key="k") for _ in range(3)), LayerChoice(times(1, 7), key="z"))
    mutator = RandomMutator(model, seeded())
    seen = set()
    for _ in range(50):
        mutator.reset()
        seen.add(model(torch.ones(())).item())
    assert seen == {2**3, 3**3, 5**3, 7 * 2**3, 7 * 3**3, 7 * 5**3}


def test_what_runs_is_what_is_reported():
    model = OneLayer(times(0, 1, 2, 3), key="k")
    mutator = RandomMutator(model, seeded())
    for _ in range(20):
        mutator.reset()
        assert mutator._cache["k"].tolist() == [index == model(torch.ones(())).item() for index in range(4)]


def test_a_generator_makes_it_reproducible():
    def architectures():
        mutator = RandomMutator(Everything(), seeded(7))
        return [mutator.final_architecture() for _ in range(5)]

    assert architectures() == architectures()


def test_different_seeds_give_different_architectures():
    first, second = (RandomMutator(Everything(), seeded(seed)).final_architecture() for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("draw", [RandomMutator.reset, RandomMutator.export, RandomMutator.final_architecture])
def test_with_a_generator_the_global_state_is_untouched(draw):
    mutator = RandomMutator(Everything(), seeded())
    before = torch.get_rng_state()
    draw(mutator)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.global_random
def test_without_a_generator_torchs_seed_decides():
    mutator = RandomMutator(Everything())

    def architectures():
        torch.manual_seed(11)
        return [mutator.final_architecture() for _ in range(5)]

    assert architectures() == architectures()


def test_a_soft_or_own_decision_is_replaced_by_the_next_reset():
    model = OneLayer(times(2, 2), key="k")
    mutator = RandomMutator(model, seeded())
    mutator.apply_architecture(mutator.space.parse({"k": [0.5, 0.25]}))
    soft = model(torch.ones(())).item()
    mutator.reset()
    assert (soft, model(torch.ones(())).item()) == (1.5, 2.0)


def test_it_is_registered_as_random():
    assert find("mutators", "random") is RandomMutator


def test_a_choice_that_takes_one_input_takes_part_in_a_single_path():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice(times(2, 3), key="op")
            self.pick = InputChoice(2, n_chosen=1, key="pick")

        def forward(self, x):
            return self.pick([self.op(x), -x])

    model = Model()
    mutator = RandomMutator(model, seeded())
    seen = set()
    for _ in range(40):
        mutator.reset()
        seen.add(model(torch.ones(())).item())
    assert seen == {2.0, 3.0, -1.0}
