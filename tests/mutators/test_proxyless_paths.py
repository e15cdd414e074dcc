"""ProxylessNAS: samples against their probabilities; what runs, and what is kept for the backward pass."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, RandomMutator
from tests.mutables.sample_models import OneInput, OneLayer, Times, times
from tests.mutators.proxyless_search import points, proxyless, seeded

# ---- probabilities


def chi_square(counts: Counter[Any], chances: dict[Any, float]) -> float:
    total = sum(counts.values())
    assert set(counts) <= set(chances)
    return sum((counts[one] - total * p) ** 2 / (total * p) for one, p in chances.items())


DRAWS = 2000


def test_paths_of_the_weights_are_drawn_by_the_softmax() -> None:
    mutator = proxyless(OneLayer(times(1, 2, 3, 4), key="op"), 7)
    p = mutator.logits.detach()[0].softmax(0).tolist()
    counts: Counter[int] = Counter()
    for _ in range(DRAWS):
        with torch.no_grad():
            mutator.reset()
        counts[int(mutator._cache["op"].int().argmax())] += 1
    assert chi_square(counts, dict(enumerate(p))) < 16.3  # 3 degrees of freedom, 0.1 %


def test_two_paths_are_drawn_without_replacement_and_one_of_them_by_their_ratio() -> None:
    model = OneLayer(times(1, 2, 3), key="op")
    mutator = proxyless(model, 7, mode="two")
    p = mutator.logits.detach()[0].softmax(0).tolist()
    chances = {}
    for a, b in itertools.permutations(range(3), 2):  # the unordered pair {a, b}, of which a is active
        pair = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        chances[a, b] = pair * p[a] / (p[a] + p[b])
    counts: Counter[tuple[int, int]] = Counter()
    x = torch.ones(1)
    for _ in range(DRAWS):
        mutator.reset()
        (gradient,) = torch.autograd.grad(model(x).sum(), [mutator.logits])
        active = int(mutator._cache["op"].int().argmax())
        (other,) = (one for one in gradient[0].nonzero().flatten().tolist() if one != active)
        counts[active, other] += 1
    assert chi_square(counts, chances) < 20.6  # 5 degrees of freedom, 0.1 %


@pytest.mark.parametrize("n_chosen", [None, 2])
def test_inputs_are_drawn_by_their_probabilities(n_chosen: int | None) -> None:
    mutator = proxyless(OneInput(3, n_chosen=n_chosen, key="pick"), 7)
    alpha = mutator.logits.detach()[0].double()
    subsets = [one for size in range(4) if n_chosen in (None, size) for one in itertools.combinations(range(3), size)]
    weights = [alpha[list(subset)].sum().exp().item() for subset in subsets]
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(DRAWS):
        with torch.no_grad():
            mutator.reset()
        counts[tuple(mutator._cache["pick"].nonzero().flatten().tolist())] += 1
    chances = {subset: weight / sum(weights) for subset, weight in zip(subsets, weights, strict=True)}
    assert chi_square(counts, chances) < (24.3 if n_chosen is None else 13.8)  # 7 and 2 degrees of freedom, 0.1 %


def test_the_final_architecture_is_the_most_probable() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice(times(1, 2, 3), key="op")
            self.two = InputChoice(4, n_chosen=2, key="two")
            self.any = InputChoice(3, key="any")

    mutator = proxyless(Both())
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[0.1, 0.4, 0.3, 0], [0.3, -0.2, 0.4, 0.1], [0.2, -0.1, 0.3, 0]]))
    indices = {key: mask.nonzero().flatten().tolist() for key, mask in mutator.export().items()}
    assert indices == {"op": [1], "two": [0, 2], "any": [0, 2]}


# ---- what runs, and what is kept


def known(choice: LayerChoice, *args: Tensor) -> None:
    """Let each candidate be tried for changes in place, which happens before its first pass with gradients."""
    for name, candidate in zip(choice.names, choice, strict=True):
        choice.sharing.call(name, candidate)(*args)


@pytest.mark.parametrize(("mode", "runs"), [("full", 4), ("full_v2", 4), ("two", 2)])
def test_candidates_run_once_and_only_where_gradients_need_them(mode: str, runs: int) -> None:
    candidates = times(1, 2, 3, 4)
    model = OneLayer(candidates, key="op")
    mutator = proxyless(model, mode=mode)
    x = torch.ones(2, requires_grad=True)

    def executions() -> int:
        total = sum(one.calls for one in candidates)
        for one in candidates:
            one.calls = 0
        return total

    known(model.op, x)
    executions()
    with torch.no_grad():
        mutator.reset()
    model(x).sum().backward()
    assert executions() == 1  # a step of the weights
    mutator.reset()
    loss = model(x).sum()
    assert executions() == (runs if mode == "full" else 1)
    loss.backward()
    assert executions() == (0 if mode == "full" else runs - 1)
    with torch.no_grad():
        model(x)
    assert executions() == 1


def test_a_zero_operation_runs_only_if_it_is_chosen() -> None:
    class CountedZero(Times):
        def is_zero_layer(self) -> bool:
            return True

    zero = CountedZero(0)
    model = OneLayer([zero, *times(1, 2)], key="op")
    mutator = proxyless(model)
    known(model.op, torch.ones(1))
    for logit, runs in ((-50.0, 0), (50.0, 1)):
        with torch.no_grad():
            mutator.logits[0, 0] = logit
        zero.calls = 0
        mutator.reset()
        torch.autograd.grad(model(torch.ones(1)).sum(), [mutator.logits])
        assert zero.calls == runs


def saved_bytes(run: Callable[[], Tensor]) -> int:
    """The bytes that a forward pass keeps for its backward pass, equal storages once."""
    storages: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)  # so that no address is used twice
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run().backward()
    return sum(storages.values())


def deep() -> nn.Module:
    layers = (nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(6))
    return nn.Sequential(*layers)


def test_only_one_path_is_kept_for_the_backward_pass() -> None:
    model = seeded(lambda: OneLayer([deep() for _ in range(8)], key="op"))
    x = points(500, 32).requires_grad_()
    single, dense = copy.deepcopy(model), copy.deepcopy(model)
    one, every = RandomMutator(single), proxyless(model)
    one.reset()
    every.reset()
    path = saved_bytes(lambda: single(x).square().sum())
    gated = saved_bytes(lambda: model(x).square().sum())
    weights = points(8).softmax(0).requires_grad_()
    mixed = saved_bytes(lambda: sum(w * op(x) for w, op in zip(weights, dense.op, strict=True)).square().sum())
    output = x.numel() * 8
    assert path <= gated <= path + output
    assert gated < 0.3 * mixed


def test_full_keeps_outputs_and_not_what_is_inside() -> None:
    model = seeded(lambda: OneLayer([deep() for _ in range(8)], key="op"))
    x = points(500, 32).requires_grad_()
    mutator = proxyless(model, mode="full")
    mutator.reset()
    full = saved_bytes(lambda: model(x).square().sum())
    mutator.unbind()
    proxyless(model).reset()
    lean = saved_bytes(lambda: model(x).square().sum())
    outputs = 7 * x.numel() * 8
    assert 0.8 * outputs < full - lean <= outputs
