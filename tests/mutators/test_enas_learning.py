"""What ENAS's controller learns: every gradient against enumeration, and the best of planted rewards."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice
from nnas_core.mutators.enas import EnasMutator
from tests.mutators.enas_equations import EVERYTHING, Reference, space_mutator


def flat(gradients: Any) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([one.reshape(-1) for one in gradients])


def planted_rewards() -> Tensor:
    return torch.rand(len(EVERYTHING), generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.fixture(scope="module")
def exact_gradients() -> tuple[Tensor, Tensor]:
    """Of the expected planted reward, and of the entropy, by the equations: of ``space_mutator()``'s parameters."""
    mutator = space_mutator()
    parameters = list(mutator.parameters())
    reference = Reference(mutator)
    log_p = torch.stack([reference.log_probability(which) for which in EVERYTHING])
    reward = flat(torch.autograd.grad((log_p.exp() * planted_rewards()).sum(), parameters, retain_graph=True))
    entropy = flat(torch.autograd.grad(-(log_p.exp() * log_p).sum(), parameters))
    return reward, entropy


@pytest.mark.slow
def test_the_expected_gradient_is_that_of_expected_reward_and_entropy(exact_gradients: tuple[Tensor, Tensor]) -> None:
    mutator = space_mutator(entropy_weight=0.3, skip_weight=0.0)
    rewards = planted_rewards()
    parameters = list(mutator.parameters())
    exact = exact_gradients[0] + 0.3 * exact_gradients[1]
    evaluated = mutator.controller(mutator.controller.masks(EVERYTHING))
    p, entropy = evaluated.log_probability.exp().detach(), evaluated.entropy
    count, baseline = len(EVERYTHING), 0.37  # any number: it must not matter
    # The surrogate is a mean over samples, and the expectation weights them by p. What a sample's probability is
    # multiplied with is linear in its return: this one gives it the weight; that of the entropy is mended below.
    returns = baseline + count * p * (rewards + 0.3 * entropy.detach() - baseline)
    mutator.baseline = baseline
    loss, _ = mutator.surrogate(mutator.controller.masks(EVERYTHING), (returns - 0.3 * entropy.detach()).tolist())
    loss = loss - 0.3 * ((p - 1 / count) * entropy).sum()
    expected = -flat(torch.autograd.grad(loss, parameters))
    torch.testing.assert_close(expected, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_sampled_gradient_agrees_within_its_error(exact_gradients: tuple[Tensor, Tensor]) -> None:
    mutator = space_mutator(skip_weight=0.0)
    rewards = planted_rewards()
    exact = -(exact_gradients[0] + mutator.entropy_weight * exact_gradients[1])
    number = {mask.tobytes(): index for index, mask in enumerate(mutator.controller.masks(EVERYTHING))}
    mutator.baseline = 0.5
    estimates = []
    for _ in range(40):
        masks = mutator.draw(400)
        loss, _ = mutator.surrogate(masks, [rewards[number[mask.tobytes()]].item() for mask in masks])
        estimates.append(flat(torch.autograd.grad(loss, list(mutator.parameters()))))
    mean, deviation = torch.stack(estimates).mean(0), torch.stack(estimates).std(0)
    error = deviation / math.sqrt(40)  # of the mean
    assert ((mean - exact).abs() <= 5 * error + 1e-12).all()
    assert (error.norm() / exact.norm()).item() < 0.24  # what 16,000 samples tell the gradient to


def test_the_penalty_s_gradient_is_added_with_its_weight() -> None:
    with_penalty, without = (space_mutator(skip_weight=weight) for weight in (0.8, 0.0))
    masks = with_penalty.draw(6)
    gradients = []
    for mutator in (with_penalty, without):
        loss, _ = mutator.surrogate(masks, [1.0] * 6)
        gradients.append(flat(torch.autograd.grad(loss, list(mutator.parameters()))))
    reference = Reference(with_penalty)
    penalties = []
    for mask in masks:
        reference.log_probability(with_penalty.decisions(mask))
        penalties.append(reference.penalty)
    mean = torch.stack(penalties).mean()
    direct = torch.autograd.grad(mean, list(with_penalty.parameters()), allow_unused=True)
    direct = [torch.zeros_like(p) if g is None else g for p, g in zip(with_penalty.parameters(), direct, strict=True)]
    torch.testing.assert_close(gradients[0] - gradients[1], 0.8 * flat(direct), rtol=1e-9, atol=1e-12)


def test_the_penalty_is_zero_at_its_target_alone() -> None:
    mutator = space_mutator(skip_target=0.5)
    with torch.no_grad():
        mutator.controller.score.zero_()
    evaluated = mutator.controller(mutator.draw(3))
    assert evaluated.penalty.tolist() == pytest.approx([0.0] * 3, abs=1e-15)
    mutator.controller.skip_target = 0.2
    expected = 2 * (0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8))
    assert mutator.controller(mutator.draw(1)).penalty.item() == pytest.approx(expected)


