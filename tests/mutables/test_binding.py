"""The connection of a mutator and a model: whose decisions it takes, when, and what stays when one cannot be taken."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, DecisionError
from nnas_core.mutables.choices import AnyChoice, LayerChoice
from nnas_core.mutables.cost import FlopMeter
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.untouched import untouched
from nnas_core.mutators.pdarts import PdartsMutator
from nnas_core.mutators.proxyless import ProxylessMutator
from nnas_core.mutators.random import RandomMutator
from nnas_core.mutators.snas import SnasMutator


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Product(nn.Module):
    """Two choices: times ``base`` or twice that, then times 10 or 20 times that."""

    def __init__(self, base: float = 1.0) -> None:
        super().__init__()
        self.a = LayerChoice([Scale(base), Scale(2 * base)], key="a")
        self.b = LayerChoice([Scale(10 * base), Scale(20 * base)], key="b")

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


X = torch.ones(())

POSSIBLE = {10.0, 20.0, 40.0}


def value(model: nn.Module) -> float:
    """The output for 1."""
    return model(X).item()


@pytest.mark.parametrize("kind", [RandomMutator, SnasMutator])
def test_what_was_decided_for_another_model_is_read_as_masks(kind: type[Mutator]) -> None:
    other = kind(Product(100.0))

    class Follows(Mutator):
        def sample_search(self) -> Mapping[str, Any]:
            return other.sample_search()

    model = Product()
    Follows(model).reset()
    assert value(model) <= 40.0


class Same(RandomMutator):
    """Decides once, and says the same again."""

    kept: Any = None

    def sample_search(self) -> Mapping[str, Tensor]:
        self.kept = self.kept or super().sample_search()
        return self.kept


def test_what_was_decided_before_candidates_changed_is_read_as_masks() -> None:
    model = Product()
    mutator = Same(model)
    mutator.reset()
    for index in range(2):
        model.a[index] = Scale(1000.0)
        model.b[index] = Scale(1.0)
    mutator.reset()
    assert value(model) == 1000.0


def test_a_copy_takes_what_its_original_decided_for_its_own_model() -> None:
    mutator = Same(Product())
    mutator.reset()
    twin = copy.deepcopy(mutator)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.fill_(7.0)
    twin.reset()
    assert value(twin.model) == 49.0


@pytest.mark.parametrize(
    "change",
    [
        lambda masks: masks["a"].copy_(torch.tensor([False, True])),
        lambda masks: masks.update(a=torch.tensor([False, True])),
        lambda masks: masks.__setitem__("a", [False, True]),
    ],
    ids=["in place", "update", "item"],
)
def test_a_subclass_may_change_masks_that_it_got(change: Callable[[Any], object]) -> None:
    class SecondAtA(RandomMutator):
        def sample_search(self) -> Mapping[str, Tensor]:
            masks = super().sample_search()
            change(masks)
            return masks

    model = Product()
    mutator = SecondAtA(model)
    for _ in range(20):
        mutator.reset()
        assert model.a(X).item() == 2.0


def test_masks_can_be_copied_to_a_dictionary() -> None:
    mutator = RandomMutator(Product())
    masks = mutator.sample_search().copy()  # type: ignore[attr-defined]  # as programs of NNI do
    assert type(masks) is dict
    assert sorted(masks) == ["a", "b"]


def test_masks_can_be_joined_with_others_as_dictionaries_are() -> None:
    mutator = RandomMutator(Product())
    second = torch.tensor([False, True])
    assert set(mutator.sample_search() | {"c": second}) == {"a", "b", "c"}  # type: ignore[operator]
    joined = mutator.sample_search() | {"a": second}  # type: ignore[operator]
    assert joined["a"] is second
    drawn = mutator.sample_search()
    assert ({"a": second} | drawn)["a"] is drawn["a"]  # type: ignore[operator]


def test_the_old_decision_stays_where_a_new_one_fails_half_way() -> None:
    model = Product()
    mutator = Mutator(model)
    model.b[1] = None  # type: ignore[assignment]  # as a fixed architecture leaves it
    mutator.decide({"a": (0,), "b": (0,)})
    with pytest.raises(DecisionError, match="candidate 1 of 'b' was removed"):
        mutator.decide({"a": (1,), "b": (1,)})
    assert value(model) == 10.0
    for wrong in ({"a": (1,), "b": (7,)}, {"a": (1,), "c": (0,)}):
        with pytest.raises(DecisionError, match="name a key or a candidate that the model does not have"):
            mutator.decide(wrong)
        assert value(model) == 10.0


def test_a_part_of_the_keys_can_be_decided() -> None:
    model = Product()
    mutator = Mutator(model)
    mutator.decide({"a": (0,), "b": (0,)})
    mutator.decide({"b": (1,)})
    assert value(model) == 20.0
    assert mutator.status() == {"b": [0.0, 1.0]}


@pytest.mark.parametrize("kind", [RandomMutator, SnasMutator, ProxylessMutator])
def test_what_was_decided_comes_back_after_a_rehearsal(kind: type[Mutator]) -> None:
    model = Product()
    mutator = kind(model, torch.Generator().manual_seed(1))  # type: ignore[call-arg]
    mutator.reset()
    before, status = value(model), mutator.status()
    for _ in range(5):
        with untouched(model, mutator):
            mutator.reset()
            value(model)
    assert value(model) == before
    assert mutator.status() == status


def test_a_choice_whose_candidates_changed_is_undecided() -> None:
    model = Product()
    mutator = SnasMutator(model)
    mutator.reset()
    model.a[0] = Scale(3.0)
    with pytest.raises(BindingError, match="nothing is decided yet"):
        model(X)
    assert mutator.status() == {}


class Thousandfold:
    """Does something around whatever is decided."""

    def adapt(self, choice: AnyChoice, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: run(*args) * 1000


@pytest.mark.parametrize("base", [RandomMutator, SnasMutator, PdartsMutator, ProxylessMutator])
def test_what_an_algorithm_does_around_a_decision_is_done_for_all_kinds_of_decisions(base: type[Mutator]) -> None:
    kind = type("Adapting", (Thousandfold, base), {})
    model = Product()
    mutator = kind(model)
    mutator.reset()
    assert value(model) > 9e6 * 0.99
    with torch.no_grad():
        mutator.reset()
    assert value(model) > 9e6 * 0.99
    mutator.decide({"a": (0,), "b": (0,)})
    assert value(model) == 1e7


def test_a_model_that_cannot_be_bound_is_left_free() -> None:
    class Refuses(LayerChoice):
        def set_mutator(self, mutator: Any) -> None:
            raise BindingError("not today")

    model = nn.Sequential(LayerChoice([Scale(1.0)], key="a"), Refuses([Scale(1.0)], key="b"))

    class Plain(Mutator):
        pass

    with pytest.raises(BindingError, match="not today"):
        Plain(model)
    assert not model[0].is_bound


def test_a_mistake_in_what_a_subclass_makes_of_its_model_is_shown() -> None:
    class Mistaken(SnasMutator):
        def blend(self, *args: Any) -> Any:
            return self.no_such_thing

    with pytest.raises(RuntimeError, match="object has no attribute 'no_such_thing'"):
        Mistaken(Product()).reset()


def test_measuring_flops_leaves_the_short_way_of_calls() -> None:
    model = Product()
    mutator = Mutator(model)
    mutator.decide({"a": (0,), "b": (0,)})
    assert model.a._shortcut is not None
    FlopMeter(mutator, lambda: model(X)).table()
    assert model.a._shortcut is not None
