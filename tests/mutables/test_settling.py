"""settle: the model itself becomes what extract makes of a copy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, MutableScope, extract
from nnas_core.errors import ArchitectureError, UserCodeError
from nnas_core.mutables.settling import settle
from tests.mutables.sample_models import OneLayer, times
from tests.mutables.test_extract import CASES, run, same_values, seeded_model


@pytest.mark.parametrize("architecture", CASES)
def test_it_is_what_extract_gives_to_the_bit(architecture):
    extracted, settled = extract(seeded_model(), architecture), settle(seeded_model(), architecture)
    assert list(settled.state_dict()) == list(extracted.state_dict())
    assert str(settled) == str(extracted)
    (mine, my_gradients, my_evaluated), (its, its_gradients, its_evaluated) = run(settled), run(extracted)
    assert torch.equal(mine, its)
    assert torch.equal(my_evaluated, its_evaluated)
    assert same_values(my_gradients, its_gradients)


def test_it_stays_the_same_object():
    model = seeded_model()
    parameters = set(map(id, model.parameters()))
    settled = settle(model, CASES[0].values[0])
    assert settled is model
    assert set(map(id, settled.parameters())) < parameters


class Closing(nn.Module):
    """Functions that close over the model: a lambda, one that holds a choice, and a hook."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 1)
        self.proj = nn.Linear(1, 1)
        self.op = LayerChoice([nn.Linear(1, 1), nn.Identity()], key="op")
        self.seen = {}
        self.project = lambda x: self.proj(x)
        op = self.op
        self.operate = lambda x: op(x)
        self.stem.register_forward_hook(lambda module, args, output: self.seen.update(stem=output))

    def forward(self, x):
        return self.operate(self.project(self.stem(x))) + self.seen["stem"]


def test_functions_go_on_using_the_model():
    model = Closing()
    settled = settle(model, {"op": 0})
    settled(torch.ones(1, 1)).sum().backward()
    assert sorted(name for name, one in settled.named_parameters() if one.grad is not None) == [
        "op.bias",
        "op.weight",
        "proj.bias",
        "proj.weight",
        "stem.bias",
        "stem.weight",
    ]


class Listed(nn.Module):
    """Choices that are found in collections too, and a key that was stored before it was numbered."""

    def __init__(self):
        super().__init__()
        self.first = LayerChoice(times(2, 3))
        self.second = LayerChoice(times(5, 7))
        self.pick = InputChoice(choose_from=[self.first.key, self.second.key], n_chosen=1)
        self.listed = [self.first, (self.second, {"a": self.first})]
        self.keys = (self.first.key, self.second.key)

    def forward(self, x):
        first, (second, more) = self.listed
        return self.pick({self.keys[0]: first(x), self.keys[1]: second(x)}) + more["a"](x)


@pytest.mark.parametrize("build", [extract, settle])
def test_choices_in_collections_are_replaced_and_stored_keys_are_found(build):
    OneLayer(times(1))  # moves the numbers of this process on
    model = build(Listed(), {"LayerChoice1": 0, "LayerChoice2": 1, "InputChoice3": [1]})
    assert model(torch.ones(1)).item() == 7 + 2
    assert not any(isinstance(one, LayerChoice) for one in (model.listed[0], model.listed[1][0]))


class Scope(MutableScope):
    def __init__(self):
        super().__init__("scope")
        self.op = LayerChoice(times(2, 3), key="op")

    def forward(self, x):
        return self.op(x)


def test_a_scope_keeps_nothing_of_what_is_not_used():
    scope = Scope()
    settled = settle(nn.Sequential(scope), {"op": 1})
    assert settled(torch.ones(1)).item() == 3
    assert not scope.is_bound


def test_a_choice_that_is_the_model_gives_what_stands_for_it():
    settled = settle(LayerChoice([nn.Linear(1, 1), nn.ReLU()], key="op"), {"op": 1})
    assert type(settled) is nn.ReLU


def test_an_architecture_of_another_model_is_refused():
    with pytest.raises(ArchitectureError, match="other"):
        settle(OneLayer(times(1, 2), key="op"), {"other": 1})


def test_a_choice_with_hooks_is_refused():
    model = OneLayer(times(1, 2), key="op")
    model.op.register_forward_hook(lambda *_: None)
    with pytest.raises(UserCodeError, match="op: LayerChoice has hooks, which an extracted model would lose"):
        settle(model, {"op": 1})
