"""The learning rates of a training that goes on with more steps than it began with."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from nnas_core.training.optimizers import longer_schedule, optimizer_state

Build = Callable[[torch.optim.Optimizer, int], lr_scheduler.LRScheduler]


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.01)


def linear(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)


def begun() -> tuple[torch.optim.Optimizer, torch.Tensor]:
    weight = torch.ones(1, requires_grad=True)
    return torch.optim.SGD([weight], 0.2, momentum=0.9), weight


def stepped(optimizer: torch.optim.Optimizer, weight: torch.Tensor, schedule: lr_scheduler.LRScheduler) -> float:
    """Makes a step; returns the rate that it had."""
    rate = float(optimizer.param_groups[0]["lr"])
    weight.sum().backward()
    optimizer.step()
    schedule.step()
    return rate


@pytest.mark.parametrize(
    ("build", "rate"),
    [
        (cosine, lambda step: 0.01 + 0.19 * (1 + math.cos(math.pi * step / 25)) / 2),
        (linear, lambda step: 0.2 * (1 - step / 25)),
    ],
)
def test_the_rates_are_those_of_the_longer_training_from_there_on(build: Build, rate: Callable[[int], float]) -> None:
    optimizer, weight = begun()
    schedule = build(optimizer, 10)
    for _ in range(10):
        stepped(optimizer, weight, schedule)
    state = optimizer_state(optimizer, schedule)

    again, weight = begun()
    build(again, 25)
    again.load_state_dict(state["optimizer"])
    longer = longer_schedule(again, lambda: build(again, 25), state["scheduler"])
    assert longer is not None
    assert [stepped(again, weight, longer) for _ in range(15)] == pytest.approx([rate(step) for step in range(10, 25)])
    assert "momentum_buffer" in again.state[weight]


def test_without_a_schedule_the_rate_stays() -> None:
    optimizer, _ = begun()
    assert longer_schedule(optimizer, lambda: None, {}) is None
    assert optimizer.param_groups[0]["lr"] == 0.2
