"""P-DARTS's skip connections: their dropout, and how many of them an architecture has."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, MutableScope
from nnas_core.errors import UsageError
from nnas_core.mutators.pdarts import PdartsMutator
from tests.mutables.sample_models import OneLayer
from tests.mutators.pdarts_search import Watch, progressive


def test_skip_dropout_fades_as_in_the_authors_code() -> None:
    """25 epochs a stage, the first 10 without architecture steps: their two formulas."""
    trainer = progressive(epochs=75, drop=[1, 0, 0], max_skips=None)
    rates = []
    for epoch in range(75):
        trainer._set_skip_dropout(epoch)
        rates.append(trainer.progressing.skip_rate)
    for stage, rate in enumerate((0.0, 0.4, 0.7)):
        expected = [rate * (25 - e - 1) / 25 for e in range(10)]
        expected += [rate * math.exp(-(e - 10) * 0.2) for e in range(10, 25)]
        assert rates[25 * stage : 25 * stage + 25] == pytest.approx(expected)


def test_each_epoch_has_its_rate_and_the_warm_up_of_its_stage() -> None:
    watch = Watch()
    progressive(epochs=8, callbacks=[watch], drop=[0, 0], skip_dropout=[0.8, 0.4], warmup_epochs=2).train()
    assert watch.moved == [False, False, True, True] * 2
    falling = [3 / 4, 2 / 4, 1, math.exp(-1.5)]
    assert watch.rates == pytest.approx([0.8 * one for one in falling] + [0.4 * one for one in falling])


@pytest.mark.parametrize(("epochs", "expected"), [(3, 0), (6, 0), (9, 1), (75, 10)])
def test_by_default_the_warm_up_takes_the_papers_part_of_a_stage(epochs: int, expected: int) -> None:
    assert progressive(epochs=epochs)._place(0)[2] == expected


@pytest.mark.parametrize("rate", [0.25, 0.7])
@pytest.mark.global_random
def test_skip_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    model = OneLayer(OrderedDict(tanh=nn.Tanh(), none=nn.Identity()), key="op")
    mutator = PdartsMutator(model, zero=False)
    mutator.logits.data.copy_(torch.tensor([[-40.0, 0.0]]))  # all of the output is the skip's
    mutator.skip_rate = rate
    mutator.reset()
    x = torch.ones(200_000)
    output = model(x)
    kept = output[output > 1e-6]
    deviation = math.sqrt(rate * (1 - rate) / len(x))
    assert abs(1 - len(kept) / len(x) - rate) < 4 * deviation
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))
    model.eval()
    torch.testing.assert_close(model(x), x)
    mutator.skip_rate = 0.0
    model.train()
    torch.testing.assert_close(model(x), x)


@pytest.mark.parametrize(
    ("options", "dropped"),
    [({}, {"skip_connect", "IDENTITY", "none"}), ({"skip": ["pool", "none"]}, {"pool", "none"}), ({"skip": []}, set())],
)
def test_dropout_is_behind_skip_connections_alone(options: dict[str, Any], dropped: set[str]) -> None:
    names = ["conv", "pool", "none", "skip_connect", "IDENTITY"]
    candidates = OrderedDict(zip(names, [nn.ReLU(), nn.ReLU(), nn.Identity(), nn.ReLU(), nn.ReLU()], strict=True))
    model = OneLayer(candidates, key="op")
    mutator = PdartsMutator(model, zero=False, max_skips=None, **options)
    mutator.skip_rate = 0.5
    found = set()
    for index, name in enumerate(names):
        mutator.logits.data.fill_(-80.0)
        mutator.logits.data[0, index] = 0.0
        mutator.reset()
        if bool((model(torch.ones(100)) < 0.5).any()):
            found.add(name)
    assert found == dropped


class Cells(nn.Module):
    """Two scopes with three operations each, and one outside."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.cells = nn.Sequential(*(_Cell(f"{prefix}cell{number}") for number in range(2)))
        self.last = operation("last")
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.cells(x)))


class _Cell(MutableScope):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.inner = _Inner(f"{key}_inner")
        self.third = operation(f"{key}_2")

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.inner(x))


class _Inner(MutableScope):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        name = key.removesuffix("_inner")
        self.first, self.second = operation(f"{name}_0"), operation(f"{name}_1")

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def operation(key: str) -> LayerChoice:
    return LayerChoice(OrderedDict(tanh=nn.Tanh(), skip=nn.Identity(), relu=nn.ReLU()), key=key)


def chosen(mutator: PdartsMutator, weights: Mapping[str, tuple[float, ...]]) -> dict[str, str]:
    """The final architecture's names, after planting weights (any positive numbers) by key."""
    for row in mutator.rows:
        mutator.logits.data[row.index, : row.count] = torch.tensor(weights[row.key]).log()
    indices = mutator.final_architecture().indices()
    return {row.key: row.mutable.names[indices[row.key][0]] for row in mutator.rows}


SKIPPING = {
    "cell0_0": (0.3, 0.5, 0.2),
    "cell0_1": (0.1, 0.6, 0.3),
    "cell0_2": (0.3, 0.4, 0.3),
    "cell1_0": (0.2, 0.7, 0.1),
    "cell1_1": (0.5, 0.4, 0.1),
    "cell1_2": (0.1, 0.8, 0.1),
    "last": (0.1, 0.6, 0.3),
}


ZERO = {"cell1_2": "tanh", "last": "relu"}


