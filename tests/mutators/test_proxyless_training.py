"""ProxylessNAS: its loop step by step, its options, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice, RandomMutator
from nnas_core.errors import BindingError, NoResultError, UsageError
from nnas_core.mutators.proxyless import ProxylessMutator, ProxylessTrainer
from nnas_core.testing import MutatorConformance
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from tests.mutables.sample_models import OneInput, OneLayer, times
from tests.mutators.noisy_search import assert_equal_states
from tests.mutators.proxyless_search import MODES, points, proxyless, seeded
from tests.training.sample_trainings import numbers, task_of

# ---- options and what cannot be served


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mode", "half", "mode='half' is none of full, full_v2, two"),
        ("every", 0, "every=0 is out of range"),
        ("steps", 0, "steps=0 is out of range"),
        ("warmup_epochs", -1, "warmup_epochs=-1 is out of range"),
        ("learning_rate", 0.0, "learning_rate=0.0 is out of range"),
        ("betas", (0, 1), "betas=1.0 is out of range"),
        ("betas", (0, 0.9, 0.9), "are not two numbers"),
        ("weight_decay", -1.0, "weight_decay=-1.0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProxylessMutator(OneLayer(times(1, 2)), **{option: value})


@pytest.mark.parametrize("reduction", ["concat", "none"])
def test_inputs_of_any_number_cannot_be_concatenated(reduction: str) -> None:
    with pytest.raises(BindingError, match=f"cannot gate the inputs of 'wide': its reduction '{reduction}'") as raised:
        ProxylessMutator(OneInput(3, reduction=reduction, key="wide"))
    assert "enas, fairnas, random, spos" in str(raised.value.hint)


def test_too_many_decisions_are_refused() -> None:
    with pytest.raises(BindingError, match="'pick' takes 7 of 14 inputs in 3,432 ways, more than 1,000"):
        ProxylessMutator(OneInput(14, n_chosen=7, key="pick"))


@pytest.mark.parametrize("n_chosen", [0, 3])
def test_a_choice_of_nothing_or_everything_has_nothing_to_learn(n_chosen: int) -> None:
    model = OneInput(3, n_chosen=n_chosen, key="pick")
    mutator = proxyless(model)
    mutator.reset()
    inputs = [torch.ones(2, requires_grad=True) for _ in range(3)]
    output = model(inputs)
    assert mutator.probabilities().tolist() == [[pytest.approx(n_chosen / 3)] * 3]
    if n_chosen == 0:
        assert output is None
        return
    (gradient,) = torch.autograd.grad(output.sum(), [mutator.logits])
    assert gradient.tolist()[0] == pytest.approx([0, 0, 0], abs=1e-6)


def test_whole_numbers_as_betas_reach_adam_as_floats() -> None:
    mutator = ProxylessMutator(OneLayer(times(1, 2)), betas=(0, 0.999))
    (group,) = mutator.build_optimizer().param_groups
    assert (group["betas"], group["lr"], group["weight_decay"], group["eps"]) == ((0.0, 0.999), 1e-3, 0.0, 1e-8)


# ---- the loop


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(4, 6)], key="op")
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op(x))


class Noted(ProxylessTrainer):
    """Notes when the architecture is trained, and the logits around it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.noted: list[tuple[int, int]] = []
        self.changes: list[tuple[Tensor, Tensor, Tensor]] = []

    def update_architecture(self, gradients: Any) -> None:
        before = self.searching.logits.detach().clone()
        super().update_architecture(gradients)
        self.noted.append((self.epoch, self.batch))
        self.changes.append((before, gradients[0], self.searching.logits.detach().clone()))


def trainer_of(epochs: int, trainer: type[BilevelTrainer] = Noted, **options: Any) -> Any:
    task, settings = task_of(train_dataset=numbers), DataSettings(batch_size=8, seed=3)
    train, valid = build_batches(task, settings)
    generator = torch.Generator().manual_seed(1)
    mutator = ProxylessMutator(seeded(Net), generator, **options)
    held_out = architecture_batches(task, settings)
    return trainer(
        mutator.model, task, train, valid, epochs, mutator=mutator, architecture_batches=held_out, precision="float64"
    )


@pytest.mark.parametrize(
    ("epochs", "options", "expected"),
    [  # four batches an epoch
        (3, {}, [(1, 0), (2, 1)]),
        (3, {"every": 3, "steps": 2}, [(1, 0), (1, 0), (1, 3), (1, 3), (2, 2), (2, 2)]),
        (2, {"warmup_epochs": 0, "every": 3}, [(0, 0), (0, 3), (1, 2)]),
        (4, {"warmup_epochs": 3, "every": 1}, [(3, 0), (3, 1), (3, 2), (3, 3)]),
    ],
)
def test_the_architecture_is_trained_every_few_batches_after_the_warmup(
    epochs: int, options: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    trainer = trainer_of(epochs, **options)
    trainer.train()
    assert trainer.noted == expected


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (3, 1), (50, 9), (145, 25)])
def test_the_warmup_is_the_share_of_nni(epochs: int, warmup: int) -> None:
    assert trainer_of(epochs).warmup_epochs == warmup


