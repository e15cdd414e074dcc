"""``proxyless`` with latencies: both forms against enumeration of all architectures and finite differences."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice
from nnas_core.errors import InputError, UsageError, UserCodeError
from nnas_core.mutators.proxyless import ProxylessMutator
from tests.mutators.noisy_search import (
    LATENCIES,
    Mixed,
    StopAt,
    assert_equal_states,
    built,
    decisions,
    inputs,
    run,
    spread,
    task_of,
    trainer_of,
)

GRADIENT: dict[str, Any] = {"latency_table": LATENCIES, "latency_weight": 0.25}
REWARDS: dict[str, Any] = {"update": "reinforce", "latency_table": LATENCIES, "latency_target": 9.0}
TRAINED: dict[str, Any] = {"warmup_epochs": 0, "every": 2}


def bound(model: type[nn.Module] = Mixed, **options: Any) -> ProxylessMutator:
    """A mutator whose logits differ."""
    mutator = ProxylessMutator(built(model), torch.Generator().manual_seed(7), **options)
    spread(mutator)
    return mutator


def probability(row: Any, logits: list[float], chosen: tuple[int, ...]) -> float:
    """How probable a decision is, written out: a sigmoid an input, or in proportion to the product of exp(logit)."""
    if row.n_chosen is None:
        odds = [1 / (1 + math.exp(-logit)) for logit in logits]
        return math.prod(p if index in chosen else 1 - p for index, p in enumerate(odds))
    weights = {one: math.prod(math.exp(logits[index]) for index in one) for one in decisions(row)}
    return weights[chosen] / sum(weights.values())


def latency_of(mutator: ProxylessMutator, path: tuple[tuple[int, ...], ...]) -> float:
    """The sum of a path's entries in the table."""
    total = 0.0
    for row, chosen in zip(mutator.rows, path, strict=True):
        names = row.mutable.choice.candidates
        total += sum(LATENCIES.get(row.key, {}).get(names[index], 0.0) for index in chosen)
    return total


def architectures(
    mutator: ProxylessMutator, logits: list[list[float]]
) -> Iterator[tuple[float, tuple[tuple[int, ...], ...]]]:
    """All paths, each with its probability."""
    for path in itertools.product(*(decisions(row) for row in mutator.rows)):
        pairs = zip(mutator.rows, path, strict=True)
        yield math.prod(probability(row, logits[row.index][: row.count], one) for row, one in pairs), path


def differences(
    value: Callable[[list[list[float]]], float], logits: list[list[float]], size: float = 1e-5
) -> list[float]:
    """Central finite differences of ``value`` in each logit."""
    found = []
    for line, row in enumerate(logits):
        for place in range(len(row)):
            sides = []
            for sign in (1, -1):
                moved = [list(one) for one in logits]
                moved[line][place] += sign * size
                sides.append(value(moved))
            found.append((sides[0] - sides[1]) / (2 * size))
    return found


def expected_latency(mutator: ProxylessMutator, logits: list[list[float]]) -> float:
    """The mean latency over all decisions, row by row: they are independent."""
    total = 0.0
    for row in mutator.rows:
        own, names = logits[row.index][: row.count], row.mutable.choice.candidates
        for chosen in decisions(row):
            latency = sum(LATENCIES.get(row.key, {}).get(names[index], 0.0) for index in chosen)
            total += probability(row, own, chosen) * latency
    return total


def test_the_expected_latency_and_its_gradient_are_those_of_all_architectures() -> None:
    mutator = bound(**GRADIENT)
    logits = mutator.logits.tolist()
    mutator.reset()
    latency = mutator.expected_latency()
    whole = math.fsum(p * latency_of(mutator, path) for p, path in architectures(mutator, logits))
    assert latency.item() == pytest.approx(whole, rel=1e-12)
    (gradient,) = torch.autograd.grad(latency, mutator.logits)
    expected = differences(lambda values: expected_latency(mutator, values), logits)
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert sum(abs(one) > 1e-3 for one in expected) >= 10


def test_a_step_adds_the_weighted_latency_to_the_gradient_of_the_loss() -> None:
    trainers = [trainer_of(ProxylessMutator, **TRAINED, **options) for options in ({}, GRADIENT)]
    x, y = next(iter(trainers[0].train_batches.epoch(0)))
    found = []
    for trainer in trainers:
        spread(trainer.searching)
        trainer.generators["mutator"].manual_seed(9)
        found.append(trainer.architecture_gradients((x.double(), y), (x.double(), y))[0])
    mutator = trainers[1].searching
    added = differences(lambda values: 0.25 * expected_latency(mutator, values), mutator.logits.tolist())
    assert (found[1] - found[0]).flatten().tolist() == pytest.approx(added, rel=1e-5, abs=1e-8)


