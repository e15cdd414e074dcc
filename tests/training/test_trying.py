"""Candidates that fail are listed before a training, and errors in one say what was decided."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, Mutator, Trainer
from nnas_core.errors import BindingError, UserCodeError
from nnas_core.mutables.naming import add_note, text_of
from nnas_core.mutators.darts import DartsMutator
from nnas_core.plugins.loading import as_user_error
from nnas_core.random_state import capture
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.acceleration import Rehearsal
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.settings import DataSettings
from nnas_core.training.trying import try_candidates
from tests.mutables.sample_models import Always
from tests.training.sample_trainings import numbers, task_of

CPU = torch.device("cpu")


class Model(nn.Module):
    """Candidates of the given numbers of input features, where there are 4."""

    def __init__(self, a: tuple[int, ...] = (4, 4), b: tuple[int, ...] = (4, 4), stem: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(stem, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.a = LayerChoice([nn.Linear(one, 4) for one in a], key="a")
        self.b = LayerChoice(OrderedDict((f"conv{2 * i + 1}", nn.Linear(one, 4)) for i, one in enumerate(b)), key="b")
        self.pick = InputChoice(3, n_chosen=2, key="pick")
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.stem(x)
        y = self.a(x)
        picked: Tensor = self.pick([x, y, self.b(y)])
        return picked


def trial(mutator: Mutator) -> None:
    task = task_of(train_dataset=lambda: numbers(40))
    batches = list(build_batches(task, DataSettings(batch_size=8)))
    rehearsal = Rehearsal(mutator, task, batches[:1], [], CPU, "float32", {})
    try_candidates(mutator.space, rehearsal.attempt, "m.py")


@pytest.mark.parametrize("kind", [Always, DartsMutator])
def test_all_that_fail_are_listed(kind: Any) -> None:
    mutator = kind(Model(a=(4, 5, 4, 6), b=(4, 4, 7)))
    with pytest.raises(UserCodeError, match=r"m.py: 3 candidates fail on the first training batch") as caught:
        trial(mutator)
    reason = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and {}x4)"
    assert sorted(caught.value.problems) == [
        f"with a=1: {reason.format(5)}",
        f"with a=3: {reason.format(6)}",
        f"with b=conv5: {reason.format(7)}",
    ]
    assert caught.value.hint == "mend the candidates, or leave this trial out by `no_try_candidates`"


def test_one_that_fails() -> None:
    with pytest.raises(UserCodeError, match=r"m.py: 1 candidate fails on the first training batch"):
        trial(Always(Model(a=(4, 5))))


def test_nothing_is_left_of_the_trial() -> None:
    mutator = Always(Model(a=(4, 4, 4)))
    mutator.reset()
    model = mutator.model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decision, random = mutator.status(), capture()["torch"]
    trial(mutator)
    assert model.calls == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert mutator.status() == decision
    assert torch.equal(capture()["torch"], random)


def test_what_is_not_the_candidates_fault_is_left_to_the_training() -> None:
    trial(Always(Model(stem=5)))


def test_a_combination_that_fails_is_named_as_one() -> None:
    choices = {key: Choice(key, "layer_choice", ("x", "y"), 1) for key in ("a", "b")}

    def attempt(decisions: Any) -> Exception | None:
        return ValueError("together") if all(one == (1,) for one in decisions.values()) else None

    with pytest.raises(UserCodeError) as caught:
        try_candidates(SearchSpace(choices.values()), attempt, "m.py")
    assert caught.value.problems == ("with a=y, b=y: ValueError: together",)


def test_each_input_is_tried_and_what_failed_says_itself_what_to_do() -> None:
    space = SearchSpace([Choice("pick", "input_choice", ("x", "y", "z"), 1)])

    def attempt(decisions: Any) -> Exception | None:
        return BindingError("no channels", hint="give k=1") if decisions["pick"] == (2,) else None

    with pytest.raises(UserCodeError) as caught:
        try_candidates(space, attempt, "m.py")
    assert (caught.value.problems, caught.value.hint) == (("with pick=2: no channels",), "give k=1")


# ---- errors of a step


def trainer_of(mutator: Mutator) -> Trainer:
    task = task_of(train_dataset=lambda: numbers(40))
    train, valid = build_batches(task, DataSettings(batch_size=8))
    return Trainer(mutator.model, task, train, valid, 1, mutator=mutator)


def test_an_error_in_a_step_says_what_was_decided() -> None:
    mutator = Always(Model(b=(4, 7)), {"a": [False, True], "b": [False, True], "pick": [True, False, True]})
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        trainer_of(mutator).train()
    assert caught.value.__notes__ == ["with a=1, b=conv3, pick=[0, 2]"]


def test_where_candidates_are_mixed_the_one_that_failed_is_named() -> None:
    mutator = DartsMutator(Model(b=(4, 7)))
    mutator.reset()
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        mutator.model(torch.randn(3, 4))
    assert caught.value.__notes__ == ["with b=conv3"]


def test_an_error_of_an_inherited_architecture_says_which() -> None:
    mutator = Mutator(Model(b=(4, 7)))
    task = task_of(train_dataset=lambda: numbers(40))
    inherited = InheritedWeights(mutator, task, *build_batches(task, DataSettings(batch_size=8)), CPU, 0)
    architecture = mutator.space.parse({"a": "0", "b": "conv3", "pick": [0, 2]})
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        inherited.evaluate(architecture)
    assert caught.value.__notes__ == ["with a=0, b=conv3, pick=[0, 2]"]


def test_the_line_of_a_users_error_has_the_note() -> None:
    def default_forward_batch() -> None:  # below it, everything is the user's
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad") as caught:
        default_forward_batch()
    for note in ("with a=1", "with a=1", "of somebody else"):
        add_note(caught.value, note)
    assert getattr(as_user_error(caught.value), "message", None) == "ValueError: bad (with a=1)"


def test_of_many_decisions_the_first_are_named() -> None:
    choices = {f"k{i}": Choice(f"k{i}", "layer_choice", ("x",), 1) for i in range(15)}
    assert text_of(choices, dict.fromkeys(choices, (0,))).endswith("k11=x and 3 more")