def test_the_start_vector_is_trained_and_every_layer_too() -> None:
    mutator = space_mutator(lstm_num_layers=2)
    loss, _ = mutator.surrogate(mutator.draw(2), [0.0, 1.0])
    loss.backward()
    assert mutator.controller.embedding.grad[0].abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in mutator.parameters())


def test_the_baseline_is_the_moving_average_of_earlier_rewards() -> None:
    mutator = space_mutator(entropy_weight=0.0, skip_weight=0.0, baseline_decay=0.9)
    masks = mutator.draw(2)
    losses = []
    for rewards in ([1.0, 3.0], [5.0, 6.0]):
        loss, evaluated = mutator.surrogate(masks, rewards)
        losses.append(loss.item())
    log_p = evaluated.log_probability
    first = 0.9 * (0.9 * 2.0 + 0.1 * 1.0) + 0.1 * 3.0  # from the mean of the first rewards on
    assert losses[0] == pytest.approx(-((1 - 2) * log_p[0] + (3 - 2) * log_p[1]).item() / 2)
    assert losses[1] == pytest.approx(-((5 - first) * log_p[0] + (6 - first) * log_p[1]).item() / 2)
    assert mutator.baseline == pytest.approx(0.9 * (0.9 * first + 0.1 * 5) + 0.1 * 6)


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_best_of_64_architectures(seed: int) -> None:
    layers = [LayerChoice([nn.Identity() for _ in range(4)], key=str(number)) for number in range(3)]
    options = {"temperature": 5.0, "tanh_constant": 2.5, "entropy_weight": 0.1, "learning_rate": 0.01}  # section 3.2
    mutator = EnasMutator(nn.Sequential(*layers), torch.Generator().manual_seed(seed), **options)
    noise = torch.Generator().manual_seed(1000 + seed)
    worth = torch.stack([torch.randperm(4, generator=noise) / 3 for _ in range(3)])  # the best is 1/9 above the next
    every = [{str(place): (index,) for place, index in enumerate(one)} for one in itertools.product(range(4), repeat=3)]
    rewards = {}
    for which in every:
        chosen = [which[str(place)][0] for place in range(3)]
        rewards[str(which)] = sum(worth[place, index].item() for place, index in enumerate(chosen)) / 3
    optimizer = mutator.build_optimizer()
    for _ in range(200):
        masks = mutator.draw(20)
        shaken = (0.05 * torch.randn(20, generator=noise)).tolist()
        measured = [rewards[str(mutator.decisions(mask))] + one for mask, one in zip(masks, shaken, strict=True)]
        loss, _ = mutator.surrogate(masks, measured)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    p = mutator.controller(mutator.controller.masks(every)).log_probability
    assert every[p.argmax()] == max(every, key=lambda which: rewards[str(which)])
    assert p.max().exp().item() > 4 / 64
