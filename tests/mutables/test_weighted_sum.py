"""The weighted sum of outputs, against the plain expression: values, gradients, second derivatives, any strides."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from nnas_core.mutables.reduction import dot, gate, reduce_soft

SHAPE = (2, 3, 4, 5)


def contiguous(x: Tensor) -> Tensor:
    return x


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def transposed(x: Tensor) -> Tensor:
    """Dense, in no order that has a name."""
    return x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)


def strided(x: Tensor) -> Tensor:
    """With holes."""
    return torch.stack([x, x + 1], dim=-1)[..., 0]


def expanded(x: Tensor) -> Tensor:
    """All entries along a dimension are one."""
    return x[:, :1].expand(x.shape)


LAYOUTS = (contiguous, channels_last, transposed, strided, expanded)


def numbers(count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=dtype) for _ in range(count)]


@pytest.mark.parametrize("one", LAYOUTS)
@pytest.mark.parametrize("other", LAYOUTS)
def test_a_dot_product_does_not_depend_on_strides(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]
) -> None:
    a, b = numbers(2)
    a, b = one(a), other(b)
    expected = sum(x * y for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    with torch.no_grad():
        assert dot(a, b).item() == pytest.approx(expected, rel=1e-12)
    assert dot(a.requires_grad_(), b).item() == pytest.approx(expected, rel=1e-12)


def test_a_dot_product_of_half_precision_is_summed_in_single() -> None:
    ones = torch.ones(4096, dtype=torch.bfloat16)
    with torch.no_grad():
        assert dot(ones, ones).item() == 4096  # in bfloat16, 256 + 1 is 256


def test_a_dot_product_makes_no_copy_of_its_factors() -> None:
    a, b = (channels_last(torch.ones(4, 8, 16, 16)) for _ in range(2))
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        dot(a, b)
    assert max(event.self_cpu_memory_usage for event in profile.key_averages()) < a.numel()


def mixed(outputs: Sequence[Tensor], weights: Tensor, kept: Sequence[int]) -> Tensor:
    total: Tensor = sum(weights[i] * output for output, i in zip(outputs, kept, strict=True))
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_weighted_sum_and_its_gradients_are_those_of_the_plain_expression(
    layout: Callable[[Tensor], Tensor], reduction: str
) -> None:
    leaves = [one.requires_grad_() for one in numbers(3)]
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64, requires_grad=True)
    gradient = layout(numbers(1, seed=1)[0])
    kept = (0, 3, 2)
    totals = (
        reduce_soft([layout(one) for one in leaves], weights, kept, reduction, 4),
        mixed([layout(one) for one in leaves], weights, kept) / (4 if reduction == "mean" else 1),
    )
    results = [[total.detach(), *torch.autograd.grad(total, [weights, *leaves], gradient)] for total in totals]
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert results[0][1][1] == 0  # its output was left out


def test_a_weighted_sum_can_be_differentiated_twice() -> None:
    outputs = [one[0, :2, :2, 0].clone().requires_grad_() for one in numbers(2)]
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)

    def run(weights: Tensor, *outputs: Tensor) -> Tensor:
        total: Tensor = reduce_soft(outputs, weights, (0, 1), "sum", 2)
        return total.square()

    assert torch.autograd.gradcheck(run, (weights, *outputs))
    assert torch.autograd.gradgradcheck(run, (weights, *outputs))


def test_no_gradient_is_computed_that_nobody_asked_for() -> None:
    outputs = [one.requires_grad_(index == 0) for index, one in enumerate(numbers(2))]
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    total = reduce_soft(outputs, weights, (0, 1), "sum", 2)
    with torch.profiler.profile() as profile:
        total.backward(torch.ones(SHAPE, dtype=torch.float64))
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::mul"] == 1  # of the one output; no dot product for a weight
    assert "aten::dot" not in counts


@pytest.mark.parametrize("trained", [True, False])
def test_outputs_are_kept_only_for_gradients_of_weights(trained: bool) -> None:
    (leaf,) = numbers(1)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=trained)
    outputs = [leaf.requires_grad_() * factor for factor in (2, 3)]
    kept = [weakref.ref(one) for one in outputs]
    total = reduce_soft(outputs, weights, (0, 1), "sum", 2)
    del outputs
    assert {one() is not None for one in kept} == {trained}
    total.sum().backward()
    torch.testing.assert_close(leaf.grad, torch.full(SHAPE, 2 * 0.3 + 3 * 0.7, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_keep_theirs_and_are_as_near_as_they_can_be(dtype: torch.dtype) -> None:
    outputs = [one.to(dtype) for one in numbers(3)]
    weights = torch.tensor([0.25, 0.5, 0.125])
    total = reduce_soft(outputs, weights, (0, 1, 2), "sum", 3)
    assert total.dtype == dtype
    expected = mixed([one.double() for one in outputs], weights.double(), (0, 1, 2))
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_the_gate_of_a_weight_without_gradient_is_the_output_itself() -> None:
    (output,) = numbers(1)
    assert gate(output, torch.tensor(0.3, dtype=torch.float64)) is output


def test_the_gradient_of_a_gate_does_not_depend_on_strides() -> None:
    (output,) = numbers(1)
    gradients = []
    for layout in LAYOUTS[:4]:
        weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        gradients += torch.autograd.grad(gate(layout(output), weight), weight, layout(output))
    for gradient in gradients:
        torch.testing.assert_close(gradient, output.square().sum(), rtol=1e-12, atol=0)
