"""Where mutables are found, and everything that can be wrong with a model's search space."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, MutableScope, NnasError, RandomMutator, SearchSpace
from nnas_core.errors import ExitCode, SpaceError
from tests.mutables.sample_models import Times, times


def choice(key, **options):
    return LayerChoice(times(1, 2), key=key, **options)


class TestPlaces:
    @pytest.mark.parametrize(
        ("container", "names"),
        [
            (lambda: nn.ModuleList([choice("a"), choice("b")]), ["0", "1"]),
            (lambda: nn.ModuleDict({"x": choice("a"), "y": choice("b")}), ["x", "y"]),
            (lambda: nn.Sequential(choice("a"), nn.ReLU(), choice("b")), ["0", "2"]),
            (lambda: nn.ModuleList([nn.Sequential(nn.ModuleDict({"deep": choice("a")}))]), ["0.0.deep"]),
        ],
    )
    def test_they_are_found_in_containers(self, container, names):
        assert [one.name for one in RandomMutator(container()).mutables] == names

    def test_they_are_found_when_they_were_made_in_a_loop(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                for index in range(3):
                    setattr(self, f"op{index}", LayerChoice(times(1, 2)))

        assert SearchSpace.from_model(Model()).keys == ("LayerChoice1", "LayerChoice2", "LayerChoice3")

    def test_they_are_visited_depth_first_in_the_order_of_registration(self):
        inner = nn.Sequential(choice("b"), choice("a"))
        assert [one.key for one in RandomMutator(nn.Sequential(choice("z"), inner, choice("c"))).mutables] == list(
            "zbac"
        )

    def test_children_that_are_none_are_passed_over(self):
        model = nn.Sequential(choice("a"))
        model.register_module("missing", None)
        assert SearchSpace.from_model(model).keys == ("a",)

    def test_a_shared_block_counts_once(self):
        block = nn.Sequential(choice("a"))
        assert SearchSpace.from_model(nn.Sequential(block, nn.Sequential(block))).keys == ("a",)

    def test_the_model_may_be_a_mutable_itself(self):
        assert SearchSpace.from_model(choice("root")).keys == ("root",)


class TestCreatedInForward:
    class Model(nn.Module):
        def forward(self, x):
            return LayerChoice(times(1, 2), key="late")(x)

    def test_running_one_says_that_it_was_created_too_late(self):
        with pytest.raises(RuntimeError, match="Mutator not set for 'late'") as caught:
            self.Model()(torch.ones(1))
        assert caught.value.hint == (
            "bind the model to a mutator first; a mutable that is created in forward() is never found,"
            " create it in __init__"
        )

    def test_a_model_without_mutables_is_refused_with_the_same_advice(self):
        with pytest.raises(SpaceError, match="Model contains no mutables") as caught:
            SearchSpace.from_model(self.Model())
        assert (
            caught.value.hint
            == "mark choices with LayerChoice or InputChoice in __init__ (in forward they are not found)"
        )

    def test_before_the_first_reset_nothing_is_decided(self):
        model = nn.Sequential(choice("a"))
        RandomMutator(model)
        with pytest.raises(ValueError, match="0: 'a' not found in decision cache: nothing is decided yet"):
            model(torch.ones(1))


def problems_of(model):
    with pytest.raises(SpaceError, match="make no search space") as caught:
        RandomMutator(model)
    return list(caught.value.problems)


class TestProblems:
    @pytest.mark.parametrize(
        ("model", "problem"),
        [
            (
                lambda: nn.Sequential(LayerChoice([nn.Sequential(choice("in"))], key="out")),
                "0.0.0: nested search space: a LayerChoice inside the LayerChoice '0'",
            ),
            (
                lambda: nn.Sequential(LayerChoice([MutableScope("in")], key="out")),
                "0.0: nested search space: a MutableScope inside the LayerChoice '0'",
            ),
            (
                lambda: nn.Sequential(InputChoice(choose_from=["later"], key="p"), choice("later")),
                "0: choose_from names 'later', which is no key of a mutable before 'p', and not NO_KEY",
            ),
            (
                lambda: nn.Sequential(LayerChoice(times(1, 2), key="k"), LayerChoice(times(1, 2, 3), key="k")),
                "1: the key 'k' is a layer_choice of [0, 1, 2] here, but a layer_choice of [0, 1] at 0",
            ),
            (
                lambda: nn.Sequential(InputChoice(2, n_chosen=1, key="k"), InputChoice(2, key="k")),
                (
                    "1: the key 'k' is a input_choice of [, ] with n_chosen None here, "
                    "but a input_choice of [, ] with n_chosen 1 at 0"
                ),
            ),
            (
                lambda: nn.Sequential(choice("k"), InputChoice(2, key="k")),
                "1: the key 'k' is a input_choice of [, ] with n_chosen None here, but a layer_choice of [0, 1] at 0",
            ),
            (
                lambda: nn.Sequential(MutableScope("k"), choice("k")),
                "1: the key 'k' is also that of 0, and only one of the two is a scope",
            ),
            (
                lambda: nn.Sequential(choice("k", reduction="max")),
                "0: 'k' has the reduction 'max', which is none of sum, mean, concat, none",
            ),
            (
                lambda: nn.Sequential(InputChoice(2, reduction="max", key="k")),
                "0: 'k' has the reduction 'max', which is none of sum, mean, concat, none",
            ),
            (lambda: nn.Sequential(LayerChoice([], key="k")), "0: 'k' has no candidates"),
            (lambda: LayerChoice([], key="k"), "the model itself: 'k' has no candidates"),
        ],
    )
    def test_a_problem_is_named_with_its_module_path(self, model, problem):
        assert problems_of(model()) == [problem]

    def test_all_problems_of_a_model_are_reported_together(self):
        model = nn.ModuleDict(
            {
                "scope": MutableScope("s"),
                "outer": LayerChoice([nn.Sequential(choice("inner"))], key="outer"),
                "clash": choice("s"),
                "short": LayerChoice([Times(1)], key="outer", reduction="product"),
                "empty": LayerChoice([], key="empty"),
                "tags": InputChoice(choose_from=["nobody", "", "no one"], key="tags"),
                "other": InputChoice(2, key="empty"),
            }
        )
        paths = [problem.split(":")[0] for problem in problems_of(model)]
        assert sorted(paths) == ["clash", "empty", "other", "outer.0.0", "short", "tags", "tags"]

    def test_the_error_is_nnis_and_ours(self):
        with pytest.raises(RuntimeError) as caught:
            RandomMutator(nn.Sequential(LayerChoice([], key="k")))
        assert isinstance(caught.value, NnasError)
        assert caught.value.exit_code == ExitCode.USER_CODE

    def test_a_refused_model_stays_free(self):
        model = nn.Sequential(LayerChoice(times(1), key="k", reduction="max"))
        problems_of(model)
        model[0].reduction = "sum"
        assert RandomMutator(model).space.keys == ("k",)

    def test_the_space_is_refused_as_binding_is(self):
        with pytest.raises(SpaceError, match="0: 'k' has no candidates"):
            SearchSpace.from_model(nn.Sequential(LayerChoice([], key="k")))

    def test_a_mutable_may_choose_from_itself_as_in_nni(self):
        model = nn.Sequential(InputChoice(choose_from=["me", ""], key="me"))
        assert SearchSpace.from_model(model).keys == ("me",)

    def test_choose_from_may_name_a_scope(self):
        model = nn.Sequential(MutableScope("s"), InputChoice(choose_from=["s", ""], key="p"))
        assert SearchSpace.from_model(model).keys == ("p",)
