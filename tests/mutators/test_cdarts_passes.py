"""CDARTS: the order of its passes, going on in any of them, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnas_core import random_state
from nnas_core.errors import BindingError, NoResultError, UsageError, UserCodeError
from nnas_core.mutators.cdarts import CdartsMutator, CdartsTrainer
from nnas_core.mutators.darts import DartsMutator
from nnas_core.training.trainer import Callback
from tests.mutators.cdarts_search import Net, cyclic, net
from tests.mutators.darts_variant_searches import different, run, searcher
from tests.training.sample_trainings import global_loaders, numbers, task_of

# ---- the order of things


class Order(Callback):
    """Which of search weights, evaluation weights and logits changed, a letter each, step by step; and progress."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.progress: list[float] = []

    def on_batch_begin(self, epoch: int) -> None:
        self.before = self._values()

    def on_batch_end(self, epoch: int) -> None:
        pairs = zip("sel", self.before, self._values(), strict=True)
        self.changed.append("".join(letter for letter, one, other in pairs if not torch.equal(one, other)))
        self.progress.append(self.mutator.progress)

    def _values(self) -> list[Tensor]:
        weights = (self.model.head.weight, self.trainer.evaluation.head.weight, self.mutator.logits)
        return [one.detach().clone() for one in weights]


def test_a_warm_up_then_two_passes_an_epoch() -> None:
    order = Order()
    trainer = cyclic(epochs=3, warmup_epochs=1, callbacks=[order])
    run(trainer)
    assert order.changed == ["s"] * 4 + (["e"] * 4 + ["sel"] * 4) * 2
    assert [trainer.steps_of(epoch) for epoch in range(3)] == [4, 8, 8]
    assert trainer.step == trainer.total_steps == 20
    assert order.progress == [step / 20 for step in range(20)]
    for scheduler, steps in ((trainer.scheduler, 12), (trainer.evaluation_scheduler, 16)):
        assert (scheduler.T_max, scheduler.last_epoch) == (steps, steps)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (2, 1), (16, 1), (17, 2), (32, 2), (50, 4)])
def test_by_default_the_warm_up_is_that_of_the_authors_part(epochs: int, expected: int) -> None:
    assert cyclic(epochs=epochs).warmup == expected


def test_the_evaluation_network_is_the_architecture_of_the_epochs_beginning() -> None:
    seen = []

    class Look(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            seen.append(copy.deepcopy(self.trainer.derived))
            self.mutator.logits.data[0, 2] += 1.0 + epoch  # tanh gets stronger at a

        def on_epoch_end(self, epoch: int) -> None:
            seen.append(copy.deepcopy(self.trainer.derived))

    trainer = cyclic(epochs=2, warmup_epochs=0, callbacks=[Look()], learning_rate=1e-9, weight_decay=0.0)
    trainer.mutator.logits.data.copy_(torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0]]))
    run(trainer)
    first = {"a": [0], "b": [1], "pick": [0]}
    second = {"a": [2], "b": [1], "pick": [0]}
    assert seen == [first, first, second, second]


def test_only_the_chosen_candidates_of_the_evaluation_network_are_trained() -> None:
    trainer = cyclic(epochs=1, learning_rate=1e-9)
    trainer.mutator.logits.data[:, 0] = torch.tensor([1.0, -1.0])
    before = copy.deepcopy(trainer.evaluation.state_dict())
    run(trainer)
    assert trainer.derived["a"] == [0]
    changed = different(before, trainer.evaluation.state_dict())
    assert "a.0.linear.weight" in changed
    assert "b.0.linear.weight" not in changed


def test_the_evaluation_network_may_have_other_arguments() -> None:
    trainer = cyclic(epochs=2, rebuild=net, evaluation_arg={"layers": 3})
    assert len(trainer.evaluation.a) == 3
    assert len(trainer.model.a) == 1
    before = copy.deepcopy(trainer.evaluation.state_dict())
    run(trainer)
    assert "norm.running_mean" in different(before, trainer.evaluation.state_dict())


def test_without_arguments_it_is_a_copy_of_the_model_that_shares_nothing() -> None:
    trainer = cyclic(epochs=1)
    assert different(trainer.model.state_dict(), trainer.evaluation.state_dict()) == []
    own = {one.data_ptr() for one in trainer.model.parameters()}
    assert not own & {one.data_ptr() for one in trainer.evaluation.parameters()}


def test_reset_and_export_work_without_a_trainer() -> None:
    mutator = CdartsMutator(model := net())
    mutator.reset()
    assert model(torch.zeros(2, 4)).shape == (2, 3)
    mutator.space.validate(mutator.final_architecture())


# ---- going on later


