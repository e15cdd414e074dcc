"""P-DARTS: its stages, what it drops, and going on in any stage; numbers are worked out here."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice
from nnas_core.errors import BindingError, Interrupted
from nnas_core.mutators.pdarts import PdartsMutator, PdartsTrainer
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.runs.folder import RunFolder
from nnas_core.training.settings import DataSettings, ModelReference
from nnas_core.training.trainer import Callback
from nnas_core.workflows.search import search
from nnas_core.workflows.settings import CheckpointedSettings, SearchSettings
from tests.mutables.sample_models import OneLayer
from tests.mutators.darts_variant_searches import different, run
from tests.mutators.pdarts_search import DEEP, Counted, Layers, Watch, layered, progressive

# ---- stages


def test_the_stages_divide_the_epochs_and_grow() -> None:
    watch = Watch()
    trainer = progressive(epochs=7, callbacks=[watch], **DEEP)
    before = trainer.mutator
    trainer.train()
    assert watch.depths == [1, 1, 2, 2, 3, 3, 3]
    assert [len(alive["wide"]) for alive in watch.alive] == [
        4,
        4,
        2,
        2,
        2,
        2,
        2,
    ]  # 4 * 11/16; then at least 2
    assert [len(alive["narrow"]) for alive in watch.alive] == [2] * 7
    assert trainer.model_arguments == {"layers": 3}
    assert trainer.mutator is not before
    assert trainer.mutator.model is trainer.model is trainer.network
    # each stage starts from the first rate again, and ends where a cosine over its own 4, 4 and 6 steps ends
    rates = [0.001 + 0.012 * (1 + math.cos(math.pi * e / epochs)) for epochs in (2, 2, 3) for e in range(epochs)]
    assert watch.learning_rates == pytest.approx(rates)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(8, [8, 5, 3]), (7, [7, 4, 2]), (5, [5, 3, 2]), (3, [3, 2, 2]), (2, [2, 2, 2]), (1, [1, 1, 1])],
)
def test_by_default_the_candidates_fall_as_in_the_paper(count: int, expected: list[int]) -> None:
    mutator = PdartsMutator(OneLayer([nn.Tanh() for _ in range(count)], key="op"))
    assert [len(mutator.survivors(stage)["op"]) for stage in range(3)] == expected


def test_where_several_candidates_are_skips_another_one_is_left() -> None:
    candidates = [nn.Identity(), nn.Identity(), nn.Tanh(), nn.ReLU(), nn.ReLU6()]
    mutator = PdartsMutator(OneLayer(candidates, key="op"))
    assert [len(mutator.survivors(stage)["op"]) for stage in range(3)] == [5, 3, 3]


def test_the_candidates_with_the_smallest_logits_are_dropped() -> None:
    mutator = PdartsMutator(Layers(), drop=[1, 0])
    mutator.logits.data[0] = torch.tensor([0.4, -2.0, 0.1, -1.0, 9.0])
    mutator.logits.data[1] = torch.tensor([-5.0, 3.0, 0.0, 0.0, 9.0])
    assert mutator.survivors(1) == {"wide": [0, 2, 3], "narrow": [1]}
    mutator = mutator.successor(Layers(), {"wide": [0, 2, 3], "narrow": [0, 1]})
    mutator.logits.data[0] = torch.tensor([-0.4, 2.0, -0.4, -1.0, 0.0])  # candidate 1 is gone, whatever its logit
    assert mutator.final_architecture().masks()["wide"] == [True, False, False, False]  # of equals the first


def test_several_are_dropped_by_the_logits_of_their_own_stage() -> None:
    mutator = PdartsMutator(OneLayer([nn.Tanh() for _ in range(7)], key="op"), drop=[3, 2, 1])
    mutator.logits.data[0, :7] = torch.tensor([0.1, 0.7, 0.3, 0.6, 0.2, 0.5, 0.4])
    assert mutator.survivors(1) == {"op": [1, 3, 5, 6]}
    second = mutator.successor(OneLayer([nn.Tanh() for _ in range(7)], key="op"), mutator.survivors(1))
    second.logits.data[0, :7] = torch.tensor([9.0, 0.1, 9.0, 0.9, 9.0, 0.2, 0.3])
    assert second.survivors(2) == {"op": [3, 6]}


@pytest.mark.parametrize("drop", [[1, 0], [0, 1], [1]])
@pytest.mark.parametrize("zero", [True, False])
def test_dropping_exactly_one_candidate_works(drop: list[int], zero: bool) -> None:
    trainer = progressive(epochs=2, drop=drop, zero=zero)
    trainer.train()
    left = 4 - sum(drop[:-1])
    assert len(trainer.progressing.alive()["wide"]) == left
    trainer.mutator.space.validate(trainer.mutator.final_architecture())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("again", [True, False])
def test_what_was_dropped_does_not_run_is_not_trained_and_not_chosen(seed: int, again: bool) -> None:
    watch = Watch()
    trainer = progressive(callbacks=[watch], seed=seed, drop=[1, 1], epochs=3, model=_wide())
    trainer.rebuild = (lambda arguments: _wide()) if again else None
    fresh = {name: value.clone() for name, value in _wide().state_dict().items()}
    trainer.train()
    assert [len(alive["wide"]) for alive in watch.alive] == [4, 3, 3]
    first, second, third = (set(alive["wide"]) for alive in watch.alive)
    assert third == second < first
    assert watch.ran == [first, second, third]
    final = trainer.mutator.final_architecture().indices()
    assert final["wide"][0] in third
    if again:  # the weights of candidates that are gone are those that the last stage's model was made with
        same = {
            i for i in range(4) if torch.equal(trainer.model.wide[0][i].weight, fresh[f"wide.0.{'abcd'[i]}.weight"])
        }
        assert same == first - third


def _wide() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Layers()
        model.wide[0] = LayerChoice(OrderedDict((name, Counted()) for name in "abcd"), key="wide")
        model.narrow[0] = LayerChoice([nn.Tanh()], key="narrow")
        return model


def test_a_stage_begins_with_new_weights_logits_and_optimizer() -> None:
    class Look(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            if epoch == 1:
                self.weights = copy.deepcopy(self.model.state_dict())
                self.logits = self.mutator.logits.detach().clone()
                momentum = [one["momentum_buffer"] for one in self.trainer.optimizer.state.values()]
                self.momentum = sum(float(one.abs().sum()) for one in momentum)
                self.adam = len(self.trainer.architecture_optimizer.state)

    look = Look()
    trainer = progressive(callbacks=[look], drop=[1, 0], epochs=2, learning_rate=1.0)
    trainer.train()
    expected = layered({}).state_dict()
    assert all(torch.equal(look.weights[name], expected[name]) for name in expected)
    assert look.logits.abs().max() < 0.01
    assert look.momentum == 0
    assert look.adam == 0


def test_a_model_of_a_program_keeps_its_weights_from_stage_to_stage() -> None:
    class Look(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            if epoch == 1:
                self.begun = copy.deepcopy(self.model.state_dict())

        def on_epoch_end(self, epoch: int) -> None:
            if epoch == 0:
                self.ended = copy.deepcopy(self.model.state_dict())

    look, model = Look(), layered({})
    trainer = progressive(model=model, rebuild=None, callbacks=[look], drop=[1, 0], epochs=2)
    first = trainer.mutator
    trainer.train()
    assert trainer.model is model
    assert all(torch.equal(look.begun[name], look.ended[name]) for name in look.ended)
    assert trainer.mutator is not first
    with pytest.raises(BindingError, match="this PdartsMutator is bound to no model"):
        first.reset()
    assert [len(one) for one in trainer.progressing.alive().values()] == [3, 1]


def test_validation_works_before_training() -> None:
    assert set(progressive(**DEEP).validate_one_epoch(0)) == {"loss", "accuracy"}


def test_mutators_share_nothing() -> None:
    one, other = PdartsMutator(Layers()), PdartsMutator(Layers())
    successor = one.successor(Layers(), {"wide": [0], "narrow": [1]})
    assert other.alive() == one.alive() == {"wide": [0, 1, 2, 3], "narrow": [0, 1]}
    assert successor.alive() == {"wide": [0], "narrow": [1]}


def test_a_successor_has_the_options_and_the_generator_of_its_predecessor() -> None:
    class Mine(PdartsMutator):
        pass

    generator = torch.Generator().manual_seed(4)
    first = Mine(Layers(), generator, learning_rate=0.5, drop=[1, 0, 0], max_skips=7, zero=False)
    state = generator.get_state()
    model = Layers(2)
    second = first.successor(model, first.survivors(1))
    assert isinstance(second, Mine)
    assert (second.learning_rate, second.drop, second.skips.limit, second.zero) == (0.5, [1, 0, 0], 7, False)
    assert second.generator is generator
    generator.set_state(state)
    drawn = 1e-3 * torch.randn(2, 4, generator=generator, dtype=torch.float64)
    assert torch.equal(second.logits, drawn.float())
    assert second.model is model
    assert all(row.mutable is model.wide[0] or row.mutable is model.narrow[0] for row in second.rows)


# ---- going on later


@pytest.mark.parametrize("step", [1, 7, 8, 9, 17, 23])
def test_it_goes_on_in_any_stage_to_the_bit(step: int) -> None:
    """4 steps an epoch, 2 epochs a stage; the dropout of skips and of the model draw from the global state."""

    def stopped(stop: int | None, state: Mapping[str, Any] | None = None) -> tuple[PdartsTrainer, dict[str, Any]]:
        with torch.random.fork_rng():
            torch.manual_seed(11)
            options = {"drop": [1, 0, 0], "skip_dropout": [0.5, 0.4, 0.7], **DEEP}
            trainer = progressive(epochs=6, stop=stop, **options)
            if state is not None:
                trainer.prepare_for(state)
                assert len(trainer.model.wide) == 1 + state["stage"]
                trainer.load_state_dict(state)
            run(trainer)
            return trainer, copy.deepcopy(trainer.state_dict())

    _, expected = stopped(None)
    first, state = stopped(step)
    assert (first.step, state["stage"]) == (step, (step - 1) // 8)
    second, ours = stopped(None, state)
    assert different(expected["model"], ours["model"]) == []
    assert different(expected["mutator"], ours["mutator"]) == []
    assert torch.equal(expected["random"]["global"]["torch"], ours["random"]["global"]["torch"])
    assert second.model_arguments == {"layers": 3}


MODEL = """
from collections import OrderedDict
import torch
from torch import nn
from torch.utils.data import TensorDataset
from nnas_core import LayerChoice


