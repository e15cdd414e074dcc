"""``drnas``: samples and gradients against torch.distributions and closed forms; the second stage."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from scipy.special import betainc, betaincinv
from torch import Tensor, nn
from torch.distributions import Beta, Dirichlet, kl_divergence

from nnas_core import LayerChoice
from nnas_core.errors import BindingError, UsageError
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.drnas import DrnasMutator, DrnasTrainer
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.trainer import Callback
from tests.mutators.noisy_search import (
    Mixed,
    StopAt,
    assert_equal_states,
    built,
    inputs,
    row_of,
    run,
    spread,
    trainer_of,
)


class Lines(nn.Module):
    """Two choices of four."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(LayerChoice([nn.Linear(3, 3) for _ in range(4)], key=f"op{i}") for i in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for op in self.ops:
            x = op(x)
        return x


def bound(model: nn.Module, seed: int = 7, **options: Any) -> DrnasMutator:
    """A mutator of ``model`` whose logits differ, and whose generator starts anew."""
    generator = torch.Generator()
    mutator = DrnasMutator(model, generator, **options)
    spread(mutator)
    generator.manual_seed(seed)
    return mutator


def elu_plus_one(logits: Tensor) -> Tensor:
    """The paper's concentrations."""
    return nn.functional.elu(logits) + 1


@pytest.mark.parametrize("seed", range(5))
def test_samples_and_gradients_are_those_of_torch_distributions(seed: int) -> None:
    """Same noise: torch's distribution draws from the global generator, which stands at the same seed for it."""
    model = built(Lines)
    mutator = bound(model, seed)
    mutator.reset()
    (gradient,) = torch.autograd.grad((model(inputs()) ** 2).sum(), mutator.logits)

    logits = mutator.logits.detach().clone().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = Dirichlet(elu_plus_one(logits)).rsample()
    x = inputs()
    for op, row in zip(model.ops, weights, strict=True):  # type: ignore[arg-type]
        x = sum((weight * one(x) for weight, one in zip(row, op, strict=True)), start=torch.zeros(()))
    (expected,) = torch.autograd.grad((x**2).sum(), logits)
    assert gradient.abs().min() > 0
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-11)


def test_the_gradient_is_the_one_at_a_fixed_quantile() -> None:
    """Of two candidates the weight is Beta distributed: its derivative by inverting the distribution function.

    torch approximates this derivative; 2e-3 is the error that 3,000 random cases showed at most (1.3e-3), rounded up.
    """

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Identity(), nn.Tanh()], key="op")

    mutator = bound(built(Two))
    a, b = elu_plus_one(mutator.logits.detach())[0].tolist()
    for _ in range(50):
        weights = mutator.relaxed()
        (gradient,) = torch.autograd.grad(weights[0, 0], mutator.logits)
        x = weights[0, 0].item()
        quantile, step = betainc(a, b, x), 1e-6
        in_a = (betaincinv(a + step, b, quantile) - betaincinv(a - step, b, quantile)) / (2 * step)
        in_b = (betaincinv(a, b + step, quantile) - betaincinv(a, b - step, quantile)) / (2 * step)
        outer = [min(1.0, c) for c in (a, b)]  # the derivative of elu + 1, by its value
        assert gradient[0].tolist() == pytest.approx([in_a * outer[0], in_b * outer[1]], rel=2e-3, abs=1e-6)


def test_the_mean_gradient_is_that_of_the_expectation() -> None:
    """``E[(w . v)^2]`` has a closed form, for rows of unequal length; 600 samples, 4.5 standard errors."""
    mutator = bound(built(), seed=1)
    v = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    logits = mutator.logits.detach().clone().requires_grad_()
    rows = [row for row in mutator.rows if row.n_chosen == 1]
    expected = torch.zeros((), dtype=torch.float64)
    for row in rows:
        c, own = elu_plus_one(logits[row.index, : row.count]), v[: row.count]
        total = c.sum()
        expected = expected + ((c @ own) ** 2 + c @ own**2) / (total * (total + 1))
    (exact,) = torch.autograd.grad(expected, logits)
    found = []
    for _ in range(600):
        weights = mutator.relaxed()
        value = torch.stack([(weights[row.index] @ v) ** 2 for row in rows]).sum()
        found.append(torch.autograd.grad(value, mutator.logits)[0])
    gradients = torch.stack(found)
    error = gradients.std(dim=0) / len(found) ** 0.5
    kept = exact != 0
    assert int(kept.sum()) == sum(row.count for row in rows)
    assert bool(((gradients.mean(dim=0) - exact).abs()[kept] < 4.5 * error[kept] + 2e-3 * exact.abs()[kept]).all())
    assert bool((error[kept] < 0.2 * exact.abs().max()).all())
    assert bool((gradients.mean(dim=0)[~kept] == 0).all())


