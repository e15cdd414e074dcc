"""``gdas``: one path runs, and the gradient is that of the soft sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

from nnas_core import Architecture, InputChoice, LayerChoice
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.training.trainer import Callback
from tests.mutables.sample_models import Times
from tests.mutators.noisy_search import built, inputs, row_of, run, spread, task_of, trainer_of, uniforms


def bound(model: nn.Module, temperature: float = 1.0, seed: int = 7) -> GdasMutator:
    """A mutator of ``model`` whose logits differ, and whose generator starts anew."""
    generator = torch.Generator()
    mutator = GdasMutator(model, generator, temperature=temperature, final_temperature=temperature)
    spread(mutator)
    generator.manual_seed(seed)
    return mutator


def sampled(mutator: GdasMutator) -> dict[str, list[bool]]:
    """The decision of the last reset, as masks."""
    return {key: [value == 1 for value in mask] for key, mask in mutator.status().items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_forward_pass_is_that_of_the_sampled_architecture_to_the_bit(seed: int, dtype: torch.dtype) -> None:
    model = built(dtype=dtype)
    mutator = bound(model, temperature=10.0, seed=seed)
    model.eval()
    mutator.reset()
    relaxed = model(inputs(dtype=dtype))
    architecture: Architecture = mutator.space.parse(sampled(mutator))
    mutator.apply_architecture(architecture)
    assert torch.equal(relaxed, model(inputs(dtype=dtype)))
    assert relaxed.requires_grad


class OneOp(nn.Module):
    """A LayerChoice, squared and summed with fixed numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(3, 3) for _ in range(4)], key="op")

    def forward(self, x: Tensor) -> Tensor:
        return (self.op(x) ** 2).sum()


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_the_logits_is_the_closed_expression(temperature: float, seed: int) -> None:
    """``<dL/do_s, o_s> h_s ((i = s) - h_i) / T``, with h written out from the same noise."""
    model = built(OneOp)
    mutator = bound(model, temperature, seed)
    logits = mutator.logits[0].tolist()
    mutator.reset()
    (gradient,) = torch.autograd.grad(model(inputs()), mutator.logits)

    keys = [a - math.log(-math.log(u)) for a, u in zip(logits, uniforms((1, 4), seed)[0].tolist(), strict=True)]
    powers = [math.exp((key - max(keys)) / temperature) for key in keys]
    h = [power / sum(powers) for power in powers]
    s = keys.index(max(keys))
    with torch.no_grad():
        output = model.op[s](inputs())  # type: ignore[operator, index]
        product = (2 * output * output).sum().item()
    expected = [product * h[s] * ((i == s) - h[i]) / temperature for i in range(4)]
    assert gradient[0].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-13 * product)


class Inputs(nn.Module):
    """An InputChoice among four, squared and summed with fixed numbers, beside a LayerChoice."""

    def __init__(self, n_chosen: int | None) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(3, 3), nn.Tanh()], key="op")
        self.pick = InputChoice(n_candidates=4, n_chosen=n_chosen, key="pick")

    def forward(self, x: Tensor) -> Tensor:
        total = self.op(x)
        picked = self.pick(offered(x))
        return ((total if picked is None else total + picked) ** 2).sum()


def offered(x: Tensor) -> list[Tensor]:
    """Four inputs."""
    return [x, x.sin(), 2 * x + 1, x * x]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_chosen", [1, 2, 3, None])
