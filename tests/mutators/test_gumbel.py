"""Relaxed decisions: their formulas, their limits, and how often each decision is drawn."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice
from nnas_core.errors import UsageError
from nnas_core.mutators._gumbel import GumbelMutator
from tests.mutators.noisy_search import (
    Mixed,
    built,
    chi_square,
    decisions,
    inputs,
    probability,
    row_of,
    spread,
    uniforms,
)


class Soft(GumbelMutator):
    """Nothing but a relaxed sample."""

    def relaxed(self) -> Tensor:
        return self.softened(self.perturbed())


def mutator_at(temperature: float, seed: int = 7) -> Soft:
    """A mutator of ``Mixed`` whose logits differ, and whose generator starts anew."""
    generator = torch.Generator()
    mutator = Soft(built(), generator, temperature=temperature, final_temperature=temperature)
    spread(mutator)
    generator.manual_seed(seed)
    return mutator


def k_hot(keys: list[float], k: int, temperature: float) -> list[float]:
    """Equations of Xie and Ermon, one number after the other."""
    total = [0.0] * len(keys)
    for _ in range(k):
        powers = [math.exp(key / temperature) for key in keys]
        shares = [power / sum(powers) for power in powers]
        total = [one + share for one, share in zip(total, shares, strict=True)]
        keys = [key + math.log(1 - share) for key, share in zip(keys, shares, strict=True)]
    return total


@pytest.mark.parametrize("temperature", [0.4, 1.0, 10.0])
def test_each_kind_of_decision_is_relaxed_by_its_formula(temperature: float) -> None:
    mutator = mutator_at(temperature)
    mutator.reset()
    masks = mutator.status()
    uniform = uniforms(mutator.logits.shape, 7)
    for row in mutator.rows:
        logits = mutator.logits[row.index, : row.count].tolist()
        noise = uniform[row.index, : row.count].tolist()
        gumbel = [logit - math.log(-math.log(u)) for logit, u in zip(logits, noise, strict=True)]
        if row.n_chosen is None:
            logistic = [logit + math.log(u / (1 - u)) for logit, u in zip(logits, noise, strict=True)]
            expected = [1 / (1 + math.exp(-value / temperature)) for value in logistic]
        elif row.n_chosen == row.count:
            expected = [1.0] * row.count
        else:
            expected = k_hot(gumbel, row.n_chosen, temperature)
        assert masks[row.key] == pytest.approx(expected, abs=2e-7), row.key  # status is in float32


def test_relaxed_samples_take_as_many_candidates_as_the_decision_does() -> None:
    mutator = mutator_at(2.0)
    weights = mutator.relaxed().detach()
    sums = {row.key: weights[row.index].sum().item() for row in mutator.rows if row.n_chosen is not None}
    assert sums == pytest.approx({"a": 1, "b": 1, "one": 1, "two": 2, "all": 2})
    assert bool((weights[~mutator.valid] == 0).all())


def test_as_the_temperature_falls_relaxed_samples_become_the_hard_ones() -> None:
    mutator = mutator_at(0.01)
    for _ in range(50):
        perturbed = mutator.perturbed()
        soft, hard = mutator.softened(perturbed), mutator.hardened(perturbed)
        clear = (soft - hard).abs() < 1e-3
        assert clear.float().mean() > 0.9  # where two keys nearly tie, the relaxation is still between them
        assert {*hard.unique().tolist()} == {0.0, 1.0}


@pytest.mark.parametrize("temperature", [1e-3, 0.03, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_every_temperature(temperature: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    mutator = Soft(built(dtype=dtype), generator, temperature=temperature, final_temperature=temperature)
    for _ in range(20):
        weights = mutator.relaxed()
        (gradient,) = torch.autograd.grad((weights * torch.arange(weights.shape[1])).sum(), mutator.logits)
        assert bool(torch.isfinite(weights).all())
        assert bool(torch.isfinite(gradient).all())


def test_every_decision_is_drawn_as_often_as_its_probability_says() -> None:
    """2,000 draws against the enumeration, key by key."""
    mutator = mutator_at(1.0, seed=21)
    draws = 2_000
    with torch.no_grad():
        drawn = torch.stack([mutator.hardened(mutator.perturbed()) for _ in range(draws)]).bool()
    for row in mutator.rows:
        masks = drawn[:, row.index, : row.count].tolist()
        counts = Counter(tuple(index for index, taken in enumerate(mask) if taken) for mask in masks)
        logits = mutator.logits[row.index, : row.count].tolist()
        expected = {chosen: probability(row, logits, chosen) for chosen in decisions(row)}
        assert sum(expected.values()) == pytest.approx(1)
        assert counts.keys() <= expected.keys()
        if len(expected) > 1:
            statistic, limit = chi_square(counts, expected)
            assert statistic < limit, row.key


def test_the_temperature_falls_in_a_straight_line() -> None:
    mutator = Soft(built(), temperature=10.0, final_temperature=0.1)
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        mutator.progress = progress
        found.append(mutator.annealed())
    assert found == pytest.approx([10.0, 7.525, 5.05, 0.1])


def test_what_is_not_valid_is_neither_weighted_nor_drawn() -> None:
    mutator = mutator_at(1.0)
    row = row_of(mutator, "a")
    with torch.no_grad():
        mutator.valid[row.index, 1] = False
        mutator.reblend()
        for _ in range(200):
            perturbed = mutator.perturbed()
            assert mutator.softened(perturbed)[row.index, 1] == 0
            assert mutator.hardened(perturbed)[row.index, 1] == 0
    mutator.reset()
    assert bool(torch.isfinite(mutator.model(inputs())).all())


def test_a_single_candidate_is_taken_whole_and_needs_no_gradient() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Linear(3, 3)], key="op")
            self.pick = InputChoice(n_candidates=1, n_chosen=1, key="pick")

        def forward(self, x: Tensor) -> Tensor:
            return self.pick([self.op(x)])

    model = built(Single)
    mutator = Soft(model, temperature=1.0, final_temperature=1.0)
    mutator.reset()
    output = model(inputs())
    assert torch.equal(output, model.op[0](inputs()))  # type: ignore[operator, index]
    (gradient,) = torch.autograd.grad(output.sum(), mutator.logits)
    assert not gradient.any()


@pytest.mark.parametrize("name", ["temperature", "final_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_cannot_divide_is_refused(name: str, value: float) -> None:
    options = {"temperature": 1.0, "final_temperature": 1.0, name: value}
    with pytest.raises(UsageError, match=f"^{name}={value} is out of range"):
        Soft(Mixed(), **options)
