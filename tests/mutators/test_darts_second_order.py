"""Second-order DARTS against numeric derivatives of steps that torch's optimizers really make, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, RMSprop

from nnas_core import LayerChoice
from nnas_core.errors import NoResultError, UserCodeError
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.testing import MutatorConformance
from tests.mutators.float64_supernet import (
    OPTIMIZERS,
    ORDERS,
    SECOND,
    Net,
    batches_of,
    bits,
    gap,
    gradient_of,
    numeric,
    second_order,
    trainer_of,
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_exact_is_the_derivative_of_the_loss_after_the_optimizers_own_step(name: str) -> None:
    trainer, (batch, held_out) = second_order({"order": 2}, OPTIMIZERS[name])
    exact = gradient_of(trainer, (batch, held_out))
    expected = numeric(trainer, (batch, held_out[:2]))
    first = gradient_of(second_order({}, OPTIMIZERS[name])[0], (batch, held_out))
    assert gap(exact, expected) < 1e-8
    assert gap(first, expected) > 0.03  # there is something to be right about


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finite_differences_agree_with_exact_where_everything_is_smooth(name: str, dropout: float) -> None:
    """With dropout too: both sides have the masks that the training batch had."""
    options = {**SECOND["finite"], "epsilon": 1e-4}
    gradients = []
    for one in (options, {"order": 2}):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            gradients.append(gradient_of(*second_order(one, OPTIMIZERS[name], dropout=dropout)))
    assert gap(*gradients) < 1e-6


@pytest.mark.parametrize(("seed", "lost"), [(2, 0.05), (4, 0.5)])
def test_the_papers_step_is_wrong_across_kinks(seed: int, lost: float) -> None:
    """What the documentation warns of: 6 and 72 % error, where a step that meets no kink of ReLU has none."""
    exact, paper, small = (
        gradient_of(*second_order(options, activation=nn.ReLU, seed=seed))
        for options in ({"order": 2}, SECOND["finite"], {**SECOND["finite"], "epsilon": 1e-4})
    )
    assert lost < gap(paper, exact) < 1
    assert gap(small, exact) < 1e-6


def test_the_learning_rate_is_that_of_the_moment() -> None:
    def halve(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    trainer, (batch, held_out) = second_order({"order": 2}, build_scheduler=halve)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.3 / 8
    expected = numeric(trainer, (batch, held_out[:2]), 0.02)
    assert gap(gradient_of(trainer, (batch, held_out)), expected) < 1e-8


def test_weights_that_the_optimizer_does_not_have_stay_in_the_virtual_step_too() -> None:
    def only_the_first(weights: Any) -> torch.optim.Optimizer:
        return SGD(list(weights)[:6], lr=0.5, momentum=0.9)

    trainer, (batch, held_out) = second_order({"order": 2}, only_the_first)
    expected = numeric(trainer, (batch, held_out[:2]))
    assert gap(gradient_of(trainer, (batch, held_out)), expected) < 1e-8


# ---- what the architecture's half leaves behind


@pytest.mark.parametrize("name", ["momentum", "adam, groups"])
@pytest.mark.parametrize("options", ORDERS.values(), ids=ORDERS)
def test_only_the_architecture_changes_in_its_half(options: dict[str, Any], name: str) -> None:
    trainer, batches = second_order(options, OPTIMIZERS[name], dropout=0.4)
    trainer.optimizer.zero_grad()
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    before = bits(trainer.model.state_dict()), bits(trainer.optimizer.state_dict())
    logits = trainer.mutator.logits.detach().clone()
    trainer.architecture_step(*batches)
    assert (bits(trainer.model.state_dict()), bits(trainer.optimizer.state_dict())) == before
    assert all(map(lambda one, other: one is other, tensors, [*trainer.model.parameters(), *trainer.model.buffers()]))
    assert all(one.grad is None for one in trainer.model.parameters())
    assert not torch.equal(trainer.mutator.logits, logits)


def test_exact_and_finite_draw_the_same_random_numbers() -> None:
    states = []
    for options in SECOND.values():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            trainer, batches = second_order(options, dropout=0.4)
            before = torch.get_rng_state()
            trainer.architecture_step(*batches)
            states.append(torch.get_rng_state())
        assert not torch.equal(states[-1], before)
    assert torch.equal(*states)


@pytest.mark.parametrize("options", ORDERS.values(), ids=ORDERS)
def test_unused_weights_stay_and_statistics_are_of_training_data_alone(options: dict[str, Any]) -> None:
    trainer, _ = second_order(options)
    unused = bits(trainer.model.unused.state_dict())
    trainer.train()
    assert bits(trainer.model.unused.state_dict()) == unused
    assert trainer.model.norm.num_batches_tracked == trainer.step + 3  # three to warm up


class Counting(nn.Module):
    """Its output depends on how often it ran: a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.op = LayerChoice([nn.Identity()], key="a")
        self.runs: Tensor
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        out: Tensor = (self.w - self.op(x[:, 0]) - x[:, 1]) * self.runs
        return out


