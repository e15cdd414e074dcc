"""``snas``: gradients against torch.distributions, expectations against enumeration, one backward pass for all."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import RelaxedBernoulli, RelaxedOneHotCategorical

from nnas_core import InputChoice, LayerChoice
from nnas_core.mutators.snas import SnasMutator
from nnas_core.training.trainer import Trainer
from tests.mutators.noisy_search import StopAt, built, chi_square, inputs, row_of, run, spread, trainer_of


class Lines(nn.Module):
    """Linear in the weights of three choices of three; the input goes through all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(LayerChoice([nn.Linear(3, 3) for _ in range(3)], key=f"op{i}") for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for op in self.ops:
            x = op(x)
        return x


def bound(model: nn.Module, temperature: float, seed: int = 7) -> SnasMutator:
    """A mutator of ``model`` whose logits differ, and whose generator starts anew."""
    generator = torch.Generator()
    mutator = SnasMutator(model, generator, temperature=temperature, final_temperature=temperature)
    spread(mutator)
    generator.manual_seed(seed)
    return mutator


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 5.0])
def test_the_gradient_is_the_reparameterised_one_of_torch_distributions(temperature: float) -> None:
    """Same noise: torch's distribution draws from the global generator, which stands at the same seed for it."""
    model = built(Lines)
    mutator = bound(model, temperature)
    mutator.reset()
    (gradient,) = torch.autograd.grad((model(inputs()) ** 2).sum(), mutator.logits)

    logits = mutator.logits.detach().clone().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = RelaxedOneHotCategorical(torch.tensor(temperature, dtype=torch.float64), logits=logits).rsample()
    x = inputs()
    for op, row in zip(model.ops, weights, strict=True):  # type: ignore[arg-type]
        x = sum((weight * one(x) for weight, one in zip(row, op, strict=True)), start=torch.zeros(()))
    (expected,) = torch.autograd.grad((x**2).sum(), logits)
    assert gradient.abs().max() > 0
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_inputs_of_any_number_are_relaxed_as_by_torch_distributions() -> None:
    class Any3(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Linear(3, 3), nn.Tanh(), nn.Identity()], key="op")
            self.pick = InputChoice(n_candidates=3, n_chosen=None, key="pick")

        def forward(self, x: Tensor) -> Tensor:
            y = self.op(x)
            return y + self.pick([x, x.sin(), x * y])

    mutator = bound(built(Any3), 0.7)
    weights = mutator.relaxed()
    row = row_of(mutator, "pick").index
    direction = torch.arange(1.0, 4.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights[row] * direction).sum(), mutator.logits)
    logits = mutator.logits.detach().clone().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        drawn = RelaxedBernoulli(torch.tensor(0.7, dtype=torch.float64), logits=logits).rsample()[row]
    (expected,) = torch.autograd.grad((drawn * direction).sum(), logits)
    assert torch.allclose(weights[row], drawn, rtol=1e-12, atol=0)
    assert torch.allclose(gradient[row], expected[row], rtol=1e-9, atol=0)


def test_the_largest_weights_are_distributed_as_the_softmax_says() -> None:
    mutator = bound(built(Lines), 0.01, seed=3)
    with torch.no_grad():
        largest = torch.stack([mutator.relaxed().argmax(dim=1) for _ in range(5_000)])
        probabilities = mutator.logits.softmax(dim=1)
    for row in range(3):
        counts = Counter(largest[:, row].tolist())
        statistic, limit = chi_square(counts, dict(enumerate(probabilities[row].tolist())))
        assert statistic < limit


def test_the_expected_loss_tends_to_that_of_the_architectures() -> None:
    """800 samples at temperature 0.001 against all 27 architectures, within 4 standard errors."""
    model = built(Lines)
    mutator = bound(model, 1e-3, seed=5)
    probabilities = mutator.logits.detach().softmax(dim=1).tolist()
    x = inputs(2)

    def loss() -> float:
        with torch.no_grad():
            return float((model(x) ** 2).sum())

    losses = []
    for _ in range(800):
        mutator.reset()
        losses.append(loss())
    expected = 0.0
    for path in itertools.product(range(3), repeat=3):
        mutator.decide({f"op{i}": (index,) for i, index in enumerate(path)})
        expected += loss() * probabilities[0][path[0]] * probabilities[1][path[1]] * probabilities[2][path[2]]
    found = torch.tensor(losses)
    error = found.std().item() / len(losses) ** 0.5
    assert error < 0.1 * expected
    assert abs(found.mean().item() - expected) < 4 * error


def started(bilevel: bool = False) -> Trainer:
    """A trainer before its first step."""
    return trainer_of(SnasMutator, callbacks=[StopAt(1)], bilevel=bilevel, learning_rate=0.1, weight_decay=0.0)


def test_weights_and_logits_make_a_step_along_the_gradients_of_one_loss() -> None:
    trainer = started()
    twin = copy.deepcopy(trainer.mutator)
    assert isinstance(twin, SnasMutator)
    state = trainer.generators["mutator"].get_state()
    batch = next(iter(trainer.train_batches.epoch(0)))
    run(trainer)

    twin.generator = torch.Generator()
    twin.generator.set_state(state)
    twin.model.train()
    twin.reset()
    names, weights = zip(*twin.model.named_parameters(), strict=True)
    loss = nn.functional.cross_entropy(twin.model(batch[0].double()), batch[1])
    *gradients, of_logits = torch.autograd.grad(loss, [*weights, twin.logits], allow_unused=True)
    norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
    scale = min(1.0, 5.0 / (norm.item() + 1e-6))
    after = dict(trainer.model.named_parameters())
    for name, weight, gradient in zip(names, weights, gradients, strict=True):
        if gradient is not None:
            stepped = weight - 0.025 * (scale * gradient + 3e-4 * weight)
            assert torch.allclose(after[name], stepped, rtol=1e-9, atol=1e-12), name
    assert isinstance(trainer.mutator, SnasMutator)
    adam = twin.logits - 0.1 * of_logits / (of_logits.abs() + 1e-8)
    assert torch.allclose(trainer.mutator.logits, adam, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("bilevel", "used"), [(False, 0), (True, 1)])
def test_held_out_data_is_used_by_bilevel_only(bilevel: bool, used: int) -> None:
    trainer = started(bilevel)
    drawn = []
    held_out = trainer.held_out  # type: ignore[attr-defined]
    trainer.held_out = (drawn.append(1) or next(held_out) for _ in itertools.count())  # type: ignore[attr-defined, func-returns-value]
    run(trainer)
    assert len(drawn) == used


def test_its_loop_serves_other_mutators_too() -> None:
    from nnas_core.mutators.darts import DartsMutator
    from nnas_core.mutators.snas import SnasTrainer

    trainer = run(trainer_of(DartsMutator, loop=SnasTrainer, epochs=1))
    assert trainer.step == 5


def test_the_temperatures_are_those_of_the_authors_program() -> None:
    mutator = SnasMutator(built())
    found = []
    for epoch in (0, 75, 149):
        mutator.progress = epoch / 150
        found.append(mutator.annealed())
    assert found == pytest.approx([(1 - epoch / 150) * (1 - 0.03) + 0.03 for epoch in (0, 75, 149)])
