"""Proximal policy optimization, against its equations written once more, and what nnas adds to them."""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.ppo import Policy, PpoTuner, advantages_of, loss_of
from nnas_core.tuners.random import RandomTuner
from tests.tuners.sample_spaces import ALL_KINDS, ALL_KINDS_SIZE, inputs, layers
from tests.tuners.trial_loops import run_trials, tell

SPACE = SearchSpace.from_json(ALL_KINDS)

CHAIN = {f"key{number}": layers(4) for number in range(8)}
CHAIN_SPACE = SearchSpace.from_json(CHAIN)


def make(space: dict[str, Any] = ALL_KINDS, **arguments: Any) -> PpoTuner:
    tuner = PpoTuner(**{"hidden_size": 8, "embedding_size": 4, **arguments})
    tuner.update_search_space(space)
    return tuner


def uneven(space: SearchSpace = SPACE, seed: int = 0) -> Policy:
    """A policy whose logits and estimates are far from 0."""
    generator = torch.Generator().manual_seed(seed)
    policy = Policy(space, 6, 3, generator)
    for parameter in policy.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return policy


def planted(architecture: Architecture) -> float:
    """How many keys have candidate 2."""
    return float(sum(decision == (2,) for decision in architecture.indices().values()))


def codes() -> list[tuple[int, ...]]:
    """Of all architectures of ``SPACE``."""
    return [tuple(SPACE[key].number(one) for key, one in SPACE.at(index).indices().items()) for index in range(72)]


def log_probabilities(policy: Policy) -> Tensor:
    """Of all architectures of ``SPACE``."""
    actions = torch.tensor([policy.actions(code) for code in codes()]).T
    with torch.no_grad():
        found: Tensor = policy(actions)[0].gather(2, actions.unsqueeze(2)).sum((0, 2))
    return found


def learned(space: dict[str, Any] = CHAIN, **arguments: Any) -> PpoTuner:
    """After its first update, from ten trials."""
    tuner = make(space, trials_per_update=10, **arguments)
    run_trials(tuner, SearchSpace.from_json(space), planted, trials=10)
    return tuner


# ---- the equations


def test_advantages_are_discounted_sums_of_temporal_differences() -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rewards = [0.5, -1.0, 2.0]
    found = advantages_of(torch.tensor(rewards, dtype=torch.float64), values, 0.9, 0.7)
    for episode, reward in enumerate(rewards):
        v = [*values[:, episode].tolist(), 0.0]
        r = [0.0, 0.0, 0.0, 0.0, reward]
        delta = [r[t] + 0.9 * v[t + 1] - v[t] for t in range(5)]
        expected = [sum((0.9 * 0.7) ** (i - t) * delta[i] for i in range(t, 5)) for t in range(5)]
        assert found[:, episode].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_the_clipped_surrogate_with_value_error_and_entropy() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)
    logits[1, :, 2] = -math.inf
    log_p = logits.log_softmax(2)
    actions = torch.tensor([[0, 1, 2, 0], [0, 1, 1, 0], [2, 2, 1, 0]])
    old, advantages, values, returns = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64) - 0.5
    weights = {"cliprange": 0.2, "vf_coef": 0.3, "ent_coef": 0.1}
    found = float(loss_of(log_p, actions, old, advantages, values, returns, **weights))
    total, clipped = 0.0, 0
    for t in range(3):
        for b in range(4):
            p = [math.exp(one) for one in log_p[t, b].tolist()]
            ratio, a = p[int(actions[t, b])] / math.exp(old[t, b]), float(advantages[t, b])
            surrogate = min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
            clipped += surrogate != ratio * a
            error = (float(values[t, b]) - float(returns[t, b])) ** 2
            total += surrogate - 0.3 * error - 0.1 * sum(one * math.log(one) for one in p if one)
    assert 0 < clipped < 12
    assert found == pytest.approx(-total / 12, rel=1e-12)


def test_the_loss_has_a_finite_gradient_where_actions_are_impossible() -> None:
    policy = uneven()
    actions = torch.tensor([policy.actions(code) for code in codes()]).T
    log_p, values = policy(actions)
    zeros = torch.zeros_like(values)
    loss_of(log_p, actions, zeros, zeros + 1, values, zeros, cliprange=0.2, vf_coef=0.5, ent_coef=0.1).backward()  # type: ignore[no-untyped-call]
    assert all(bool(one.grad.isfinite().all()) for one in policy.parameters() if one.grad is not None)