class Plain(DartsMutator):
    """The weights are the logits."""

    def relaxed(self) -> Tensor:
        return self.logits * 1.0


@pytest.mark.parametrize("options", SECOND.values(), ids=SECOND)
def test_every_pass_of_a_step_begins_with_the_buffers_of_the_first(options: dict[str, Any]) -> None:
    """All passes run with runs = 1: dL_val/da is 2.85 * 0.1 as in the closed form, and runs is 0 again."""
    model = Counting()
    loss = {"loss": lambda output, target: (output**2).mean() / 2}
    trainer = trainer_of(model, Plain(model, zero=False, **options), lambda weights: SGD(weights, lr=0.1), **loss)
    before = model.runs.item()
    model.runs.zero_()
    with torch.no_grad():
        trainer.mutator.logits.fill_(0.5)
    target = torch.zeros(1)
    batch, held_out = ([torch.tensor([row], dtype=torch.float64), target] for row in ((1.0, 0.0), (0.0, -1.0)))
    assert gradient_of(trainer, (batch, held_out)).item() == pytest.approx(0.285, rel=1e-9), before
    assert model.runs.item() == 0


class TestSecondOrderExact(MutatorConformance):
    """What every mutator must keep to, continuing to the bit among it."""

    mutator = DartsMutator
    arguments = SECOND["exact"]
    refuses = frozenset({"concat"})


class TestSecondOrderFinite(MutatorConformance):
    """The same with finite differences, which repeat random numbers."""

    mutator = DartsMutator
    arguments = SECOND["finite"]
    refuses = frozenset({"concat"})


# ---- what cannot be


def test_an_optimizer_that_cannot_be_unrolled_is_refused_before_the_first_step() -> None:
    with pytest.raises(
        UserCodeError, match=r"^task\.py: order=2 cannot unroll a step of RMSprop, only one of SGD, Adam"
    ):
        second_order({"order": 2}, lambda weights: RMSprop(weights, lr=0.1))
    second_order({}, lambda weights: RMSprop(weights, lr=0.1))  # the first order takes any


