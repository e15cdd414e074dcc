"""SearchSpace: against enumeration by itertools."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from torch import nn

from nnas_core import Choice, InputChoice, LayerChoice, SearchSpace
from nnas_core.errors import ArchitectureError, InputError
from tests.mutables.sample_models import times


def layers(count):
    return {"_type": "layer_choice", "_value": [f"op{index}" for index in range(count)]}


def inputs(count, n_chosen):
    names = [f"in{index}" for index in range(count)]
    return {"_type": "input_choice", "_value": {"candidates": names, "n_chosen": n_chosen}}


MIXED = {"a": layers(3), "b": inputs(3, None), "c": inputs(4, 2), "d": inputs(2, 0), "e": layers(1), "f": inputs(2, 1)}


def enumerate_masks(document):
    """Every architecture as a tuple of masks, by brute force over all masks."""
    per_key = []
    for entry in document.values():
        if entry["_type"] == "layer_choice":
            length, allowed = len(entry["_value"]), {1}
        else:
            length, n_chosen = len(entry["_value"]["candidates"]), entry["_value"]["n_chosen"]
            allowed = set(range(length + 1)) if n_chosen is None else {n_chosen}
        masks = itertools.product([False, True], repeat=length)
        per_key.append([mask for mask in masks if sum(mask) in allowed])
    return set(itertools.product(*per_key))


def as_masks(architecture):
    return tuple(tuple(mask) for mask in architecture.masks().values())


SPACE = SearchSpace.from_json(MIXED)
ALL = enumerate_masks(MIXED)


def test_size_is_exact_against_enumeration():
    assert SPACE.size == len(ALL) == 3 * 8 * 6 * 1 * 1 * 2


def test_size_is_exact_beyond_floating_point():
    document = {f"k{index}": inputs(70, 35) for index in range(20)}
    assert SearchSpace.from_json(document).size == math.comb(70, 35) ** 20


def test_at_is_a_bijection():
    assert {as_masks(SPACE.at(index)) for index in range(SPACE.size)} == ALL


def test_the_last_key_varies_fastest():
    first, second = SPACE.at(0), SPACE.at(1)
    assert [key for key in SPACE.keys if first[key] != second[key]] == ["f"]


@pytest.mark.parametrize("index", [-1, SPACE.size])
def test_at_refuses_what_is_out_of_range(index):
    with pytest.raises(IndexError, match=f"architecture {index} of 288"):
        SPACE.at(index)


@pytest.mark.parametrize("entry", MIXED.values(), ids=list(MIXED))
def test_a_choice_numbers_its_decisions_without_gaps(entry):
    choice = Choice.from_json("k", entry)
    assert [choice.number(choice.decision(index)) for index in range(choice.size)] == list(range(choice.size))
    assert len(set(choice.decisions())) == choice.size


def test_a_choice_refuses_a_number_out_of_range():
    with pytest.raises(IndexError, match="decision 6 of 6 at 'k'"):
        Choice.from_json("k", inputs(4, 2)).decision(6)


def test_numbers_of_large_subsets_are_exact():
    choice = Choice.from_json("k", inputs(100, 50))
    numbers = [0, 1, choice.size // 3, choice.size - 1]
    assert [choice.number(choice.decision(number)) for number in numbers] == numbers


def test_neighbours_are_the_smallest_steps_at_one_key():
    """By brute force over masks: one entry changes where any number is chosen, two elsewhere."""
    centre = as_masks(SPACE.at(100))

    def is_step(masks):
        changed = {
            key: sum(one != other for one, other in zip(mine, theirs, strict=True))
            for key, mine, theirs in zip(SPACE.keys, centre, masks, strict=True)
            if mine != theirs
        }
        return list(changed.values()) == [1 if "b" in changed else 2]

    neighbours = [as_masks(one) for one in SPACE.neighbours(SPACE.at(100))]
    assert len(neighbours) == 2 + 3 + 4 + 0 + 0 + 1
    assert set(neighbours) == {masks for masks in ALL if is_step(masks)}


def test_a_choice_of_any_of_100_inputs_has_100_neighbours():
    space = SearchSpace.from_json({"any": inputs(100, None), "half": inputs(20, 10)})
    centre = space.sample(np.random.default_rng(0))
    neighbours = list(space.neighbours(centre))
    assert len(neighbours) == len(set(neighbours)) == 100 + 10 * 10
    for one in neighbours:
        space.validate(one)


def test_a_layer_choice_of_several_candidates_has_those_of_one_as_neighbours():
    space = SearchSpace.from_json({"a": layers(3)})
    both = space.parse({"a": [True, True, False]})
    assert [one["a"] for one in space.neighbours(both)] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_a_choice_refuses_a_neighbour_that_it_does_not_have():
    choice = Choice.from_json("k", inputs(4, 2))
    with pytest.raises(IndexError, match="neighbour 4 of 4 at 'k'"):
        choice.neighbour((0, 1), 4)
    with pytest.raises(IndexError, match="neighbour -1 of 4 at 'k'"):
        choice.neighbour((0, 1), -1)


def test_samples_are_uniform():
    rng = np.random.default_rng(0)
    counts = Counter(as_masks(SPACE.sample(rng)) for _ in range(20 * SPACE.size))
    chi_square = sum((counts[one] - 20) ** 2 / 20 for one in ALL)
    # 287 degrees of freedom: mean 287, deviation 24; three deviations to each side
    assert 287 - 72 < chi_square < 287 + 72


def test_a_seed_decides_the_samples():
    draws = [[SPACE.sample(np.random.default_rng(3)) for _ in range(2)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_another_decision_is_never_the_same():
    choice, rng = Choice.from_json("k", inputs(3, 2)), np.random.default_rng(0)
    assert {choice.sample_other(rng, (0, 1)) for _ in range(50)} == {(0, 2), (1, 2)}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.z = LayerChoice(times(1, 2, 3))
        self.pick = InputChoice(choose_from=[self.z.key, ""], n_chosen=1)
        self.a = LayerChoice(times(1, 2), key="a")


def test_a_models_space_and_its_json_are_equal():
    space = SearchSpace.from_model(Model())
    again = SearchSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert (again == space, again.fingerprint == space.fingerprint, hash(again) == hash(space)) == (True, True, True)


def test_the_json_is_that_of_the_contract():
    assert SearchSpace.from_model(Model()).to_json() == {
        "LayerChoice1": {"_type": "layer_choice", "_value": ["0", "1", "2"]},
        "InputChoice2": {"_type": "input_choice", "_value": {"candidates": ["LayerChoice1", ""], "n_chosen": 1}},
        "a": {"_type": "layer_choice", "_value": ["0", "1"]},
    }


def test_the_fingerprint_does_not_depend_on_the_order_of_keys():
    assert SearchSpace.from_json(dict(reversed(MIXED.items()))).fingerprint == SPACE.fingerprint


def test_the_fingerprint_is_sha256_of_the_compact_json():
    text = json.dumps(MIXED, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert SPACE.fingerprint == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_the_fingerprint_is_the_same_in_another_process():
    program = (
        "import json, sys; from nnas_core import SearchSpace;"
        "print(SearchSpace.from_json(json.load(sys.stdin)).fingerprint)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(MIXED), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == SPACE.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"a": layers(4)},
        {"b": inputs(3, 1)},
        {"g": layers(2)},
        {"a": {"_type": "layer_choice", "_value": ["op0", "op2", "op1"]}},
    ],
)
def test_the_fingerprint_changes_with_the_space(change):
    assert SearchSpace.from_json({**MIXED, **change}).fingerprint != SPACE.fingerprint


def test_keys_are_in_natural_order():
    document = {name: layers(2) for name in ("op10", "op9", "b", "op1_2", "op1_10", "a")}
    assert SearchSpace.from_json(document).keys == ("a", "b", "op1_2", "op1_10", "op9", "op10")


def test_it_is_iterated_counted_and_looked_into():
    assert ([one.key for one in SPACE], len(SPACE), "a" in SPACE, "z" in SPACE, SPACE["c"].n_chosen) == (
        list("abcdef"),
        6,
        True,
        False,
        2,
    )


def test_validate_passes_every_architecture_of_the_space():
    assert [SPACE.validate(SPACE.at(index)) for index in range(0, SPACE.size, 17)]


def test_validate_lists_all_problems():
    other = SearchSpace.from_json({"a": layers(5), "b": inputs(3, None), "c": inputs(4, 3), "zz": layers(2)})
    architecture = other.parse({"a": 4, "b": [0.5, 0.5, 0.0], "c": [0, 1, 2], "zz": 0})
    with pytest.raises(ArchitectureError) as caught:
        SPACE.validate(architecture)
    assert caught.value.problems == (
        "zz: not in the search space",
        "a: index 4 of 3 candidates",
        "c: chooses 3 candidates, n_chosen is 2",
        "d: not decided",
        "e: not decided",
        "f: not decided",
    )


def test_validate_notices_weights_of_another_length():
    other = SearchSpace.from_json({"a": layers(2)})
    with pytest.raises(ArchitectureError, match="a: 2 weights for 3 candidates"):
        SearchSpace.from_json({"a": layers(3)}).validate(other.parse({"a": [0.5, 0.5]}))


def test_differences_name_each_key():
    other = SearchSpace.from_json({"a": layers(2), "b": inputs(3, 1), "z": layers(2)})
    mine = SearchSpace.from_json({"a": layers(2), "b": inputs(3, 2), "y": layers(2)})
    assert mine.differences(other, ("the model", "the file")) == [
        (
            "b: input_choice of [in0, in1, in2] with n_chosen 2 in the model, "
            "input_choice of [in0, in1, in2] with n_chosen 1 in the file"
        ),
        "y: only in the model",
        "z: only in the file",
    ]


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        ([], 1),
        ({}, 1),
        ({"a": 1}, 1),
        ({"a": {"_type": "layer_choice"}}, 1),
        ({"a": {"_type": "conv", "_value": ["x"]}}, 1),
        ({"a": {"_type": "layer_choice", "_value": []}}, 1),
        ({"a": {"_type": "layer_choice", "_value": [1]}}, 1),
        ({"a": {"_type": "input_choice", "_value": {"candidates": ["x"]}}}, 1),
        ({"a": {"_type": "input_choice", "_value": {"candidates": ["x"], "n_chosen": 2}}}, 1),
        ({"a": {"_type": "input_choice", "_value": {"candidates": ["x"], "n_chosen": -1}}}, 1),
        ({"a": {"_type": "layer_choice", "_value": 3}, "b": {"_type": "input_choice", "_value": []}}, 2),
    ],
    ids=repr,
)
def test_a_document_that_is_no_space_is_refused_with_all_problems(document, problems):
    with pytest.raises(InputError, match=r"space\.json: not a.* search space") as caught:
        SearchSpace.from_json(document, "space.json")
    assert len(caught.value.problems) == problems
    assert all(problem.startswith("$") for problem in caught.value.problems)
