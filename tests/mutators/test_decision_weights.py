"""What every algorithm says of its candidates: numbers that fit, or nothing, and no random number is drawn for it."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn as nn

from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutators.snas import SnasMutator
from nnas_core.plugins import registry
from nnas_core.runs.decision_weights import recorded_weights
from nnas_core.space.search_space import SearchSpace

LEARN_NOTHING = {"fairnas", "random", "spos"}


class Net(nn.Module):
    """Layer choices of two and of three candidates, and inputs of which one or two are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice(OrderedDict(a=nn.Linear(4, 4), b=nn.Identity(), c=nn.Linear(4, 4)), key="op")
        self.act = LayerChoice(OrderedDict(a=nn.Linear(4, 4), b=nn.Tanh()), key="act")
        self.one = InputChoice(choose_from=["op", "act"], n_chosen=1, key="one")
        self.two = InputChoice(choose_from=["", "op", "act"], n_chosen=2, key="two")


@pytest.mark.parametrize("name", sorted(registry.entries("mutators")))
def test_weights_fit_the_candidates_and_leave_random_states_alone(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model, more = Net(), {}
    if name == "fbnet":
        rows = {choice.key: dict.fromkeys(choice.candidates, 2.0) for choice in SearchSpace.from_model(model)}
        more = {"latency_table": rows}
    mutator = registry.find_subclass("mutators", name, Mutator)(model, generator, **more)
    before = generator.get_state(), torch.random.get_rng_state()
    weights = recorded_weights(mutator, mutator.space, 1, 1)
    assert torch.equal(before[0], generator.get_state())
    assert torch.equal(before[1], torch.random.get_rng_state())
    if name in LEARN_NOTHING:
        assert weights is None
        return
    assert weights is not None
    assert {"op", "act"} <= set(weights)
    for key, row in weights.items():
        assert all(0 <= number <= 1 for number in row), key
        taken = mutator.space[key].n_chosen
        # the share of no candidate, where there is one, is no candidate's
        assert taken is not None
        assert taken * 0.6 <= sum(row) <= taken * 1.001, key


def test_no_candidate_is_taken_more_than_surely() -> None:
    mutator = SnasMutator(Net())
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([5.0, 0.0, 0.0]).expand_as(mutator.logits))
    softmax = torch.tensor([5.0, 0.0, 0.0]).softmax(dim=0).tolist()
    assert mutator.decision_weights()["two"] == pytest.approx([1.0, 2 * softmax[1], 2 * softmax[2]])