@pytest.mark.global_random
@pytest.mark.parametrize("loaders", [False, True])
@pytest.mark.parametrize("step", [3, 4, 6, 8, 9, 12, 15])
def test_it_goes_on_in_any_pass_to_the_bit(step: int, loaders: bool) -> None:
    """An epoch of warm-up (4 steps, 5 with the other loaders), then two passes of as many."""
    functions: dict[str, Any] = {"build_dataloaders": global_loaders} if loaders else {"train_dataset": numbers}

    begin = random_state.capture()

    def stopped(stop: int | None, state: Any = None) -> dict[str, Any]:
        random_state.restore(begin)
        trainer = cyclic(epochs=2, stop=stop, task=task_of(**functions), warmup_epochs=1)
        if state is not None:
            torch.rand(3)  # whatever happened since
            trainer.prepare_for(state)
            trainer.load_state_dict(state)
        run(trainer)
        return copy.deepcopy(trainer.state_dict())

    expected, ours = stopped(None), stopped(None, stopped(step))
    for part in ("model", "mutator"):
        assert different(expected[part], ours[part]) == []
    assert different(expected["evaluation"]["model"], ours["evaluation"]["model"]) == []
    for name in ("derived", "first_pass", "scheduler"):
        assert expected["evaluation"][name] == ours["evaluation"][name]
    assert torch.equal(expected["random"]["global"]["torch"], ours["random"]["global"]["torch"])


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_other_precisions(precision: str, auxiliary: bool) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    trainer = cyclic(net(auxiliary=auxiliary).to(dtype), precision=precision, epochs=2)
    before = trainer.mutator.logits.detach().clone()
    run(trainer)
    assert {one.dtype for one in trainer.evaluation.parameters()} == {trainer.mutator.logits.dtype} == {dtype}
    assert not torch.equal(before, trainer.mutator.logits)


# ---- refusals


def _nan_after(steps: int) -> Any:
    calls = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls.append(None)
        return F.cross_entropy(output, target) * (float("nan") if len(calls) > steps else 1.0)

    return task_of(train_dataset=numbers, loss=loss)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (2, r"^the loss of the evaluation network is not finite \(nan\) at step 3, epoch 1$"),
        (4, r"^the joint loss on held-out data is not finite \(nan\) at step 5, epoch 1$"),
    ],
)
def test_divergence_ends_the_training(steps: int, message: str) -> None:
    with pytest.raises(NoResultError, match=message):
        cyclic(epochs=1, task=_nan_after(steps)).train()


def test_a_gradient_that_is_not_finite_does_not_reach_the_evaluation_network() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) + (output - output).abs().sum().sqrt()

    trainer = cyclic(epochs=1, task=task_of(train_dataset=numbers, loss=loss))
    with pytest.raises(NoResultError, match=r"^the gradient of the evaluation network is not finite \(nan\) at step 1"):
        trainer.train()
    assert all(bool(torch.isfinite(one).all()) for one in trainer.evaluation.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_alpha": 0.0}, r"^loss_alpha=0.0 is out of range$"),
        ({"loss_T": -1.0}, r"^loss_T=-1.0 is out of range$"),
        ({"regular_ratio": 0.0}, r"^regular_ratio=0.0 is out of range$"),
        ({"regular_coeff": -1.0}, r"^regular_coeff=-1.0 is out of range$"),
        ({"warmup_epochs": -2}, r"^warmup_epochs=-2 is out of range$"),
        ({"interactive_type": "l2"}, r"^no interactive_type is named 'l2'$"),
        ({"regularized": ["conv"]}, r"^regularized has 'conv', which is in no candidate's name or class$"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    model = net()
    with pytest.raises(UsageError, match=message) as caught:
        CdartsMutator(model, **options)
    assert caught.value.hint
    CdartsMutator(model)  # the model is free again


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^warmup_epochs=3 leaves none of 3 epochs to train the architecture$"):
        cyclic(epochs=3, warmup_epochs=3)


def test_arguments_for_a_network_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(BindingError, match=r"^CdartsTrainer needs another model with \{'layers': 2\}, and cannot"):
        cyclic(evaluation_arg={"layers": 2})


def test_its_loop_needs_its_mutator() -> None:
    class Other(DartsMutator):
        trainer = CdartsTrainer

    with pytest.raises(BindingError, match=r"CdartsTrainer needs a CdartsMutator, not an Other$"):
        searcher(Other, net())


def test_outputs_without_classes_are_refused() -> None:
    class Flat(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, 0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target.to(output.dtype))

    def metrics(output: Tensor, target: Tensor) -> dict[str, float]:
        return {"error": 0.0}

    task = task_of(train_dataset=numbers, loss=loss, metrics=metrics)
    with pytest.raises(UserCodeError, match=r"^task.py: cdarts compares the logits .* has the shape \[8\]$"):
        cyclic(Flat(), epochs=1, task=task).train()
