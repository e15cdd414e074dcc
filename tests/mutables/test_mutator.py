"""Binding, masks, and what a subclass may override."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnas_core import BaseMutator, InputChoice, LayerChoice, Mutator, RandomMutator
from nnas_core.errors import BindingError, DecisionError, ExitCode
from tests.mutables.sample_models import Always, Everything, OneLayer, Times, decided, times

X = torch.tensor([[1.0, 2.0]])


class TestBinding:
    def test_a_second_mutator_names_the_first(self):
        model = OneLayer(times(2, 3))
        RandomMutator(model)
        with pytest.raises(
            BindingError, match=r"bound to a RandomMutator already; a second mutator \(Always\)"
        ) as caught:
            Always(model)
        assert (caught.value.hint, caught.value.exit_code) == ("call unbind() on the first one", ExitCode.USER_CODE)
        assert isinstance(caught.value, RuntimeError)

    def test_the_first_mutator_goes_on_after_a_refused_second(self):
        model = OneLayer(times(2, 3), key="k")
        first = Always(model)
        first.reset()
        with pytest.raises(BindingError):
            RandomMutator(model)
        assert model(X).tolist() == [[2.0, 4.0]]

    def test_one_bound_part_is_enough(self):
        part = OneLayer(times(2, 3), key="k")
        Always(part)
        with pytest.raises(BindingError, match="bound to a Always already"):
            RandomMutator(nn.Sequential(OneLayer(times(2, 3), key="free"), part))

    def test_unbind_frees_the_model(self):
        model = OneLayer(times(2, 3), key="k")
        Always(model).unbind()
        Always(model, {"k": [False, True]}).reset()
        assert model(X).tolist() == [[3.0, 6.0]]

    def test_an_unbound_model_decides_nothing(self):
        model = OneLayer(times(2, 3), key="k")
        mutator = Always(model)
        mutator.reset()
        mutator.unbind()
        with pytest.raises(BindingError, match="op: Mutator not set for 'k'"):
            model(X)

    @pytest.mark.parametrize(
        "use",
        [
            lambda mutator: mutator.reset(),
            lambda mutator: mutator.export(),
            lambda mutator: mutator.mutables,
            lambda mutator: mutator.space,
            lambda mutator: mutator.unbind(),
        ],
    )
    def test_an_unbound_mutator_says_so(self, use):
        mutator = RandomMutator(OneLayer(times(2, 3)))
        mutator.unbind()
        with pytest.raises(BindingError, match="this RandomMutator is bound to no model"):
            use(mutator)

    def test_the_parameters_of_the_model_are_not_the_mutators(self):
        class WithOwn(Always):
            def __init__(self, model):
                super().__init__(model)
                self.alpha = nn.Parameter(torch.zeros(2))

        model = OneLayer([nn.Linear(2, 2), nn.Linear(2, 2)])
        mutator = WithOwn(model)
        assert [name for name, _ in mutator.named_parameters()] == ["alpha"]
        assert list(mutator.state_dict()) == ["alpha"]
        assert not any("alpha" in name for name in model.state_dict())
        assert mutator not in list(model.modules())

    def test_the_model_cannot_be_exchanged(self):
        mutator = RandomMutator(OneLayer(times(2, 3)))
        with pytest.raises(AttributeError, match="bound to one model for life"):
            mutator.model = OneLayer(times(2, 3))

    def test_a_mutator_has_no_forward_pass(self):
        with pytest.raises(RuntimeError, match="Forward is undefined for mutators"):
            RandomMutator(OneLayer(times(2, 3)))(X)

    def test_set_mutator_twice_is_refused_as_in_nni(self):
        choice = LayerChoice(times(2, 3), key="k")
        mutator = RandomMutator(choice)
        with pytest.raises(RuntimeError, match="`set_mutator` is called more than once: 'k' is bound to RandomMutator"):
            choice.set_mutator(mutator)


NUMBERS = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool,
]  # fmt: skip


class TestMaskTypes:
    @pytest.mark.parametrize("dtype", NUMBERS, ids=str)
    def test_a_tensor_of_every_dtype_is_accepted(self, dtype):
        model = decided(OneLayer(times(2, 3, 5), key="k"), {"k": torch.tensor([1, 0, 1]).to(dtype)})
        assert model(X).tolist() == [[7.0, 14.0]]

    @pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "i8", "f2", "f4", "f8"])
    def test_an_array_of_every_dtype_is_accepted(self, dtype):
        model = decided(OneLayer(times(2, 3, 5), key="k"), {"k": np.array([1, 0, 1], dtype=dtype)})
        assert model(X).tolist() == [[7.0, 14.0]]

    @pytest.mark.parametrize("wrap", [list, tuple])
    @pytest.mark.parametrize(
        "values", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], [np.True_, np.False_, np.True_]]
    )
    def test_lists_and_tuples_are_accepted(self, wrap, values):
        assert decided(OneLayer(times(2, 3, 5), key="k"), {"k": wrap(values)})(X).tolist() == [[7.0, 14.0]]

    def test_a_list_of_tensors_is_accepted(self):
        values = [torch.tensor(0.5), torch.tensor(0.0), torch.tensor(2.0)]
        assert decided(OneLayer(times(2, 3, 5), key="k"), {"k": values})(X).tolist() == [[11.0, 22.0]]

    @pytest.mark.parametrize("dtype", NUMBERS[:4], ids=str)
    def test_weights_of_every_floating_dtype_weigh(self, dtype):
        model = decided(OneLayer(times(2, 3, 5), key="k"), {"k": torch.tensor([0.5, 0, 2]).to(dtype)})
        y = model(X)
        assert (y.tolist(), y.dtype) == ([[11.0, 22.0]], torch.float32)

    def test_integers_beyond_zero_and_one_are_weights(self):
        assert decided(OneLayer(times(2, 3), key="k"), {"k": [2, 3]})(X).tolist() == [[13.0, 26.0]]

    def test_weights_take_the_dtype_of_the_outputs(self):
        model = decided(OneLayer(times(2, 3), key="k"), {"k": torch.tensor([0.5, 0.5], dtype=torch.float64)})
        assert model(X.bfloat16()).dtype == torch.bfloat16


class TestMaskErrors:
    def refused(self, decisions):
        model = nn.ModuleDict({"a": LayerChoice(times(2, 3, 5), key="ka"), "b": InputChoice(2, key="kb")})

        class Raw(Mutator):
            def sample_search(self):
                return decisions

            sample_final = sample_search

        with pytest.raises(DecisionError) as caught:
            Raw(model).reset()
        with pytest.raises(DecisionError, match=re.escape("Raw.sample_final")):
            model["a"]._mutator.export()
        return str(caught.value).splitlines()

    @pytest.mark.parametrize(
        ("mask", "problem"),
        [
            ([True, False], "'ka' (a): expected a mask of length 3, given length 2"),
            (torch.ones(4), "'ka' (a): expected a mask of length 3, given length 4"),
            ([[True, False, True]], "'ka' (a): expected a mask of length 3, given shape [1, 3]"),
            (1, "'ka' (a): expected a mask of length 3, given shape []"),
            ([0.5, float("nan"), 0.0], "'ka' (a): [0.5, nan, 0.0] is not finite"),
            ([0.5, float("inf"), 0.0], "'ka' (a): [0.5, inf, 0.0] is not finite"),
            (["a", "b", "c"], "'ka' (a): ['a', 'b', 'c'] is no mask"),
            (None, "'ka' (a): None is no mask"),
            ([True, None, False], "'ka' (a): [True, None, False] is no mask"),
            (torch.ones(3, dtype=torch.complex64), "'ka' (a): tensor([1.+0.j, 1.+0.j, 1.+0.j]) is no mask"),
        ],
    )
    def test_a_wrong_mask_names_key_path_expected_and_given(self, mask, problem):
        lines = self.refused({"ka": mask, "kb": [True, False]})
        assert lines == ["Raw.sample_search does not fit the model", f"  {problem}"]

    def test_a_sparse_tensor_is_no_mask(self):
        lines = self.refused({"ka": torch.ones(3).to_sparse(), "kb": [True, False]})
        assert lines[1].startswith("  'ka' (a): tensor(indices=")

    def test_a_missing_key_is_named_with_its_path(self):
        assert self.refused({"ka": [True, False, False]})[1:] == ["  'kb' (b): no decision"]

    def test_an_unknown_key_is_named_with_the_known_ones(self):
        lines = self.refused({"ka": [True, False, False], "kb": [True, True], "kc": [True]})
        assert lines[1:] == ["  'kc' is no key of the model; it has 'ka', 'kb'"]

    def test_all_problems_are_listed(self):
        assert len(self.refused({"ka": [True], "kc": [True]})) == 1 + 3

    def test_something_else_than_a_dictionary_is_refused(self):
        assert self.refused([True]) == ["Raw.sample_search returned a list, not a dictionary of masks"]

    def test_the_decision_before_stays_after_a_refused_one(self):
        model = OneLayer(times(2, 3), key="k")
        mutator = Always(model, {"k": [False, True]})
        mutator.reset()
        mutator.decisions = {"k": [True]}
        with pytest.raises(DecisionError):
            mutator.reset()
        assert model(X).tolist() == [[3.0, 6.0]]

    @pytest.mark.parametrize("name", ["sample_search", "sample_final"])
    def test_a_subclass_that_does_not_sample_says_so(self, name):
        mutator = Mutator(OneLayer(times(2, 3)))
        with pytest.raises(NotImplementedError, match=f"Mutator must define {name}"):
            getattr(mutator, name)()

    def test_an_architecture_of_another_space_is_refused(self):
        foreign = RandomMutator(OneLayer(times(2, 3), key="other")).final_architecture()
        with pytest.raises(ValueError, match="other: not in the search space\n  k: not decided"):
            Always(OneLayer(times(2, 3), key="k")).apply_architecture(foreign)


class NoTruthTest(TorchDispatchMode):
    """Fails where a tensor's value is fetched: on a GPU that waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise AssertionError(f"{func} in the forward pass")
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") is not None:
            raise AssertionError("a copy between devices in the forward pass")
        return func(*args, **(kwargs or {}))


