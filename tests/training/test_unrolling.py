"""Virtual steps against steps of torch's own optimizers, in value and in slope; and what they leave behind."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from nnas_core.errors import UserCodeError
from nnas_core.mutables.untouched import own_buffers
from nnas_core.training.unrolling import frozen, holding, require_unrollable, trained_by, virtual_step

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda groups: SGD(groups, lr=0.1),
    "sgd, fused": lambda groups: SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "sgd, weight decay": lambda groups: SGD(groups, lr=0.1, weight_decay=0.3),
    "sgd, momentum": lambda groups: SGD(groups, lr=0.1, momentum=0.9),
    "sgd, dampening": lambda groups: SGD(groups, lr=0.1, momentum=0.8, dampening=0.4, weight_decay=0.1),
    "sgd, nesterov": lambda groups: SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd, maximize": lambda groups: SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1, maximize=True),
    "sgd, rate as a tensor": lambda groups: SGD(groups, lr=torch.tensor(0.1), momentum=0.9),
    "adam": lambda groups: Adam(groups, lr=0.05),
    "adam, weight decay": lambda groups: Adam(groups, lr=0.05, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.3),
    "adam, amsgrad": lambda groups: Adam(groups, lr=0.05, betas=(0.5, 0.6), amsgrad=True),
    "adam, maximize": lambda groups: Adam(groups, lr=0.05, weight_decay=0.3, maximize=True),
    "adamw": lambda groups: AdamW(groups, lr=0.05, weight_decay=0.3),
    "adamw, amsgrad": lambda groups: AdamW(groups, lr=0.05, betas=(0.5, 0.6), weight_decay=0.3, amsgrad=True),
}


def setup(name: str, steps: int) -> tuple[torch.optim.Optimizer, list[nn.Parameter], dict[Tensor, Tensor]]:
    """An optimizer of two groups after some steps, its parameters, and gradients for the next one."""
    generator = torch.Generator().manual_seed(steps)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parameters = [nn.Parameter(numbers(3, 2)), nn.Parameter(numbers(4)), nn.Parameter(numbers(5))]
    groups: list[dict[str, Any]] = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    optimizer = OPTIMIZERS[name](groups)
    optimizer.param_groups[1]["lr"] *= 0.5  # as a schedule does
    optimizer.param_groups[1]["weight_decay"] += 0.2
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = numbers(*parameter.shape)
        optimizer.step()
    optimizer.zero_grad()
    return optimizer, parameters, {one: numbers(*one.shape) for one in parameters}


def numbers_of(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], Any]:
    """The state of an optimizer as plain numbers."""
    entries = optimizer.state_dict()["state"].items()
    return {(index, name): torch.as_tensor(one).tolist() for index, own in entries for name, one in own.items()}


def real_step(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: dict[Tensor, Tensor]
) -> list[Tensor]:
    """Where a copy of the optimizer really gets."""
    twin, copies = copy.deepcopy((optimizer, parameters))
    for one, original in zip(copies, parameters, strict=True):
        one.grad = gradients[original].clone() if original in gradients else None
    twin.step()
    return [one.detach() for one in copies]


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_virtual_step_gets_where_the_optimizer_gets(name: str, steps: int) -> None:
    optimizer, parameters, gradients = setup(name, steps)
    state = numbers_of(optimizer)
    before = [one.detach().clone() for one in parameters]
    step = virtual_step(optimizer, gradients)
    assert [id(one) for one in step.weights] == [id(one) for one in parameters]
    for moved, expected in zip(step.moved, real_step(optimizer, parameters, gradients), strict=True):
        torch.testing.assert_close(moved, expected, rtol=1e-13, atol=1e-15)
    assert all(map(torch.equal, parameters, before))
    assert numbers_of(optimizer) == state
    assert all(one.grad is None for one in parameters)


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_slopes_of_a_virtual_step_are_those_of_the_optimizers_step(name: str, steps: int) -> None:
    optimizer, parameters, gradients = setup(name, steps)
    step = virtual_step(optimizer, gradients)
    pulled = step.pulled_back([torch.ones_like(one) for one in step.weights])

    def at(shift: float) -> list[Tensor]:
        return real_step(optimizer, parameters, {one: gradient + shift for one, gradient in gradients.items()})

    h = 1e-4  # every entry moves its own weight only, so all can be shifted at once
    for one, far_up, up, down, far_down in zip(parameters, at(2 * h), at(h), at(-h), at(-2 * h), strict=True):
        numeric = (8 * (up - down) - (far_up - far_down)) / (12 * h)
        torch.testing.assert_close(pulled[one], numeric, rtol=1e-7, atol=1e-9)


def test_adam_at_a_zero_gradient_has_the_slope_of_its_first_step() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    step = virtual_step(Adam([weight], lr=0.1, eps=0.5), {weight: torch.zeros_like(weight)})
    assert step.slopes[0].item() == pytest.approx(-0.1 / 0.5)  # of -lr * g / (|g| + eps) at 0


def test_a_parameter_without_a_gradient_stays() -> None:
    optimizer, parameters, gradients = setup("sgd, momentum", 2)
    del gradients[parameters[1]]
    step = virtual_step(optimizer, gradients)
    assert [id(one) for one in step.weights] == [id(parameters[0]), id(parameters[2])]
    expected = real_step(optimizer, parameters, gradients)
    assert torch.equal(expected[1], parameters[1])
    torch.testing.assert_close(step.moved, [expected[0], expected[2]])
    assert list(step.pulled_back([None, torch.ones(5)])) == [parameters[2]]


def test_a_sparse_gradient_moves_as_its_dense_form() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    gradient = torch.autograd.grad(table(torch.tensor([1, 1, 3])).sum(), table.weight)[0]
    assert gradient.is_sparse
    moved = virtual_step(SGD([table.weight], lr=0.5), {table.weight: gradient}).moved[0]
    assert torch.equal(moved - table.weight, -0.5 * torch.tensor([[0.0, 0], [2, 2], [0, 0], [1, 1]]))


def test_what_an_optimizer_trains_is_what_requires_gradients() -> None:
    frozen, free = nn.Parameter(torch.zeros(1), requires_grad=False), nn.Parameter(torch.zeros(1))
    assert [id(one) for one in trained_by(SGD([frozen, free], lr=0.1))] == [id(free)]


class Mine(SGD):
    """Steps as it likes."""


@pytest.mark.parametrize(("cls", "name"), [(RMSprop, "RMSprop"), (Mine, "Mine")])
def test_an_optimizer_whose_rule_is_not_known_is_refused(cls: Any, name: str) -> None:
    message = f"model.py: order=2 cannot unroll a step of {name}, only one of SGD, Adam or AdamW of torch.optim"
    with pytest.raises(UserCodeError, match=f"^{re.escape(message)}$") as raised:
        require_unrollable(cls([nn.Parameter(torch.zeros(1))], lr=0.1), "model.py")
    assert raised.value.hint == "use order=1, or let build_optimizer() return one of these"


@pytest.mark.parametrize("fails", [False, True])
def test_weights_come_back_to_the_bit(fails: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(5, generator=generator)) for _ in range(2)]
    weights[0].data[0] = float("nan")
    before = [one.detach().clone() for one in weights]
    graph = (weights[1] ** 3).sum()
    try:
        with holding(weights, [torch.ones(5), torch.zeros(5)]):
            assert [one.tolist() for one in weights] == [[1.0] * 5, [0.0] * 5]
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    for one, old in zip(weights, before, strict=True):
        assert torch.equal(one.view(torch.int32), old.view(torch.int32))  # bits: NaN is not equal to itself
    assert torch.equal(torch.autograd.grad(graph, weights[1])[0], 3 * before[1] ** 2)  # the graph did not notice


def test_frozen_weights_thaw_and_what_was_frozen_before_stays() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with frozen(model):
        assert not model(torch.ones(1, 2)).requires_grad
    assert [one.requires_grad for one in (model.weight, model.bias)] == [True, False]


class Counting(nn.Module):
    """Buffers changed in place, replaced, and made late."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2), persistent=False)
        self.register_buffer("late", None)
        self.also = nn.Module()
        self.also.register_buffer("same", self.in_place)

    def forward(self) -> list[float]:
        self.in_place += 1
        self.replaced = self.replaced + 1
        self.late = torch.ones(1)
        return [*self.also.same.tolist(), *self.replaced.tolist()]


def test_buffers_are_the_same_tensors_with_the_same_numbers_afterwards() -> None:
    model = Counting()
    own = [model.in_place, model.replaced]
    with own_buffers(model) as renew:
        assert model() == [1.0, 1.0, 1.0, 1.0]
        assert model() == [2.0, 2.0, 2.0, 2.0]
        renew()
        assert model.late is None
        assert model() == [1.0, 1.0, 1.0, 1.0]
    assert model.in_place is own[0] is model.also.same
    assert model.replaced is own[1]
    assert model.late is None
    assert [one.tolist() for one in own] == [[0.0, 0.0], [0.0, 0.0]]


def test_buffers_come_back_after_a_failure() -> None:
    model = Counting()

    def fail() -> None:
        with own_buffers(model):
            model()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.in_place.tolist() == [0.0, 0.0]
    assert model.late is None
