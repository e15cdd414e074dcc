"""InputChoice and MutableScope: reference/nni-1.x.md 1.1 and 1.3."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, MutableScope, RandomMutator, SearchSpace
from tests.mutables.sample_models import Always, OneInput, Times, decided, times

A, B, C = torch.tensor([[1.0]]), torch.tensor([[10.0]]), torch.tensor([[100.0]])


def pick(mask, *arguments, **options):
    return decided(OneInput(*arguments, key="k", **options), {"k": mask})


class TestReductions:
    @pytest.mark.parametrize(
        ("reduction", "expected"), [("sum", [[101.0]]), ("mean", [[50.5]]), ("concat", [[1.0, 100.0]])]
    )
    def test_the_chosen_inputs_are_reduced(self, reduction, expected):
        assert pick([True, False, True], 3, reduction=reduction)([A, B, C]).tolist() == expected

    def test_none_returns_the_chosen_tensors_themselves(self):
        result = pick([True, False, True], 3, reduction="none")([A, B, C])
        assert [one is other for one, other in zip(result, (A, C), strict=True)] == [True, True]

    @pytest.mark.parametrize(("reduction", "expected"), [("sum", None), ("mean", None), ("concat", None), ("none", [])])
    def test_nothing_chosen(self, reduction, expected):
        assert pick([False, False], 2, reduction=reduction)([A, B]) == expected

    def test_one_chosen_is_the_tensor_itself(self):
        assert pick([False, True], 2)([A, B]) is B

    def test_return_mask(self):
        output, mask = pick([False, True], 2, return_mask=True)([A, B])
        assert (output is B, mask.tolist(), mask.dtype) == (True, [False, True], torch.bool)

    def test_weights_multiply_the_inputs(self):
        assert pick([0.5, 0.0, 2.0], 3)([A, B, C]).tolist() == [[200.5]]


class TestInputs:
    def test_an_entry_that_is_not_chosen_may_be_none(self):
        assert pick([False, True, False], 3)([None, B, None]) is B

    def test_a_zero_weight_may_meet_none(self):
        assert pick([0.0, 0.5], 2)([None, B]).tolist() == [[5.0]]

    def test_a_tuple_does_as_well_as_a_list(self):
        assert pick([False, True], 2)((A, B)) is B

    def test_a_wrong_number_of_inputs_is_refused(self):
        with pytest.raises(ValueError, match="'k' chooses among 3 inputs, 2 given"):
            pick([True, False, False], 3)([A, B])

    def dictionary(self, **options):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = LayerChoice([nn.Identity()], key="a")
                self.b = LayerChoice([nn.Identity()], key="b")
                self.pick = InputChoice(choose_from=["a", "b"], key="k", **options)

        return Model()

    def test_a_dictionary_is_read_by_the_tags_whatever_its_order(self):
        model = decided(self.dictionary(), {"k": [False, True]})
        assert model.pick({"b": B, "a": A}) is B

    @pytest.mark.parametrize("inputs", [{"a": A}, {"a": A, "b": B, "c": C}, {"a": A, "c": C}])
    def test_a_dictionary_of_other_tags_is_refused(self, inputs):
        model = decided(self.dictionary(), {"k": [False, True]})
        given = re.escape(str(sorted(inputs)))
        with pytest.raises(ValueError, match=rf"'k' chooses among the inputs \['a', 'b'\], given are {given}"):
            model.pick(inputs)

    def test_more_inputs_than_n_chosen_may_be_decided(self):
        # n_chosen advises the mutator; the mutator's decision is executed as it is
        assert pick([True, True, False], 3, n_chosen=1)([A, B, C]).tolist() == [[11.0]]


class TestConstructor:
    def test_choose_from_is_no_key_where_only_the_number_is_given(self):
        assert InputChoice(3).choose_from == ["", "", ""]

    def test_no_key_is_the_empty_text(self):
        assert InputChoice.NO_KEY == ""

    def test_choose_from_decides_the_number(self):
        assert InputChoice(choose_from=["a", ""]).n_candidates == 2

    def test_choose_from_is_copied(self):
        tags = ["", ""]
        choice = InputChoice(choose_from=tags)
        tags.append("x")
        assert choice.n_candidates == 2

    def test_choose_from_may_be_a_tuple(self):
        assert InputChoice(choose_from=("", "")).n_candidates == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "needs n_candidates or choose_from"),
            ({"n_candidates": 3, "choose_from": ["", ""]}, "n_candidates is 3, but choose_from has 2 entries"),
            ({"n_candidates": 0}, "needs at least one candidate"),
            ({"choose_from": []}, "needs at least one candidate"),
            ({"n_candidates": 2, "n_chosen": 3}, r"n_chosen is 3, it must be None or in 0\.\.2"),
            ({"n_candidates": 2, "n_chosen": -1}, r"n_chosen is -1, it must be None or in 0\.\.2"),
        ],
    )
    def test_contradictions_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            InputChoice(**arguments)

    @pytest.mark.parametrize("n_chosen", [None, 0, 2])
    def test_n_chosen_from_none_to_all_is_accepted(self, n_chosen):
        assert InputChoice(2, n_chosen=n_chosen).n_chosen == n_chosen


class Inner(MutableScope):
    def __init__(self, key, inside=None):
        super().__init__(key)
        self.op = LayerChoice(times(2, 3), key=f"{key}_op")
        self.inside = inside

    def forward(self, x, *, fail=False):
        if fail:
            raise ArithmeticError("as asked")
        x = self.op(x)
        return x if self.inside is None else self.inside(x)


class Tracing(Always):
    def __init__(self, model):
        super().__init__(model)
        self.trace = []

    def enter_mutable_scope(self, mutable_scope):
        self.trace.append(f"+{mutable_scope.key}")

    def exit_mutable_scope(self, mutable_scope):
        self.trace.append(f"-{mutable_scope.key}")


class TestScopes:
    def test_the_key_is_mandatory(self):
        with pytest.raises(TypeError, match="key"):
            MutableScope()

    def test_scopes_are_entered_and_left_in_order(self):
        model = Inner("outer", Inner("inner"))
        mutator = Tracing(model)
        mutator.reset()
        assert (model(A).tolist(), mutator.trace) == ([[4.0]], ["+outer", "+inner", "-inner", "-outer"])

    def test_a_scope_is_left_when_its_forward_pass_fails(self):
        model = Inner("outer")
        mutator = Tracing(model)
        mutator.reset()
        with pytest.raises(ArithmeticError, match="as asked"):
            model(A, fail=True)
        assert mutator.trace == ["+outer", "-outer"]

    def test_without_a_mutator_it_says_so(self):
        with pytest.raises(ValueError, match="Mutator not set for 'lonely'"):
            Inner("lonely")(A)

    def test_scopes_are_mutables_but_no_decisions(self):
        mutator = Always(Inner("outer", Inner("inner")))
        assert [mutable.key for mutable in mutator.mutables] == ["outer", "outer_op", "inner", "inner_op"]
        assert (mutator.space.keys, list(mutator.export())) == (("inner_op", "outer_op"), ["outer_op", "inner_op"])

    def test_a_scope_is_an_inner_node_of_the_tree(self):
        tree = RandomMutator(nn.Sequential(Inner("s"), LayerChoice([Times(1)], key="leaf"))).mutables
        shape = [
            (node.type(), node.mutable.key, [below.mutable.key for below in node.children]) for node in tree.children
        ]
        assert shape == [(Inner, "s", ["s_op"]), (LayerChoice, "leaf", [])]

    def test_a_tree_is_traversed_after_its_children_on_request(self):
        tree = RandomMutator(Inner("outer", Inner("inner"))).mutables
        assert [one.key for one in tree.traverse(order="post")] == ["outer_op", "inner_op", "inner", "outer"]

    def test_two_scopes_may_share_a_key(self):
        model = nn.Sequential(Inner("s"), Inner("s"))
        assert SearchSpace.from_model(model).keys == ("s_op",)
