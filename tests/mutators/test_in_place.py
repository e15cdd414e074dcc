"""Models that change tensors in place are trained as those that do not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice, Trainer
from nnas_core.errors import NnasWarning
from nnas_core.mutators.darts import DartsMutator
from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import numbers, task_of

ARGUMENTS: dict[str, dict[str, Any]] = {
    "pcdarts": {"k": 1},
    "enas": {"mutator_steps": 2, "aggregate": 1},
}
MIXING = ["cdarts", "darts", "drnas", "fbnet", "gdas", "pcdarts", "pdarts", "proxyless", "snas"]


class Candidates(nn.Module):
    """A ReLU at the beginning of a candidate, in place or not, between others that take the same input."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.op = LayerChoice(
            [nn.Linear(6, 6), nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(6, 6)), nn.Identity()], key="op"
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.op(self.stem(x)))
        return out


class Residual(nn.Module):
    """A skip connection, added in place or not to what a ReLU gave: a choice's, a module's or a function's."""

    def __init__(self, inplace: bool, giver: str) -> None:
        super().__init__()
        self.inplace = inplace
        self.stem = nn.Linear(4, 6)
        self.op = LayerChoice([nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()) for _ in "ab"], key="op")
        self.giver = giver
        self.last = nn.Sequential(nn.Sigmoid())
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.op(x)
        if self.giver == "module":
            y = self.last(y)
        elif self.giver == "function":
            y = torch.sigmoid(y)
        if self.inplace:
            y += x  # here
        else:
            y = y + x
        out: Tensor = self.head(torch.tanh(y))
        return out


class Normalizing(nn.Module):
    """Changes the batch that it is given, in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.op = LayerChoice([nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.Tanh())], key="op")

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(1.0).mul_(0.5) if self.inplace else (x - 1.0) * 0.5
        out: Tensor = self.op(x)
        return out


class NormalizingResidual(Residual):
    """Changes the batch and what the backward pass needs, or neither."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5) if self.inplace else x * 0.5)


def trainer_of(name: str, build: Any, epochs: int = 3, **options: Any) -> Trainer:
    def model_of(_: object) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model: nn.Module = build()
            return model

    model, generator = model_of({}), torch.Generator().manual_seed(2)
    arguments = {**ARGUMENTS.get(name, {}), **options}
    if name == "fbnet":
        choices = SearchSpace.from_model(model).choices.values()
        arguments["latency_table"] = {one.key: dict.fromkeys(one.candidates, 2.0) for one in choices}
    mutator = registry.find("mutators", name)(model, generator=generator, **arguments)
    task, settings = task_of(train_dataset=lambda: numbers(40)), DataSettings(batch_size=8)
    batches = build_batches(task, settings)
    return (mutator.trainer or Trainer)(
        model,
        task,
        *batches,
        epochs,
        mutator=mutator,
        generators={"mutator": generator},
        architecture_batches=architecture_batches(task, settings),
        rebuild=model_of,
    )


def weights_after(trainer: Trainer) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        trainer.train()
    values = [*trainer.model.state_dict().values()]
    values += [] if trainer.mutator is None else [*trainer.mutator.parameters()]
    return torch.cat([one.detach().double().flatten() for one in values])


@pytest.mark.parametrize("name", MIXING)
def test_candidates_that_work_in_place_have_inputs_of_their_own(name: str) -> None:
    usual, in_place = (weights_after(trainer_of(name, lambda one=one: Candidates(one))) for one in (False, True))
    torch.testing.assert_close(in_place, usual, rtol=1e-6, atol=1e-7)


def test_several_chosen_candidates_have_inputs_of_their_own() -> None:
    x = torch.tensor([[-1.0, 2.0]])
    op = LayerChoice([nn.ReLU(inplace=True), nn.Identity(), nn.Hardtanh(-0.5, 1.0, inplace=True)], key="op")
    mutator = registry.find("mutators", "random")(nn.Sequential(op))
    mutator.decide({"op": (0, 1, 2)})
    for _ in range(2):  # the first pass finds out
        assert mutator.model(x.clone()).tolist() == [[0 - 1.0 - 0.5, 2.0 + 2.0 + 1.0]]