def test_the_first_step_follows_the_gradient_of_reinforce_with_a_baseline() -> None:
    """Where the ratio is 1, the gradient is that of the mean of log-probability times advantage."""
    policy = uneven()
    actions = torch.tensor([policy.actions(code) for code in codes()[::5]]).T
    log_p, values = policy(actions)
    old = log_p.detach().gather(2, actions.unsqueeze(2)).squeeze(2)
    rewards = torch.linspace(-1, 1, actions.shape[1], dtype=torch.float64)
    advantages = advantages_of(rewards, values.detach(), 0.9, 0.8)
    loss_of(
        log_p, actions, old, advantages, values, values.detach(), cliprange=0.2, vf_coef=0.5, ent_coef=0.0
    ).backward()  # type: ignore[no-untyped-call]

    def reinforce() -> float:
        with torch.no_grad():
            chosen = policy(actions)[0].gather(2, actions.unsqueeze(2)).squeeze(2)
        return -float((chosen * advantages).mean())

    checked = 0
    for parameter in policy.parameters():
        flat = parameter.data.view(-1)
        gradient = torch.zeros_like(flat) if parameter.grad is None else parameter.grad.view(-1)
        for place in range(0, len(flat), max(1, len(flat) // 5)):
            value, ends = float(flat[place]), []
            for step in (1e-6, -1e-6):
                flat[place] = value + step
                ends.append(reinforce())
            flat[place] = value
            assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)
            checked += bool(gradient[place])
    assert checked > 10


# ---- the policy


def test_at_first_every_architecture_is_equally_likely() -> None:
    found = log_probabilities(make().policy)
    assert found.tolist() == pytest.approx([-math.log(ALL_KINDS_SIZE)] * ALL_KINDS_SIZE, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_of_all_architectures_sum_to_one(seed: int) -> None:
    found = log_probabilities(uneven(seed=seed)).exp()
    assert float(found.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(found.max()) > 3 / ALL_KINDS_SIZE


def test_actions_and_codes_are_the_same_architectures() -> None:
    policy = uneven()
    assert [policy.code(policy.actions(code)) for code in codes()] == codes()
    assert policy.steps == 1 + 2 + 1 + 3  # layer, any of two, one, two of three


def test_architectures_are_drawn_with_their_probabilities() -> None:
    policy = uneven(seed=1)
    drawn = policy.draw(20000, torch.Generator().manual_seed(0)).T.tolist()
    counts = collections.Counter(policy.code(one) for one in drawn)
    expected = dict(zip(codes(), (log_probabilities(policy).exp() * 20000).tolist(), strict=True))
    assert min(expected.values()) > 5
    chi_square = sum((counts[code] - mean) ** 2 / mean for code, mean in expected.items())
    assert chi_square < 71 + 4 * math.sqrt(2 * 71)  # mean and deviation at 71 degrees of freedom


def test_what_was_decided_changes_what_is_decided_next() -> None:
    policy = uneven(CHAIN_SPACE)
    one, other = torch.zeros(8, 1, dtype=torch.long), torch.zeros(8, 1, dtype=torch.long)
    other[2] = 1
    with torch.no_grad():
        differs = (policy(one)[0] != policy(other)[0]).any(2)[:, 0].tolist()
    assert differs == [False] * 3 + [True] * 5


# ---- learning


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_more_of_what_is_planted_than_random_does(seed: int) -> None:
    found, random = PpoTuner(seed=seed), RandomTuner(seed=seed)
    for tuner in (found, random):
        tuner.update_search_space(CHAIN)
    values = [planted(one) for one in run_trials(found, CHAIN_SPACE, planted, trials=200)]
    drawn = [planted(one) for one in run_trials(random, CHAIN_SPACE, planted, trials=200)]
    assert np.mean(values[-30:]) > 4.5  # of random ones the mean is 8 / 4, its standard error over 30 is 0.22
    assert max(values) > max(drawn)


def test_only_the_order_of_values_matters() -> None:
    def proposals(of: Any) -> list[Architecture]:
        return run_trials(make(CHAIN), CHAIN_SPACE, lambda one: float(of(planted(one))), trials=40)

    assert proposals(lambda value: 1e9 * value - 3) == proposals(lambda value: value) == proposals(np.exp)


def test_the_policy_changes_when_enough_trials_have_succeeded() -> None:
    tuner = make(trials_per_update=5)
    before = log_probabilities(tuner.policy)
    for number in range(12):
        architecture = SPACE.parse(tuner.generate_parameters(number))
        succeeds = number % 2 == 1
        assert torch.equal(log_probabilities(tuner.policy), before) == (number <= 9)
        tell(tuner, number, architecture, planted(architecture) + number if succeeds else None)


def test_more_trials_than_an_update_takes_may_run_at_the_same_time() -> None:
    tuner = make(CHAIN, trials_per_update=5)
    proposed = run_trials(tuner, CHAIN_SPACE, planted, trials=60, at_a_time=23)
    assert len(set(proposed)) == 60


def test_a_late_trial_counts_with_the_probability_that_it_had() -> None:
    """At a ratio that was left behind long ago the clipped gradient is 0, so the policy stays."""
    tuner = make({"layer": layers(3)}, trials_per_update=1, vf_coef=0.0, gamma=1.0)
    space = SearchSpace.from_json({"layer": layers(3)})
    late = [space.parse(tuner.generate_parameters(number)) for number in range(3)]
    tell(tuner, 0, late[0], 0.0)
    tuner.policy.bias.data[0, late[1]["layer"].index(True)] = 5.0
    before = tuner.policy.bias.detach().clone()
    tell(tuner, 1, late[1], 1.0)
    assert torch.equal(tuner.policy.bias, before)
    tell(tuner, 2, late[2], 2.0)  # its probability fell, so it is raised
    assert not torch.equal(tuner.policy.bias, before)


def test_imported_trials_are_learned_from() -> None:
    tuner = make(trials_per_update=5)
    before = log_probabilities(tuner.policy)
    data = [{"parameter": SPACE.at(index).parameters(), "value": float(index)} for index in range(5)]
    tuner.import_data(data[:4])
    with pytest.warns(NnasWarning, match="is not a finite number"):
        tuner.import_data([{"parameter": SPACE.at(9).parameters(), "value": math.nan}])
    assert torch.equal(log_probabilities(tuner.policy), before)
    tuner.import_data(data[4:])
    assert not torch.equal(log_probabilities(tuner.policy), before)


def test_where_the_policy_draws_known_architectures_only_the_rest_is_drawn_at_random() -> None:
    tuner = make({"layer": layers(40)})
    tuner.policy.bias.data[0, 7] = 1e3
    space = SearchSpace.from_json({"layer": layers(40)})
    proposed = run_trials(tuner, space, lambda _: None)
    assert proposed[0] == space.at(7)
    assert len(set(proposed)) == 40


# ---- hyper-parameters


def test_epochs_and_minibatches_are_as_given() -> None:
    tuner = make(CHAIN, trials_per_update=10, epochs_per_update=3, minibatch_size=4)
    sizes: list[int] = []
    tuner.policy.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[1]))
    run_trials(tuner, CHAIN_SPACE, planted, trials=10)
    assert sizes == [1] * 10 + [10] + [4, 4, 2] * 3


def test_one_step_of_adam_moves_a_weight_by_the_learning_rate() -> None:
    once: dict[str, Any] = {"epochs_per_update": 1, "minibatch_size": 10}
    for rate in (0.001, 0.03):
        moved = float(learned(lr=rate, **once).policy.bias.detach().abs().max())
        assert moved == pytest.approx(rate, rel=0.01)


def test_a_gradient_is_shortened_to_its_largest_norm() -> None:
    """So short that what Adam adds to its divisor, 1e-5, makes the step short too."""
    policy = learned(lr=0.01, max_grad_norm=1e-9).policy
    assert 0 < float(policy.bias.detach().abs().max()) < 0.01 * 1e-3


@pytest.mark.parametrize("arguments", [{"gamma": 0.0}, {"lam": 0.0}])
def test_with_no_estimates_yet_the_reward_reaches_earlier_steps_by_gamma_and_lambda(
    arguments: dict[str, Any],
) -> None:
    moved = learned(vf_coef=0.0, **arguments).policy.bias.detach().abs().amax(1)
    assert moved[:-1].tolist() == [0.0] * 7
    assert float(moved[-1]) > 0
    assert float(learned(vf_coef=0.0, gamma=1.0, lam=1.0).policy.bias.detach().abs().amax(1).min()) > 0


def test_estimates_are_learned_with_their_weight() -> None:
    assert bool((learned(vf_coef=0.0).policy.value_bias == 0).all())
    assert bool((learned(vf_coef=0.5).policy.value_bias != 0).all())


def test_an_estimate_moves_towards_the_reward_itself() -> None:
    """It is 0.8 and the reward 1, so it grows; the advantage, 0.2, is not what it should become."""
    tuner = make({"layer": layers(3)}, trials_per_update=1, epochs_per_update=1, gamma=1.0, lam=1.0)
    space = SearchSpace.from_json({"layer": layers(3)})
    proposed = [space.parse(tuner.generate_parameters(number)) for number in range(2)]
    tell(tuner, 0, proposed[0], 0.0)  # the only one, so its reward is 0, as is expected: nothing moves
    tuner.policy.value_bias.data.fill_(0.8)
    tell(tuner, 1, proposed[1], 1.0)
    assert float(tuner.policy.value_bias.detach()) > 0.8


def test_what_was_drawn_at_a_higher_temperature_counts_with_its_probability_there() -> None:
    tuner = make({"layer": layers(3)})
    tuner.policy.bias.data[0, 0] = 60.0
    known = [SearchSpace.from_json({"layer": layers(3)}).parse(tuner.generate_parameters(number)) for number in (0, 1)]
    assert [one["layer"][0] for one in known] == [True, False]
    found = math.exp(float(tuner._running[1][0]))
    chances = [1 / (math.exp(60 / 1.5**power) + 2) for power in range(1, 10)]  # at 1 it is e^-60
    assert any(found == pytest.approx(chance, rel=1e-9, abs=0) for chance in chances)


def test_a_narrow_clip_keeps_the_policy_near() -> None:
    def moved(cliprange: float) -> float:
        tuner = learned(ALL_KINDS, cliprange=cliprange, epochs_per_update=30, vf_coef=0.0)
        return float((log_probabilities(tuner.policy) + math.log(ALL_KINDS_SIZE)).abs().max())

    assert moved(0.01) < moved(0.2) < moved(5.0)


def test_the_entropy_keeps_the_policy_even() -> None:
    def moved(ent_coef: float) -> float:
        tuner = learned(ALL_KINDS, ent_coef=ent_coef, epochs_per_update=30, vf_coef=0.0)
        return float((log_probabilities(tuner.policy) + math.log(ALL_KINDS_SIZE)).abs().max())

    assert moved(5.0) < 0.5 * moved(0.0)


def test_sizes_are_those_of_the_network() -> None:
    policy = make(hidden_size=5, embedding_size=3).policy
    assert (policy.lstm.hidden_size, policy.lstm.input_size) == (5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials_per_update": 0}, "ppo: trials_per_update must be a whole number of at least 1, not 0"),
        ({"epochs_per_update": 0}, "ppo: epochs_per_update must be a whole number of at least 1, not 0"),
        ({"minibatch_size": 1.5}, "ppo: minibatch_size must be a whole number of at least 1, not 1.5"),
        ({"lr": 0.0}, r"ppo: lr=0.0 is out of range"),
        ({"cliprange": -0.1}, r"ppo: cliprange=-0.1 is out of range"),
        ({"ent_coef": -1.0}, r"ppo: ent_coef=-1.0 is out of range"),
        ({"vf_coef": math.inf}, r"ppo: vf_coef=inf is out of range"),
        ({"max_grad_norm": 0.0}, r"ppo: max_grad_norm=0.0 is out of range"),
        ({"gamma": 1.1}, r"ppo: gamma=1.1 is out of range"),
        ({"lam": math.nan}, r"ppo: lam=nan is out of range"),
        ({"hidden_size": 0}, "ppo: hidden_size must be a whole number of at least 1, not 0"),
        ({"embedding_size": 0}, "ppo: embedding_size must be a whole number of at least 1, not 0"),
        ({"optimize_mode": "max"}, "ppo: optimize_mode must be maximize or minimize, not 'max'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        PpoTuner(**arguments)


def test_any_number_of_seventy_inputs_is_decided_in_seventy_steps() -> None:
    space = {"many": inputs(70, None)}
    tuner = make(space)
    assert tuner.policy.steps == 70
    assert (
        len(set(run_trials(tuner, SearchSpace.from_json(space), lambda one: float(sum(one["many"])), trials=25))) == 25
    )
