"""``fbnet``: the expected latency and the whole loss against enumeration and finite differences; the table."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core.errors import BindingError, InputError, UsageError, UserCodeError
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.fbnet import FbnetMutator, FbnetTrainer
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.trainer import Callback
from tests.mutators.noisy_search import (
    LATENCIES,
    Mixed,
    StopAt,
    assert_equal_states,
    built,
    decisions,
    inputs,
    probability,
    row_of,
    run,
    spread,
    task_of,
    trainer_of,
)


def bound(seed: int = 7, **options: Any) -> FbnetMutator:
    """A mutator of ``Mixed`` whose logits differ, and whose generator starts anew."""
    generator = torch.Generator()
    mutator = FbnetMutator(built(), generator, latency_table=LATENCIES, **options)
    spread(mutator)
    generator.manual_seed(seed)
    return mutator


def enumerated(mutator: FbnetMutator, logits: list[list[float]]) -> float:
    """The mean latency over all architectures, each with its probability and the sum of its entries in the table."""
    cases = []
    for row in mutator.rows:
        names = row.mutable.choice.candidates
        of_key = LATENCIES.get(row.key, {})
        own = logits[row.index][: row.count]
        cases.append(
            [(probability(row, own, one), sum(of_key.get(names[i], 0.0) for i in one)) for one in decisions(row)]
        )
    architectures = list(itertools.product(*cases))
    assert len(architectures) == mutator.space.size == 3 * 2 * 3 * 6 * 1 * 8
    assert math.fsum(math.prod(p for p, _ in one) for one in architectures) == pytest.approx(1)
    return math.fsum(math.prod(p for p, _ in one) * sum(cost for _, cost in one) for one in architectures)


def differences(function: Callable[[list[list[float]]], float], logits: list[list[float]], step: float) -> list[float]:
    """The gradient by central differences, entry after entry."""
    found = []
    for row, column in itertools.product(range(len(logits)), range(len(logits[0]))):
        sides = []
        for sign in (1, -1):
            moved = [list(one) for one in logits]
            moved[row][column] += sign * step
            sides.append(function(moved))
        found.append((sides[0] - sides[1]) / (2 * step))
    return found


def test_the_expected_latency_is_that_of_all_architectures() -> None:
    mutator = bound()
    exact = enumerated(mutator, mutator.logits.tolist())
    assert mutator.expected_latency().item() == pytest.approx(exact, rel=1e-12)


def test_the_gradient_of_the_expected_latency_is_that_of_the_enumeration() -> None:
    mutator = bound()
    (gradient,) = torch.autograd.grad(mutator.expected_latency(), mutator.logits)
    expected = differences(lambda logits: enumerated(mutator, logits), mutator.logits.tolist(), 1e-4)
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert sum(abs(one) > 1e-3 for one in expected) >= 14


def test_cold_samples_have_the_expected_latency_on_average() -> None:
    """2,000 samples at temperature 0.001, within 4 standard errors; the weights tend to decisions."""
    mutator = bound(temperature=1e-3, final_temperature=1e-3)
    found = []
    with torch.no_grad():
        for _ in range(2_000):
            mutator.reset()
            found.append(mutator.latency().item())
        expected = mutator.expected_latency().item()
    values = torch.tensor(found, dtype=torch.float64)
    error = values.std().item() / len(found) ** 0.5
    assert error < 0.01 * expected
    assert abs(values.mean().item() - expected) < 4 * error


def weights_of(mutator: FbnetMutator, logits: list[list[float]], uniform: list[list[float]]) -> dict[str, list[float]]:
    """Relaxed samples, written out number by number, at temperature 5."""
    weights = {}
    for row in mutator.rows:
        pairs = list(zip(logits[row.index][: row.count], uniform[row.index], strict=False))
        if row.n_chosen is None:
            weights[row.key] = [1 / (1 + math.exp(-(a + math.log(u / (1 - u))) / 5)) for a, u in pairs]
            continue
        keys, total = [a - math.log(-math.log(u)) for a, u in pairs], [0.0] * row.count
        for _ in range(row.n_chosen):
            powers = [math.exp(key / 5) for key in keys]
            shares = [power / sum(powers) for power in powers]
            total = [one + share for one, share in zip(total, shares, strict=True)]
            keys = [key + math.log(1 - share) for key, share in zip(keys, shares, strict=True)]
        weights[row.key] = [1.0] * row.count if row.n_chosen == row.count else total
    return weights


def test_the_whole_loss_and_its_gradient_are_those_of_equation_2() -> None:
    """``CE * 0.2 * log(LAT)^0.6``: value from numbers written out, gradient by finite differences of that."""
    trainer = trainer_of(FbnetMutator, latency_table=LATENCIES, warmup_epochs=0)
    assert isinstance(trainer, FbnetTrainer)
    mutator = trainer.searching
    spread(mutator)
    trainer.generators["mutator"].manual_seed(9)
    uniform = torch.rand(mutator.logits.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).tolist()
    x, y = next(iter(trainer.train_batches.epoch(0)))
    batch = (x.double(), y)
    logits = mutator.logits.tolist()
    state = copy.deepcopy(trainer.model.state_dict())
    (gradient,) = trainer.architecture_gradients(batch, batch)
    assert gradient is not None

    def whole(values: list[list[float]]) -> float:
        weights = weights_of(mutator, values, uniform)
        trainer.model.load_state_dict(state)
        with torch.no_grad():
            ops = mixture(trainer.model, weights, batch[0])
            loss = float(nn.functional.cross_entropy(ops, y))
        latency = 0.0
        for row in mutator.rows:
            names = row.mutable.choice.candidates
            latency += sum(
                weight * LATENCIES.get(row.key, {}).get(name, 0.0)
                for weight, name in zip(weights[row.key], names, strict=True)
            )
        return loss * 0.2 * math.log(latency) ** 0.6

    expected = differences(whole, logits, 1e-5)
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert sum(abs(one) > 1e-5 for one in expected) >= 15


def mixture(model: Any, weights: Mapping[str, list[float]], x: Tensor) -> Tensor:
    """``Mixed.forward`` with weighted sums in place of its choices, in training mode."""

    def mixed(values: list[Tensor], key: str) -> Tensor:
        return sum((w * v for w, v in zip(weights[key], values, strict=True)), start=torch.zeros(()))

    a = mixed([op(x) for op in model.a], "a")
    b = a
    for choice in model.b:
        b = mixed([op(b) for op in choice], "b")
    one = mixed([x, a, b], "one")
    total = mixed([x, a, b, one], "two") / 4 + mixed([a, b], "all") + mixed([x, a, b], "any")
    normal = nn.functional.batch_norm(total, None, None, model.norm.weight, model.norm.bias, training=True)
    return model.head(normal)


def test_the_weights_are_trained_by_the_loss_alone() -> None:
    trainer = trainer_of(FbnetMutator, latency_table=LATENCIES)
    x, y = next(iter(trainer.train_batches.epoch(0)))
    loss, output, target = trainer.training_step((x.double(), y))
    assert torch.equal(loss, nn.functional.cross_entropy(output, target))


def test_the_temperature_falls_as_in_the_paper() -> None:
    mutator = bound()
    for epoch in (0, 1, 45, 90):
        mutator.progress = epoch / 90
        assert mutator.annealed() == pytest.approx(5 * math.exp(-0.045 * epoch), rel=2e-3)


def test_a_slow_candidate_loses_against_an_equal_fast_one() -> None:
    class Equal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            from nnas_core import LayerChoice

            self.op = LayerChoice([nn.Identity(), nn.Identity(), nn.Identity()], key="op")
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.op(x))

    table = {"op": {"0": 9.0, "1": 3.0, "2": 20.0}}
    trainer = run(trainer_of(FbnetMutator, Equal, epochs=8, latency_table=table, learning_rate=0.1, warmup_epochs=0))
    mutator = trainer.mutator
    assert isinstance(mutator, FbnetMutator)
    assert mutator.final_architecture().indices() == {"op": (1,)}
    assert mutator.expected_latency().item() < (9 + 3 + 20) / 3 - 1


class Moves(Callback):
    """Notes the epochs in which the logits move."""

    def __init__(self) -> None:
        self.moved: list[bool] = []

    def on_epoch_begin(self, epoch: int) -> None:
        mutator: Any = self.trainer.mutator
        self.before = mutator.logits.detach().clone()

    def on_epoch_end(self, epoch: int) -> None:
        mutator: Any = self.trainer.mutator
        self.moved.append(not torch.equal(self.before, mutator.logits))


@pytest.mark.parametrize(
    ("epochs", "given", "moved"),
    [(4, 2, [False] * 2 + [True] * 2), (9, None, [False] + [True] * 8), (2, 0, [True] * 2)],
)
def test_in_the_warm_up_the_architecture_stays(epochs: int, given: int | None, moved: list[bool]) -> None:
    watch = Moves()
    run(trainer_of(FbnetMutator, epochs=epochs, callbacks=[watch], latency_table=LATENCIES, warmup_epochs=given))
    assert watch.moved == moved


def test_a_negative_loss_is_refused() -> None:
    task = task_of(loss=lambda output, target: output.square().mean() * 0 - 1)
    with pytest.raises(UserCodeError, match=r"^task.py: the loss is -1, and fbnet multiplies it by a latency term"):
        run(trainer_of(FbnetMutator, task=task, latency_table=LATENCIES, warmup_epochs=0))


# ---- the table


def file_of(folder: Path, latencies: Any) -> str:
    """A table's file."""
    path = folder / "table.json"
    path.write_text(json.dumps({"format": "nnas.latency-table/1", "unit": "us", "latencies": latencies}))
    return str(path)


