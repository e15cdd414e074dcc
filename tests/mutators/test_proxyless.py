"""The gradients of ProxylessNAS, against gates that the tests write out."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, RandomMutator
from nnas_core.mutators.proxyless import ProxylessMutator
from tests.mutables.sample_models import OneInput
from tests.mutators.proxyless_search import MODES, points, proxyless, seeded


class Zero(nn.Module):
    """NNI's zero operation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0

    def is_zero_layer(self) -> bool:
        return True


def norm_block() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Tanh())


class Layers(nn.Module):
    """The first choice is fed by the network's input; two share a key; sizes differ; one candidate is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice([nn.Linear(5, 5), nn.Identity(), nn.Tanh(), norm_block()], key="first")
        self.tied = nn.ModuleList(
            LayerChoice([norm_block(), Zero(), nn.Sequential(nn.Linear(5, 5), nn.Sigmoid())], key="tied")
            for _ in range(2)
        )
        self.only = LayerChoice([nn.Linear(5, 5)], key="only")
        self.listed = LayerChoice([nn.Linear(5, 5), nn.Softplus()], reduction="none", return_mask=True, key="listed")
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.only(self.first(x))
        for op in self.tied:
            x = x + op(x)
        (x,), mask = self.listed(x)
        return self.head(x * (1 + mask.to(x.dtype).argmax()))


class Gated(nn.Module):
    """``sum_k g_k o_k(x)``."""

    def __init__(self, choice: LayerChoice, gates: Tensor) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(choice.candidates)
        self.choice, self.gates = choice, gates

    def forward(self, x: Tensor) -> Any:
        y = sum(g * op(x) for g, op in zip(self.gates, self.candidates, strict=True))
        y = [y] if self.choice.reduction == "none" else y
        return (y, self.gates.detach()) if self.choice.return_mask else y


def gates_of(mutator: ProxylessMutator) -> dict[str, Tensor]:
    """The decision of the last reset as gates that can be differentiated."""
    return {key: mask.double().requires_grad_() for key, mask in mutator._cache.items()}


def explicit_gradients(model: nn.Module, gates: dict[str, Tensor], x: Tensor) -> dict[str, list[float]]:
    """dL/dg by autograd, through a copy of ``model`` in which every candidate of every choice is a term of a sum."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LayerChoice):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Gated(module, gates[module.key]))
    found = torch.autograd.grad(model(x).square().mean(), list(gates.values()))
    return {key: one.tolist() for key, one in zip(gates, found, strict=True)}


def by_the_formula(of_gates: list[float], logits: list[float]) -> list[float]:
    """sum_j dL/dg_j p_j (delta_ij - p_i), written out."""
    exponentials = torch.tensor(logits, dtype=torch.float64).exp()
    p = (exponentials / exponentials.sum()).tolist()
    count = range(len(p))
    return [sum(of_gates[j] * p[j] * ((i == j) - p[i]) for j in count) for i in count]


@pytest.mark.parametrize("mode", ["full", "full_v2"])
@pytest.mark.parametrize("seed", range(6))
def test_the_gradient_is_that_of_all_gates(mode: str, seed: int) -> None:
    model = seeded(Layers)
    plain = copy.deepcopy(model)
    mutator = proxyless(model, seed, mode=mode)
    x = points(7, 5)
    mutator.reset()
    (gradient,) = torch.autograd.grad(model(x).square().mean(), [mutator.logits])
    of_gates = explicit_gradients(plain, gates_of(mutator), x)
    assert any(abs(value) > 1e-3 for value in gradient.flatten().tolist())
    for row in mutator.rows:
        expected = by_the_formula(of_gates[row.key], mutator.logits[row.index, : row.count].tolist())
        assert gradient[row.index, : row.count].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-14)
        assert not gradient[row.index, row.count :].any()


@pytest.mark.parametrize("seed", range(6))
def test_two_paths_have_the_gradient_of_the_two_renormalised(seed: int) -> None:
    model = seeded(Layers)
    plain = copy.deepcopy(model)
    mutator = proxyless(model, seed, mode="two")
    x = points(7, 5)
    mutator.reset()
    (gradient,) = torch.autograd.grad(model(x).square().mean(), [mutator.logits])
    gates = gates_of(mutator)
    of_gates = explicit_gradients(plain, gates, x)
    for row in mutator.rows:
        pair = gradient[row.index].nonzero().flatten().tolist()
        if row.count == 1:
            assert pair == []
            continue
        assert len(pair) == 2
        assert gates[row.key].argmax().item() in pair
        logits = [mutator.logits[row.index, one].item() for one in pair]
        expected = by_the_formula([of_gates[row.key][one] for one in pair], logits)
        assert gradient[row.index, pair].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_the_path_that_runs_is_the_plain_one_to_the_bit(mode: str) -> None:
    model = seeded(Layers)
    twin = copy.deepcopy(model)
    mutator, other = proxyless(model, 3, mode=mode), RandomMutator(twin)
    x = points(7, 5)
    for _ in range(5):
        mutator.reset()
        other.decide({key: tuple(mask.nonzero().flatten().tolist()) for key, mask in mutator._cache.items()})
        loss, expected = model(x).square().mean(), twin(x).square().mean()
        assert torch.equal(loss, expected)
        weights = [one for one in model.parameters() if one.requires_grad]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        same = torch.autograd.grad(expected, list(twin.parameters()), allow_unused=True)
        assert [one is None for one in found] == [one is None for one in same]
        assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True) if a is not None)
        for name, buffer in twin.named_buffers():  # statistics moved where they would have, and only there
            assert torch.equal(buffer, model.get_buffer(name)), name


