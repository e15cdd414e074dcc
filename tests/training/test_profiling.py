"""Memory of activations and multiply-adds by hand, latencies by a clock that only they move."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.mutables import LayerChoice, Mutator, count_flops
from nnas_core.training.profiling import measure_candidates, measure_latency, peak_activation_memory

CPU = torch.device("cpu")


def peak(model: nn.Module, *shape: int) -> int:
    """Of one pass in evaluation mode, in numbers of float32."""
    inputs = torch.ones(shape)
    weights = list(itertools.chain(model.parameters(), model.buffers()))
    nbytes = peak_activation_memory(lambda: model.eval()(inputs), weights, inputs)
    assert nbytes % 4 == 0
    return nbytes // 4


class Residual(nn.Module):
    """The input waits for the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.one(x))


class Unused(nn.Module):
    """Something large that nobody looks at."""

    def forward(self, x: Tensor) -> Tensor:
        x.new_zeros(1000)
        return x + 1


@pytest.mark.parametrize(
    ("model", "shape", "numbers"),
    [
        pytest.param(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (1, 4), 8 + 8, id="chain"),
        pytest.param(nn.Sequential(nn.Linear(4, 8), nn.ReLU(True), nn.Linear(8, 2)), (1, 4), 4 + 8, id="in place"),
        pytest.param(Residual(), (1, 4), 4 + 6 + 4, id="residual"),
        pytest.param(nn.MaxPool2d(2), (1, 3, 4, 4), 48 + 12, id="places of maxima are unused"),
        pytest.param(nn.Flatten(), (1, 3, 4, 4), 48, id="a view"),
        pytest.param(nn.Identity(), (1, 5), 5, id="nothing"),
        pytest.param(nn.BatchNorm2d(2), (1, 2, 4, 4), 64, id="normalisation"),
        pytest.param(Unused(), (1, 5), 10, id="unused"),
        pytest.param(nn.Conv2d(2, 5, 3, padding=1), (1, 2, 4, 4), 32 + 80, id="convolution"),
    ],
)
def test_what_is_alive_at_once(model: nn.Module, shape: tuple[int, ...], numbers: int) -> None:
    assert peak(model, *shape) == numbers


class Clock:
    """Seconds that pass when somebody runs something.

    Attributes:
        now: the time.
        runs: how often it ran.
    """

    def __init__(self, duration: Callable[[int], float]) -> None:
        self.now = 0.0
        self.runs = 0
        self._duration = duration

    def run(self) -> None:
        """One pass."""
        self.now += self._duration(self.runs)
        self.runs += 1


def test_median_and_quartiles_of_what_comes_after_the_warm_up() -> None:
    clock = Clock(lambda run: 9.0 if run < 3 else float(run - 2))  # slow at first; then 1, 2, ..., 11 seconds
    found = measure_latency(clock.run, CPU, seconds=1.0, clock=lambda: clock.now)
    assert (found.low, found.median, found.high, found.runs) == (3500.0, 6000.0, 8500.0, 11)


@pytest.mark.parametrize(("duration", "runs"), [(0.01, 100), (0.5, 11), (1e-6, 1000)])
def test_as_many_passes_as_the_time_allows_within_bounds(duration: float, runs: int) -> None:
    clock = Clock(lambda run: duration)
    found = measure_latency(clock.run, CPU, seconds=1.0, clock=lambda: clock.now)
    assert found.runs == pytest.approx(runs, abs=1)
    assert found.median == pytest.approx(1000 * duration)


def test_nothing_is_differentiated() -> None:
    model, seen = nn.Linear(2, 2), []
    measure_latency(lambda: seen.append(model(torch.ones(1, 2)).requires_grad), CPU, seconds=0.0)
    assert set(seen) == {False}


class Net(nn.Module):
    """One key at two places of different sizes, and another key."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="a")
        self.second = LayerChoice([nn.Linear(4, 4), nn.Tanh()], key="b")
        self.third = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="a")
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


def test_every_candidate_is_timed_on_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    mutator = Mutator(model)
    mutator.apply_architecture(mutator.space.at(3))
    calls: list[str] = []

    def fake(run: Any, device: torch.device, seconds: float) -> Any:
        assert run().shape == (2, 4)
        calls.append(type(run.func).__name__)
        assert not run.func.training
        return type("Latency", (), {"median": float(len(calls))})

    monkeypatch.setattr("nnas_core.training.profiling.measure_latency", fake)
    told: list[tuple[int, int]] = []
    table = measure_candidates(
        mutator, lambda: model(torch.ones(2, 4)), CPU, 0.0, lambda done, total: told.append((done, total))
    )
    assert calls == ["Linear", "Identity", "Linear", "Tanh", "Linear", "Identity"]
    assert table == {"a": {"0": 1.0 + 5.0, "1": 2.0 + 6.0}, "b": {"0": 3.0, "1": 4.0}}
    assert told[-1] == (6, 6)
    assert model.training
    assert {key: mask.tolist() for key, mask in mutator._cache.items()} == {"a": [False, True], "b": [False, True]}


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        pytest.param(nn.Linear(7, 5), (1, 7), 35, id="linear"),
        pytest.param(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 6, 6), 36 * 8 * 3 * 9, id="convolution"),
        pytest.param(nn.Conv2d(4, 6, 1, stride=2), (1, 4, 6, 6), 9 * 6 * 4, id="1x1 of stride 2"),
        pytest.param(nn.Conv2d(6, 6, 3, groups=6), (1, 6, 5, 5), 9 * 6 * 9, id="depthwise"),
        pytest.param(nn.Conv2d(4, 8, 3, groups=2, dilation=2), (1, 4, 7, 7), 9 * 8 * 2 * 9, id="groups, dilated"),
        pytest.param(nn.Conv1d(2, 3, 5), (1, 2, 9), 5 * 3 * 2 * 5, id="one dimension"),
        pytest.param(nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 27 * 3 * 2 * 8, id="three dimensions"),
        pytest.param(nn.ConvTranspose2d(3, 2, 2, stride=2), (1, 3, 4, 4), 16 * 3 * 2 * 4, id="transposed"),
        pytest.param(nn.MultiheadAttention(4, 2), (3, 1, 4), 3 * 4 * 12 + 2 * 2 * 9 * 2 + 3 * 4 * 4, id="attention"),
        pytest.param(nn.LSTM(3, 5, batch_first=True), (1, 6, 3), 6 * 4 * 5 * (3 + 5), id="recurrent"),
        pytest.param(nn.Embedding(4, 3), (1, 2), 0, id="embedding"),
    ],
)
def test_multiply_adds_by_hand(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    x = torch.zeros(shape, dtype=torch.long if isinstance(model, nn.Embedding) else None)
    inputs = (x, x, x) if isinstance(model, nn.MultiheadAttention) else (x,)
    with torch.no_grad():
        assert count_flops(lambda: model(*inputs)) == 2 * macs