def test_a_file_and_what_stands_in_it_give_the_same(tmp_path: Path) -> None:
    one = FbnetMutator(Mixed(), latency_table=file_of(tmp_path, LATENCIES))
    other = FbnetMutator(Mixed(), latency_table=LATENCIES)
    assert torch.equal(one.costs, other.costs)
    assert one.latencies == other.latencies
    assert one.latencies["two"] == [0.0, 2.5, 0.75, 1.25]
    row = row_of(one, "two")
    assert one.costs[row.index].tolist() == [0.0, 2.5, 0.75, 1.25]


def test_every_key_and_candidate_that_does_not_fit_is_named(tmp_path: Path) -> None:
    table = {"a": {"0": 1, "1": 10**400, "9": 2}, "two": {"c": 1, "a": 2}, "zz": {"0": 1}, "z": {}}
    with pytest.raises(InputError, match=r"table\.json: the latency table is not one of this model") as caught:
        FbnetMutator(Mixed(), latency_table=file_of(tmp_path, table))
    assert list(caught.value.problems) == [
        "z: no key of the model",
        "zz: no key of the model",
        "a: '9' is no candidate; there are '0', '1', '2'",
        "a: no latency for '2'",
        "a: the latency of '1' is too large a number",
        "b: missing, with the candidates '0', '1'",
        "two: 'c' is no candidate; there are '', 'a', 'b', 'one'",
    ]