class Once(torch.autograd.Function):
    """Can be differentiated once, as many a kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 1.0


class OnceNet(Net):
    """With such a kernel at its end."""

    def forward(self, x: Tensor, held_out: bool = False) -> Tensor:
        return Once.apply(super().forward(x, held_out))


class Attention(Net):
    """With a kernel that has no second derivative at its end."""

    def forward(self, x: Tensor, held_out: bool = False) -> Tensor:
        y = super().forward(x, held_out).unsqueeze(0).unsqueeze(0)
        return F.scaled_dot_product_attention(y, y, y)[0, 0]


@pytest.mark.parametrize(
    ("cls", "why"),
    [(OnceNet, "a function in it is marked once_differentiable"), (Attention, "derivative for .* is not implemented")],
)
def test_a_model_that_cannot_be_differentiated_twice_needs_finite_differences(cls: Any, why: str) -> None:
    for options in SECOND.values():
        model = cls()
        trainer = trainer_of(model, DartsMutator(model, **options))
        before = bits(model.state_dict())
        if options == SECOND["exact"]:
            with pytest.raises(
                UserCodeError, match=f"^the backward pass cannot be differentiated once more: {why}"
            ) as raised:
                trainer.architecture_step(*batches_of(trainer))
            assert raised.value.hint == "use hypergradient=finite, which needs no second derivatives"
        else:
            trainer.architecture_step(*batches_of(trainer))
        assert bits(model.state_dict()) == before


@pytest.mark.parametrize(
    ("name", "call", "what"),
    [
        ("first", 1, "loss on held-out data"),
        ("exact", 1, "loss"),
        ("exact", 2, "loss on held-out data after the virtual step"),
        ("finite", 2, "loss on held-out data after the virtual step"),
        ("finite", 3, "loss at shifted weights"),
        ("finite", 4, "loss at shifted weights"),
    ],
)
def test_divergence_ends_the_training_with_everything_in_place(name: str, call: int, what: str) -> None:
    calls = [0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls[0] += 1
        return F.cross_entropy(output, target) * (float("inf") if calls[0] == call else 1.0)

    calls[0] = -3  # the steps to warm up
    trainer, batches = second_order(ORDERS[name], loss=loss)
    trainer.step = 6
    before = bits(trainer.model.state_dict()), bits(trainer.mutator.state_dict())
    with pytest.raises(NoResultError, match=rf"^the {what} is not finite \(inf\) at step 7, epoch 1$"):
        trainer.architecture_step(*batches)
    assert (bits(trainer.model.state_dict()), bits(trainer.mutator.state_dict())) == before


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("first", "gradient of the architecture"),
        ("exact", "gradient of the architecture"),
        ("finite", "gradient of the held-out loss after the virtual step"),
    ],
)
def test_a_gradient_that_is_not_finite_reaches_no_architecture(name: str, what: str) -> None:
    calls = [-4]  # the steps to warm up; then 0 is the first loss of the architecture's half

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls[0] += 1
        right = F.cross_entropy(output, target)
        return right + (output * 0).sqrt().sum() if calls[0] == (0 if name == "first" else 1) else right

    trainer, batches = second_order(ORDERS[name], loss=loss)
    trainer.step = 6
    before = bits(trainer.model.state_dict()), bits(trainer.mutator.state_dict())
    with pytest.raises(NoResultError, match=rf"^the {what} is not finite \(nan\) at step 7, epoch 1$"):
        trainer.architecture_step(*batches)
    assert (bits(trainer.model.state_dict()), bits(trainer.mutator.state_dict())) == before


# ---- other mutators, compiled networks


class Soft(RelaxedMutator):
    """Knows of no order."""

    relaxes_inputs = False

    def relaxed(self) -> Tensor:
        return self.probabilities()


def test_the_loop_trains_a_mutator_without_an_order_by_the_first() -> None:
    gradients = []
    for cls in (Soft, DartsMutator):
        model = Net()
        mutator = cls(model, torch.Generator().manual_seed(1), zero=False)
        trainer = trainer_of(model, mutator)
        gradients.append(gradient_of(trainer, batches_of(trainer)))
    assert torch.equal(*gradients)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at it
@pytest.mark.parametrize("options", ORDERS.values(), ids=ORDERS)
def test_a_compiled_network_gives_the_same_gradient(options: dict[str, Any]) -> None:
    """What is compiled cannot be differentiated twice, so exact takes the model itself for that pass."""
    trainer, batches = second_order(options)
    expected = gradient_of(trainer, batches)
    calls = [0]
    compiled = torch.compile(trainer.model, backend="aot_eager")

    def network(*args: Any) -> Tensor:
        calls[0] += 1
        return compiled(*args)

    trainer.network = network
    assert gap(gradient_of(trainer, batches), expected) < 1e-7
    assert calls[0] == (4 if options == SECOND["finite"] else 1)
