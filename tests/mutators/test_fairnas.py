"""Rounds of FairNAS: every candidate equally often in each, all orders equally likely, gradients accumulated."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, RandomMutator, Trainer
from nnas_core.errors import BindingError, UsageError
from nnas_core.mutators.fairnas import FairnasMutator, FairnasTrainer
from nnas_core.testing import MutatorConformance
from nnas_core.training.data import build_batches
from nnas_core.training.settings import DataSettings
from tests.mutables.sample_models import OneInput, OneLayer, Times, times
from tests.training.sample_trainings import numbers, task_of


class Net(nn.Module):
    """LayerChoices of 2, 3 and 4 candidates, the last under one key twice."""

    def __init__(self, kind: Any = lambda: nn.Linear(4, 4)) -> None:
        super().__init__()
        self.ops = nn.ModuleList(LayerChoice([kind() for _ in range(n)], key=f"op{n}") for n in (2, 3, 4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for op in self.ops:
            x = torch.tanh(op(x))
        return self.head(x)


class Noted(FairnasTrainer):
    """Notes the paths of each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.noted: list[list[dict[str, tuple[int, ...]]]] = []

    def weight_step(self, batch: Any) -> None:
        self.noted.append([])
        super().weight_step(batch)

    def training_step(self, batch: Any) -> Any:
        result = super().training_step(batch)
        self.noted[-1].append({key: chosen(mask) for key, mask in self.mutator._cache.items()})
        return result


def chosen(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def trainer_of(model: nn.Module, epochs: int = 1, seed: int = 0, **options: Any) -> Noted:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.5)

    def constant(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    task = task_of(train_dataset=numbers, build_optimizer=sgd, build_scheduler=constant)
    train, valid = build_batches(task, DataSettings(batch_size=8, seed=3))
    generator = torch.Generator().manual_seed(seed)
    mutator = FairnasMutator(model, generator, **options)
    return Noted(
        model,
        task,
        train,
        valid,
        epochs,
        mutator=mutator,
        clip_grad=0.0,
        precision="float64",
        generators={"mutator": generator},
    )


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().double()


def test_every_candidate_runs_equally_often_in_each_step() -> None:
    model = Net(lambda: Times(1.0)).double()
    trainer = trainer_of(model)
    batch = next(trainer.train_batches.epoch(0))
    trainer.model.train()
    for step in range(1, 4):
        trainer.weight_step(trainer.to_device(batch))
        for op in model.ops:  # 12 paths, the least common multiple of 2, 3 and 4
            assert [one.calls for one in op] == [step * 12 // len(op)] * len(op)


def test_every_candidate_runs_exactly_once_in_each_step_if_numbers_are_equal() -> None:
    class Equal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ops = nn.Sequential(*(LayerChoice(times(1, 1, 1), key=f"op{i}") for i in range(5)))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.ops(x))

    model = Equal().double()
    trainer = trainer_of(model)
    trainer.train_one_epoch(0)
    assert [len(paths) for paths in trainer.noted] == [3] * 4
    for paths, op in itertools.product(trainer.noted, model.ops):
        assert sorted(path[op.key] for path in paths) == [(0,), (1,), (2,)]
    assert {one.calls for op in model.ops for one in op} == {4}


def test_every_round_has_an_order_of_its_own() -> None:
    """A key of 2 goes through 6 rounds in 12 paths: 2 ** 6 equally likely sequences, and other ones in each step."""
    mutator = FairnasMutator(Net(), torch.Generator().manual_seed(1))
    found: Counter[tuple[int, ...]] = Counter()
    for _ in range(1280):
        mutator.start_round()
        rounds = [mutator._next() for _ in range(mutator.paths)]
        firsts = [rounds[number]["op2"][0] for number in range(0, 12, 2)]
        assert [rounds[number]["op2"][0] for number in range(1, 12, 2)] == [1 - first for first in firsts]
        found[tuple(firsts)] += 1
    statistic = sum((found[one] - 20) ** 2 / 20 for one in itertools.product((0, 1), repeat=6))
    assert statistic < 130  # 63 degrees of freedom: one in a million is above 128


@pytest.mark.parametrize("gradients", ["sum", "mean"])
def test_a_step_follows_the_accumulated_gradients_of_its_paths(gradients: str) -> None:
    model = net()
    plain = copy.deepcopy(model)
    trainer = trainer_of(model, gradients=gradients)
    batch = trainer.to_device(next(trainer.train_batches.epoch(0)))
    trainer.weight_step(batch)
    (paths,) = trainer.noted
    assert len(paths) == 12
    total = {name: torch.zeros_like(one) for name, one in plain.named_parameters()}
    for path in paths:
        x = batch[0]
        for op in plain.ops:
            (index,) = path[op.key]
            x = torch.tanh(op[index](x))
        loss = F.cross_entropy(plain.head(x), batch[1])
        found = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)
        for (name, _), gradient in zip(plain.named_parameters(), found, strict=True):
            if gradient is not None:
                total[name] += gradient
    count = 12 if gradients == "mean" else 1
    for name, before in plain.named_parameters():
        expected = before - 0.5 * total[name] / count
        torch.testing.assert_close(model.get_parameter(name), expected, rtol=1e-12, atol=1e-15)
        assert not torch.equal(before, expected)


