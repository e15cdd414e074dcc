"""Arguments of algorithms: what fits a constructor, and what is said of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn as nn

from nnas_core import Assessor, LayerChoice, Mutator, Trainer, Tuner
from nnas_core.errors import UsageError, UserCodeError
from nnas_core.plugins import registry
from nnas_core.plugins.arguments import (
    check_arguments,
    check_count,
    check_flag,
    check_range,
    sign_of,
)
from nnas_core.study.opening import create_assessor, create_tuner
from nnas_core.workflows.search import build_mutator


class Algorithm:
    def __init__(
        self,
        model: Any,
        *,
        order: Literal[1, 2] = 1,
        rate: float = 0.1,
        steps: int = 3,
        zero: bool = True,
        name: str | None = None,
        betas: Sequence[float] = (0.5, 0.9),
        table: Mapping[str, float] | None = None,
        free: Any = None,
    ) -> None:
        pass


class Needy:
    def __init__(self, model: Any, count: int) -> None:
        pass


class Open:
    def __init__(self, model: Any, **options: Any) -> None:
        pass


@pytest.mark.parametrize(
    "given",
    [
        {"order": 2},
        {"rate": 0.5},
        {"steps": 0},
        {"zero": False},
        {"name": "x"},
        {"name": None},
        {"betas": [0, 0.5]},
        {"table": {"a": 1}},
        {"free": [{}]},
    ],
)
def test_what_fits_is_handed_on(given: dict[str, Any]) -> None:
    assert check_arguments(Algorithm, given, "mutator 'x'", ["model"]) == given


def test_whole_numbers_become_floats_where_floats_are_expected() -> None:
    checked = check_arguments(Algorithm, {"rate": 1, "steps": 1}, "mutator 'x'", ["model"])
    assert [type(value) for value in checked.values()] == [float, int]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": 3}, "cannot take order=3, it must be 1 or 2"),
        ({"order": True}, "cannot take order=true, it must be 1 or 2"),
        ({"rate": "fast"}, 'cannot take rate="fast", it must be a number'),
        ({"rate": True}, "cannot take rate=true, it must be a number"),
        ({"steps": 1.5}, "cannot take steps=1.5, it must be a whole number"),
        ({"steps": False}, "cannot take steps=false, it must be a whole number"),
        ({"zero": 1}, "cannot take zero=1, it must be true or false"),
        ({"name": 1}, "cannot take name=1, it must be a text or null"),
        ({"betas": 0.5}, "cannot take betas=0.5, it must be a list, each a number"),
        ({"betas": ["a"]}, 'cannot take betas=["a"], it must be a list, each a number'),
        ({"table": {"a": "b"}}, 'cannot take table={"a": "b"}, it must be an object, each value a number or null'),
        ({"rat": 1}, "takes no argument 'rat'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'the mutator {chr(39)}x{chr(39)} {message}')}$"):
        check_arguments(Algorithm, given, "mutator 'x'", ["model"])


def test_the_hint_lists_what_there_is_and_the_closest_name() -> None:
    with pytest.raises(UsageError) as raised:
        check_arguments(Algorithm, {"rat": 1}, "mutator 'x'", ["model"])
    assert raised.value.hint == "did you mean 'rate'? it takes order, rate, steps, zero, name, betas, table, free"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UsageError, match=r"^the tuner 'x' needs the argument 'count'$") as raised:
        check_arguments(Needy, {}, "tuner 'x'", ["model"])
    assert raised.value.hint == "give `tuner_arg` count=..."


def test_a_constructor_that_takes_anything_gets_it() -> None:
    assert check_arguments(Open, {"anything": 1}, "mutator 'x'", ["model"]) == {"anything": 1}


@pytest.mark.parametrize(
    ("value", "interval", "inside"),
    [
        (0, "[0, 1]", True),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (1, "[0, 1)", False),
        (1e9, "(0, inf)", True),
        (float("inf"), "(0, inf)", False),
        (float("nan"), "[0, 1]", False),
        (-1, "[0, inf)", False),
    ],
)
def test_an_interval_is_read_as_mathematics_writes_it(value: float, interval: str, inside: bool) -> None:
    if inside:
        check_range("rate", value, interval)
        return
    with pytest.raises(UsageError, match=f"^rate={re.escape(str(value))} is out of range$") as raised:
        check_range("rate", value, interval)
    assert raised.value.hint == f"it must be in {interval}"


@pytest.mark.parametrize("value", [2, 3, 10**30])
def test_whole_numbers_from_the_least_on_are_counts(value: int) -> None:
    check_count("x: size", value, 2)


@pytest.mark.parametrize("value", [1, -1, 2.0, True, "2", None])
def test_smaller_and_other_values_are_no_counts(value: object) -> None:
    message = re.escape(f"x: size must be a whole number of at least 2, not {value!r}")
    with pytest.raises(UsageError, match=message):
        check_count("x: size", value, 2)


@pytest.mark.parametrize("value", [True, False])
def test_truth_values_are_flags(value: bool) -> None:
    check_flag("x: full", value)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_other_values_are_no_flags(value: object) -> None:
    with pytest.raises(UsageError, match=re.escape(f"x: full must be true or false, not {value!r}")):
        check_flag("x: full", value)


def test_larger_is_better_after_multiplying_by_the_sign() -> None:
    assert sign_of("x: optimize_mode", "maximize") == 1.0
    assert sign_of("x: optimize_mode", "minimize") == -1.0


def test_other_modes_have_no_sign() -> None:
    with pytest.raises(UsageError, match="x: optimize_mode must be maximize or minimize, not 'max'"):
        sign_of("x: optimize_mode", "max")


# ---- every kind of algorithm, by name and from a file


OWN = """
from nnas_core import Assessor, Mutator, Tuner


