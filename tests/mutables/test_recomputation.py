"""Candidates that are computed once more in the backward pass: the same numbers, to the bit, and less memory."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, RandomMutator
from nnas_core.errors import UsageError
from nnas_core.mutables.mutator import require_dense
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.mutators.snas import SnasMutator
from tests.mutables.tried_candidates import try_all


class Drawing(nn.Module):
    """Scales by numbers that it draws from Python and numpy, as stochastic depth may."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (random.random() + float(np.random.rand()))


class Moving(nn.Module):
    """Its output depends on a buffer that it moves in each forward pass, as an observer of ranges does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.ones(()))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.level.mul_(1.25)
        return x * self.scale * self.level.clone()


class Net(nn.Module):
    """Mixtures of convolutions, BatchNorm, dropout and the above, one of them used twice."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = LayerChoice(
            [
                nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
                nn.Sequential(nn.Dropout(0.5), nn.Conv2d(channels, channels, 1)),
                Moving(),
            ],
            key="first",
        )
        self.again = LayerChoice([nn.Identity(), Drawing(), nn.AvgPool2d(3, 1, 1)], reduction="mean", key="again")
        self.pick = InputChoice(2, key="pick")
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.first(x))
        return self.head(self.pick([x, self.again(x)]).mean((2, 3)))


def built(
    make: Callable[..., RelaxedMutator] = DartsMutator, dtype: torch.dtype = torch.float32, recompute: bool = False
) -> tuple[RelaxedMutator, Tensor]:
    """A bound mutator and a batch, equal each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net().to(dtype)
        x = torch.randn(3, 4, 5, 5, dtype=dtype)
    mutator = make(model, torch.Generator().manual_seed(1))
    if recompute:
        mutator.recompute()
    return mutator, x


def step(mutator: RelaxedMutator, x: Tensor) -> dict[str, Tensor]:
    """Losses, all gradients and buffers of two passes, with fixed random states."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            random.seed(7)
            np.random.seed(7)
            seen: dict[str, Tensor] = {}
            for number in range(2):
                mutator.reset()
                loss = mutator.model(x).square().sum()
                seen[f"loss{number}"] = loss.detach()
                loss.backward()
            seen["after"] = torch.rand(3)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    named = [*mutator.model.named_parameters(), *mutator.named_parameters()]
    seen.update({f"gradient of {name}": one.grad for name, one in named if one.grad is not None})
    seen.update({name: buffer.clone() for name, buffer in mutator.model.named_buffers()})
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [DartsMutator, SnasMutator])
@pytest.mark.parametrize("training", [True, False])
def test_recomputing_changes_no_bit(make: Callable[..., RelaxedMutator], dtype: torch.dtype, training: bool) -> None:
    seen = []
    for recompute in (False, True):
        mutator, x = built(make, dtype, recompute)
        mutator.model.train(training)
        seen.append(step(mutator, x))
    plain, again = seen
    assert plain.keys() == again.keys()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []
    assert plain["gradient of logits"].abs().sum() > 0


def test_the_gradient_of_logits_alone_is_the_same() -> None:
    gradients = []
    for recompute in (False, True):
        mutator, x = built(recompute=recompute)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            mutator.model.again[1] = nn.Identity()  # draws from Python's global state
            mutator.reset()
            gradients.append(torch.autograd.grad(mutator.model(x).sum(), mutator.logits)[0])
    assert torch.equal(*gradients)


def test_a_later_reset_does_not_reach_an_earlier_graph() -> None:
    gradients = []
    for recompute in (False, True):
        mutator, x = built(dtype=torch.float64, recompute=recompute)
        mutator.model.eval()
        mutator.model.again[1] = nn.Identity()
        mutator.reset()
        loss = mutator.model(x).square().sum()
        with torch.no_grad():
            mutator.logits.add_(
                torch.linspace(0, 1, mutator.logits.numel(), dtype=torch.float64).reshape(mutator.logits.shape)
            )
        mutator.reset()
        gradients.append(torch.autograd.grad(loss, mutator.model.head.weight)[0])
        gradients.append(torch.autograd.grad(mutator.model(x).square().sum(), mutator.logits)[0])
    assert torch.equal(gradients[0], gradients[2])
    assert torch.equal(gradients[1], gradients[3])


