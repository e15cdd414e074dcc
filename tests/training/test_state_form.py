"""States that no trainer wrote: the first difference is named, whatever optimizer and whatever was damaged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn

from nnas_core.training.state_form import check_form, check_state


def state_of(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """The state of a training of two layers after a step."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = kind(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "progress": {"epoch": 1, "batch": 2, "step": 3},
        "history": [{"epoch": 1, "train": {"loss": 0.5}, "valid": {}}],
        "name": "text",
        "gauss": None,
        "numbers": [1, 2],
    }


PROGRESS = {"epoch": 1, "batch": 2, "step": 3, "epochs": 9}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_a_state_fits_its_own_trainer_before_and_after_a_step(kind: type[torch.optim.Optimizer]) -> None:
    state = state_of(kind)
    fresh = copy.deepcopy(state)
    fresh["optimizer"]["state"] = {}
    fresh["history"] = []
    check_state(state, state, PROGRESS)
    check_state(state, fresh, PROGRESS)
    check_state(fresh, state, PROGRESS)


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda state: state.update(progress={"epoch": 1, "batch": 2, "step": 4}), "progress is another one"),
    (lambda state: state.update(random=torch.zeros(3)), "state.random is no tensor of torch.uint8"),
    (lambda state: state.update(name=3), "state.name is no str"),
    (lambda state: state.update(numbers="x"), "state.numbers is no list"),
    (lambda state: state.update(optimizer=[]), "state.optimizer is no dictionary"),
    (lambda state: state["history"][0]["train"].update(loss="x"), r"state.history\[0\].train has a value that is no"),
    (lambda state: state["optimizer"].update(param_groups=[]), "state.optimizer has other groups of parameters"),
    (lambda state: state["optimizer"]["param_groups"][0].update(params=[0]), "other parameters in group 0"),
    (lambda state: state["optimizer"]["param_groups"][0].pop("lr"), "other parameters in group 0"),
    (lambda state: state["optimizer"]["param_groups"][0].update(lr="x"), "lr is no finite number"),
    (lambda state: state["optimizer"]["param_groups"][0].update(lr=float("nan")), "lr is no finite number"),
    (lambda state: state["optimizer"]["param_groups"][0].update(lr=True), "lr is no finite number"),
    (lambda state: state["optimizer"].update(state=[]), "state.optimizer.state is no dictionary of dictionaries"),
    (lambda state: state["optimizer"]["state"].update({0: 1}), "is no dictionary of dictionaries"),
    (lambda state: state["optimizer"]["state"][1].pop("exp_avg"), "other entries for one parameter than for another"),
    (lambda state: state["optimizer"]["state"][1].update(exp_avg=1.5), "exp_avg of another kind for one parameter"),
    (lambda state: state["optimizer"]["state"][1].update(exp_avg=torch.zeros(7)), "values of several shapes"),
    (
        lambda state: [one.update(exp_avg="x") for one in state["optimizer"]["state"].values()],
        "exp_avg that is no number",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_differs_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    own = state_of(torch.optim.Adam)
    state = copy.deepcopy(own)
    change(state)
    with pytest.raises(ValueError, match=message):
        check_state(state, own, PROGRESS)


def test_what_was_not_there_yet_may_come_and_go() -> None:
    check_form({"gauss": 0.5, "more": "x"}, {"gauss": None, "less": 1})
