"""Keys: given, automatic per model, followed by choose_from, and shared."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, Mutable, MutableScope, RandomMutator, SearchSpace
from tests.mutables.sample_models import Always, Times, decided, times


class Block(nn.Module):
    """Keeps keys as they were when it was built, and names the inputs by them."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.a = LayerChoice([Times(factor), Times(2 * factor)])
        self.b = LayerChoice([Times(10 * factor), Times(20 * factor)])
        self.stored = [self.a.key, self.b.key]
        self.pick = InputChoice(choose_from=self.stored, n_chosen=1)

    def forward(self, x):
        return self.pick({self.stored[0]: self.a(x), self.stored[1]: self.b(x)})


class Live(Block):
    """Reads the keys when it runs."""

    def forward(self, x):
        return self.pick({self.a.key: self.a(x), self.b.key: self.b(x)})


def keys(model):
    return [mutable.key for mutable in RandomMutator(model).mutables]


class TestGiven:
    def test_a_given_key_is_kept(self):
        assert LayerChoice([], key="mine").key == "mine"

    def test_a_number_becomes_a_text(self):
        assert LayerChoice([], key=5).key == "5"

    def test_the_empty_text_is_a_key(self):
        assert keys(nn.Sequential(LayerChoice([Times(1)], key=""))) == [""]

    def test_a_key_is_read_only(self):
        with pytest.raises(AttributeError):
            LayerChoice([], key="mine").key = "other"

    def test_the_name_is_the_key_until_the_model_is_parsed_then_the_path(self):
        model = nn.Sequential(nn.Sequential(LayerChoice([Times(1)], key="k")))
        before = model[0][0].name
        RandomMutator(model)
        assert (before, model[0][0].name) == ("k", "0.0")

    def test_the_name_of_a_choice_that_is_the_model_is_empty(self):
        model = LayerChoice([Times(1)], key="k")
        RandomMutator(model)
        assert model.name == ""