def test_the_mean_of_the_samples_is_what_the_concentrations_say() -> None:
    """800 samples, 4.5 standard errors, for each kind of decision."""
    mutator = bound(built(), seed=2)
    with torch.no_grad():
        samples = torch.stack([mutator.relaxed() for _ in range(800)])
        means = mutator.probabilities()
        for row in mutator.rows:
            logits = mutator.logits[row.index, : row.count]
            if row.n_chosen is None:
                expected = elu_plus_one(logits) / (elu_plus_one(logits) + elu_plus_one(-logits))
            elif row.n_chosen == row.count:
                expected = torch.ones_like(logits)
            else:
                expected = row.n_chosen * elu_plus_one(logits) / elu_plus_one(logits).sum()
            assert torch.allclose(means[row.index, : row.count], expected, rtol=1e-12), row.key
    error = samples.std(dim=0) / len(samples) ** 0.5
    assert bool(((samples.mean(dim=0) - means).abs() <= 4.5 * error + 1e-12).all())
    assert bool((samples[:, ~mutator.valid] == 0).all())


def test_the_divergence_is_that_of_torch_distributions() -> None:
    mutator = bound(built())
    logits = mutator.logits.detach().clone().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for row in mutator.rows:
        own = logits[row.index, : row.count]
        if row.n_chosen is None:
            pairs = Beta(elu_plus_one(own), elu_plus_one(-own))
            expected = expected + kl_divergence(pairs, Beta(torch.ones_like(own), torch.ones_like(own))).sum()
        else:
            expected = expected + kl_divergence(Dirichlet(elu_plus_one(own)), Dirichlet(torch.ones_like(own)))
    assert mutator.divergence().item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(mutator.divergence(), mutator.logits)
    (exact,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(gradient, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("regularizer", "decay"), [("l2", 0.25), ("kl", 0.0)])
def test_l2_is_the_weight_decay_of_adam(regularizer: str, decay: float) -> None:
    mutator = bound(built(), regularizer=regularizer, regularization=0.25)
    assert mutator.build_optimizer().param_groups[0]["weight_decay"] == decay


@pytest.mark.parametrize("regularizer", ["l2", "kl"])
def test_kl_adds_its_gradient_to_that_of_the_loss(regularizer: str) -> None:
    trainer = trainer_of(DrnasMutator, regularizer=regularizer, regularization=0.3)
    assert isinstance(trainer, DrnasTrainer)
    mutator = trainer.searching
    spread(mutator)
    twin = copy.deepcopy(mutator)
    twin.generator = torch.Generator().manual_seed(3)
    trainer.generators["mutator"].manual_seed(3)
    x, y = next(iter(trainer.train_batches.epoch(0)))
    batch = (x.double(), y)
    (found,) = trainer.architecture_gradients(batch, batch)
    assert found is not None
    twin.reset()
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(twin.model(batch[0]), y), twin.logits)
    if regularizer == "kl":
        expected = expected + 0.3 * torch.autograd.grad(twin.divergence(), twin.logits)[0]
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_very_small_concentrations_keep_their_digits_and_give_finite_gradients() -> None:
    mutator = bound(built(dtype=torch.float32))
    with torch.no_grad():
        mutator.logits.fill_(-30.0)
        mutator.logits[:, 0] = 2.0
    for _ in range(20):
        weights = mutator.relaxed()
        (gradient,) = torch.autograd.grad((weights * torch.arange(4.0)).sum(), mutator.logits)
        assert bool(torch.isfinite(weights).all())
        assert bool(torch.isfinite(gradient).all())
    single, _ = mutator.concentrations()
    assert single[0, 1].item() == pytest.approx(9.357622968840175e-14, rel=1e-12)  # exp(-30)


# ---- the second stage


class Sizes(Callback):
    """Notes how many candidates are left in each epoch, and when the logits move."""

    def __init__(self) -> None:
        self.left: list[int] = []
        self.moved: list[bool] = []

    def on_epoch_begin(self, epoch: int) -> None:
        mutator: Any = self.trainer.mutator
        self.before = mutator.logits.detach().clone()

    def on_epoch_end(self, epoch: int) -> None:
        mutator: Any = self.trainer.mutator
        self.left.append(int(mutator.valid.sum()))
        self.moved.append(not torch.equal(self.before, mutator.logits))