def test_candidates_that_do_not_are_called_as_they_are() -> None:
    model = Candidates(inplace=True)
    mutator = registry.find("mutators", "random")(model)
    mutator.decide({"op": (0, 1, 2)})
    given: list[tuple[int, int]] = []
    for index, candidate in enumerate(model.op):
        candidate.register_forward_pre_hook(lambda _, args, index=index: given.append((index, args[0].data_ptr())))
    for _ in range(2):
        model(torch.randn(3, 4))
    x = torch.randn(3, 6)
    given.clear()
    model.op(x)
    assert [pointer == x.data_ptr() for _, pointer in given] == [True, False, True]


@pytest.mark.parametrize("giver", ["choice", "module", "function"])
@pytest.mark.parametrize("name", ["cdarts", "darts", "enas", "fairnas", "gdas", "proxyless", "random", "snas"])
def test_what_the_backward_pass_needs_may_be_changed_in_place(name: str, giver: str) -> None:
    usual = weights_after(trainer_of(name, lambda: Residual(False, giver), 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = trainer_of(name, lambda: Residual(True, giver), 1)
        changed = weights_after(trainer)
    told = [str(one.message) for one in caught if one.category is NnasWarning]
    torch.testing.assert_close(changed, usual, rtol=1e-6, atol=1e-7)
    if name in ("darts", "cdarts", "snas") and giver == "choice":
        return  # what mixing gives is a new tensor, which nothing needs
    lines = Path(__file__).read_text().splitlines()
    numbered = [int(found) for line in told for found in re.findall(re.escape(__file__) + r":(\d+)", line)]
    assert [lines[number - 1].strip() for number in numbered] == ["y += x  # here"]
    assert trainer.in_place.kept is (giver == "function")
    assert all("a copy is changed instead" in line for line in told if giver != "function")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fairnas", {}),
        ("darts", {"order": 2}),
        ("darts", {"order": 2, "hypergradient": "finite"}),
        ("cdarts", {"warmup_epochs": 0}),
    ],
)
def test_a_batch_that_runs_several_times_is_each_time_what_it_was(name: str, options: dict[str, Any]) -> None:
    usual, changed = (
        weights_after(trainer_of(name, lambda one=one: Normalizing(one), 1, **options)) for one in (False, True)
    )
    torch.testing.assert_close(changed, usual, rtol=1e-6, atol=1e-7)


def test_a_step_that_is_repeated_begins_with_the_batch_as_it_was() -> None:
    usual = weights_after(trainer_of("random", lambda: NormalizingResidual(False, "module"), 1))
    with pytest.warns(NnasWarning, match="a copy is changed instead"):
        changed = weights_after(trainer_of("random", lambda: NormalizingResidual(True, "module"), 1))
    torch.testing.assert_close(changed, usual, rtol=1e-6, atol=1e-7)


def test_it_is_known_after_going_on_from_a_checkpoint() -> None:
    def begun() -> Trainer:
        return trainer_of("random", lambda: Residual(True, "module"), 2)

    trainer = begun()
    with pytest.warns(NnasWarning, match="changes in place what the backward pass needs"):
        weights_after(trainer)
    again = begun()
    again.load_state_dict(trainer.state_dict())
    assert [type(one) for one in again.in_place.copied] == [type(one) for one in trainer.in_place.copied] != []


def test_nothing_is_left_behind_in_the_model() -> None:
    trainer = trainer_of("random", lambda: Residual(True, "choice"), 1)
    with pytest.warns(NnasWarning, match="a copy is changed instead"):
        weights_after(trainer)
    assert [module for module in trainer.model.modules() if module._forward_hooks] == []
    op = trainer.model.op
    assert op._shortcut is op._calls


class Slope(nn.Module):
    """Multiplies by twice its input, as the derivative of a square, which no pass without gradients can give."""

    def forward(self, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return x * slope


def test_a_candidate_that_needs_gradients_itself_cannot_be_tried_and_is_right_all_the_same() -> None:
    model = nn.Sequential(LayerChoice([Slope(), nn.Identity()], key="op"))
    mutator = DartsMutator(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        mutator.logits.zero_()
    for _ in range(2):
        mutator.reset()
        weight = mutator.probabilities()[0, 0].item()
        x = torch.full((), 3.0, requires_grad=True)
        model(x).backward()
        assert x.grad is not None
        assert x.grad.item() == pytest.approx(weight * (4 * 3.0 + 1))
