"""Choices that torch does not find, and keys that a model stored before it was read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, RandomMutator, SearchSpace, apply_fixed_architecture
from nnas_core.errors import SpaceError
from nnas_core.mutables.keys import AutoKey
from tests.mutables.sample_models import OneLayer, times


def choice(key):
    return LayerChoice(times(1, 2), key=key)


class Hiding(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.last = choice("last")
        self.hidden = hidden


@pytest.mark.parametrize(
    ("hidden", "problem"),
    [
        ([choice("a")], "hidden[0]: the LayerChoice 'a' is in a plain list, use nn.ModuleList"),
        ((1, [choice("a")]), "hidden[1][0]: the LayerChoice 'a' is in a plain list, use nn.ModuleList"),
        ({"x": choice("a")}, "hidden['x']: the LayerChoice 'a' is in a plain dict, use nn.ModuleDict"),
        ([OneLayer(times(1), key="a")], "hidden[0].op: the LayerChoice 'a' is in a plain list, use nn.ModuleList"),
        ([InputChoice(2, key="i")], "hidden[0]: the InputChoice 'i' is in a plain list, use nn.ModuleList"),
    ],
)
def test_choices_in_plain_collections_are_named(hidden, problem):
    for read in (SearchSpace.from_model, RandomMutator):
        with pytest.raises(SpaceError) as caught:
            read(Hiding(hidden))
        assert caught.value.problems == (problem,)


def test_all_of_them_are_listed():
    with pytest.raises(SpaceError) as caught:
        SearchSpace.from_model(nn.Sequential(Hiding([choice("a"), choice("b")])))
    assert [one.split(":")[0] for one in caught.value.problems] == ["0.hidden[0]", "0.hidden[1]"]


def test_registered_ones_may_be_in_lists_too():
    model = Hiding([nn.Linear(1, 1), {"deep": None}])
    model.hidden[1]["deep"] = [model.last, model, model.hidden]
    assert list(SearchSpace.from_model(model).choices) == ["last"]
    apply_fixed_architecture(model, {"last": 1})
    assert list(SearchSpace.from_model(nn.Sequential(OneLayer(times(1), key="a"), model)).choices) == ["a"]


class Storing(nn.Module):
    """Stores keys in its constructor, as TextNAS and ENAS do."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(OneLayer(times(1, 2)) for _ in range(2))
        self.pick = InputChoice(2)
        self.keys = [block.op.key for block in self.blocks] + [self.pick.key]


@pytest.mark.parametrize("copied", [False, True])
def test_stored_keys_are_those_of_decisions(copied):
    for _ in range(2):  # the second time, another model was built
        model = copy.deepcopy(Storing()) if copied else Storing()
        mutator = RandomMutator(model)
        mutator.reset()
        assert model.keys == ["LayerChoice1", "LayerChoice2", "InputChoice3"]
        assert [mutator.export()[key].dtype for key in model.keys] == [torch.bool] * 3
        assert set(SearchSpace.from_model(model).choices) == set(model.keys)


def test_keys_of_models_that_are_put_together_stay_apart():
    one, other = OneLayer(times(1, 2)), OneLayer(times(1, 2))
    first, second = one.op.key, other.op.key
    assert (str(first), str(second)) == ("LayerChoice1", "LayerChoice1")
    assert first != second
    assert len({first: 1, second: 2}) == 2
    assert first == AutoKey("another text", first.serial)
    assert first == "LayerChoice1"
    assert first != "LayerChoice2"
    pick = InputChoice(choose_from=[first, second], n_chosen=1, key="pick")
    model = nn.ModuleList([one, other, pick])
    mutator = RandomMutator(model)
    mutator.decide({"LayerChoice1": (0,), "LayerChoice2": (0,), "pick": (1,)})
    assert pick.choose_from == ["LayerChoice1", "LayerChoice2"]
    assert pick({first: torch.tensor(1), second: torch.tensor(2)}).item() == 2
