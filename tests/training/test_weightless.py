"""A path of poolings and skip connections has no weights: nothing is updated, and training goes on."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice, Mutator, Trainer
from nnas_core.errors import NnasWarning, UserCodeError
from nnas_core.plugins import registry
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.recording import CheckpointCadence, Recorder
from nnas_core.schema import problems
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.gradients import differentiating
from nnas_core.training.settings import DataSettings
from tests.mutables.sample_models import Always
from tests.training.sample_trainings import numbers, task_of


class Light(nn.Module):
    """Weights in one candidate alone."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 4), nn.Identity(), nn.Tanh()], key="op")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


def trainer_of(model: nn.Module, mutator: Mutator | None, *, loss: Any = None, **options: Any) -> Trainer:
    functions = {"train_dataset": lambda: numbers(40), **({} if loss is None else {"loss": loss})}
    task, settings = task_of(**functions), DataSettings(batch_size=8)
    loop = Trainer if mutator is None or mutator.trainer is None else mutator.trainer
    batches = (*build_batches(task, settings), 2)
    held_out = architecture_batches(task, settings)
    return loop(model, task, *batches, mutator=mutator, architecture_batches=held_out, **options)


@pytest.mark.parametrize("name", ["cdarts", "enas", "fairnas", "gdas", "proxyless", "random", "spos"])
def test_a_search_goes_on_and_counts(name: str) -> None:
    model = Light()
    options = {"mutator_steps": 2, "aggregate": 1} if name == "enas" else {}
    generator = torch.Generator().manual_seed(1)
    mutator = registry.find("mutators", name)(model, generator=generator, **options)
    passes: list[bool] = []
    model.op[0].register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    before = model.op[0].weight.detach().clone()
    trainer = trainer_of(model, mutator, rebuild=lambda _: Light())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    assert len(trainer.history) == 2
    assert not torch.equal(model.op[0].weight, before)
    told = [str(one.message) for one in caught if one.category is NnasWarning]
    if name == "cdarts":  # it mixes all candidates, so there always is a gradient
        assert told == []
    else:
        count = trainer.weightless.count
        assert told == [
            f"{count} passes in {trainer.step} training steps updated nothing: the path that was run has no weights"
        ]
        assert 0 < count < 3 * trainer.step
    if name == "random":  # each pass of the candidate with weights is seen, all others are counted
        assert trainer.weightless.count == trainer.step - sum(passes)


def test_nothing_is_left_of_looking_for_weights() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return nn.functional.dropout(x)

    model = nn.Sequential(LayerChoice([nn.Linear(4, 4), Counting()], key="op"))
    mutator = Always(model, {"op": [False, True]})
    mutator.reset()
    trainer = trainer_of(model, mutator)
    model.train()
    loss = trainer.loss_of((torch.randn(3, 4), torch.zeros(3, dtype=torch.long)))[0]
    before = torch.get_rng_state()
    trainer.backward(loss)
    assert trainer.weightless.count == 1
    assert model[0][1].calls == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_forgets_its_gradient_is_still_refused() -> None:
    model = Light()
    trainer = trainer_of(
        model, Always(model), loss=lambda output, target: nn.functional.cross_entropy(output, target).detach()
    )
    with pytest.raises(UserCodeError, match="the backward pass failed: element 0 of tensors does not require grad"):
        trainer.train()


def test_a_model_without_weights_is_measured() -> None:
    trainer = trainer_of(nn.Sequential(nn.Tanh()), None)
    with pytest.warns(NnasWarning, match="8 passes in 8 training steps updated nothing"):
        trainer.train()
    assert trainer.history[0].valid == trainer.history[1].valid
    again = trainer_of(nn.Sequential(nn.Tanh()), None)
    again.load_state_dict(trainer.state_dict())
    assert again.weightless.count == 8


def test_an_architecture_whose_weights_are_all_frozen_is_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).requires_grad_(False)
    before = model[0].weight.clone()
    with pytest.warns(NnasWarning, match="8 passes in 8 training steps updated nothing"):
        trainer_of(model, None).train()
    assert torch.equal(model[0].weight, before)


def test_a_supernet_without_weights_is_refused() -> None:
    model = nn.Sequential(LayerChoice([nn.Tanh(), nn.ReLU()], key="op"))
    with pytest.raises(UserCodeError, match="the model has no weights to train"):
        trainer_of(model, Always(model))


def test_the_events_of_a_run_say_how_many(tmp_path: Any) -> None:
    run = RunFolder.create(tmp_path / "run", force=True)
    facts = {"command": "search", "model": "m.py", "mutator": "random", "seed": 0}
    model = Light()
    recorder = Recorder(run, facts, None, CheckpointCadence(None), lambda: None)
    trainer = trainer_of(model, Always(model, {"op": [False, True, False]}), callbacks=[recorder])
    with run, pytest.warns(NnasWarning, match="8 passes in 8 training steps"):
        trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [line["weightless_passes"] for line in lines] == [4, 8]
    assert [problem for line in lines for problem in problems("event", line)] == []


def test_a_loader_process_that_dies_meanwhile_is_not_the_loss_s_fault():
    """torch raises that out of a signal handler, wherever the program is."""
    with pytest.raises(RuntimeError, match="is killed by signal"), differentiating():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
