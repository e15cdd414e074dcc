"""ENAS: the policy against an evaluation of its own equations, and every expectation against enumeration."""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nnas_core import InputChoice, LayerChoice, MutableScope, RandomMutator
from nnas_core.controller.steps import MOST_SUBSETS
from nnas_core.data import DataSettings, architecture_batches, build_batches
from nnas_core.errors import BindingError, NoResultError, UsageError
from nnas_core.mutators.enas import EnasMutator, EnasTrainer
from nnas_core.task import Task
from nnas_core.training import Callback
from tests.library.training import Stream, numbers, task_of

Decisions = Mapping[str, tuple[int, ...]]


class Cell(MutableScope):
    """``op`` of three, and one of three inputs."""

    def __init__(self) -> None:
        super().__init__("cell")
        self.op = LayerChoice([nn.Identity() for _ in range(3)], key="op")
        self.pick = InputChoice(choose_from=["", "stem", "op"], n_chosen=1, key="pick")


class Space(nn.Module):
    """2 * (3 * 3) * 6 * 4 * 2 = 864 architectures; LayerChoices of two sizes, InputChoices of all kinds, a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # the controller follows its type
        self.stem = LayerChoice([nn.Identity(), nn.Identity()], key="stem")
        self.cell = Cell()
        self.pair = InputChoice(choose_from=["stem", "cell", "", ""], n_chosen=2, key="pair")
        self.any = InputChoice(choose_from=["cell", "pick"], key="any")
        self.last = LayerChoice([nn.Identity(), nn.Identity()], key="last")


PAIRS = list(itertools.combinations(range(4), 2))
SUBSETS = [(), (0,), (1,), (0, 1)]
EVERYTHING: list[Decisions] = [
    {"stem": (a,), "op": (b,), "pick": (c,), "pair": d, "any": e, "last": (f,)}
    for a, b, c, d, e, f in itertools.product(range(2), range(3), range(3), PAIRS, SUBSETS, range(2))
]


def space_mutator(seed: int = 0, spread: float = 20.0, **options: Any) -> EnasMutator:
    """A controller of ``Space`` with parameters ``spread`` times as large as at the start, so that it has opinions."""
    mutator = EnasMutator(Space(), torch.Generator().manual_seed(seed), **{"lstm_size": 5, **options})
    with torch.no_grad():
        for parameter in mutator.parameters():
            parameter.mul_(spread)
    return mutator


class Reference:
    """The policy of ``Space``, one architecture and one equation at a time."""

    def __init__(self, mutator: EnasMutator) -> None:
        self.controller = mutator.controller

    def step(self, read: Tensor) -> Tensor:
        """The equations of an LSTM in torch's order of gates; the state of its last layer."""
        for layer, (below, own) in enumerate(self.controller.lstm.all_weights):
            h, c = self.states[layer]
            i, f, g, o = (below @ read + own @ h).reshape(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            self.states[layer] = (h, c)
            read = h
        return read

    def limited(self, logits: Tensor) -> Tensor:
        if self.controller.temperature is not None:
            logits = logits / self.controller.temperature
        if self.controller.tanh_constant is not None:
            logits = self.controller.tanh_constant * torch.tanh(logits)
        return logits

    def scores(self, state: Tensor, anchors: list[Tensor]) -> Tensor:
        c = self.controller
        return self.limited(torch.stack([c.score @ torch.tanh(c.anchor @ a + c.query @ state) for a in anchors]))

    def log_probability(self, which: Decisions) -> Tensor:
        """Logarithm of the probability of one architecture; ``penalty`` and ``entropy_of_any`` are kept beside it."""
        c = self.controller
        size = c.lstm.hidden_size
        self.states = [(torch.zeros(size, dtype=torch.float64),) * 2 for _ in c.lstm.all_weights]
        start, two, three = c.embedding[0], c.embedding[1:3], c.embedding[3:6]
        free = [self.step(start), self.step(start)]  # as many as any choice has inputs without a tag
        state = self.step(start)
        total = self.limited(c.head[:2] @ state).log_softmax(0)[which["stem"][0]]
        stem = state = self.step(two[which["stem"][0]])  # the first state that has read what stem decided
        total = total + self.limited(c.head[2:5] @ state).log_softmax(0)[which["op"][0]]
        op = state = self.step(three[which["op"][0]])
        anchors = [free[0], stem, op]
        total = total + self.scores(state, anchors).log_softmax(0)[which["pick"][0]]
        cell = state = self.step(anchors[which["pick"][0]])
        if c.script._exit_step:
            state = self.step(start)
        anchors = [stem, cell, free[0], free[1]]
        of_pairs = torch.stack([self.scores(state, anchors)[list(pair)].sum() for pair in PAIRS])
        total = total + of_pairs.log_softmax(0)[PAIRS.index(which["pair"])]
        state = self.step(sum(anchors[index] for index in which["pair"]) / 2)
        anchors = [cell, cell]
        p = torch.softmax(torch.stack([-(q := self.scores(state, anchors)), q]), dim=0)[1]
        target = c.skip_target
        self.penalty = (p * torch.log(p / target) + (1 - p) * torch.log((1 - p) / (1 - target))).sum()
        self.entropy_of_any = -(p * torch.log(p) + (1 - p) * torch.log(1 - p)).sum()
        taken = torch.tensor([index in which["any"] for index in range(2)])
        total = total + torch.where(taken, p, 1 - p).log().sum()
        read = sum((anchors[index] for index in which["any"]), 0 * cell) / (1 + len(which["any"]))
        return total + self.limited(c.head[:2] @ self.step(read)).log_softmax(0)[which["last"][0]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lstm_num_layers": 3},
        {"cell_exit_extra_step": True},
        {"temperature": 2.5, "tanh_constant": None},
        {"temperature": 0.5, "tanh_constant": 2.0, "skip_target": 0.7},
    ],
)
def test_probabilities_are_those_of_the_equations(options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    some = EVERYTHING[::17]
    evaluated = mutator.controller(mutator.controller.masks(some))
    reference = Reference(mutator)
    for index, which in enumerate(some):
        expected = reference.log_probability(which)
        assert evaluated.log_probability[index].item() == pytest.approx(expected.item(), abs=1e-12)
        assert evaluated.penalty[index].item() == pytest.approx(reference.penalty.item(), abs=1e-12)
        gradient = torch.autograd.grad(evaluated.log_probability[index], list(mutator.parameters()), retain_graph=True)
        exact = torch.autograd.grad(expected, list(mutator.parameters()))
        for one, other in zip(gradient, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"lstm_num_layers": 2, "cell_exit_extra_step": True, "temperature": 3.0}])