def test_inputs_are_trained_through_their_relaxation_where_they_were_taken(n_chosen: int | None, seed: int) -> None:
    """The sum over the taken inputs of ``<dL/dsum, input> dh/dlogits``, h from the same noise by autograd alone."""
    model = built(lambda: Inputs(n_chosen))  # type: ignore[arg-type]
    mutator = bound(model, 0.8, seed)
    row = row_of(mutator, "pick")
    mutator.reset()
    taken = [index for index, value in enumerate(mutator.status()["pick"]) if value]
    op = mutator.status()["op"].index(1.0)
    loss = model(inputs())
    (gradient,) = torch.autograd.grad(loss, mutator.logits, allow_unused=True)

    uniform = uniforms(mutator.logits.shape, seed)[row.index]
    logits = mutator.logits[row.index].detach().clone().requires_grad_()
    if n_chosen is None:
        h = torch.sigmoid((logits + uniform.log() - (1 - uniform).log()) / 0.8)
        assert taken == [index for index in range(4) if h[index] > 0.5]
    else:
        keys, h = logits - (-uniform.log()).log(), torch.zeros(4)
        assert taken == sorted(keys.argsort(descending=True)[:n_chosen].tolist())
        for _ in range(n_chosen):
            share = (keys / 0.8).softmax(0)
            h, keys = h + share, keys + (1 - share).log()
    with torch.no_grad():
        chosen = [offered(inputs())[index] for index in taken]
        total = sum(chosen, start=model.op[op](inputs()))  # type: ignore[operator, index]
        products = [(2 * total * one).sum() for one in chosen]
    outer = sum((product * h[index] for product, index in zip(products, taken, strict=True)), start=0 * logits.sum())
    (expected,) = torch.autograd.grad(outer, logits)
    assert torch.allclose(gradient[row.index], expected, rtol=1e-9, atol=1e-12)


def test_exactly_one_candidate_of_a_choice_runs() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ops = nn.ModuleList(LayerChoice([Times(1.0), Times(2.0), Times(3.0)], key=f"op{i}") for i in range(4))
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            for op in self.ops:
                x = op(x)
            return x * self.weight

    model = Counted()
    mutator = bound(model)
    for _ in range(5):
        mutator.reset()
        model(torch.ones(2)).sum().backward()
    calls: list[int] = [sum(one.calls for one in op) for op in model.ops]  # type: ignore[union-attr, attr-defined]
    assert calls == [5, 5, 5, 5]


class Temperatures(Callback):
    """Notes the temperature of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_batch_end(self, epoch: int) -> None:
        mutator: Any = self.trainer.mutator
        self.seen.append(mutator.annealed())


def test_the_temperature_goes_from_10_to_a_tenth_over_the_training() -> None:
    watch = Temperatures()
    trainer = run(trainer_of(GdasMutator, callbacks=[watch]))
    assert (trainer.step, watch.seen[0]) == (20, 10.0)
    assert watch.seen == pytest.approx([10 - 9.9 * step / 20 for step in range(20)])
    assert trainer.mutator is not None
    assert trainer.mutator.progress == 1.0  # when the last validation samples


def test_the_weights_half_computes_no_gradient_of_the_architecture() -> None:
    model = built()
    mutator = bound(model)
    with torch.no_grad():
        mutator.reset()
    model(inputs()).sum().backward()
    assert mutator.logits.grad is None


def test_it_learns_which_candidate_is_right() -> None:
    """Two candidates multiply by -1 and 1, the label is the sign of the input: the second must win."""

    class Signs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([Times(-1.0), Times(1.0)], key="op")
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            y = self.op(x)[:, 0] * self.weight.abs()
            return torch.stack([-y, y], dim=1)

    trainer = run(trainer_of(GdasMutator, Signs, epochs=6, learning_rate=0.05))
    assert trainer.mutator is not None
    assert trainer.mutator.final_architecture().indices() == {"op": (1,)}


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples of which nobody says how many there are."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(row, (row[0] > 0).long()) for row in inputs(14, dtype=torch.float32)])


def test_without_a_known_number_of_steps_the_temperature_falls_from_epoch_to_epoch() -> None:
    watch = Temperatures()
    held_out = TensorDataset(inputs(14, dtype=torch.float32), torch.zeros(14, dtype=torch.long))
    task = task_of(train_dataset=Endless, valid_dataset=lambda: held_out)
    run(trainer_of(GdasMutator, task=task, epochs=4, callbacks=[watch]))
    assert watch.seen == pytest.approx([10.0, 10.0, 7.525, 7.525, 5.05, 5.05, 2.575, 2.575])