def test_pruning_leaves_the_strongest_half_rounded_up() -> None:
    mutator = bound(built(), progressive=True)
    with torch.no_grad():
        mutator.logits[row_of(mutator, "a").index, :3] = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
        mutator.logits[row_of(mutator, "b").index, :2] = torch.tensor([0.1, 0.2], dtype=torch.float64)
    before = mutator.valid.clone()
    mutator.prune()
    left = {row.key: mutator.valid[row.index].tolist() for row in mutator.rows}
    assert left["a"] == [True, False, True, False]
    assert left["b"] == [False, True, False, False]
    for key in ("one", "two", "all", "any"):
        assert left[key] == before[row_of(mutator, key).index].tolist()
    mutator.reset()
    weights = mutator.status()
    assert weights["a"][1] == weights["b"][0] == 0
    assert sum(weights["a"]) == pytest.approx(1)
    assert mutator.divergence().isfinite()


def test_what_was_pruned_does_not_run_and_is_never_chosen() -> None:
    model = built()
    mutator = bound(model, progressive=True)
    row = row_of(mutator, "a")
    with torch.no_grad():
        mutator.logits[row.index, :3] = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
    mutator.reset()
    mutator.prune()
    mutator.reset()
    model(inputs()).sum().backward()
    assert model.a[1].weight.grad is None  # type: ignore[union-attr, index]
    assert model.a[0].weight.grad is not None  # type: ignore[union-attr, index]
    with torch.no_grad():
        mutator.logits[row.index, 1] = 100.0
    assert mutator.final_architecture().indices()["a"] == (2,)


def test_half_of_the_candidates_go_when_half_of_the_epochs_are_done() -> None:
    watch = Sizes()
    run(trainer_of(DrnasMutator, epochs=5, callbacks=[watch], progressive=True))
    everything = 3 + 2 + 3 + 4 + 2 + 3
    assert watch.left == [everything] * 3 + [everything - 2] * 2


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"warmup_epochs": 1, "progressive": True}, [False, True, False, True]),
        ({"warmup_epochs": 2}, [False, False, True, True]),
        ({}, [True, True, True, True]),
    ],
)
def test_in_the_warm_up_of_a_stage_the_concentrations_stay(options: Mapping[str, Any], moved: list[bool]) -> None:
    watch = Sizes()
    run(trainer_of(DrnasMutator, epochs=4, callbacks=[watch], **options))
    assert watch.moved == moved


@pytest.mark.parametrize(("epochs", "warmup"), [(100, 10), (50, 5), (8, 0)])
def test_the_warm_up_of_the_paper_is_a_fifth_of_each_stage(epochs: int, warmup: int) -> None:
    trainer = trainer_of(DrnasMutator, epochs=epochs, progressive=True)
    assert isinstance(trainer, DrnasTrainer)
    assert trainer.warmup == warmup


@pytest.mark.parametrize("step", [3, 10, 12, 20])
def test_the_second_stage_goes_on_to_the_bit(step: int) -> None:
    def trainer(*callbacks: Callback) -> Any:
        return trainer_of(DrnasMutator, epochs=4, callbacks=callbacks, progressive=True, learning_rate=0.1)

    whole = run(trainer())
    state = copy.deepcopy(run(trainer(StopAt(step))).state_dict())
    resumed = trainer()
    resumed.mutator.reset()  # what a mutator already calls must follow what is loaded
    resumed.load_state_dict(state)
    assert_equal_states(whole.state_dict(), run(resumed).state_dict())


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularizer": "l1"}, "regularizer='l1' is neither 'l2' nor 'kl'"),
        ({"regularization": -1.0}, "regularization=-1.0 is out of range"),
        ({"keep": 0.0, "progressive": True}, "keep=0.0 is out of range"),
        ({"keep": 1.5, "progressive": True}, "keep=1.5 is out of range"),
        ({"keep": 0.25}, "keep=0.25 has no effect without pruning"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is out of range"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is out of range"),
        ({"betas": [0.5, 1.0]}, "betas=1.0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        DrnasMutator(Mixed(), **options)


@pytest.mark.parametrize(
    ("epochs", "options", "message"),
    [
        (1, {"progressive": True}, "progressive=true needs 2 epochs or more"),
        (3, {"warmup_epochs": 3}, "warmup_epochs=3 leaves none of 3 epochs"),
        (5, {"warmup_epochs": 2, "progressive": True}, "warmup_epochs=2 leaves none of 2 epochs"),
    ],
)
def test_too_few_epochs_are_refused(epochs: int, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        trainer_of(DrnasMutator, epochs=epochs, **options)


def test_its_loop_needs_its_mutator() -> None:
    with pytest.raises(BindingError, match="DrnasTrainer needs a DrnasMutator, not a DartsMutator"):
        trainer_of(DartsMutator, loop=DrnasTrainer)


def test_a_plain_loop_serves_it_too() -> None:
    assert run(trainer_of(DrnasMutator, loop=BilevelTrainer, epochs=1)).step == 5