def test_the_probabilities_of_all_architectures_add_up_to_one(options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    p = mutator.controller(mutator.controller.masks(EVERYTHING)).log_probability.exp()
    assert len(EVERYTHING) == mutator.space.size == 864
    assert p.sum().item() == pytest.approx(1.0, abs=1e-10)
    assert (p.max() / p.min()).item() > 10  # it has opinions, so this says something


def test_the_mean_entropy_is_that_of_all_architectures() -> None:
    mutator = space_mutator()
    evaluated = mutator.controller(mutator.controller.masks(EVERYTHING))
    p = evaluated.log_probability.exp()
    exact = -(p * evaluated.log_probability).sum()
    assert (p * evaluated.entropy).sum().item() == pytest.approx(exact.item(), abs=1e-10)
    assert exact.item() < math.log(864) - 0.1


def test_the_entropy_of_independent_inputs_can_be_their_mean() -> None:
    total, mean = (space_mutator(entropy_reduction=how) for how in ("sum", "mean"))
    masks = total.controller.masks(EVERYTHING[:3])
    difference = total.controller(masks).entropy - mean.controller(masks).entropy
    reference = Reference(total)
    for index, which in enumerate(EVERYTHING[:3]):
        reference.log_probability(which)
        assert difference[index].item() == pytest.approx(reference.entropy_of_any.item() / 2, abs=1e-12)


# ---- sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"lstm_num_layers": 2, "cell_exit_extra_step": True}])
def test_a_sample_s_probability_is_that_of_its_evaluation(dtype: torch.dtype, options: dict[str, Any]) -> None:
    mutator = space_mutator(**options)
    mutator.controller.to(dtype)
    draws = mutator.controller.draw(200, torch.Generator().manual_seed(1))
    evaluated = mutator.controller(draws.masks).log_probability.detach().double().numpy()
    np.testing.assert_allclose(draws.log_probability, evaluated, atol=1e-12 if dtype == torch.float64 else 1e-5)


def test_samples_come_as_often_as_their_probability_says() -> None:
    mutator = space_mutator()
    p = mutator.controller(mutator.controller.masks(EVERYTHING)).log_probability.exp().detach().numpy()
    count = 40_000
    found = mutator.draw(count)
    number = {mask.tobytes(): index for index, mask in enumerate(mutator.controller.masks(EVERYTHING))}
    observed = np.bincount([number[mask.tobytes()] for mask in found], minlength=864)
    often = p * count >= 5
    seen, expected = (np.append(one[often], one[~often].sum() + 1) for one in (observed, p * count))
    statistic, freedom = ((seen - expected) ** 2 / expected).sum(), often.sum()
    assert freedom > 300
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)  # chi-square: mean and deviation