def test_the_metrics_are_means_over_paths() -> None:
    trainer = trainer_of(net())
    batch = trainer.to_device(next(trainer.train_batches.epoch(0)))
    losses = []
    own = trainer.record

    def record(loss: Tensor, output: Any, target: Any) -> None:
        losses.append(loss.item())
        own(loss, output, target)

    trainer.record = record  # type: ignore[method-assign]
    trainer.weight_step(batch)
    assert trainer._averages.means()["loss"] == pytest.approx(sum(losses) / 12)
    assert trainer._samples == 12 * 8


# ---- rounds


def round_of(mutator: FairnasMutator) -> list[dict[str, tuple[int, ...]]]:
    mutator.start_round()
    paths = []
    for _ in range(mutator.paths):
        mutator.reset()
        paths.append({key: chosen(mask) for key, mask in mutator._cache.items()})
    return paths


@pytest.mark.parametrize(
    ("count", "n_chosen", "paths", "each"),
    [(4, 1, 4, 1), (4, 2, 2, 1), (4, 3, 4, 3), (3, 2, 3, 2), (6, 4, 3, 2), (3, 0, 1, 0), (3, 3, 1, 1), (5, None, 2, 1)],
)
def test_inputs_take_part_equally_often(count: int, n_chosen: int | None, paths: int, each: int) -> None:
    mutator = FairnasMutator(OneInput(count, n_chosen=n_chosen, key="pick"), torch.Generator().manual_seed(0))
    assert mutator.paths == paths
    for _ in range(20):
        decisions = [path["pick"] for path in round_of(mutator)]
        assert n_chosen is None or {len(one) for one in decisions} == {n_chosen}
        counts = Counter(index for one in decisions for index in one)
        assert [counts[index] for index in range(count)] == [each] * count


def chi_square(counts: Counter[Any], possible: int) -> float:
    assert len(counts) <= possible
    expected = sum(counts.values()) / possible
    return sum((count - expected) ** 2 / expected for count in counts.values()) + (possible - len(counts)) * expected


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = LayerChoice(times(1, 2, 3), key="a")
        self.b = LayerChoice(times(1, 2, 3), key="b")


def test_all_orders_are_equally_likely_and_independent() -> None:
    mutator = FairnasMutator(Two(), torch.Generator().manual_seed(1))
    counts: Counter[Any] = Counter()
    for _ in range(1800):
        paths = round_of(mutator)
        counts[tuple((path["a"], path["b"]) for path in paths)] += 1
    assert chi_square(counts, 36) < 66.6  # 35 degrees of freedom, 0.1 %


