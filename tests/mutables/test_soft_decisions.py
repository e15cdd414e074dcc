"""Weights: the output is sum(w * op(x)), with its gradients, and a weight of zero runs nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.mutables.sample_models import Always, OneInput, OneLayer, decided


class Bend(nn.Module):
    """A candidate whose derivatives of every order differ from those of the others."""

    def __init__(self, number):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5 + number, dtype=torch.float64))

    def forward(self, x):
        return torch.sin(self.scale * x)


def model_and_mutator(reduction, weights):
    model = OneLayer([Bend(index) for index in range(3)], reduction=reduction, key="k")
    mutator = Always(model, {"k": weights})
    mutator.reset()
    return model, mutator


def plain(model, x, weights, reduction):
    outputs = [weight * op(x) for weight, op in zip(weights, model.op, strict=True)]
    return {
        "sum": lambda: sum(outputs),
        "mean": lambda: sum(outputs) / len(outputs),
        "concat": lambda: torch.cat(outputs, dim=1),
        "none": lambda: torch.stack(outputs),
    }[reduction]()


def together(result):
    return torch.stack(result) if isinstance(result, list) else result


REDUCTIONS = ["sum", "mean", "concat", "none"]


@pytest.fixture
def x():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def weights():
    return torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_output_is_the_weighted_sum(reduction, x, weights):
    model, _ = model_and_mutator(reduction, weights)
    torch.testing.assert_close(together(model(x)), plain(model, x, weights, reduction), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_reach_weights_parameters_and_input(reduction, x, weights):
    model, _ = model_and_mutator(reduction, weights)
    x.requires_grad_()
    sources = [x, weights, *model.parameters()]
    ours = torch.autograd.grad(together(model(x)).pow(2).sum(), sources)
    theirs = torch.autograd.grad(plain(model, x, weights, reduction).pow(2).sum(), sources)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean", "concat"])
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_first_and_second_derivatives_agree_with_finite_differences(check, reduction, x, weights):
    model = OneLayer([Bend(index) for index in range(3)], reduction=reduction, key="k")
    mutator = Always(model)

    def function(x, weights):
        mutator.decisions = {"k": weights}
        mutator.reset()
        return model(x)

    assert check(function, (x.requires_grad_(), weights))


def test_gradients_reach_only_what_asks_for_them(x, weights):
    model, _ = model_and_mutator("sum", weights)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(x).sum().backward()
    expected = torch.stack([op(x).sum() for op in model.op])
    torch.testing.assert_close(weights.grad, expected)


@pytest.mark.parametrize("reduction", ["sum", "concat", "none"])
def test_a_weight_of_zero_runs_nothing(reduction, x):
    class Broken(nn.Module):
        def forward(self, x):
            raise AssertionError("executed")

    weights = torch.tensor([0.5, 0.0], dtype=torch.float64)
    model = decided(OneLayer([nn.Identity(), Broken()], reduction=reduction, key="k"), {"k": weights})
    result = model(x)
    assert torch.equal(result[0] if reduction == "none" else result, x / 2)


def test_mean_divides_by_the_executed_candidates_not_by_the_weights(x):
    model = decided(OneLayer([nn.Identity()] * 3, reduction="mean", key="k"), {"k": torch.tensor([1.0, 0.0, 2.0])})
    torch.testing.assert_close(model(x), 1.5 * x)


@pytest.mark.parametrize(("reduction", "expected"), [("sum", None), ("mean", None), ("concat", None), ("none", [])])
def test_only_zeros_are_an_empty_selection(reduction, expected, x):
    model = decided(OneLayer([nn.Identity()] * 2, reduction=reduction, key="k"), {"k": torch.zeros(2)})
    assert model(x) == expected


def test_a_single_weight_multiplies(x):
    model = decided(OneLayer([nn.Identity()] * 2, key="k"), {"k": torch.tensor([0.0, 0.5])})
    torch.testing.assert_close(model(x), x / 2)


def test_negative_weights_count(x):
    model = decided(OneLayer([nn.Identity()] * 2, key="k"), {"k": [-1.0, 3.0]})
    torch.testing.assert_close(model(x), 2 * x)


def test_outputs_of_different_shapes_are_broadcast(x):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(0, keepdim=True)

    weights = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
    model = decided(OneLayer([nn.Identity(), Mean()], key="k"), {"k": weights})
    y = model(x)
    torch.testing.assert_close(y, 0.25 * x + 0.75 * x.mean(0, keepdim=True))
    (grad,) = torch.autograd.grad(y.sum(), weights)
    torch.testing.assert_close(grad, torch.stack([x.sum(), 4 * x.mean(0).sum()]))


def test_outputs_of_different_dtypes_are_promoted():
    class Half(nn.Module):
        def forward(self, x):
            return x.bfloat16()

    model = decided(OneLayer([nn.Identity(), Half()], key="k"), {"k": torch.tensor([0.5, 0.25])})
    y = model(torch.ones(2))
    assert (y.tolist(), y.dtype) == ([0.75, 0.75], torch.float32)


def test_an_input_choice_weighs_its_inputs_with_gradients(x, weights):
    model = decided(OneInput(3, key="k"), {"k": weights})
    inputs = [x, 2 * x, 3 * x]
    y = model(inputs)
    torch.testing.assert_close(y, (0.2 * 1 + 0.5 * 2 + 0.3 * 3) * x)
    (grad,) = torch.autograd.grad(y.sum(), weights)
    torch.testing.assert_close(grad, torch.stack([one.sum() for one in inputs]))


def test_an_input_that_is_changed_afterwards_is_refused(x):
    # the outputs are saved for the backward pass; autograd notices a later change, it is never silently wrong
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    model = decided(OneLayer([nn.Identity(), nn.Identity()], key="k"), {"k": weights})
    y = x.clone()
    for _ in range(2):
        loss = model(y).sum()
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_weights_can_be_learned(x, weights):
    target = torch.sin(1.5 * x)  # what the second candidate computes
    model, mutator = model_and_mutator("sum", weights)
    optimizer = torch.optim.SGD([weights], lr=0.3)
    for _ in range(400):
        mutator.decisions = {"k": weights}
        mutator.reset()
        optimizer.zero_grad()
        (model(x) - target).pow(2).mean().backward()
        optimizer.step()
    torch.testing.assert_close(weights.detach(), torch.tensor([0.0, 1.0, 0.0]).double(), atol=0.02, rtol=0)