class TestAutomatic:
    def test_they_count_from_one_in_the_order_of_construction(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                last = LayerChoice(times(1, 2))
                self.scope = MutableScope("s")
                self.given = LayerChoice(times(1, 2), key="given")
                self.pick = InputChoice(2)
                self.first = LayerChoice(times(1, 2))
                self.last = last

        assert keys(Model()) == ["s", "given", "InputChoice2", "LayerChoice3", "LayerChoice1"]

    def test_a_model_has_the_same_keys_whenever_it_is_built(self):
        first = keys(Block())
        LayerChoice([])  # what others construct does not count
        assert (first, keys(Block())) == (["LayerChoice1", "LayerChoice2", "InputChoice3"],) * 2

    def test_a_subclass_gives_its_own_name(self):
        class MyChoice(LayerChoice):
            pass

        assert keys(nn.Sequential(MyChoice([Times(1)]), LayerChoice([Times(1)]))) == ["MyChoice1", "LayerChoice2"]

    def test_a_scope_without_a_given_key_does_not_exist(self):
        assert issubclass(MutableScope, Mutable)
        with pytest.raises(TypeError, match="key"):
            MutableScope()

    def test_they_are_numbered_alike_for_the_space_and_for_a_mutator(self):
        model = Block()
        space = SearchSpace.from_model(model)
        assert RandomMutator(model).space == space

    def test_parsing_twice_changes_nothing(self):
        model = Block()
        assert SearchSpace.from_model(model) == SearchSpace.from_model(model)


class TestReferences:
    def test_choose_from_follows_the_numbers(self):
        LayerChoice([])  # so that the numbers at construction are others
        model = Block()
        RandomMutator(model)
        assert model.pick.choose_from == ["LayerChoice1", "LayerChoice2"]

    # numbers at construction that later belong to others, to the same, or to nobody
    @pytest.fixture(params=[1, 2, 3, 50])
    def first_number(self, request, monkeypatch):
        monkeypatch.setattr("nnas_core.mutables.keys._serials", itertools.count(request.param))

    @pytest.mark.usefixtures("first_number")
    @pytest.mark.parametrize("cls", [Block, Live])
    @pytest.mark.parametrize(("chosen", "expected"), [(0, 1.0), (1, 10.0)])
    def test_a_dictionary_may_be_keyed_by_stored_or_by_present_keys(self, cls, chosen, expected):
        model = cls()
        decided(model, {"InputChoice3": [index == chosen for index in range(2)]})
        assert model(torch.ones(1)).item() == expected

    @pytest.mark.usefixtures("first_number")
    @pytest.mark.parametrize("chosen", [0, 1])
    def test_a_dictionary_may_be_keyed_by_texts_made_of_stored_keys(self, chosen):
        model = Block()
        model.stored = [str.__str__(key) for key in model.stored]
        decided(model, {"InputChoice3": [index == chosen for index in range(2)]})
        assert model(torch.ones(1)).item() == [1.0, 10.0][chosen]

    @pytest.mark.usefixtures("first_number")
    @pytest.mark.parametrize("stored", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}])
    def test_a_dictionary_of_both_kinds_of_keys_is_read_rightly_or_refused(self, stored):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.ops = nn.ModuleList(LayerChoice([Times(10.0**index)]) for index in range(3))
                self.before = [op.key for op in self.ops]
                self.pick = InputChoice(choose_from=self.before)

            def forward(self, x):
                keys = [self.before[i] if i in stored else self.ops[i].key for i in range(3)]
                return self.pick({key: op(x) for key, op in zip(keys, self.ops, strict=True)})

        model, outputs = Model(), []
        mutator = Always(model)
        for chosen in range(3):
            mutator.decisions = {"InputChoice4": [index == chosen for index in range(3)]}
            mutator.reset()
            try:
                outputs.append(model(torch.ones(1)).item())
            except ValueError as error:
                outputs.append(str(error).split(",")[0])
        texts = {model.before[index] if index in stored else f"LayerChoice{index + 1}" for index in range(3)}
        refused = ["'InputChoice4' chooses among the inputs ['LayerChoice1'"] * 3
        assert outputs == ([1.0, 10.0, 100.0] if len(texts) == 3 else refused)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
    @pytest.mark.parametrize("cls", [Block, Live])
    @pytest.mark.parametrize("chosen", [0, 1])
    def test_a_copied_block_refers_to_its_own_mutables(self, cls, clone, chosen):
        block = cls()
        model = nn.Sequential(block, clone(block), clone(block))
        mutator = Always(model)
        picks = {
            one.key: [index == chosen for index in range(2)] for one in mutator.choices if one.name.endswith("pick")
        }
        mutator.decisions = picks
        mutator.reset()
        homes = {one.key: one.name.split(".")[0] for one in mutator.mutables}
        assert [{homes[tag] for tag in block.pick.choose_from} for block in model] == [{"0"}, {"1"}, {"2"}]
        assert model(torch.ones(1)).item() == [1.0, 1000.0][chosen]

    def test_copied_blocks_have_keys_of_their_own(self):
        block = Block()
        model = nn.Sequential(block, copy.deepcopy(block))
        # three automatic keys at construction, each twice: numbered in the order of construction, then of the visit
        assert keys(model) == [
            "LayerChoice1", "LayerChoice3", "InputChoice5", "LayerChoice2", "LayerChoice4", "InputChoice6"
        ]  # fmt: skip


class TestShared:
    def shared(self):
        return nn.Sequential(LayerChoice(times(2, 3), key="k"), LayerChoice(times(5, 7), key="k"))

    def test_equal_keys_share_one_decision(self):
        assert decided(self.shared(), {"k": [False, True]})(torch.ones(1)).item() == 3 * 7

    def test_equal_keys_come_once_unless_asked_for(self):
        mutator = RandomMutator(self.shared())
        assert ([one.name for one in mutator.mutables], [one.name for one in mutator.undedup_mutables]) == (
            ["0"],
            ["0", "1"],
        )

    def test_a_module_that_is_registered_twice_is_visited_once_under_its_first_path(self):
        choice = LayerChoice(times(2, 3), key="k")
        model = nn.ModuleDict({"first": choice, "second": choice})
        assert [one.name for one in RandomMutator(model).undedup_mutables] == ["first"]

    def test_input_choices_of_one_key_may_choose_from_different_places(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = LayerChoice([Times(1)], key="a")
                self.p = InputChoice(choose_from=["a", ""], n_chosen=1, key="p")
                self.b = LayerChoice([Times(1)], key="b")
                self.q = InputChoice(choose_from=["b", ""], n_chosen=1, key="p")

        assert SearchSpace.from_model(Model())["p"].candidates == ("a", "")