def test_a_list_prices_inputs_of_one_name_apart(tmp_path: Path) -> None:
    class Untagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Linear(2, 2), nn.Identity()], key="op")
            self.link = InputChoice(n_candidates=3, n_chosen=1, key="link")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.link([x, 2 * x, self.op(x)])
            return out

    assert SearchSpace.from_model(Untagged())["link"].candidates == ("", "", "")
    table = {"op": [2, 1], "link": [3, 0.5, 7]}
    mutator = FbnetMutator(Untagged(), latency_table=file_of(tmp_path, table))
    assert mutator.costs[row_of(mutator, "link").index].tolist() == [3.0, 0.5, 7.0]
    assert mutator.costs[row_of(mutator, "op").index].tolist() == [2.0, 1.0, 0.0]
    with pytest.raises(InputError, match="not one of this model") as caught:
        FbnetMutator(Untagged(), latency_table={"op": [2, 1, 4], "link": [3, 10**400]})
    assert list(caught.value.problems) == [
        "link: a list of 2 latencies for 3 candidates",
        "link: the latency of candidate 1 is too large a number",
        "op: a list of 3 latencies for 2 candidates",
    ]


def test_a_negative_latency_is_named(tmp_path: Path) -> None:
    table = {**LATENCIES, "b": {"0": -1.5, "1": "fast"}}
    with pytest.raises(InputError, match="not a latency table") as caught:
        FbnetMutator(Mixed(), latency_table=file_of(tmp_path, table))
    assert list(caught.value.problems) == [
        "$.latencies.b['0']: -1.5 is less than the minimum of 0",
        "$.latencies.b['1']: 'fast' is not of type 'number'",
    ]


