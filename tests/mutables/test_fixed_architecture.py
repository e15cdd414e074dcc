"""apply_fixed_architecture: every form of reference/nni-1.x.md 1.4 and 1.7, and its errors."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from nnas_core import FixedArchitecture, InputChoice, LayerChoice, RandomMutator, SearchSpace, apply_fixed_architecture
from nnas_core.errors import ArchitectureError, BindingError, DecisionError, InputError, NnasWarning
from nnas_core.space.architecture import document_of
from tests.mutables.sample_models import Always, Cell, OneLayer, times

X = torch.ones(1)


class Model(nn.Module):
    """op: 2, 3 or 5 times; pick: x, y, or their sum."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice(OrderedDict(two=times(2)[0], three=times(3)[0], five=times(5)[0]), key="op")
        self.pick = InputChoice(choose_from=["op", ""], key="pick")

    def forward(self, x):
        return self.pick([self.op(x), x])


Y = {"pick": [True, False]}


def result(op, pick=(True, False)):
    model = Model()
    apply_fixed_architecture(model, {"op": op, "pick": list(pick)})
    return model(X).tolist()


class TestForms:
    @pytest.mark.parametrize(
        "op",
        [
            "three", 1, ["three"], [1], [False, True, False], (False, True, False), [0.0, 1.0, 0.0],
            torch.tensor([False, True, False]), torch.tensor([0.0, 1.0, 0.0]), np.array([False, True, False]),
            np.array([0.0, 1.0, 0.0]), np.int64(1), torch.tensor(1), {"_value": "three", "_idx": 1},
            {"_value": "three", "_idex": 1},
        ],
        ids=repr,
    )  # fmt: skip
    def test_one_candidate(self, op):
        assert result(op) == [3.0]

    @pytest.mark.parametrize("op", [["two", "five"], [0, 2], [True, False, True], torch.tensor([True, False, True])])
    def test_several_candidates(self, op):
        assert result(op) == [7.0]

    @pytest.mark.parametrize("op", [[0.5, 0.0, 2.0], torch.tensor([0.5, 0.0, 2.0]), np.array([0.5, 0, 2.0])])
    def test_weights(self, op):
        assert result(op) == [11.0]

    @pytest.mark.parametrize("pick", [["op", ""], [True, True], [1.0, 1.0]])
    def test_inputs(self, pick):
        assert result("two", pick) == [3.0]

    def test_the_empty_name_is_the_input_without_a_key(self):
        assert result("two", [""]) == [1.0]

    def test_a_full_list_of_zeros_and_ones_warns_that_it_means_indices(self):
        with pytest.warns(NnasWarning, match=r"op: \[0, 1, 0\] is read as the indices \[0, 1\]"):
            assert result([0, 1, 0]) == [5.0]

    @pytest.mark.parametrize("convert", [str, lambda path: path])
    def test_a_path(self, tmp_path, convert):
        file = tmp_path / "architecture.json"
        file.write_text('{"op": "five", "pick": [true, false]}')
        model = Model()
        apply_fixed_architecture(model, convert(file))
        assert model(X).tolist() == [5.0]

    @pytest.mark.parametrize("form", ["masks", "names", "indices", "parameters"])
    def test_a_file_in_every_form_that_we_write(self, tmp_path, form):
        space = SearchSpace.from_model(Model())
        architecture = space.parse({"op": "five", "pick": ["op"]})
        file = tmp_path / "architecture.json"
        file.write_text(json.dumps(architecture.to_form(form)))
        model = Model()
        apply_fixed_architecture(model, str(file))
        assert model(X).tolist() == [5.0]

    def test_a_document(self, tmp_path):
        space = SearchSpace.from_model(Model())
        file = tmp_path / "architecture.json"
        file.write_text(json.dumps(document_of(space.parse({"op": "five", "pick": ["op"]}), space.fingerprint)))
        model = Model()
        apply_fixed_architecture(model, file)
        assert model(X).tolist() == [5.0]

    def test_an_architecture_object(self):
        model = Model()
        apply_fixed_architecture(model, SearchSpace.from_model(model).parse({"op": "five", "pick": ["op"]}))
        assert model(X).tolist() == [5.0]

    def test_what_a_mutator_exports(self):
        exported = Always(Model(), {"op": [False, False, True]}).export()
        model = Model()
        apply_fixed_architecture(model, exported)
        assert model(X).tolist() == [5.0]

    def test_a_bool_list_file_of_nni_with_automatic_keys(self):
        # the form of spos/architecture_final.json: LayerChoice1..N
        model = nn.Sequential(*(LayerChoice(times(2, 3)) for _ in range(11)))
        arc = {f"LayerChoice{number}": [number != 11, number == 11] for number in range(1, 12)}
        apply_fixed_architecture(model, json.loads(json.dumps(arc)))
        assert model(X).item() == 2**10 * 3

    def test_nothing_for_a_model_without_mutables(self):
        model = nn.Linear(1, 1)
        apply_fixed_architecture(model, {})
        assert model(X).shape == (1,)


