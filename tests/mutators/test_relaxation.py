"""What differentiable mutators have in common, against plain computations."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice
from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.reduction import gate
from nnas_core.mutators._relaxation import RelaxedMutator
from tests.mutables.sample_models import OneLayer, Times, times


class Soft(RelaxedMutator):
    """Softmax, nothing else."""

    def relaxed(self) -> Tensor:
        return self.probabilities()


class First(RelaxedMutator):
    """Runs candidate 0 of each choice."""

    runs_all = False

    def relaxed(self) -> Tensor:
        return self.probabilities()

    def paths(self, weights: Tensor) -> Sequence[Sequence[int]]:
        return [[0]] * len(self.rows)


class Zero(nn.Module):
    """NNI's convention for an operation that gives zero."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.zeros_like(x)

    def is_zero_layer(self) -> bool:
        return True


class Mixed(nn.Module):
    """LayerChoices of 2 and 3 candidates that share nothing, and an InputChoice of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.a = LayerChoice(times(1.0, 2.0), key="a")
        self.b = LayerChoice(times(3.0, 5.0, 7.0), reduction="mean", return_mask=True, key="b")
        self.one = InputChoice(3, n_chosen=1, key="one")
        self.two = InputChoice(3, n_chosen=2, key="two")
        self.any = InputChoice(3, key="any")

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x, 10 * x, 100 * x]
        return torch.stack([self.a(x), self.b(x)[0], self.one(inputs), self.two(inputs), self.any(inputs)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_output_is_the_weighted_sum_by_hand_and_so_is_the_gradient() -> None:
    mutator = Soft(Mixed().double(), seeded())
    mutator.double()
    with torch.no_grad():
        mutator.logits.copy_(torch.randn(5, 3, generator=seeded(1), dtype=torch.float64))
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    mutator.reset()
    got = mutator.model(x)

    logits = mutator.logits.detach().clone().requires_grad_()
    p_a, p_b = logits[0, :2].softmax(0), logits[1].softmax(0)
    p_one, p_two, p_any = logits[2].softmax(0), 2 * logits[3].softmax(0), torch.sigmoid(logits[4])
    factors = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    expected = torch.stack(
        [
            (p_a[0] + 2 * p_a[1]) * x,
            (3 * p_b[0] + 5 * p_b[1] + 7 * p_b[2]) / 3 * x,
            (p_one * factors).sum() * x,
            (p_two * factors).sum() * x,
            (p_any * factors).sum() * x,
        ]
    )
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)
    weights = torch.randn(5, 2, generator=seeded(2), dtype=torch.float64)
    (of_ours,) = torch.autograd.grad((got * weights).sum(), mutator.logits)
    (by_hand,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(of_ours, by_hand, rtol=1e-12, atol=1e-13)


def test_status_shows_the_weights_of_each_key_in_order() -> None:
    mutator = Soft(Mixed(), seeded())
    mutator.reset()
    status = mutator.status()
    assert list(status) == ["a", "b", "one", "two", "any"]
    assert [len(weights) for weights in status.values()] == [2, 3, 3, 3, 3]
    assert [round(sum(weights), 4) for weights in status.values()] == pytest.approx([1, 1, 1, 2, 1.5], abs=1e-2)


def test_the_zero_slot_takes_its_share_and_has_no_candidate() -> None:
    mutator = Soft(OneLayer(times(1.0, 1.0)), seeded(), zero=True)
    with torch.no_grad():
        mutator.logits.zero_()
    mutator.reset()
    torch.testing.assert_close(mutator.model(torch.ones(1)), torch.tensor([2 / 3]))
    assert mutator.export()[mutator.choices[0].key].shape == (2,)


def test_a_zero_operation_is_not_run_and_keeps_its_share_and_its_gradient() -> None:
    for reduction in ("sum", "mean"):
        model = OneLayer([Zero(), Times(4.0)], reduction=reduction)
        mutator = Soft(model, seeded())
        with torch.no_grad():
            mutator.logits.zero_()
        mutator.reset()
        y = model(torch.ones(1))
        share = 2.0 if reduction == "sum" else 1.0
        assert y.item() == share
        assert model.op[0].calls == 0
        (gradient,) = torch.autograd.grad(y.sum(), mutator.logits)
        torch.testing.assert_close(gradient, torch.tensor([[-share / 2, share / 2]]))


def test_only_paths_run_and_the_gate_carries_the_gradient() -> None:
    model = OneLayer(times(3.0, 5.0))
    mutator = First(model, seeded())
    mutator.reset()
    x = torch.tensor([2.0, -1.0])
    y = model(x)
    assert torch.equal(y, 3 * x)
    assert [one.calls for one in model.op] == [1, 0]
    p = mutator.logits.detach().softmax(1)[0]
    (gradient,) = torch.autograd.grad(y.sum(), mutator.logits)
    product = (3 * x).sum() * p[0]  # <gradient of y, output of candidate 0>, times the derivative of p_0
    torch.testing.assert_close(gradient[0], torch.stack([product * (1 - p[0]), -product * p[1]]))


def test_a_gate_changes_no_bit_and_can_be_differentiated_twice() -> None:
    output = torch.randn(3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(gate(output, weight), output)
    of_output, of_weight = torch.autograd.grad((gate(output, weight) ** 2).sum(), (output, weight), create_graph=True)
    torch.testing.assert_close(of_output, 2 * output)
    torch.testing.assert_close(of_weight, 2 * (output**2).sum())
    (second,) = torch.autograd.grad(of_weight, output)
    torch.testing.assert_close(second, 4 * output)


def test_a_hard_decision_in_between_ends_with_the_next_reset() -> None:
    model = OneLayer(times(1.0, 3.0))
    mutator = Soft(model, seeded())
    mutator.reset()
    mixed = model(torch.ones(1))
    mutator.decide({mutator.choices[0].key: (1,)})
    assert model(torch.ones(1)).item() == 3.0
    mutator.reset()
    assert torch.equal(model(torch.ones(1)), mixed)


def test_a_candidate_taken_out_neither_runs_nor_is_exported() -> None:
    model = OneLayer(times(1.0, 3.0, 5.0))
    mutator = Soft(model, seeded())
    mutator.reset()
    mutator.valid[0, 2] = False
    mutator.reblend()
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[0.0, 0.0, 9.0]]))
    mutator.reset()
    for _ in range(2):  # the first pass tries the candidates too
        before = [one.calls for one in model.op]
        assert model(torch.ones(1)).item() == 2.0
    assert [one.calls - count for one, count in zip(model.op, before, strict=True)] == [1, 1, 0]
    assert mutator.export()[mutator.choices[0].key].tolist() == [True, False, False]


def test_a_replaced_candidate_runs_from_the_next_reset_on() -> None:
    model = OneLayer(times(1.0, 3.0))
    mutator = Soft(model, seeded())
    with torch.no_grad():
        mutator.logits.zero_()
    mutator.reset()
    model.op[1] = Times(5.0)
    mutator.reset()
    assert model(torch.ones(1)).item() == 3.0


def test_the_final_architecture_follows_the_probabilities() -> None:
    mutator = Soft(Mixed(), seeded())
    rows = [[0.0, 1.0, 9.0], [0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [1.0, 0.0, 2.0], [-1.0, 1.0, 2.0]]
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor(rows))
    found = {key: mask.long().tolist() for key, mask in mutator.export().items()}
    assert found == {"a": [0, 1], "b": [0, 1, 0], "one": [1, 0, 0], "two": [1, 0, 1], "any": [0, 1, 1]}


def test_a_copy_has_rows_of_its_own_model() -> None:
    mutator = Soft(Mixed(), seeded())
    twin = copy.deepcopy(mutator)
    assert [row.mutable for row in twin.rows] == twin.choices
    assert all(one is not other for one, other in zip(twin.choices, mutator.choices, strict=True))


def test_a_subclass_may_take_over_the_forward_pass() -> None:
    class Largest(Soft):
        def on_forward_layer_choice(self, mutable, *args, **kwargs):
            mask = self._cache[mutable.key]
            return list(mutable)[int(mask.argmax())](*args, **kwargs), mask

    model = OneLayer(times(1.0, 3.0))
    mutator = Largest(model, seeded())
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[0.0, 1.0]]))
    mutator.reset()
    assert model(torch.ones(1)).item() == 3.0


@pytest.mark.parametrize(("reduction", "n_chosen"), [("concat", 1), ("none", 2)])
def test_a_reduction_that_changes_shape_is_refused_where_all_candidates_run(reduction: str, n_chosen: int) -> None:
    layers = OneLayer(times(1.0, 2.0), reduction=reduction, key="op")
    with pytest.raises(BindingError, match=rf"Soft runs all candidates of 'op' at once.*'{reduction}'") as raised:
        Soft(layers, seeded())
    assert "enas, fairnas, gdas, random, spos" in str(raised.value.hint)
    inputs = Mixed()
    inputs.two = InputChoice(3, n_chosen=n_chosen, reduction=reduction, key="two")
    with pytest.raises(BindingError, match="'two'"):
        Soft(inputs, seeded())


def test_the_same_reductions_are_served_where_one_candidate_runs() -> None:
    model = OneLayer(times(1.0, 2.0), reduction="concat", key="op")
    First(model, seeded()).reset()
    assert model(torch.ones(1, 1)).tolist() == [[1.0]]


def test_only_zero_operations_are_refused() -> None:
    with pytest.raises(BindingError, match="'op' has only zero operations as candidates: nothing to learn there"):
        Soft(OneLayer([Zero(), Zero()], key="op"), seeded())


def test_a_model_without_layer_choices_is_refused_where_inputs_are_not_relaxed() -> None:
    class Layers(Soft):
        relaxes_inputs = False

    model = nn.Sequential(InputChoice(2, key="pick"))
    with pytest.raises(BindingError, match="Layers has nothing to train: the model has no LayerChoice"):
        Layers(model, seeded())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0 is out of range"),
        ({"learning_rate": float("inf")}, "learning_rate=inf is out of range"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 is out of range"),
        ({"betas": [0.5]}, "betas=[0.5] are not two numbers"),
        ({"betas": [0.5, 1.0]}, "betas=1.0 is out of range"),
    ],
)
def test_numbers_that_adam_cannot_take_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Soft(OneLayer(times(1.0, 2.0)), seeded(), **option)


def test_the_output_of_a_gate_may_be_changed_in_place() -> None:
    class Net(OneLayer):
        def forward(self, x: Tensor) -> Tensor:
            return self.op(x).mul_(10.0)

    model = Net(times(3.0, 5.0))
    mutator = First(model, seeded())
    mutator.reset()
    p = mutator.logits.detach().softmax(1)[0]
    (gradient,) = torch.autograd.grad(model(torch.ones(1)).sum(), mutator.logits)
    torch.testing.assert_close(gradient[0, 0], 30.0 * p[0] * (1 - p[0]))