class MyMutator(Mutator):
    def __init__(self, supernet, width: int, rate: float = 0.5):
        super().__init__(supernet)
        self.made_of = width, rate


class MyTuner(Tuner):
    def __init__(self, width: int, rate: float = 0.5, seed: int = 0):
        self.made_of = width, rate
        self.seed = seed

    def update_search_space(self, search_space): ...
    def generate_parameters(self, parameter_id, **kwargs): ...
    def receive_trial_result(self, parameter_id, parameters, value, **kwargs): ...


class MyAssessor(Assessor):
    def __init__(self, width: int, rate: float = 0.5):
        self.made_of = width, rate

    def assess_trial(self, trial_number, history):
        return True
"""


def small_net() -> nn.Module:
    return nn.Sequential(LayerChoice([nn.Linear(2, 2), nn.Identity()], key="op"))


def built(kind: str, name: str, arguments: dict[str, Any]) -> Any:
    """An algorithm, built as the commands do."""
    if kind == "mutator":
        return build_mutator(name, small_net(), arguments, torch.Generator())
    if kind == "assessor":
        return create_assessor(name, arguments, "maximize")
    tuner = registry.find_subclass("tuners", name, Tuner)
    return create_tuner(tuner, arguments, name=name, seed=3, optimize_mode="maximize")


OWN_KINDS = ["mutator", "tuner", "assessor"]


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    """The reference of a class in a file: ``own("MyTuner")``."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return lambda cls: f"{path}:{cls}"


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_the_arguments_of_a_class_of_one_s_own_reach_its_constructor(kind: str, own: Callable[[str], str]) -> None:
    made = built(kind, own(f"My{kind.capitalize()}"), {"width": 3, "rate": 1})
    assert made.made_of == (3, 1.0)
    assert [type(one) for one in made.made_of] == [int, float]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"width": "abc"}, 'cannot take width="abc", it must be a whole number', "it takes width, rate"),
        ({"width": 1, "rat": 1}, "takes no argument 'rat'", "did you mean 'rate'? it takes width, rate"),
        ({"rate": 1}, "needs the argument 'width'", "give `KIND_arg` width=..."),
    ],
)
@pytest.mark.parametrize("kind", OWN_KINDS)
def test_arguments_of_a_class_of_one_s_own_are_checked(
    kind: str, own: Callable[[str], str], arguments: dict[str, Any], message: str, hint: str
) -> None:
    name = own(f"My{kind.capitalize()}")
    with pytest.raises(UsageError, match=f"^{re.escape(f'the {kind} {name!r} {message}')}$") as raised:
        built(kind, name, arguments)
    assert raised.value.hint == hint.replace("KIND", kind)


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "message"),
    [
        ("mutator", "darts", {"learning_rate": "fast"}, 'cannot take learning_rate="fast", it must be a number'),
        ("tuner", "evolution", {"population": "abc"}, 'cannot take population="abc", it must be a whole number'),
        ("tuner", "evolution", {"repeats": 1}, "cannot take repeats=1, it must be true or false"),
        ("assessor", "asha", {"min_resource": 1.5}, "cannot take min_resource=1.5, it must be a whole number"),
        ("assessor", "hyperband", {}, "needs the argument 'max_resource'"),
    ],
)
def test_arguments_of_registered_algorithms_are_checked(
    kind: str, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'the {kind} {name!r} {message}')}$"):
        built(kind, name, arguments)


@pytest.mark.parametrize(
    ("kind", "name", "misspelt", "near"),
    [
        ("mutator", "darts", "learnin_rate", "learning_rate"),
        ("tuner", "evolution", "populaton", "population"),
        ("assessor", "asha", "min_resorce", "min_resource"),
    ],
)
def test_a_misspelt_argument_gets_the_closest_name(kind: str, name: str, misspelt: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"takes no argument '{misspelt}'") as raised:
        built(kind, name, {misspelt: 1})
    assert str(raised.value.hint).startswith(f"did you mean '{near}'? it takes ")


def test_seed_and_mode_are_no_arguments() -> None:
    with pytest.raises(UsageError, match=r"^tuner 'evolution': seed is not an argument, it comes from `seed`$"):
        built("tuner", "evolution", {"seed": 1})
    with pytest.raises(
        UsageError, match=r"^assessor 'asha': optimize_mode is not an argument, it comes from the metric's mode$"
    ):
        built("assessor", "asha", {"optimize_mode": "minimize"})


@pytest.mark.parametrize(
    ("group", "base"), [("mutators", Mutator), ("mutators", Trainer), ("tuners", Tuner), ("assessors", Assessor)]
)
def test_a_class_of_another_kind_is_refused(group: str, base: type[Any], tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text("class Other: ...\n")
    with pytest.raises(UserCodeError, match=f"Other is no {base.__name__}$") as raised:
        registry.find_subclass(group, f"{path}:Other", base)
    assert raised.value.hint == f"derive it from nnas_core.{base.__name__}"