@pytest.mark.parametrize(("n_chosen", "possible", "limit"), [(2, 6, 20.5), (None, 16, 37.7)])
def test_every_path_is_uniform(n_chosen: int | None, possible: int, limit: float) -> None:
    mutator = FairnasMutator(OneInput(4, n_chosen=n_chosen, key="pick"), torch.Generator().manual_seed(1))
    in_a_round, alone, final = Counter(), Counter(), Counter()
    for _ in range(1000):
        in_a_round[round_of(mutator)[-1]["pick"]] += 1
        mutator.reset()
        alone[chosen(mutator._cache["pick"])] += 1
        final[chosen(mutator.export()["pick"])] += 1
    assert max(chi_square(one, possible) for one in (in_a_round, alone, final)) < limit


def test_a_sample_is_the_next_path() -> None:
    mutator = FairnasMutator(OneLayer(times(1, 2, 3), key="op"), torch.Generator().manual_seed(0))
    mutator.start_round()
    assert sorted(chosen(mutator.sample_search()["op"]) for _ in range(3)) == [(0,), (1,), (2,)]


def test_a_subclass_may_sample_in_its_own_way() -> None:
    class First(FairnasMutator):
        def sample_search(self) -> dict[str, Tensor]:
            return {"op": torch.tensor([True, False, False])}

    model = OneLayer(times(1, 2, 3), key="op")
    mutator = First(model)
    for _ in range(3):
        mutator.reset()
        assert model(torch.ones(1)).item() == 1


def test_rounds_follow_when_candidates_change() -> None:
    model = OneLayer(times(1, 2, 3), key="op")
    mutator = FairnasMutator(model, torch.Generator().manual_seed(0))
    mutator.start_round()
    del model.op[0]
    assert mutator.paths == 2
    mutator.reset()
    assert model(torch.ones(1)).item() in (2, 3)


# ---- what is refused


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="gradients='max' is neither 'sum' nor 'mean'"):
        FairnasMutator(OneLayer(times(1, 2)), gradients="max")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_paths=0 is out of range"):
        FairnasMutator(OneLayer(times(1, 2)), max_paths=0)


def test_a_round_that_is_too_long_is_refused() -> None:
    class Unequal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = LayerChoice(times(*range(7)), key="a")
            self.b = nn.ModuleList(LayerChoice(times(*range(5)), key=f"b{i}") for i in range(2))
            self.c = InputChoice(3, n_chosen=1, key="c")

    expected = (
        "a fair step would train 105 paths, more than max_paths=60: the least common multiple of 3 at 'c',"
        " 5 at 'b0' and 1 more, 7 at 'a'"
    )
    with pytest.raises(BindingError, match=expected) as raised:
        FairnasMutator(Unequal())
    assert "random or spos" in str(raised.value.hint)
    assert FairnasMutator(Unequal(), max_paths=105).paths == 105


def test_the_trainer_needs_its_mutator() -> None:
    trainer = trainer_of(net())
    with pytest.raises(BindingError, match="FairnasTrainer needs a FairnasMutator, not a RandomMutator"):
        FairnasTrainer(
            Net(), trainer.task, trainer.train_batches, trainer.valid_batches, 1, mutator=RandomMutator(Net())
        )


def test_the_mutator_works_in_the_plain_loop() -> None:
    fair = trainer_of(net())
    trainer = Trainer(
        fair.model, fair.task, fair.train_batches, fair.valid_batches, 1, mutator=fair.mutator, precision="float64"
    )
    trainer.train()
    assert trainer.history[0].samples == 32


# ---- saving


class Conformance(MutatorConformance):
    __test__ = False
    mutator = FairnasMutator


@pytest.mark.parametrize("gradients", ["sum", "mean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_goes_on_to_the_bit(gradients: str, precision: str) -> None:
    suite = Conformance()
    suite.arguments = {"gradients": gradients}  # type: ignore[misc]
    suite.train("inputs: two", precision)
    expected = suite.last_state
    suite.train("inputs: two", precision, stop_at=5)
    suite.train("inputs: two", precision, state=suite.last_state)
    for name, value in expected["model"].items():
        assert torch.equal(value, suite.last_state["model"][name]), name
    assert torch.equal(expected["random"]["generators"]["mutator"], suite.last_state["random"]["generators"]["mutator"])
