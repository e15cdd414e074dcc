"""LayerChoice: reference/nni-1.x.md 1.1 and 1.3, with the differences of its 6.1."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice
from tests.mutables.sample_models import Always, OneLayer, Times, decided, times

X = torch.tensor([[1.0, 2.0]])


def out(mask, reduction="sum", factors=(2.0, 3.0, 5.0), x=X):
    return decided(OneLayer(times(*factors), reduction=reduction, key="k"), {"k": mask})(x)


class TestReductions:
    def test_sum_is_the_default(self):
        model = decided(OneLayer(times(2, 3, 5), key="k"), {"k": [True, False, True]})
        assert model(X).tolist() == [[7.0, 14.0]]

    def test_mean_divides_by_the_number_of_executed_candidates(self):
        assert out([True, False, True], "mean").tolist() == [[3.5, 7.0]]

    def test_concat_joins_along_dimension_1(self):
        assert out([True, True, False], "concat").tolist() == [[2.0, 4.0, 3.0, 6.0]]

    def test_none_returns_the_list(self):
        assert [y.tolist() for y in out([False, True, True], "none")] == [[[3.0, 6.0]], [[5.0, 10.0]]]

    @pytest.mark.parametrize("reduction", ["sum", "mean", "concat"])
    def test_nothing_chosen_is_none(self, reduction):
        assert out([False, False, False], reduction) is None

    def test_nothing_chosen_is_an_empty_list_for_none(self):
        assert out([False, False, False], "none") == []

    def test_one_chosen_is_a_list_of_one_for_none(self):
        assert [y.tolist() for y in out([False, True, False], "none")] == [[[3.0, 6.0]]]

    @pytest.mark.parametrize("reduction", ["sum", "mean", "concat"])
    def test_one_chosen_is_returned_as_the_object_it_is(self, reduction):
        result = (object(), "no tensor at all")

        class Odd(nn.Module):
            def forward(self, x):
                return result

        model = decided(OneLayer([Odd(), nn.Identity()], reduction=reduction, key="k"), {"k": [True, False]})
        assert model(X) is result

    def test_only_the_chosen_candidates_are_executed(self):
        model = decided(OneLayer(times(2, 3, 5), key="k"), {"k": [True, False, True]})
        model(X)  # tries the chosen ones, and runs them
        assert [candidate.calls for candidate in model.op] == [2, 0, 2]
        model(X)
        assert [candidate.calls for candidate in model.op] == [3, 0, 3]

    def test_arguments_and_keywords_reach_every_executed_candidate(self):
        class Axpy(nn.Module):
            def forward(self, x, y, *, scale=1.0):
                return x * scale + y

        model = decided(OneLayer([Axpy(), Axpy()], key="k"), {"k": [True, True]})
        assert model(X, torch.ones(1, 2), scale=10.0).tolist() == [[22.0, 42.0]]


class TestMask:
    def test_return_mask_gives_the_output_and_a_mask_of_full_length(self):
        output, mask = decided(OneLayer(times(2, 3, 5), return_mask=True, key="k"), {"k": [False, True, False]})(X)
        assert (output.tolist(), mask.tolist(), mask.dtype) == ([[3.0, 6.0]], [False, True, False], torch.bool)

    def test_return_mask_gives_the_weights_of_a_soft_decision(self):
        model = decided(OneLayer(times(2, 3), return_mask=True, key="k"), {"k": torch.tensor([0.25, 0.5])})
        output, mask = model(X)
        assert (output.tolist(), mask.tolist()) == ([[2.0, 4.0]], [0.25, 0.5])

    def test_an_empty_selection_returns_none_and_its_mask(self):
        output, mask = decided(OneLayer(times(2, 3), return_mask=True, key="k"), {"k": [False, False]})(X)
        assert (output, mask.tolist()) == (None, [False, False])


class TestContainer:
    def make(self):
        return LayerChoice(OrderedDict(a=Times(1), b=Times(2), c=Times(3), d=Times(4)), key="k")

    @pytest.mark.parametrize("wrap", [list, tuple, nn.ModuleList])
    def test_a_sequence_names_its_candidates_by_number(self, wrap):
        assert LayerChoice(wrap(times(1, 2)), key="k").names == ["0", "1"]

    def test_an_ordered_dict_names_its_candidates(self):
        assert self.make().names == ["a", "b", "c", "d"]

    def test_its_length_is_the_number_of_candidates_under_all_three_names(self):
        choice = self.make()
        assert (len(choice), choice.length, len(choice.choices)) == (4, 4, 4)

    def test_it_iterates_in_the_order_of_the_candidates(self):
        assert [one.factor for one in self.make()] == [1, 2, 3, 4]

    @pytest.mark.parametrize(("position", "factor"), [(0, 1), (-1, 4), ("c", 3)])
    def test_a_candidate_is_reached_by_index_and_by_name(self, position, factor):
        assert self.make()[position].factor == factor

    def test_a_slice_is_a_list(self):
        assert [one.factor for one in self.make()[1:3]] == [2, 3]

    @pytest.mark.parametrize("position", [1, "b", -3])
    def test_a_candidate_is_replaced_in_place(self, position):
        choice = self.make()
        choice[position] = Times(20)
        assert ([one.factor for one in choice], choice.names) == ([1, 20, 3, 4], ["a", "b", "c", "d"])

    def test_an_unknown_name_is_not_added(self):
        with pytest.raises(KeyError, match="no candidate is named 'z'; candidates can be replaced, not added"):
            self.make()["z"] = Times(1)

    @pytest.mark.parametrize(
        ("position", "names"),
        [(0, ["b", "c", "d"]), ("b", ["a", "c", "d"]), (-1, ["a", "b", "c"]), (slice(1, 3), ["a", "d"])],
    )
    def test_deletion_keeps_the_names_of_the_others(self, position, names):
        choice = self.make()
        del choice[position]
        assert (choice.names, [name for name, _ in choice.named_children()]) == (names, names)

    def test_after_deletion_positions_count_anew(self):
        choice = LayerChoice(times(1, 2, 3), key="k")
        del choice[1]
        assert (choice.names, choice[1].factor) == (["0", "2"], 3)

    def test_it_is_true_even_without_candidates(self):
        assert bool(LayerChoice([], key="k")) is True

    @pytest.mark.parametrize("candidates", [{"a": Times(1)}, {Times(1)}, "ab", None])
    def test_another_type_of_candidates_is_refused(self, candidates):
        with pytest.raises(TypeError, match=f"Unsupported op_candidates type: {type(candidates).__name__}"):
            LayerChoice(candidates)

    @pytest.mark.parametrize("name", ["length", "reduction", "key", "names", "forward", "training", "a.b", ""])
    def test_a_name_that_a_module_cannot_have_is_refused(self, name):
        with pytest.raises(ValueError, match=f"a candidate of a LayerChoice cannot be named {name!r}"):
            LayerChoice(OrderedDict([(name, Times(1))]))

    def test_a_candidate_may_be_named_mutator(self):
        model = OneLayer(OrderedDict(mutator=Times(2), other=Times(3)), key="k")
        assert decided(model, {})(X).tolist() == [[2.0, 4.0]]


class TestChangesAfterBinding:
    def bound(self):
        model = OneLayer(times(2, 3), key="k")
        mutator = Always(model)
        mutator.reset()
        return model, mutator

    def replace_item(self, choice):
        choice[0] = Times(7)

    def replace_attribute(self, choice):
        setattr(choice, "0", Times(7))

    def replace_module(self, choice):
        choice.add_module("0", Times(7))  # as SyncBatchNorm.convert_sync_batchnorm does

    @pytest.mark.parametrize("how", ["replace_item", "replace_attribute", "replace_module"])
    def test_the_new_candidate_runs_after_the_next_reset(self, how):
        model, mutator = self.bound()
        getattr(self, how)(model.op)
        mutator.reset()
        assert model(X).tolist() == [[7.0, 14.0]]

    def test_before_the_next_reset_the_old_candidate_is_not_run_silently(self):
        model, _ = self.bound()
        self.replace_item(model.op)
        with pytest.raises(RuntimeError, match="op: 'k' not found in decision cache: nothing is decided yet"):
            model(X)

    def test_a_deleted_candidate_leaves_the_search_space(self):
        model, mutator = self.bound()
        before = mutator.space["k"].candidates
        del model.op[0]
        mutator.reset()
        assert (model(X).tolist(), before, mutator.space["k"].candidates) == ([[3.0, 6.0]], ("0", "1"), ("1",))
        assert mutator.final_architecture().masks() == {"k": [True]}


class TestHooks:
    def test_a_forward_hook_on_the_choice_runs(self):
        model = decided(OneLayer(times(2, 3), key="k"), {})
        model.op.register_forward_hook(lambda module, args, output: output + 100)
        assert model(X).tolist() == [[102.0, 104.0]]

    def test_a_forward_pre_hook_on_the_choice_runs(self):
        model = decided(OneLayer(times(2, 3), key="k"), {})
        model.op.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        assert model(X).tolist() == [[4.0, 6.0]]

    def test_a_backward_hook_on_the_choice_runs(self):
        model = decided(OneLayer(times(2, 3), key="k"), {})
        seen = []
        model.op.register_full_backward_hook(lambda module, into, out: seen.append(out[0].tolist()))
        model(X.clone().requires_grad_()).sum().backward()
        assert seen == [[[1.0, 1.0]]]

    def test_a_removed_hook_runs_no_more(self):
        model = decided(OneLayer(times(2, 3), key="k"), {})
        model.op.register_forward_hook(lambda module, args, output: output + 100).remove()
        assert model(X).tolist() == [[2.0, 4.0]]

    def test_a_hook_on_a_candidate_runs(self):
        model = decided(OneLayer(times(2, 3), key="k"), {})
        model.op[0].register_forward_hook(lambda module, args, output: -output)
        assert model(X).tolist() == [[-2.0, -4.0]]

    def test_a_subclass_may_add_to_the_forward_pass(self):
        class Twice(LayerChoice):
            def forward(self, x):
                return 2 * super().forward(x)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.op = Twice(times(2, 3), key="k")

        assert decided(Model(), {}).op(X).tolist() == [[4.0, 8.0]]