class Fed(nn.Module):
    """An InputChoice over three differently scaled inputs."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.ops = nn.ModuleList([nn.Linear(5, 4), nn.Tanh(), nn.Linear(5, 4), nn.Linear(5, 4)])
        self.pick = InputChoice(4, key="pick", **options)
        self.head = nn.LazyLinear(1)

    def inputs(self, x: Tensor) -> list[Tensor]:
        return [op(x)[:, :4] for op in self.ops]

    def loss(self, picked: Any) -> Tensor:
        if isinstance(picked, list):
            picked = torch.stack(picked).cumsum(0).prod(0)
        return self.head(picked).square().mean()


def reduced(places: list[Tensor], reduction: str) -> Any:
    together = {"sum": sum, "mean": lambda all: sum(all) / len(all), "concat": lambda all: torch.cat(all, 1)}
    return places if reduction == "none" else together[reduction](places)


@pytest.mark.parametrize("reduction", ["sum", "mean", "concat", "none"])
@pytest.mark.parametrize("n_chosen", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_inputs_enumerates_all_decisions(mode: str, n_chosen: int, reduction: str) -> None:
    if mode == "two" and n_chosen == 1:
        mode = "full"  # that of two paths is tested by itself
    model = seeded(lambda: Fed(n_chosen=n_chosen, reduction=reduction))
    x = points(7, 5)
    model.loss(reduced(model.inputs(x)[:n_chosen], reduction))  # makes the lazy head
    mutator = proxyless(model.double(), 5, mode=mode)
    alpha = mutator.logits[0].tolist()
    subsets = list(itertools.combinations(range(4), n_chosen))
    weights = torch.tensor([sum(alpha[i] for i in subset) for subset in subsets], dtype=torch.float64).exp()
    p = (weights / weights.sum()).tolist()
    included = [sum(q for q, subset in zip(p, subsets, strict=True) if i in subset) for i in range(4)]
    assert mutator.probabilities()[0].tolist() == pytest.approx(included, rel=1e-12)
    for _ in range(3):
        mutator.reset()
        (gradient,) = torch.autograd.grad(model.loss(model.pick(model.inputs(x))), [mutator.logits])
        chosen = mutator._cache["pick"].nonzero().flatten().tolist()
        # a gate for each input at each place
        gates = torch.zeros(n_chosen, 4, dtype=torch.float64)
        for place, index in enumerate(chosen):
            gates[place, index] = 1
        gates.requires_grad_()
        inputs = model.inputs(x)
        places = [sum(g * one for g, one in zip(row, inputs, strict=True)) for row in gates]
        (of_gates,) = torch.autograd.grad(model.loss(reduced(places, reduction)), [gates])
        value = [sum(of_gates[place, i].item() for place, i in enumerate(subset)) for subset in subsets]
        expected = [
            sum(q * v * ((i in subset) - included[i]) for q, v, subset in zip(p, value, subsets, strict=True))
            for i in range(4)
        ]
        assert gradient[0].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-14)
        assert max(map(abs, expected)) > 1e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_inputs_of_any_number_have_a_gate_each(mode: str, reduction: str) -> None:
    model = seeded(lambda: Fed(reduction=reduction))
    x = points(7, 5)
    model.loss(model.inputs(x)[0])
    mutator = proxyless(model.double(), 2, mode=mode)
    sizes = set()
    for _ in range(12):
        mutator.reset()
        picked = model.pick(model.inputs(x))
        gates = mutator._cache["pick"].double().requires_grad_()
        sizes.add(int(gates.sum()))
        if picked is None:
            continue
        (gradient,) = torch.autograd.grad(model.loss(picked), [mutator.logits])
        total = sum(g * one for g, one in zip(gates, model.inputs(x), strict=True))
        explicit = total / gates.sum() if reduction == "mean" else total
        torch.testing.assert_close(picked, explicit)
        (of_gates,) = torch.autograd.grad(model.loss(explicit), [gates])
        p = 1 / (1 + (-mutator.logits.detach()[0]).exp())
        torch.testing.assert_close(gradient[0], of_gates * p * (1 - p), rtol=1e-10, atol=1e-14)
    assert len(sizes) >= 3


def test_an_empty_choice_and_inputs_that_are_none_are_handed_on() -> None:
    model = OneInput(2, n_chosen=None)
    mutator = proxyless(model)
    with torch.no_grad():
        mutator.logits.fill_(-50)
    mutator.reset()
    assert model([torch.ones(1), torch.ones(1)]) is None
    model = OneInput(2, n_chosen=1)
    mutator = proxyless(model)
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[50.0, 0.0]]))
    mutator.reset()
    assert model([None, torch.ones(1)]) is None
    output = model([torch.ones(1), None])
    (gradient,) = torch.autograd.grad(output.sum(), [mutator.logits])
    assert gradient.tolist()[0] == pytest.approx([0, 0], abs=1e-12)


def test_two_of_one_input_take_part() -> None:
    model = OneInput(3, n_chosen=1)
    mutator = proxyless(model, mode="two")
    inputs = [points(3, seed=seed) for seed in range(3)]
    mutator.reset()
    output = model(inputs)
    weight = points(3, seed=8)
    (gradient,) = torch.autograd.grad((output * weight).sum(), [mutator.logits])
    pair = gradient[0].nonzero().flatten().tolist()
    expected = by_the_formula(
        [(inputs[one] * weight).sum().item() for one in pair], [mutator.logits[0, one].item() for one in pair]
    )
    assert gradient[0, pair].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_sample_is_a_hard_mask_of_every_key() -> None:
    mutator = proxyless(seeded(Layers))
    sample = mutator.sample_search()
    assert set(sample) == {"first", "tied", "only", "listed"}
    assert {(mask.dtype, int(mask.sum())) for mask in sample.values()} == {(torch.bool, 1)}