def test_a_warmup_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="warmup_epochs=3 leaves none of the 3 epochs"):
        trainer_of(3, warmup_epochs=3)


def test_the_trainer_needs_its_mutator() -> None:
    trainer = trainer_of(1)
    with pytest.raises(BindingError, match="ProxylessTrainer needs a ProxylessMutator, not a RandomMutator"):
        ProxylessTrainer(
            Net(), trainer.task, trainer.train_batches, trainer.valid_batches, 1, mutator=RandomMutator(Net())
        )


def test_the_mutator_is_trained_by_another_loop_too() -> None:
    trainer = trainer_of(1, BilevelTrainer)
    before = trainer.mutator.logits.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.mutator.logits)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_two_paths_leave_the_probabilities_of_the_others(beta: float, weight_decay: float) -> None:
    trainer = trainer_of(2, mode="two", warmup_epochs=0, every=1, betas=(beta, 0.999), weight_decay=weight_decay)
    trainer.train()
    assert len(trainer.changes) == 8
    for before, gradient, after in trainer.changes:
        (other,) = (gradient[0] == 0).nonzero().flatten().tolist()
        pair = [one for one in range(3) if one != other]
        assert after[0, other] == before[0, other]
        then, now = before[0].softmax(0), after[0].softmax(0)
        assert now[other].item() == pytest.approx(then[other].item(), rel=1e-13)
        if beta == 0 and weight_decay == 0:
            assert gradient[0, pair].sum().item() == pytest.approx(0, abs=1e-15)
            winner = pair[int(gradient[0, pair].argmin())]
            assert now[winner] > then[winner]


def test_the_first_step_of_two_is_adams_less_the_common_shift() -> None:
    trainer = trainer_of(1, mode="two", warmup_epochs=0, every=10, learning_rate=0.01)
    trainer.train()
    ((before, gradient, after),) = trainer.changes
    pair = gradient[0].nonzero().flatten().tolist()
    stepped = before[0, pair] - 0.01 * gradient[0, pair].sign()  # Adam's first step, but for epsilon
    shift = (stepped.exp().sum() / before[0, pair].exp().sum()).log()
    torch.testing.assert_close(after[0, pair], stepped - shift, rtol=0, atol=1e-7)


def test_an_overflow_in_a_candidate_that_is_not_chosen_is_no_result() -> None:
    trainer = trainer_of(1, warmup_epochs=0, every=1)
    with torch.no_grad():
        trainer.mutator.logits.copy_(torch.tensor([[60.0, 0.0, 0.0]]))
        trainer.model.op[2].weight.fill_(torch.inf)
    with pytest.raises(NoResultError, match="gradient of the architecture is not finite"):
        trainer.train()


class Planted(nn.Module):
    """Candidate 2 of five is right."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice(times(-1, 0.5, 1, 0, 2), key="op")
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x) + self.bias


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_candidate_is_found(mode: str, seed: int) -> None:
    model = Planted()
    mutator = ProxylessMutator(model, torch.Generator().manual_seed(seed), mode=mode, learning_rate=0.05)
    adam = mutator.build_optimizer()
    x = points(50).float()
    for _ in range(300):
        mutator.reset()
        adam.zero_grad()
        before = mutator.logits.detach().clone()
        (model(x) - x).square().mean().backward()
        adam.step()
        if mode == "two":
            mutator.rescale(before)
    assert mutator.probabilities()[0].argmax() == 2
    assert mutator.probabilities()[0, 2] > 0.5  # where it runs, the loss is zero, and nothing is learned


# ---- saving, precision


class Conformance(MutatorConformance):
    __test__ = False
    mutator = ProxylessMutator


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_training_goes_on_to_the_bit_in_every_mode(mode: str, precision: str) -> None:
    suite = Conformance()
    suite.arguments = {"mode": mode, "every": 2, "steps": 2, "warmup_epochs": 0}  # type: ignore[misc]
    suite.train("inputs: two", precision)
    expected = suite.last_state
    suite.train("inputs: two", precision, stop_at=5)
    suite.train("inputs: two", precision, state=suite.last_state)
    for part in ("model", "mutator"):
        assert_equal_states(expected[part], suite.last_state[part])
    assert bool(torch.isfinite(expected["mutator"]["logits"]).all())