class TestForwardFetchesNothing:
    def test_the_check_itself_sees_a_truth_test(self):
        with pytest.raises(AssertionError, match=r"_local_scalar_dense|is_nonzero"), NoTruthTest():
            bool(torch.ones(()))

    def test_hard_decisions(self):
        model = Everything()
        mutator = RandomMutator(model, torch.Generator().manual_seed(3))
        mutator.reset()
        with NoTruthTest():
            assert model(torch.ones(2, 1, 4, 4)).shape == (2, 3)

    def test_soft_decisions(self):
        model = Everything()
        weights = {key: torch.full((len(one),), 0.5) for key, one in Always(model).binding.choices.items()}
        model.stem._mutator.unbind()
        decided(model, weights)
        with NoTruthTest():
            assert model(torch.ones(2, 1, 4, 4)).shape == (2, 3)

    def test_a_decision_is_resolved_once_per_reset(self):
        class Counting(Always):
            asked = 0

            def sample_search(self):
                self.asked += 1
                return super().sample_search()

        model = OneLayer(times(2, 3))
        mutator = Counting(model)
        mutator.reset()
        for _ in range(5):
            model(X)
        assert mutator.asked == 1


class TestExport:
    def test_it_returns_tensors_and_may_be_called_again(self):
        mutator = Always(OneLayer(times(2, 3), key="k"), {"k": (False, True)})
        first, second = mutator.export(), mutator.export()
        assert {key: mask.tolist() for key, mask in first.items()} == {"k": [False, True]}
        assert torch.equal(first["k"], second["k"])

    def test_weights_are_exported_as_they_are(self):
        mutator = Always(OneLayer(times(2, 3), key="k"), {"k": torch.tensor([0.25, 0.75])})
        assert (mutator.export()["k"].tolist(), mutator.final_architecture().masks()) == (
            [0.25, 0.75],
            {"k": [0.25, 0.75]},
        )

    def test_status_is_the_present_decision_as_numbers(self):
        mutator = Always(OneLayer(times(2, 3), key="k"), {"k": [False, True]})
        mutator.reset()
        assert mutator.status() == {"k": [0.0, 1.0]}

    def test_the_cache_that_nni_subclasses_read_holds_masks(self):
        mutator = Always(OneLayer(times(2, 3), key="k"), {"k": [False, True]})
        mutator.reset()
        assert mutator._cache["k"].tolist() == [False, True]


