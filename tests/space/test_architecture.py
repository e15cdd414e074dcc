"""Architecture: every form that is written is read again, everything NNI wrote too, and errors list all."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import torch

from nnas_core import Architecture, NnasError, SearchSpace
from nnas_core.errors import ArchitectureError, ExitCode, InputError, NnasWarning
from nnas_core.space.architecture import FORMS, document_of

SPACE = SearchSpace.from_json(
    {
        "op": {"_type": "layer_choice", "_value": ["conv", "pool", "skip"]},
        "any": {"_type": "input_choice", "_value": {"candidates": ["x", "y"], "n_chosen": None}},
        "two": {"_type": "input_choice", "_value": {"candidates": ["", "", "z"], "n_chosen": 2}},
    }
)
EVERY = [SPACE.at(index) for index in range(SPACE.size)]


def one(value):
    """The decision that ``value`` is read as at ``op``."""
    document = {"op": value, "any": [], "two": [0, 1]}
    return SPACE.parse(document).masks()["op"]


class TestForms:
    def test_the_four_forms_of_one_architecture(self):
        architecture = SPACE.parse({"op": 1, "any": [True, True], "two": [0, 2]})
        assert {form: architecture.to_form(form) for form in FORMS} == {
            "masks": {"op": [False, True, False], "any": [True, True], "two": [True, False, True]},
            "names": {"op": "pool", "any": ["x", "y"], "two": [0, 2]},  # names repeat at "two", so indices
            "indices": {"op": [1], "any": [0, 1], "two": [0, 2]},
            "parameters": {
                "op": {"_value": "pool", "_idx": 1},
                "any": {"_value": ["x", "y"], "_idx": [0, 1]},
                "two": {"_value": ["", "z"], "_idx": [0, 2]},
            },
        }

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.filterwarnings("ignore:.*is read as the indices:UserWarning")
    def test_every_architecture_is_read_from_every_form_after_json(self, form):
        again = [SPACE.parse(json.loads(json.dumps(one.to_form(form)))) for one in EVERY]
        assert again == EVERY

    def test_every_architecture_is_read_from_its_document(self):
        documents = [json.loads(json.dumps(document_of(one, SPACE.fingerprint))) for one in EVERY]
        assert [SPACE.parse(document) for document in documents] == EVERY

    def test_a_document_has_its_parts_where_they_are_given(self):
        document = document_of(EVERY[0], "sha256:0", metrics={"accuracy": 0.5}, cost={}, provenance={"seed": 0})
        assert document == {
            "format": "nnas.architecture/1",
            "architecture": EVERY[0].masks(),
            "space": {"fingerprint": "sha256:0"},
            "metrics": {"accuracy": 0.5},
            "provenance": {"seed": 0},
        }

    def test_weights_are_written_as_masks_only(self):
        soft = SPACE.parse({"op": [0.1, 0.9, 0.0], "any": [], "two": [0, 1]})
        assert (soft.is_hard, soft.masks()["op"]) == (False, [0.1, 0.9, 0.0])
        with pytest.raises(ArchitectureError, match="op: the decision weighs its candidates"):
            soft.names()

    def test_several_layers_at_once_are_no_parameters_of_a_trial(self):
        architecture = SPACE.parse({"op": [0, 2], "any": [], "two": [0, 1]})
        with pytest.raises(ArchitectureError, match="op: a layer choice of a trial takes one candidate, this takes 2"):
            architecture.parameters()


class TestReading:
    @pytest.mark.parametrize(
        "value",
        [
            "pool", 1, ["pool"], [1], (1,), [False, True, False], (False, True, False), np.int64(1), np.array([1]),
            np.array([False, True, False]), torch.tensor([False, True, False]), torch.tensor(1), torch.tensor([1]),
            [np.bool_(False), np.bool_(True), np.bool_(False)], [torch.tensor(1)],
            {"_value": "pool", "_idx": 1}, {"_value": "pool", "_idex": 1},
        ],
        ids=repr,
    )  # fmt: skip
    def test_one_candidate(self, value):
        assert one(value) == [False, True, False]

    @pytest.mark.parametrize("value", [["conv", "skip"], [2, 0], ["conv", 2], [True, False, True]], ids=repr)
    def test_several_candidates(self, value):
        assert one(value) == [True, False, True]

    def test_no_candidate(self):
        assert one([]) == [False, False, False]

    @pytest.mark.parametrize(
        "value",
        [[0.25, 0.0, 0.75], np.array([0.25, 0.0, 0.75]), torch.tensor([0.25, 0.0, 0.75]), (0.25, 0, 0.75)],
        ids=["list", "array", "tensor", "tuple"],
    )
    def test_weights(self, value):
        assert one(value) == [0.25, 0.0, 0.75]

    def test_a_float_list_of_zeros_and_ones_stays_weights(self):
        assert one([0.0, 1.0, 0.0]) == [0.0, 1.0, 0.0]

    @pytest.mark.parametrize(("value", "mask"), [([0, 1, 0], [True, True, False]), ([1, 1, 1], [False, True, False])])
    def test_a_full_list_of_the_integers_zero_and_one_is_read_as_indices_with_a_warning(self, value, mask):
        with pytest.warns(NnasWarning, match=r"op: \[.*\] is read as the indices \[.*\]; write booleans for a mask"):
            assert one(value) == mask

    def test_a_name_of_digits_is_a_name(self):
        space = SearchSpace.from_json({"k": {"_type": "layer_choice", "_value": ["3", "0"]}})
        assert (space.parse({"k": "0"}).indices(), space.parse({"k": 0}).indices()) == ({"k": (1,)}, {"k": (0,)})

    def test_the_empty_name_is_the_first_input_without_a_key(self):
        assert SPACE.parse({"op": 0, "any": [], "two": ["", "z"]}).indices()["two"] == (0, 2)

    def test_parameters_of_an_input_choice(self):
        value = {"_value": ["y"], "_idx": [1]}
        assert SPACE.parse({"op": 0, "any": value, "two": [0, 1]}).indices()["any"] == (1,)


class TestErrors:
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("conv5", "op: no candidate is named 'conv5'; expected a name among 'conv', 'pool', 'skip'"),
            (3, "op: index 3 is out of range"),
            (-1, "op: index -1 is out of range"),
            ([0, 3], "op: index 3 is out of range"),
            (None, "op: None is no decision"),
            (True, "op: True is no decision"),
            (1.0, "op: 1.0 is no decision"),
            ([True], "op: a mask of 1 entries for 3 candidates"),
            ([True] * 4, "op: a mask of 4 entries for 3 candidates"),
            ([0.5, 0.5], "op: 2 weights for 3 candidates"),
            ([0.5, float("nan"), 0.5], r"op: the weights \[0.5, nan, 0.5\] are not all finite"),
            ([1, 1], r"op: \[1, 1\] chooses a candidate twice"),
            ([None], "op: None is neither a candidate's name nor an index"),
            ([True, "pool"], "op: True is neither a candidate's name nor an index"),
            ([[1]], r"op: \[1\] is neither a candidate's name nor an index"),
            ({"_value": "pool"}, "op: an object needs both _value and _idx"),
            ({"_idx": 1}, "op: an object needs both _value and _idx"),
            ({"_value": "pool", "_idx": 0}, "op: _idx 0 is 'conv', not 'pool'"),
            ({"_value": "pool", "_idx": 7}, "op: index 7 is out of range"),
            ({"_value": ["pool"], "_idx": [1]}, r"op: \[1\] is neither a candidate's name nor an index"),
            ({"_value": "pool", "_idx": "pool"}, "op: _idx 'pool' is 'pool', not 'pool'|op: _idx 'pool'"),
            ({}, "op: an object needs both _value and _idx"),
        ],
        ids=repr,
    )
    def test_a_value_that_is_no_decision(self, value, problem):
        with pytest.raises(ArchitectureError, match=problem):
            one(value)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({"_value": "y", "_idx": 1}, "two: _value and _idx must be lists of one length"),
            ({"_value": ["", "z"], "_idx": [2]}, "two: _value and _idx must be lists of one length"),
            ({"_value": ["z", "z"], "_idx": [2, 2]}, r"two: _idx \[2, 2\] chooses a candidate twice"),
            ({"_value": ["z"], "_idx": [2]}, "two: chooses 1 candidates, n_chosen is 2"),
        ],
    )
    def test_wrong_parameters_of_an_input_choice(self, value, problem):
        with pytest.raises(ArchitectureError, match=problem):
            SPACE.parse({"op": 0, "any": [], "two": value})

    def test_everything_wrong_is_listed(self):
        with pytest.raises(ArchitectureError) as caught:
            SPACE.parse({"op": "conv5", "any": [7], "extra": 1, "more": 2, 5: 1})
        assert [problem.split(";")[0] for problem in caught.value.problems] == [
            "unexpected keys found: 5, 'extra', 'more'",
            "missing keys: 'two'",
            "any: index 7 is out of range",
            "op: no candidate is named 'conv5'",
        ]

    def test_unexpected_keys_pass_where_that_is_asked_for(self):
        document = {**EVERY[5].masks(), "extra": 1}
        assert Architecture.parse(document, SPACE.choices, strict=False) == EVERY[5]

    @pytest.mark.parametrize(
        ("document", "kind"), [(None, "null"), ([], "a list"), ("pool", "a text"), (3, "a number"), (True, "a boolean")]
    )
    def test_something_else_than_an_object(self, document, kind):
        with pytest.raises(ArchitectureError, match=f"an architecture is an object of keys, not {kind}"):
            SPACE.parse(document)

    def test_a_damaged_document(self):
        with pytest.raises(InputError, match="not an architecture document") as caught:
            SPACE.parse({"format": "nnas.architecture/1", "architecture": [], "surplus": 1})
        assert len(caught.value.problems) >= 2

    def test_the_error_is_what_nni_raised_and_ours(self):
        with pytest.raises(RuntimeError) as caught:
            SPACE.parse({})
        assert isinstance(caught.value, ValueError | NnasError)
        assert caught.value.exit_code == ExitCode.INPUT


class TestValue:
    def test_canonical_text_is_equal_exactly_for_equal_architectures(self):
        pairs = itertools.product(EVERY, EVERY)
        assert all((one == other) == (one.canonical == other.canonical) for one, other in pairs)

    def test_canonical_text_is_read_again(self):
        assert [Architecture.from_canonical(one.canonical, SPACE.choices) for one in EVERY] == EVERY

    @pytest.mark.parametrize("weights", [[0.1, 0.9, 0.0], [1.0, 0.0, 0.0], [1e-300, 1e300, -2.5]])
    def test_canonical_text_of_weights_is_read_again(self, weights):
        soft = SPACE.parse({"op": weights, "any": [], "two": [0, 1]})
        assert Architecture.from_canonical(soft.canonical, SPACE.choices) == soft

    def test_equal_architectures_are_one_element_of_a_set(self):
        assert len({*EVERY, *(SPACE.parse(one.masks()) for one in EVERY)}) == len(EVERY)

    def test_hard_and_soft_decisions_differ(self):
        assert SPACE.parse({"op": 1, "any": [], "two": [0, 1]}) != SPACE.parse(
            {"op": [0.0, 1.0, 0.0], "any": [], "two": [0, 1]}
        )

    def test_replace_changes_one_key_of_a_copy(self):
        changed = EVERY[0].replace("op", (2,))
        assert (changed.masks()["op"], EVERY[0].masks()["op"]) == ([False, False, True], [True, False, False])

    def test_it_reads_as_a_mapping_of_masks(self):
        architecture = SPACE.parse({"op": 1, "any": [], "two": [0, 1]})
        assert (dict(architecture.masks())["op"], architecture["op"], len(architecture), sorted(architecture)) == (
            [False, True, False],
            (False, True, False),
            3,
            ["any", "op", "two"],
        )

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
    def test_it_is_copied_and_pickled(self, clone):
        assert [clone(one) for one in EVERY] == EVERY

    def test_its_text_shows_the_names(self):
        assert (
            repr(SPACE.parse({"op": 1, "any": [0], "two": [0, 2]}))
            == "Architecture({'any': 'x', 'op': 'pool', 'two': [0, 2]})"
        )
