"""ENAS's policy against an evaluation of its own equations, and against enumeration."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice
from nnas_core.mutators.enas import EnasMutator
from tests.mutators.enas_equations import EVERYTHING, Reference, Space, space_mutator


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lstm_num_layers": 3},
        {"cell_exit_extra_step": True},
        {"temperature": 2.5, "tanh_constant": None},
        {"temperature": 0.5, "tanh_constant": 2.0, "skip_target": 0.7},
    ],
)
def test_probabilities_are_those_of_the_equations(options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    some = EVERYTHING[::17]
    evaluated = mutator.controller(mutator.controller.masks(some))
    reference = Reference(mutator)
    for index, which in enumerate(some):
        expected = reference.log_probability(which)
        assert evaluated.log_probability[index].item() == pytest.approx(expected.item(), abs=1e-12)
        assert evaluated.penalty[index].item() == pytest.approx(reference.penalty.item(), abs=1e-12)
        gradient = torch.autograd.grad(evaluated.log_probability[index], list(mutator.parameters()), retain_graph=True)
        exact = torch.autograd.grad(expected, list(mutator.parameters()), retain_graph=True)
        for one, other in zip(gradient, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"lstm_num_layers": 2, "cell_exit_extra_step": True, "temperature": 3.0}])
def test_the_probabilities_of_all_architectures_add_up_to_one(options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    p = mutator.controller(mutator.controller.masks(EVERYTHING)).log_probability.exp()
    assert len(EVERYTHING) == mutator.space.size == 864
    assert p.sum().item() == pytest.approx(1.0, abs=1e-10)
    assert (p.max() / p.min()).item() > 10  # it has opinions, so this says something


def test_the_mean_entropy_is_that_of_all_architectures() -> None:
    mutator = space_mutator()
    evaluated = mutator.controller(mutator.controller.masks(EVERYTHING))
    p = evaluated.log_probability.exp()
    exact = -(p * evaluated.log_probability).sum()
    assert (p * evaluated.entropy).sum().item() == pytest.approx(exact.item(), abs=1e-10)
    assert exact.item() < math.log(864) - 0.1


def test_the_entropy_of_independent_inputs_can_be_their_mean() -> None:
    total, mean = (space_mutator(entropy_reduction=how) for how in ("sum", "mean"))
    masks = total.controller.masks(EVERYTHING[:3])
    difference = total.controller(masks).entropy - mean.controller(masks).entropy
    reference = Reference(total)
    for index, which in enumerate(EVERYTHING[:3]):
        reference.log_probability(which)
        assert difference[index].item() == pytest.approx(reference.entropy_of_any.item() / 2, abs=1e-12)


# ---- sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"lstm_num_layers": 2, "cell_exit_extra_step": True}])
def test_a_sample_s_probability_is_that_of_its_evaluation(dtype: torch.dtype, options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    mutator.controller.to(dtype)
    draws = mutator.controller.draw(200, torch.Generator().manual_seed(1))
    evaluated = mutator.controller(draws.masks).log_probability.detach().double().numpy()
    np.testing.assert_allclose(draws.log_probability, evaluated, atol=1e-12 if dtype == torch.float64 else 1e-5)


def test_samples_come_as_often_as_their_probability_says() -> None:
    mutator = space_mutator()
    p = mutator.controller(mutator.controller.masks(EVERYTHING)).log_probability.exp().detach().numpy()
    count = 40_000
    found = mutator.draw(count)
    number = {mask.tobytes(): index for index, mask in enumerate(mutator.controller.masks(EVERYTHING))}
    observed = np.bincount([number[mask.tobytes()] for mask in found], minlength=864)
    often = p * count >= 5
    seen, expected = (np.append(one[often], one[~often].sum() + 1) for one in (observed, p * count))
    statistic, freedom = ((seen - expected) ** 2 / expected).sum(), often.sum()
    assert freedom > 300
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)  # chi-square: mean and deviation


def test_one_at_a_time_and_many_at_once_are_the_same_policy() -> None:
    mutator = space_mutator()
    many = mutator.draw(30)
    again = space_mutator()
    one = np.concatenate([again.draw(1) for _ in range(30)])
    assert np.array_equal(many, one)


def test_reset_and_export_sample() -> None:
    mutator, other = space_mutator(3), space_mutator(3)
    decisions = [mutator.decisions(mask) for mask in mutator.draw(2)]
    other.reset()
    assert other._cache["pair"].nonzero().flatten().tolist() == list(decisions[0]["pair"])
    exported = other.final_architecture()
    assert exported.indices() == decisions[1]


def test_a_subclass_may_sample_in_its_own_way() -> None:
    class First(EnasMutator):
        def sample_search(self) -> Mapping[str, Any]:
            return {one.key: [index < (one.choice.n_chosen or 0) for index in range(len(one))] for one in self.choices}

    mutator = First(Space(), torch.Generator())
    mutator.reset()
    assert mutator.status()["pair"] == [1, 1, 0, 0]


def test_masks_and_decisions_are_each_other_s_inverse() -> None:
    mutator = space_mutator()
    assert [mutator.decisions(mask) for mask in mutator.controller.masks(EVERYTHING)] == EVERYTHING


def test_inputs_without_tags_are_told_apart() -> None:
    model = nn.Sequential(InputChoice(3, n_chosen=1, key="pick")).double()
    model.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    mutator = EnasMutator(model, torch.Generator().manual_seed(0))
    p = mutator.controller(mutator.controller.masks([{"pick": (index,)} for index in range(3)])).log_probability
    assert len(set(p.tolist())) == 3


def test_layer_choices_share_a_head_where_their_candidates_have_the_same_names() -> None:
    names = [("a", "b"), ("0", "1"), ("a", "b"), ("b", "a")]
    layers = [LayerChoice(OrderedDict((name, nn.Identity()) for name in one)) for one in names]
    script = EnasMutator(nn.Sequential(*layers)).controller.script
    assert [place.row for place in script.places] == [0, 2, 0, 4]
    assert script.rows == 6


def test_one_candidate_or_all_inputs_leave_nothing_to_learn() -> None:
    model = nn.Sequential(
        LayerChoice([nn.Linear(1, 1)], key="only"), InputChoice(3, n_chosen=3, key="all"), InputChoice(2, n_chosen=0)
    )
    mutator = EnasMutator(model, torch.Generator())
    evaluated = mutator.controller(mutator.draw(4))
    assert evaluated.log_probability.tolist() == [0.0] * 4
    assert evaluated.entropy.tolist() == [0.0] * 4
