"""What a search writes of the weights of candidates after each epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn

from nnas_core import schema
from nnas_core.errors import UserCodeError
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.enas import EnasMutator
from nnas_core.mutators.random import RandomMutator
from nnas_core.mutators.snas import SnasMutator
from nnas_core.runs.decision_weights import recorded_weights
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from tests.cli_support import Cli, _searched, nnas, small_model, small_run

__all__ = ["_searched", "nnas", "small_model", "small_run"]


QUICK = ("--batch-size", 6, "-q")


class Net(nn.Module):
    """One of three layers, one of two, and any of three inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(2, 2), nn.Identity(), nn.Tanh()], key="op")
        self.act = LayerChoice([nn.ReLU(), nn.Tanh()], key="act")
        self.link = InputChoice(choose_from=["", "op", "act"], n_chosen=None, key="link")


def events_of(run: Path) -> list[dict[str, Any]]:
    """The lines of its file, each as its schema says."""
    found = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [problem for event in found for problem in schema.problems("event", event)] == []
    return found


def weights_of(run: Path) -> list[Any]:
    """What each epoch recorded."""
    return [event.get("decision_weights") for event in events_of(run) if event["event"] == "epoch"]


def test_a_search_records_the_softmax_of_the_logits_of_each_epoch(nnas: Cli, small_model: Path) -> None:
    nnas.ok("search", "model.py", "--mutator", "darts", "--epochs", 2, "--derive", 0, "-o", "run", *QUICK)
    first, last = weights_of(Path("run"))
    assert first != last
    state = torch.load("run/checkpoint.pt", weights_only=True)["state"]["mutator"]
    exponentials = [[math.exp(value) for value in row] for row in state["logits"].tolist()]
    op, act = exponentials[0], [*exponentials[1][:2], exponentials[1][3]]  # the last is that of no candidate
    expected = [[value / sum(row) for value in row[:-1]] for row in (op, act)]
    assert list(last) == ["act", "op"]  # sorted; all inputs of `link` take part, unweighted
    assert last["op"] == pytest.approx(expected[0], abs=5e-5)
    assert last["act"] == pytest.approx(expected[1], abs=5e-5)


def test_a_search_that_draws_uniformly_records_none(small_run: Path) -> None:
    assert weights_of(small_run) == [None]


def test_the_line_of_an_epoch_that_was_lost_is_written_as_it_was(nnas: Cli, small_model: Path) -> None:
    common = ("search", "model.py", "--mutator", "gdas", "--derive", 0, *QUICK)
    nnas.ok(*common, "--epochs", 1, "-o", "run")
    before = events_of(Path("run"))
    lines = [json.dumps(event) + "\n" for event in before if event["event"] == "started"]
    Path("run/events.jsonl").write_text("".join(lines))
    nnas.ok("search", "--resume", "run", "-q")
    assert weights_of(Path("run")) == [before[1]["decision_weights"]]


def test_what_logits_say_of_one_and_of_any_number() -> None:
    mutator = SnasMutator(Net())
    assert isinstance(mutator.logits, nn.Parameter)
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[math.log(2), 0.0, 0.0], [0.0, math.log(3), 0.0], [0.0, 2.0, -2.0]]))
    found = mutator.decision_weights()
    assert found["op"] == pytest.approx([0.5, 0.25, 0.25])
    assert found["act"] == pytest.approx([0.25, 0.75])
    assert found["link"] == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])


def test_what_stands_for_no_candidate_has_the_rest() -> None:
    mutator = DartsMutator(Net(), zero=True)
    with torch.no_grad():
        mutator.logits.zero_()
    assert mutator.decision_weights() == {"op": pytest.approx([0.25] * 3), "act": pytest.approx([1 / 3] * 2)}


def test_what_a_controller_says_are_the_shares_of_its_samples() -> None:
    model = Net()
    mutator = EnasMutator(model, torch.Generator().manual_seed(3), tanh_constant=None)
    with torch.no_grad():
        for parameter in mutator.controller.parameters():
            parameter.mul_(8)  # far from uniform
    architectures = [mutator.space.at(index) for index in range(mutator.space.size)]
    masks = mutator.controller.masks([one.indices() for one in architectures])
    with torch.no_grad():
        chances = mutator.controller(masks).log_probability.exp().tolist()
    before = torch.random.get_rng_state()
    found = mutator.decision_weights()
    assert torch.equal(before, torch.random.get_rng_state())
    assert found == mutator.decision_weights()
    for key, shares in found.items():
        exact = [
            sum(chance for chance, one in zip(chances, architectures, strict=True) if index in one.indices()[key])
            for index in range(len(shares))
        ]
        assert shares == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(256))


class Weighs(RandomMutator):
    """Says what a test tells it to."""

    said: Mapping[str, Sequence[float]] = {"op": [0.25, 0.25, 0.5]}

    def decision_weights(self) -> Mapping[str, Sequence[float]]:
        return self.said


def large_space(keys: int) -> SearchSpace:
    """``op`` and many other keys of eight candidates."""
    op = Choice("op", "layer_choice", ("a", "b", "c"), 1)
    return SearchSpace([op, *(Choice(f"k{one}", "layer_choice", tuple("abcdefgh"), 1) for one in range(keys))])


@pytest.mark.parametrize(
    ("keys", "epochs", "recorded"),
    [(1000, 100, 100), (1000, 125, 63), (50_000, 5, 2), (130_000, 5, 1)],
    ids=str,
)
def test_a_run_records_about_a_million_numbers_at_most(keys: int, epochs: int, recorded: int) -> None:
    mutator, space = Weighs(Net()), large_space(min(keys, 1000))
    if keys > 1000:  # as many numbers, in fewer keys
        many = tuple(map(str, range(8 * keys)))
        space = SearchSpace([space["op"], Choice("many", "layer_choice", many, 1)])
    found = [recorded_weights(mutator, space, epoch, epochs) for epoch in range(1, epochs + 1)]
    assert len([one for one in found if one is not None]) == recorded
    assert found[-1] == {"op": [0.25, 0.25, 0.5]}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"op": [1.0]}, r"Weighs.decision_weights gives \[1.0\] at 'op', expected 3 finite numbers"),
        ({"op": [1.0, math.nan, 0.0]}, "expected 3 finite numbers"),
        ([1.0], r"Weighs.decision_weights gives \[1.0\]: 'list' object has no attribute 'items'"),
        ({"op": 1.0}, "Weighs.decision_weights gives {'op': 1.0}: 'float' object is not iterable"),
        ({"op": ["a", "b", "c"]}, "could not convert string to float: 'a'"),
        ({"op": [10**400, 0, 0]}, "int too large to convert to float"),
        ({"other": [1.0]}, r"gives \[1.0\] at 'other', expected no such key"),
    ],
)
def test_weights_that_do_not_fit_are_refused(said: Mapping[str, Sequence[float]], problem: str) -> None:
    mutator = Weighs(Net())
    mutator.said = said
    with pytest.raises(UserCodeError, match=problem):
        recorded_weights(mutator, mutator.space, 1, 1)


def test_a_mutator_says_nothing_unless_it_does() -> None:
    assert Mutator.decision_weights(RandomMutator(Net())) is None