def test_latencies_of_which_the_logarithm_is_not_positive_are_refused() -> None:
    small = {key: {name: value / 10 for name, value in row.items()} for key, row in LATENCIES.items()}
    with pytest.raises(InputError, match=r"sum up to 0\.35, the logarithm needs more than 1") as caught:
        FbnetMutator(Mixed(), latency_table=small)
    assert caught.value.hint == "give them in a smaller unit, such as us"


def test_a_checkpoint_of_another_table_is_refused() -> None:
    state = bound().state_dict()
    other = copy.deepcopy(LATENCIES)
    other["a"]["1"] = 8.0
    del other["two"]["a"]
    mutator = FbnetMutator(Mixed().double(), latency_table=other)
    with pytest.raises(InputError, match="not the one that the run was started with") as caught:
        mutator.load_state_dict(state)
    assert list(caught.value.problems) == ["a, '1': 7.5 before, 8.0 now", "two, 'a': 2.5 before, 0.0 now"]


@pytest.mark.parametrize("step", [3, 10, 12, 20])
def test_a_training_goes_on_to_the_bit(step: int) -> None:
    def trainer(*callbacks: Callback) -> Any:
        return trainer_of(FbnetMutator, epochs=4, callbacks=callbacks, latency_table=LATENCIES, warmup_epochs=1)

    whole = run(trainer())
    state = copy.deepcopy(run(trainer(StopAt(step))).state_dict())
    resumed = trainer()
    resumed.load_state_dict(state)
    assert_equal_states(whole.state_dict(), run(resumed).state_dict())


def test_a_copy_is_made_after_a_step_too() -> None:
    mutator = bound()
    mutator.reset()
    mutator.model(inputs()).sum().backward()
    twin = copy.deepcopy(mutator)
    twin.reset()
    assert twin.latency().isfinite()


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency_table": None}, "fbnet needs a table of latencies"),
        ({"alpha": 0.0}, "alpha=0.0 is out of range"),
        ({"beta": -0.1}, "beta=-0.1 is out of range"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is out of range"),
        ({"temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        FbnetMutator(Mixed(), **{"latency_table": LATENCIES, **options})


def test_a_warm_up_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="warmup_epochs=2 leaves none of 2 epochs"):
        trainer_of(FbnetMutator, epochs=2, latency_table=LATENCIES, warmup_epochs=2)


def test_its_loop_needs_its_mutator() -> None:
    with pytest.raises(BindingError, match="FbnetTrainer needs a FbnetMutator, not a DartsMutator"):
        trainer_of(DartsMutator, loop=FbnetTrainer)


def test_a_plain_loop_serves_it_too() -> None:
    assert run(trainer_of(FbnetMutator, loop=BilevelTrainer, epochs=1, latency_table=LATENCIES)).step == 5