def test_second_derivatives_are_the_same() -> None:
    seconds = []
    for recompute in (False, True):
        mutator, x = built(dtype=torch.float64, recompute=recompute)
        mutator.model.eval()
        mutator.model.again[1] = nn.Identity()
        mutator.reset()
        weight = mutator.model.first[0][0].weight
        (gradient,) = torch.autograd.grad(mutator.model(x).square().sum(), weight, create_graph=True)
        mutator.reset()  # as the second order does: other weights are decided before it differentiates once more
        seconds.append(torch.autograd.grad(gradient.square().sum(), mutator.logits)[0])
    torch.testing.assert_close(seconds[1], seconds[0], rtol=1e-12, atol=0)
    assert seconds[0].abs().sum() > 0


def test_a_candidate_runs_twice_where_there_are_gradients_and_once_where_there_are_none() -> None:
    mutator, x = built(recompute=True)
    mutator.model.eval()
    mutator.model.again[1] = nn.Identity()
    mutator.reset()
    mutator.model(x)  # tries the candidates
    calls = []
    mutator.model.first[0].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    mutator.reset()
    loss = mutator.model(x).sum()
    assert len(calls) == 2
    loss.backward()
    assert len(calls) == 4
    with torch.no_grad():
        mutator.model(x)
    assert len(calls) == 6


class Recording(nn.Module):
    """Remembers whether its activation is still there."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(x)
        self.output = weakref.ref(y)
        return y * y


def test_activations_are_gone_after_the_forward_pass() -> None:
    for recompute in (False, True):
        model = nn.Sequential(LayerChoice([Recording(), nn.Identity()]))
        mutator = DartsMutator(model, torch.Generator().manual_seed(0))
        if recompute:
            mutator.recompute()
        mutator.reset()
        loss = model(torch.ones(3, requires_grad=True)).sum()
        assert (model[0][0].output() is None) == recompute
        loss.backward()


def test_the_mask_and_the_last_decision_are_as_without() -> None:
    masks = []
    for recompute in (False, True):
        model = nn.Sequential(LayerChoice([nn.Identity(), nn.Tanh()], return_mask=True))
        mutator = DartsMutator(model, torch.Generator().manual_seed(0))
        if recompute:
            mutator.reset()
            mutator.recompute()  # also after it was used
        mutator.reset()
        masks.append((model(torch.ones(2))[1].detach(), mutator.status()))
    assert torch.equal(masks[0][0], masks[1][0])
    assert masks[0][1] == masks[1][1]


def test_what_does_not_run_all_candidates_is_refused() -> None:
    model = nn.Sequential(LayerChoice([nn.Identity(), nn.Tanh()]))
    mutator = GdasMutator(model)
    with pytest.raises(UsageError, match=r"^`recompute` needs a mutator that weights all candidates in every step"):
        mutator.recompute()
    mutator.unbind()
    with pytest.raises(UsageError, match=r"`option` needs .*, RandomMutator does not$"):
        require_dense(RandomMutator(model), "option")


class SquaredMixture(DartsMutator):
    """Goes on computing with the sum of a LayerChoice, and so saves it for the backward pass."""

    def blend(self, mixture, mutable, row):
        run = super().blend(mixture, mutable, row)
        return lambda *args: run(*args).square()


def test_the_second_run_makes_no_sum_and_who_needs_it_notices() -> None:
    model = nn.Sequential(LayerChoice([nn.Identity(), nn.Tanh()]))
    mutator = SquaredMixture(model, torch.Generator().manual_seed(0))
    mutator.recompute()
    mutator.reset()
    model(torch.ones(2)).sum().backward()
    assert mutator.logits.grad.isnan().all()


class Counting(nn.Module):
    """Counts its runs, and saves nothing for the backward pass."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x + 1


@pytest.mark.parametrize("trains_the_architecture", [True, False])
def test_constant_weights_end_the_second_run_where_everything_is_saved(trains_the_architecture: bool) -> None:
    model = nn.Sequential(LayerChoice([nn.Tanh(), Counting()]))
    mutator = DartsMutator(model, torch.Generator().manual_seed(0))
    mutator.requires_grad_(trains_the_architecture)
    mutator.recompute()
    try_all(model, torch.ones(2))
    model[0][1].runs = 0
    mutator.reset()
    model(torch.ones(2, requires_grad=True)).sum().backward()
    assert model[0][1].runs == (2 if trains_the_architecture else 1)