def test_of_two_the_latency_is_that_of_the_two_at_the_probability_of_both() -> None:
    mutator = bound(**GRADIENT, mode="two")
    mutator.reset()
    (gradient,) = torch.autograd.grad(mutator.expected_latency(), mutator.logits)
    row = next(row for row in mutator.rows if row.key == "a")
    pair = [index for index, value in enumerate(gradient[row.index].tolist()) if value]
    assert len(pair) == 2
    powers = [math.exp(value) for value in mutator.logits[row.index, :3].tolist()]
    one, other = (powers[index] / sum(powers) for index in pair)
    slower = LATENCIES["a"][str(pair[0])] - LATENCIES["a"][str(pair[1])]
    # d/da of (p + q) (s F + (1 - s) G), where s = p / (p + q) and p + q is kept
    expected = one * other / (one + other) * slower
    assert gradient[row.index, pair].tolist() == pytest.approx([expected, -expected])


def test_the_log_probability_of_a_path_is_that_of_its_decisions() -> None:
    mutator = bound()
    logits = mutator.logits.tolist()
    total = 0.0
    for count, (chance, path) in enumerate(architectures(mutator, logits)):
        total += chance
        if count % 37 == 0:
            assert mutator.log_probability(path).exp().item() == pytest.approx(chance, rel=1e-10)
    assert total == pytest.approx(1)