@pytest.mark.parametrize(
    ("limit", "replaced"),
    [
        (None, {}),
        (3, {}),
        (2, {"cell0_2": "tanh"}),  # of 0.5, 0.6, 0.4 the least; its others are equal, so the first
        (1, {"cell0_2": "tanh", "cell0_0": "tanh", "cell1_0": "tanh"}),
        (
            0,
            {
                "cell0_2": "tanh",
                "cell0_0": "tanh",
                "cell0_1": "relu",
                "cell1_0": "tanh",
                "cell1_2": "tanh",
                "last": "relu",
            },
        ),
    ],
)
def test_at_most_so_many_skips_of_a_cell_are_kept(limit: int | None, replaced: dict[str, str]) -> None:
    strongest = {key: ("tanh", "skip", "relu")[own.index(max(own))] for key, own in SKIPPING.items()}
    mutator = PdartsMutator(Cells(), zero=False, max_skips=limit)
    assert chosen(mutator, SKIPPING) == {**strongest, **replaced}


def test_groups_by_the_beginning_of_keys() -> None:
    mutator = PdartsMutator(Cells(), zero=False, max_skips=1, skip_groups=["cell1", "las"])
    strongest = {key: ("tanh", "skip", "relu")[own.index(max(own))] for key, own in SKIPPING.items()}
    assert chosen(mutator, SKIPPING) == {**strongest, "cell1_0": "tanh"}


class Stack(nn.Module):
    """Cells under scopes, one of them in another one, whose choices have keys that do not begin as theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = MutableScope("stack")
        self.outer.cells = nn.ModuleList(MutableScope(key) for key in ("normal0", "normal1"))
        self.reduce = MutableScope("reduce")
        for number, cell in enumerate((*self.outer.cells, self.reduce)):
            cell.ops = nn.ModuleList(operation(f"op{number}{place}") for place in range(2))


def test_groups_by_the_names_of_cells() -> None:
    planted = {f"op{cell}{place}": (0.3, 0.4 + 0.1 * place, 0.1) for cell in range(3) for place in range(2)}
    skips = dict.fromkeys(planted, "skip")
    options: dict[str, Any] = {"zero": False, "max_skips": 1}
    final = chosen(PdartsMutator(Stack(), skip_groups=["normal"], **options), planted)
    assert final == {**skips, "op00": "tanh", "op10": "tanh"}  # each cell is a group, and reduce is not limited
    final = chosen(PdartsMutator(Stack(), skip_groups=["stack"], **options), planted)
    assert list(final.values()).count("skip") == 3  # one of the four of the whole stack
    with pytest.raises(UsageError, match="no LayerChoice and no scope has a key that begins so") as caught:
        PdartsMutator(Stack(), skip_groups=["normal", "redude"], **options)
    assert caught.value.hint == "there are op00, op01, op10, op11, op20, op21, stack, reduce"


def test_choices_outside_of_scopes_are_one_group() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ops = nn.ModuleList(operation(f"op{number}") for number in range(4))

    planted = {f"op{number}": (0.1, 0.5 + 0.1 * number, 0.2) for number in (0, 1, 2, 3)}
    final = chosen(PdartsMutator(Plain(), zero=False), planted)
    assert list(final.values()).count("skip") == 2
    # weights of the skips: 0.5/0.8, 0.6/0.9, 0.7/1.0, 0.8/1.1
    assert final == {"op0": "relu", "op1": "relu", "op2": "skip", "op3": "skip"}


class Edges(nn.Module):
    """A node that takes two of three inputs, each through an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(operation(f"op{number}") for number in range(3))
        self.pick = InputChoice(choose_from=["op0", "op1", "op2"], n_chosen=2, key="pick")

    def forward(self, x: Tensor) -> Tensor:
        return self.pick([op(x) for op in self.ops])


@pytest.mark.parametrize(
    ("limit", "operations", "inputs"),
    [
        (2, ("skip", "skip", "skip"), [True, True, False]),  # op2 is not taken, so its skip does not count
        # op1 loses its skip and is weaker than op2 then; that has one too, and loses it in its turn
        (1, ("skip", "relu", "tanh"), [True, True, False]),
        (0, ("tanh", "relu", "tanh"), [True, True, False]),
    ],
)
def test_a_replaced_skip_may_change_the_inputs_and_only_what_is_taken_counts(
    limit: int, operations: tuple[str, ...], inputs: list[bool]
) -> None:
    mutator = PdartsMutator(Edges(), zero=False, max_skips=limit, skip_groups=["op"])
    weights = {"op0": (0.3, 0.6, 0.1), "op1": (0.2, 0.55, 0.25), "op2": (0.24, 0.52, 0.24)}
    final = chosen(mutator, weights)
    taken = mutator.final_architecture().masks()["pick"]
    assert (tuple(final.values()), taken) == (operations, inputs)


def test_choices_of_nothing_but_skips_do_not_count() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = LayerChoice([nn.Identity()], key="only")
            self.op = operation("op")

    mutator = PdartsMutator(Plain(), zero=False, max_skips=1)
    assert chosen(mutator, {"only": (1.0,), "op": (0.1, 0.8, 0.1)}) == {"only": "0", "op": "skip"}


def test_a_skip_that_nothing_could_replace_stays_beside_one_as_strong() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ops = nn.ModuleList(operation(f"op{number}") for number in range(2))

    mutator = PdartsMutator(Plain(), zero=False, max_skips=1)
    mutator.valid[0] = torch.tensor([False, True, False])  # all else was dropped
    mutator.logits.data.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 80.0, 1.0]]))  # both skips have all the weight
    indices = mutator.final_architecture().indices()
    assert [row.mutable.names[indices[row.key][0]] for row in mutator.rows] == ["skip", "relu"]