def test_one_at_a_time_and_many_at_once_are_the_same_policy() -> None:
    mutator = space_mutator()
    many = mutator.draw(30)
    again = space_mutator()
    one = np.concatenate([again.draw(1) for _ in range(30)])
    assert np.array_equal(many, one)


def test_reset_and_export_sample() -> None:
    mutator, other = space_mutator(3), space_mutator(3)
    decisions = [mutator.decisions(mask) for mask in mutator.draw(2)]
    other.reset()
    assert other._cache["pair"].nonzero().flatten().tolist() == list(decisions[0]["pair"])
    exported = other.final_architecture()
    assert exported.indices() == decisions[1]


def test_a_subclass_may_sample_in_its_own_way() -> None:
    class First(EnasMutator):
        def sample_search(self) -> Mapping[str, Any]:
            return {one.key: [index < (one.choice.n_chosen or 0) for index in range(len(one))] for one in self.choices}

    mutator = First(Space(), torch.Generator())
    mutator.reset()
    assert mutator.status()["pair"] == [1, 1, 0, 0]


def test_masks_and_decisions_are_each_other_s_inverse() -> None:
    mutator = space_mutator()
    assert [mutator.decisions(mask) for mask in mutator.controller.masks(EVERYTHING)] == EVERYTHING


def test_inputs_without_tags_are_told_apart() -> None:
    model = nn.Sequential(InputChoice(3, n_chosen=1, key="pick")).double()
    model.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    mutator = EnasMutator(model, torch.Generator().manual_seed(0))
    p = mutator.controller(mutator.controller.masks([{"pick": (index,)} for index in range(3)])).log_probability
    assert len(set(p.tolist())) == 3


def test_layer_choices_share_a_head_where_their_candidates_have_the_same_names() -> None:
    names = [("a", "b"), ("0", "1"), ("a", "b"), ("b", "a")]
    layers = [LayerChoice(OrderedDict((name, nn.Identity()) for name in one)) for one in names]
    script = EnasMutator(nn.Sequential(*layers)).controller.script
    assert [place.row for place in script.places] == [0, 2, 0, 4]
    assert script.rows == 6