class Small(nn.Module):
    """Two LayerChoices: few enough paths to enumerate a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a = LayerChoice([nn.Linear(3, 3), nn.Identity(), nn.Tanh()], key="a")
        self.b = LayerChoice([nn.Linear(3, 3), nn.ReLU()], key="b")
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.b(self.a(x)))
        return out


SMALL = {"a": {"0": 2.0, "1": 7.5, "2": 4.25}, "b": {"0": 1.5, "1": 6.0}}


def test_the_surrogate_s_mean_gradient_is_that_of_the_expected_reward() -> None:
    mutator = bound(Small, update="reinforce")
    rewards = {path: 0.1 + 0.3 * place for place, (_, path) in enumerate(architectures(mutator, [[0.0] * 3] * 2))}
    assert len(rewards) == 6
    logits = mutator.logits.tolist()
    mean = torch.zeros_like(mutator.logits)
    for chance, path in architectures(mutator, logits):
        mutator.baseline = 0.4  # any number that does not depend on the path
        (gradient,) = torch.autograd.grad(mutator.surrogate([path], [rewards[path]]), mutator.logits)
        mean += chance * gradient
    expected = differences(
        lambda values: -math.fsum(p * rewards[path] for p, path in architectures(mutator, values)), logits
    )
    assert mean.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_baseline_is_the_moving_average_of_the_rewards_before() -> None:
    mutator = bound(Small, update="reinforce", baseline_decay=0.75)
    paths = [((0,), (1,)), ((2,), (0,))]
    first = mutator.surrogate(paths, [0.2, 0.6])
    logs = [mutator.log_probability(path) for path in paths]
    assert first.item() == pytest.approx((0.2 * logs[0] - 0.2 * logs[1]).item() / 2)  # less their own mean, 0.4
    assert mutator.baseline == pytest.approx(0.4)
    assert mutator.surrogate(paths[:1], [0.8]).item() == pytest.approx(-0.4 * logs[0].item())
    assert mutator.baseline == pytest.approx(0.75 * 0.4 + 0.25 * 0.8)


def test_a_reward_is_the_metric_times_a_power_of_the_latency() -> None:
    mutator = bound(Small, update="reinforce", latency_table=SMALL, latency_target=6.0, latency_exponent=-0.5)
    assert mutator.reward(0.9, ((1,), (0,))) == pytest.approx(0.9 * math.sqrt(6 / 9))
    assert mutator.reward(0.9, ((2,), (1,))) == pytest.approx(0.9 * math.sqrt(6 / 10.25))
    assert bound(Small, update="reinforce").reward(-0.9, ((1,), (0,))) == -0.9
    assert math.isnan(mutator.reward(math.nan, ((1,), (0,))))


def test_a_step_measures_samples_on_one_batch_and_follows_their_rewards() -> None:
    trainer: Any = trainer_of(ProxylessMutator, Small, **TRAINED, update="reinforce", samples=3)
    mutator = trainer.searching
    x, y = next(iter(trainer.train_batches.epoch(0)))
    batch = (x.double(), y)
    mutator.baseline = 0.5
    before = copy.deepcopy(trainer.model.state_dict())
    state = trainer.generators["mutator"].get_state()
    gradients = trainer.architecture_gradients(batch, batch)
    assert_equal_states(before, trainer.model.state_dict())
    assert trainer.model.training
    trainer.generators["mutator"].set_state(state)
    total = torch.zeros(())
    for _ in range(3):
        path = mutator.draw()[0]
        a, b = (list(choice)[one] for choice, (one,) in zip((trainer.model.a, trainer.model.b), path, strict=True))
        with torch.no_grad():
            right = trainer.model.head(b(a(batch[0]))).argmax(dim=1) == y
        total = total - (right.double().mean() - 0.5) * mutator.log_probability(path) / 3
    assert torch.allclose(gradients[0], torch.autograd.grad(total, mutator.logits)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"latency_weight": 0.3},
        {"latency_weight": 0.3, "mode": "two"},
        {"update": "reinforce", "latency_target": 9.0, "latency_exponent": -2.0},
    ],
)
def test_a_slow_candidate_loses_against_an_equal_fast_one(options: dict[str, Any]) -> None:
    class Equal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Identity(), nn.Identity(), nn.Identity()], key="op")
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.op(x))
            return out

    table = {"op": {"0": 9.0, "1": 3.0, "2": 20.0}}
    more = {"latency_table": table, "learning_rate": 0.1, "warmup_epochs": 0, "every": 1}
    trainer: Any = run(trainer_of(ProxylessMutator, Equal, epochs=10, **more, **options))
    assert trainer.searching.final_architecture().indices() == {"op": (1,)}
    assert trainer.searching.probabilities()[0, 1].item() > 0.5


@pytest.mark.parametrize("options", [GRADIENT, {**GRADIENT, "mode": "two"}, REWARDS])
@pytest.mark.parametrize("step", [3, 12])
def test_a_training_goes_on_to_the_bit(step: int, options: dict[str, Any]) -> None:
    def trainer(*callbacks: Any) -> Any:
        return trainer_of(ProxylessMutator, callbacks=callbacks, **TRAINED, **options)

    whole = run(trainer())
    state = copy.deepcopy(run(trainer(StopAt(step))).state_dict())
    resumed = trainer()
    resumed.load_state_dict(state)
    assert_equal_states(whole.state_dict(), run(resumed).state_dict())


def test_a_checkpoint_of_another_table_is_refused() -> None:
    state = bound(**GRADIENT).state_dict()
    with pytest.raises(InputError, match="not the one that the run was started with") as caught:
        bound().load_state_dict(state)
    assert "a, '1': 7.5 before, none now" in caught.value.problems


def test_a_copy_learns_by_itself() -> None:
    mutator = bound(**REWARDS)
    twin = copy.deepcopy(mutator)
    twin.surrogate([twin.draw()[0]], [0.5])
    assert (mutator.baseline, twin.baseline) == (None, 0.5)
    twin.reset()
    twin.model(inputs()).sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "rewards"}, "update='rewards' is none of gradient, reinforce"),
        ({"latency_table": SMALL}, 'latency_weight belongs to a table of latencies with update="gradient", and it to'),
        ({"latency_weight": 0.1}, "latency_weight belongs to a table"),
        ({"update": "reinforce", "latency_table": SMALL}, "latency_target belongs to a table"),
        ({"latency_table": SMALL, "latency_weight": 0.1, "latency_target": 3.0}, "latency_target belongs to a table"),
        ({"update": "reinforce", "latency_target": 0.0}, "latency_target=0.0 is out of range"),
        ({"latency_exponent": 0.07}, "latency_exponent=0.07 is out of range"),
        ({"samples": 0}, "samples=0 is out of range"),
        ({"baseline_decay": 1.0}, "baseline_decay=1.0 is out of range"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ProxylessMutator(Small(), **options)
    assert str(caught.value).startswith(message)


def test_latencies_of_zero_have_no_power() -> None:
    table = {"a": [0, 1, 2], "b": [0, 1]}
    with pytest.raises(InputError, match=r"^latency_table: there are architectures with a latency of 0"):
        ProxylessMutator(Small(), update="reinforce", latency_table=table, latency_target=2.0)


def test_rewards_of_which_less_is_better_or_that_are_negative_are_refused() -> None:
    table = {"update": "reinforce", "latency_table": SMALL, "latency_target": 6.0}
    with pytest.raises(UsageError, match="of this task's metric less is better"):
        trainer_of(ProxylessMutator, Small, task=task_of(metric_mode="min"), **TRAINED, **table)
    task = task_of(metrics=lambda output, target: {"score": -1.0})
    with pytest.raises(UserCodeError, match=r"^the metric is -1, and proxyless multiplies it by a latency term"):
        run(trainer_of(ProxylessMutator, Small, task=task, **TRAINED, **table))