class TestReplacing:
    def test_a_single_choice_becomes_its_candidate(self):
        model = Model()
        apply_fixed_architecture(model, {"op": "three", "pick": ["op"]})
        assert model.op.factor == 3

    def test_state_dict_names_lose_the_candidate(self):
        model = OneLayer([nn.Linear(2, 3), nn.Linear(2, 3)], key="k")
        before = list(model.state_dict())
        second = model.op[1].weight
        apply_fixed_architecture(model, {"k": 1})
        assert (before, list(model.state_dict())) == (
            ["op.0.weight", "op.0.bias", "op.1.weight", "op.1.bias"],
            ["op.weight", "op.bias"],
        )
        assert model.op.weight is second

    @pytest.mark.parametrize("choice", [[0, 2], [0.5, 0.0, 0.5]])
    def test_several_keep_their_names_and_the_others_are_gone(self, choice):
        model = OneLayer([nn.Linear(2, 3) for _ in range(3)], key="k")
        apply_fixed_architecture(model, {"k": choice})
        assert list(model.state_dict()) == ["op.0.weight", "op.0.bias", "op.2.weight", "op.2.bias"]
        assert (len(model.op), model.op[1]) == (3, None)

    def test_return_mask_keeps_the_choice(self):
        model = OneLayer([nn.Linear(2, 3), nn.Linear(2, 3)], return_mask=True, key="k")
        apply_fixed_architecture(model, {"k": 1})
        output, mask = model(torch.ones(1, 2))
        assert (list(model.state_dict()), mask.tolist(), output.shape) == (
            ["op.1.weight", "op.1.bias"],
            [False, True],
            (1, 3),
        )

    def test_a_choice_under_two_names_is_replaced_under_both(self):
        choice = LayerChoice([nn.Linear(2, 2), nn.Linear(2, 2)], key="k")
        model = nn.ModuleDict({"first": choice, "second": choice, "list": nn.ModuleList([choice])})
        apply_fixed_architecture(model, {"k": 1})
        assert isinstance(model["first"], nn.Linear)
        assert model["first"] is model["second"] is model["list"][0]

    def test_a_choice_that_is_the_model_runs_its_candidate(self):
        model = LayerChoice(times(2, 3), key="k")
        apply_fixed_architecture(model, {"k": 1})
        assert (model(X).tolist(), model[0]) == ([3.0], None)

    def test_a_candidate_that_was_removed_cannot_be_decided(self):
        model = LayerChoice(times(2, 3), key="k")
        mutator = apply_fixed_architecture(model, {"k": 1})
        with pytest.raises(DecisionError, match="candidate 0 of 'k' was removed by a fixed architecture"):
            mutator.decide({"k": (0,)})

    def test_equal_keys_are_fixed_alike(self):
        model = nn.Sequential(LayerChoice(times(2, 3), key="k"), LayerChoice(times(5, 7), key="k"))
        apply_fixed_architecture(model, {"k": 1})
        assert model(X).item() == 21

    def test_training_after_fixing_reaches_only_what_is_left(self):
        model = OneLayer([nn.Linear(2, 1), nn.Linear(2, 1)], key="k")
        apply_fixed_architecture(model, {"k": 0})
        model(torch.ones(1, 2)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_the_key_can_still_be_read(self):
        model = Model()
        apply_fixed_architecture(model, {"op": "two", "pick": ["op"]})
        assert model.op.key == "op"


class TestMutator:
    def test_export_may_be_called_again_and_changes_nothing(self):
        arc = {"op": "three", "pick": ["op"]}
        model = Model()
        mutator = apply_fixed_architecture(model, arc)
        exports = [{key: mask.tolist() for key, mask in mutator.export().items()} for _ in range(2)]
        assert exports == [{"op": [False, True, False], "pick": [True, False]}] * 2
        assert (arc, model(X).tolist()) == ({"op": "three", "pick": ["op"]}, [3.0])

    def test_without_replacing_the_model_keeps_its_structure(self):
        model = Model()
        mutator = FixedArchitecture(model, {"op": "three", "pick": ["op"]})
        mutator.reset()
        assert (isinstance(model.op, LayerChoice), model(X).tolist()) == (True, [3.0])

    def test_strict_false_lets_unexpected_keys_pass(self):
        mutator = FixedArchitecture(Model(), {"op": "three", "pick": ["op"], "old": 1}, strict=False)
        assert mutator.final_architecture().names() == {"op": "three", "pick": "op"}

    def test_strict_false_still_needs_every_key(self):
        with pytest.raises(ArchitectureError, match="missing keys: 'pick'"):
            FixedArchitecture(Model(), {"op": "three"}, strict=False)

    def test_a_second_architecture_for_the_same_model_is_refused(self):
        model = Model()
        apply_fixed_architecture(model, {"op": "three", "pick": ["op"]})
        with pytest.raises(BindingError, match="bound to a FixedArchitecture already"):
            apply_fixed_architecture(model, {"pick": ["op"]})

    def test_the_same_architecture_after_full_replacement_is_refused(self):
        model = OneLayer(times(2, 3), key="k")
        apply_fixed_architecture(model, {"k": 1})
        with pytest.raises(RuntimeError, match="unexpected keys found: 'k'"):
            apply_fixed_architecture(model, {"k": 1})


class TestErrors:
    @pytest.mark.parametrize(
        ("arc", "problems"),
        [
            (
                {"op": "four", "pick": ["op"]},
                ["op: no candidate is named 'four'; expected a name among 'two', 'three', 'five'"],
            ),
            ({"op": 3, "pick": ["op"]}, ["op: index 3 is out of range"]),
            ({"op": -1, "pick": ["op"]}, ["op: index -1 is out of range"]),
            ({"op": None, "pick": ["op"]}, ["op: None is no decision"]),
            ({"op": True, "pick": ["op"]}, ["op: True is no decision"]),
            ({"op": [True], "pick": ["op"]}, ["op: a mask of 1 entries for 3 candidates"]),
            ({"op": [0.5, 0.5], "pick": ["op"]}, ["op: 2 weights for 3 candidates"]),
            ({"op": "two"}, ["missing keys: 'pick'"]),
            ({"op": "two", "pick": [], "x": 1, "y": 2}, ["unexpected keys found: 'x', 'y'"]),
            (
                {"op": "four", "z": 1},
                ["unexpected keys found: 'z'", "missing keys: 'pick'", "op: no candidate is named 'four'"],
            ),
        ],
        ids=repr,
    )
    def test_every_problem_is_listed(self, arc, problems):
        with pytest.raises(RuntimeError) as caught:
            apply_fixed_architecture(Model(), arc)
        found = [problem[: len(expected)] for problem, expected in zip(caught.value.problems, problems, strict=True)]
        assert found == problems

    def test_a_refused_architecture_leaves_the_model_free_and_whole(self):
        model = Model()
        with pytest.raises(ArchitectureError):
            apply_fixed_architecture(model, {"op": "four"})
        assert isinstance(model.op, LayerChoice)
        RandomMutator(model)

    def test_scopes_are_no_keys(self):
        with pytest.raises(ArchitectureError, match="unexpected keys found: 'outer'"):
            apply_fixed_architecture(Cell("outer", 2, ["", ""]), {"outer": 0, "outer_op": 0, "outer_pick": [0]})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"arc\.json:1:1: is empty, JSON is needed"),
            ('{"op": }', r"arc\.json:1:8: not JSON: expecting value"),
            ("[1, 2]", "an architecture is an object of keys, not a list"),
            ('{"op": NaN}', r"arc\.json: not JSON: NaN is not a number that JSON knows"),
            ('{"op": 1, "op": 2}', r"arc\.json: not JSON: the name 'op' stands twice in one object"),
        ],
    )
    def test_a_file_that_is_no_architecture(self, tmp_path, content, message):
        file = tmp_path / "arc.json"
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            apply_fixed_architecture(Model(), str(file))

    def test_no_such_file(self, tmp_path):
        with pytest.raises(InputError, match=r"missing\.json: no such file"):
            apply_fixed_architecture(Model(), str(tmp_path / "missing.json"))

    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match="is a directory, a file is needed"):
            apply_fixed_architecture(Model(), str(tmp_path))
