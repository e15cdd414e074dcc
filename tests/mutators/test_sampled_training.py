"""Whole trainings of the algorithms that sample by Gumbel or Dirichlet noise, over every kind of decision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from nnas_core import Mutator
from nnas_core.errors import BindingError, NoResultError
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.mutators.drnas import DrnasMutator
from nnas_core.mutators.fbnet import FbnetMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.mutators.snas import SnasMutator
from nnas_core.training.trainer import Callback, Trainer
from tests.mutables.sample_models import Everything, OneLayer, times
from tests.mutators.noisy_search import LATENCIES, StopAt, assert_equal_states, inputs, run, task_of, trainer_of

CASES: dict[str, tuple[type[Mutator], dict[str, Any]]] = {
    "gdas": (GdasMutator, {"weight_decay": 0.0}),  # what moves without decay has a gradient
    "snas": (SnasMutator, {"weight_decay": 0.0}),
    "snas, bilevel": (SnasMutator, {"weight_decay": 0.0, "bilevel": True}),
    "drnas": (DrnasMutator, {"regularization": 0.0}),
    "fbnet": (FbnetMutator, {"weight_decay": 0.0, "latency_table": LATENCIES}),
}


def trainer(name: str, precision: str, *callbacks: Callback, **more: Any) -> Trainer:
    """Two epochs of five steps."""
    mutator, options = CASES[name]
    return trainer_of(mutator, precision=precision, epochs=2, callbacks=callbacks, **options, **more)


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_it_trains_every_kind_of_decision_in_every_precision(name: str, precision: str) -> None:
    before = trainer(name, precision)
    after = run(trainer(name, precision))
    assert before.mutator is not None
    assert after.mutator is not None
    dtype = torch.float64 if precision == "float64" else torch.float32
    for module in (after.model, after.mutator):
        assert all(one.dtype == dtype and bool(one.isfinite().all()) for one in module.parameters())
    start, end = before.mutator.state_dict()["logits"], after.mutator.state_dict()["logits"]
    assert isinstance(after.mutator, RelaxedMutator)
    moved = {row.key: bool((start[row.index] != end[row.index]).any()) for row in after.mutator.rows}
    assert moved == {"a": True, "b": True, "one": True, "two": True, "any": True, "all": False}
    after.mutator.space.validate(after.mutator.final_architecture())


@pytest.mark.parametrize("step", [2, 5, 7, 10])  # 5 and 10: before the validation of an epoch
@pytest.mark.parametrize("name", ["gdas", "snas", "snas, bilevel", "drnas"])
def test_it_goes_on_to_the_bit(name: str, step: int) -> None:
    whole = run(trainer(name, "float32"))
    state = copy.deepcopy(run(trainer(name, "float32", StopAt(step))).state_dict())
    resumed = trainer(name, "float32")
    resumed.load_state_dict(state)
    assert_equal_states(whole.state_dict(), run(resumed).state_dict())


@pytest.mark.parametrize("name", CASES)
def test_divergence_is_reported_with_its_step(name: str) -> None:
    diverging = task_of(loss=lambda output, target: output.sum() * float("nan"))
    with pytest.raises(NoResultError, match=r"is not finite .* at step 1, epoch 1"):
        run(trainer(name, "float64", task=diverging))


@pytest.mark.parametrize("mutator", [SnasMutator, DrnasMutator])
def test_what_cannot_run_all_candidates_at_once_is_refused_by_name(mutator: type[Mutator]) -> None:
    with pytest.raises(BindingError, match="runs all candidates of 'op' at once, which its reduction") as error:
        mutator(OneLayer(times(1.0, 2.0), reduction="concat", key="op"))
    assert "gdas" in str(error.value.hint)


def test_gdas_serves_every_feature() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Everything()
    mutator = GdasMutator(model, torch.Generator().manual_seed(1))
    images = inputs(2, dtype=torch.float32).mean() * torch.ones(2, 1, 4, 4)
    for _ in range(10):
        mutator.reset()
        model(images).sum().backward()
    assert mutator.logits.grad is not None
    assert mutator.logits.grad.isfinite().all()