class Net(nn.Module):
    def __init__(self, layers: int = 4):
        super().__init__()
        ops = lambda: OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Tanh(), skip=nn.Identity())
        self.ops = nn.Sequential(*(LayerChoice(ops(), key="op") for _ in range(layers)))
        self.head = nn.Linear(4, 2)
        self.register_buffer("mask", torch.full((layers,), float("-inf")))

    def forward(self, x):
        return self.head(self.ops(x))


def train_dataset():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())
"""


def test_a_run_folder_is_resumed_in_the_stage_that_it_was_in(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    settings = SearchSettings(
        training=CheckpointedSettings(
            model=ModelReference(str(tmp_path / "model.py")), epochs=4, data=DataSettings(batch_size=8), device="cpu"
        ),
        mutator="pdarts",
        mutator_arg={"depth_arg": "layers", "layers": [1, 2], "drop": [1, 1]},
    )
    steps = iter(range(1000))
    with torch.random.fork_rng(), contextlib.ExitStack() as closing:
        torch.manual_seed(0)
        whole = closing.enter_context(contextlib.closing(RunFolder.create(tmp_path / "whole")))
        search(settings, whole)
        torch.manual_seed(0)
        part = RunFolder.create(tmp_path / "part")
        with contextlib.closing(part), pytest.raises(Interrupted, match="checkpoint at step 10"):
            search(settings, part, should_stop=lambda: 2 if next(steps) == 11 else None)
        assert read_checkpoint(part.checkpoint)["header"]["model_arg"] == {"layers": 2}
        part = closing.enter_context(contextlib.closing(RunFolder.resume(tmp_path / "part", "search", {})))
        search(settings, part)
    one, other = (read_checkpoint(folder.checkpoint)["state"] for folder in (whole, part))
    assert different(one["model"], other["model"]) == []
    assert torch.equal(one["mutator"]["logits"], other["mutator"]["logits"])


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions(precision: str) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    trainer = progressive(
        model=layered({}).to(dtype), rebuild=lambda arguments: layered(arguments).to(dtype), precision=precision, **DEEP
    )
    trainer.train()
    assert trainer.mutator.logits.dtype == dtype
    assert trainer.step == 12


def test_second_order_in_every_stage() -> None:
    trainer = progressive(order=2, **DEEP)
    trainer.train()
    assert trainer.mutator.order == 2
    assert bool(torch.isfinite(trainer.mutator.logits).all())