class TestOverriding:
    def test_base_mutator_hands_every_choice_to_the_subclass(self):
        class All(BaseMutator):
            def on_forward_layer_choice(self, mutable, *args, **kwargs):
                return sum(op(*args, **kwargs) for op in mutable), torch.ones(len(mutable))

            def on_forward_input_choice(self, mutable, tensor_list):
                return tensor_list[-1], None

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.op = LayerChoice(times(2, 3), return_mask=True)
                self.pick = InputChoice(2)

            def forward(self, x):
                y, mask = self.op(x)
                return self.pick([x, y * mask.sum()])

        model = Model()
        All(model)
        assert model(X).tolist() == [[10.0, 20.0]]

    @pytest.mark.parametrize(
        ("model", "method"),
        [(OneLayer(times(2)), "on_forward_layer_choice"), (nn.Sequential(InputChoice(1)), "on_forward_input_choice")],
    )
    def test_a_base_mutator_that_overrides_nothing_says_what_is_missing(self, model, method):
        BaseMutator(model)
        with pytest.raises(NotImplementedError, match=f"BaseMutator must define {method}"):
            model([X])

    def test_base_mutator_has_no_export(self):
        with pytest.raises(NotImplementedError, match="BaseMutator must define export"):
            BaseMutator(OneLayer(times(2))).export()

    def test_on_forward_of_a_mutator_may_add_to_the_decision(self):
        class Negating(Always):
            def on_forward_layer_choice(self, mutable, *args, **kwargs):
                output, mask = super().on_forward_layer_choice(mutable, *args, **kwargs)
                return -output, mask

            def on_forward_input_choice(self, mutable, tensor_list):
                output, mask = super().on_forward_input_choice(mutable, [-one for one in tensor_list])
                return output, mask

        model = nn.Sequential(LayerChoice(times(2, 3), key="k"))
        pick = nn.Sequential(InputChoice(2, key="p"))
        layer, inputs = Negating(model, {"k": [False, True]}), Negating(pick, {"p": [False, True]})
        layer.reset()
        inputs.reset()
        assert (model(X).tolist(), pick([X, 2 * X]).tolist()) == ([[-3.0, -6.0]], [[-2.0, -4.0]])

    def test_random_mutator_honours_an_overridden_forward(self):
        class Negating(RandomMutator):
            def on_forward_layer_choice(self, mutable, *args, **kwargs):
                output, mask = super().on_forward_layer_choice(mutable, *args, **kwargs)
                return -output, mask

        model = OneLayer([Times(2)], key="k")
        Negating(model).reset()
        assert model(X).tolist() == [[-2.0, -4.0]]

    def test_random_mutator_honours_an_overridden_sample(self):
        class Second(RandomMutator):
            def sample_search(self):
                return {"k": [False, True]}

        model = OneLayer(times(2, 3), key="k")
        Second(model).reset()
        assert model(X).tolist() == [[3.0, 6.0]]


def test_a_constructor_that_refuses_the_model_leaves_it_free() -> None:
    class Choosy(Always):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            raise ValueError("not this one")

    model = OneLayer(times(1.0, 2.0))
    with pytest.raises(ValueError, match=r"^not this one$"):
        Choosy(model)
    Always(model).reset()
    assert model(torch.ones(1)).item() == 1.0