def test_one_candidate_or_all_inputs_leave_nothing_to_learn() -> None:
    model = nn.Sequential(
        LayerChoice([nn.Linear(1, 1)], key="only"), InputChoice(3, n_chosen=3, key="all"), InputChoice(2, n_chosen=0)
    )
    mutator = EnasMutator(model, torch.Generator())
    evaluated = mutator.controller(mutator.draw(4))
    assert evaluated.log_probability.tolist() == [0.0] * 4
    assert evaluated.entropy.tolist() == [0.0] * 4


# ---- the gradient


def objective(mutator: EnasMutator, rewards: Tensor) -> Tensor:
    """Exact expected reward and entropy, by the equations."""
    log_p = torch.stack([Reference(mutator).log_probability(which) for which in EVERYTHING])
    return (log_p.exp() * (rewards - mutator.entropy_weight * log_p)).sum()


def flat(gradients: Any) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([one.reshape(-1) for one in gradients])


def planted_rewards() -> Tensor:
    return torch.rand(len(EVERYTHING), generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.slow
def test_the_expected_gradient_is_that_of_expected_reward_and_entropy() -> None:
    mutator = space_mutator(entropy_weight=0.3, skip_weight=0.0)
    rewards = planted_rewards()
    parameters = list(mutator.parameters())
    exact = flat(torch.autograd.grad(objective(mutator, rewards), parameters))
    masks = mutator.controller.masks(EVERYTHING)
    p = mutator.controller(masks).log_probability.exp().tolist()
    expected = torch.zeros_like(exact)
    for mask, reward, probability in zip(masks, rewards.tolist(), p, strict=True):
        mutator.baseline = 0.37  # any number: it must not matter
        loss, _ = mutator.surrogate(mask[None], [reward])
        expected -= probability * flat(torch.autograd.grad(loss, parameters))
    torch.testing.assert_close(expected, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_sampled_gradient_agrees_within_its_error() -> None:
    mutator = space_mutator(skip_weight=0.0)
    rewards = planted_rewards()
    exact = -flat(torch.autograd.grad(objective(mutator, rewards), list(mutator.parameters())))
    number = {mask.tobytes(): index for index, mask in enumerate(mutator.controller.masks(EVERYTHING))}
    mutator.baseline = 0.5
    estimates = []
    for _ in range(100):
        masks = mutator.draw(400)
        loss, _ = mutator.surrogate(masks, [rewards[number[mask.tobytes()]].item() for mask in masks])
        estimates.append(flat(torch.autograd.grad(loss, list(mutator.parameters()))))
    mean, deviation = torch.stack(estimates).mean(0), torch.stack(estimates).std(0)
    error = deviation / 10  # of the mean of 100
    assert ((mean - exact).abs() <= 5 * error + 1e-12).all()
    assert (error.norm() / exact.norm()).item() < 0.15  # what 40,000 samples tell the gradient to


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


# ---- training


class Net(nn.Module):
    """A supernet with dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 6), nn.Linear(4, 6, bias=False), nn.Linear(4, 6)], key="op")
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.4)
        self.pick = InputChoice(2, key="pick")
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.op(x))
        z = self.pick([self.drop(y), torch.relu(y)])
        return self.head(y if z is None else z)


def trainer_of(
    task: Task | None = None,
    epochs: int = 2,
    mutator: Callable[..., Any] = EnasMutator,
    callbacks: tuple[Callback, ...] = (),
    **options: Any,
) -> EnasTrainer:
    """8 batches an epoch to train on, 2 to validate."""
    task = task or task_of(train_dataset=numbers)
    settings = DataSettings(batch_size=4, seed=3)
    train, valid = build_batches(task, settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    generator = torch.Generator().manual_seed(5)
    options = {"mutator_steps": 3, "aggregate": 2, **options} if mutator is EnasMutator else {}
    return EnasTrainer(
        model,
        task,
        train,
        valid,
        epochs,
        mutator=mutator(model, generator, **options),
        generators={"mutator": generator},
        architecture_batches=architecture_batches(task, settings),
        callbacks=callbacks,
    )


class Stopped(Exception):
    pass


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, epoch: int) -> None:
        if self.trainer.step == self.step:
            raise Stopped


class Watch(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_batch_end(self, epoch: int) -> None:
        trainer: Any = self.trainer
        state = trainer.architecture_optimizer.state
        self.steps.append(int(next(iter(state.values()))["step"]) if state else 0)


def run(trainer: EnasTrainer) -> EnasTrainer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("wanted", "expected"), [(3, [0, 0, 1, 1, 1, 2, 2, 3]), (8, list(range(1, 9))), (12, [1, 3, 4, 6, 7, 9, 10, 12])]
)
def test_steps_of_the_controller_are_spread_over_the_epoch(wanted: int, expected: list[int]) -> None:
    watch = Watch()
    run(trainer_of(epochs=1, mutator_steps=wanted, callbacks=(watch,)))
    assert watch.steps == expected


def test_where_the_number_of_batches_is_unknown_the_first_ones_bring_a_step_each() -> None:
    watch = Watch()
    task = task_of(train_dataset=Stream, valid_dataset=numbers)
    run(trainer_of(task, epochs=1, mutator_steps=2, callbacks=(watch,)))
    assert watch.steps == [1, 2, 2]


def test_a_step_of_the_weights_leaves_the_controller_alone_and_the_reverse() -> None:
    trainer = trainer_of(aggregate=3)
    states = [trainer.searching.controller, trainer.model]
    for action, changed in ((trainer.weight_step, 1), (lambda batch: trainer.controller_step(), 0)):
        before = [copy.deepcopy(dict(one.state_dict())) for one in states]
        with torch.random.fork_rng():
            action([numbers()[:4][0], numbers()[:4][1]])
        differs = [
            any(not torch.equal(one.state_dict()[name], old[name]) for name in old)
            for one, old in zip(states, before, strict=True)
        ]
        assert differs == [changed == 0, changed == 1]
    assert trainer.model.training


def test_the_reward_is_the_first_metric_with_the_batch_s_own_statistics() -> None:
    seen = []

    def metrics(output: Tensor, target: Tensor) -> dict[str, float]:
        seen.append(output)
        return {"loss": 5.0, "hits": 0.25, "other": 7.0}

    task = task_of(train_dataset=numbers, metrics=metrics)
    trainer = trainer_of(task)
    trainer.searching.decide({"op": (1,), "pick": (1,)})
    batch = next(copy.deepcopy(trainer.held_out))
    trainer.model.norm.running_mean.fill_(3.0)
    trainer.controller_step()
    assert trainer._averages.means()["controller_reward"] == 0.25
    assert trainer.model.norm.running_mean.tolist() == [3.0] * 6
    assert trainer.model.norm.num_batches_tracked.item() == 0
    x = batch[0]
    outputs = []
    for op, pick in itertools.product(range(3), SUBSETS):
        y = trainer.model.op[op](x)
        norm = (y - y.mean(0)) / torch.sqrt(y.var(0, unbiased=False) + 1e-5)
        picked = [norm, torch.relu(norm)]
        outputs.append(trainer.model.head(sum((picked[i] for i in pick), torch.zeros(4, 6)) if pick else norm))
    assert any(torch.allclose(seen[0], one, atol=1e-5) for one in outputs)


def test_a_metric_to_minimise_is_a_negative_reward() -> None:
    task = task_of(train_dataset=numbers, metrics=lambda output, target: {"error": 0.75}, metric_mode="min")
    trainer = trainer_of(task)
    trainer.controller_step()
    assert trainer._averages.means()["controller_reward"] == -0.75


def test_a_reward_that_is_not_finite_ends_the_training() -> None:
    task = task_of(train_dataset=numbers, metrics=lambda output, target: {"error": math.nan})
    with pytest.raises(NoResultError, match=r"the reward is not finite \(nan\) at step 1, epoch 1"):
        trainer_of(task).controller_step()


def test_the_measurements_are_plain_numbers() -> None:
    trainer = run(trainer_of(epochs=1))
    assert {type(value) for value in trainer.history[0].train.values()} == {float}
    assert set(trainer.history[0].train) == {"loss", "accuracy", "controller_reward", "controller_entropy"}


@pytest.mark.parametrize("step", [1, 3, 8, 11])
def test_it_goes_on_to_the_bit_from_any_step(step: int) -> None:
    whole = run(trainer_of()).state_dict()
    stopped = trainer_of(callbacks=(StopAt(step),))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        with pytest.raises(Stopped):
            stopped.train()
        state = copy.deepcopy(stopped.state_dict())
        torch.manual_seed(77)
        resumed = trainer_of()
        resumed.load_state_dict(state)
        resumed.train()
        now = resumed.state_dict()
    for part in ("model", "mutator", "optimizer", "architecture"):
        torch.testing.assert_close(now[part], whole[part], rtol=0, atol=0)
    assert now["random"]["generators"]["mutator"].equal(whole["random"]["generators"]["mutator"])
    assert now["mutator"]["_extra_state"]["baseline"] is not None


def test_data_of_the_user_s_loader_are_read_anew_in_every_pass() -> None:
    reads = []

    class Counted(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return numbers()[index]

    loaders = {"train": DataLoader(numbers(8), batch_size=4), "valid": DataLoader(Counted(), batch_size=4)}
    trainer = trainer_of(task_of(build_dataloaders=lambda size, workers: loaders), aggregate=8)
    trainer.controller_step()
    assert sorted(reads) == sorted(4 * list(range(8)))


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lstm_size": 0}, "lstm_size is 0, it must be at least 1"),
        ({"lstm_num_layers": 0}, "lstm_num_layers is 0, it must be at least 1"),
        ({"mutator_steps": 0}, "mutator_steps is 0, it must be at least 1"),
        ({"aggregate": -1}, "aggregate is -1, it must be at least 1"),
        ({"tanh_constant": 0.0}, "tanh_constant is 0.0, it must be above 0, or null"),
        ({"temperature": -1.0}, "temperature is -1.0, it must be above 0, or null"),
        ({"entropy_weight": -0.1}, "entropy_weight is -0.1, it must be at least 0"),
        ({"skip_weight": math.nan}, "skip_weight is nan, it must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, it must be above 0"),
        ({"skip_target": 1.0}, "skip_target is 1.0, it must be between 0 and 1"),
        ({"baseline_decay": 1.0}, "baseline_decay is 1.0, it must be at least 0 and below 1"),
        ({"entropy_reduction": "max"}, "entropy_reduction is 'max', it must be 'sum' or 'mean'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EnasMutator(Net(), **options)


def test_a_model_without_choices() -> None:
    with pytest.raises(
        BindingError, match="there is nothing to learn: the model has no LayerChoice and no InputChoice"
    ):
        EnasMutator(nn.Linear(1, 1))


def test_a_fixed_number_of_very_many_inputs_is_refused_and_the_model_left_free() -> None:
    model = nn.Sequential(InputChoice(16, n_chosen=8, key="many"))
    assert math.comb(16, 8) > MOST_SUBSETS
    with pytest.raises(BindingError, match="'many' can be decided in 12,870 ways, at most 10,000 subsets"):
        EnasMutator(model)
    RandomMutator(model)


def test_a_trainer_without_its_controller() -> None:
    with pytest.raises(BindingError, match="EnasTrainer trains the controller of an EnasMutator, not a RandomMutator"):
        trainer_of(mutator=RandomMutator)


def test_candidates_may_be_replaced_but_not_taken_out() -> None:
    model = Net()
    mutator = EnasMutator(model, torch.Generator())
    model.op[1] = nn.Linear(4, 6)
    mutator.reset()
    with pytest.raises(BindingError, match="'op' has 2 candidates now, the controller decides about 3"):
        del model.op[0]
