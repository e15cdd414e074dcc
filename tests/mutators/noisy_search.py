"""What the tests of algorithms that sample by Gumbel or Dirichlet noise share."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice, Mutator
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.plugins.loading import UserModule
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer

WIDTH = 3

LATENCIES = {
    "a": {"0": 2.0, "1": 7.5, "2": 4.25},
    "b": {"0": 1.5, "1": 6.0},
    "one": {"": 0.5, "a": 3.0},
    "two": {"a": 2.5, "b": 0.75, "one": 1.25},
    "any": {"a": 1.75, "b": 5.5},
}
"""Of the candidates of ``Mixed``; what is absent takes no time."""


class Mixed(nn.Module):
    """Every kind of decision: LayerChoices of 3 and 2 (twice), inputs 1 of 3, 2 of 4, 2 of 2, and any of 3."""

    def __init__(self) -> None:
        super().__init__()
        self.a = LayerChoice([nn.Linear(WIDTH, WIDTH) for _ in range(3)], key="a")
        pairs = ([nn.Linear(WIDTH, WIDTH), nn.Tanh()] for _ in range(2))
        self.b = nn.ModuleList(LayerChoice(pair, key="b") for pair in pairs)
        self.one = InputChoice(choose_from=["", "a", "b"], n_chosen=1, key="one")
        self.two = InputChoice(choose_from=["", "a", "b", "one"], n_chosen=2, reduction="mean", key="two")
        self.all = InputChoice(choose_from=["a", "b"], n_chosen=2, key="all")
        self.any = InputChoice(choose_from=["", "a", "b"], n_chosen=None, key="any")
        self.norm = nn.BatchNorm1d(WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, 2]."""
        a = self.a(x)
        b = self.b[1](self.b[0](a))
        y = self.one([x, a, b])
        total = self.two([x, a, b, y]) + self.all([a, b])
        more = self.any([x, a, b])
        return self.head(self.norm(total if more is None else total + more))


def built(model_class: type[nn.Module] = Mixed, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """A model with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class().to(dtype)


def inputs(count: int = 5, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """[count, WIDTH]."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spread(mutator: RelaxedMutator, seed: int = 4) -> None:
    """Give the logits values that differ."""
    values = torch.randn(mutator.logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        mutator.logits.copy_(values)


def row_of(mutator: RelaxedMutator, key: str) -> Any:
    """The row of a key."""
    return next(row for row in mutator.rows if row.key == key)


def uniforms(shape: Sequence[int], seed: int) -> Tensor:
    """What ``RelaxedMutator.noise`` draws in float64 from a generator of that seed."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decisions(row: Any) -> list[tuple[int, ...]]:
    """Every decision of a row."""
    everything = range(row.count)
    sizes = range(row.count + 1) if row.n_chosen is None else [row.n_chosen]
    return [chosen for size in sizes for chosen in itertools.combinations(everything, size)]


def probability(row: Any, logits: Sequence[float], chosen: tuple[int, ...]) -> float:
    """How probable a decision is, written out: softmax; without replacement for k; independent for any number."""
    if row.n_chosen is None:
        odds = [1 / (1 + math.exp(-logit)) for logit in logits]
        return math.prod(p if index in chosen else 1 - p for index, p in enumerate(odds))
    weights = [math.exp(logit) for logit in logits]
    total = 0.0
    for order in itertools.permutations(chosen):
        left, product = sum(weights), 1.0
        for index in order:
            product *= weights[index] / left
            left -= weights[index]
        total += product
    return total


def chi_square(counts: Mapping[Any, int], expected: Mapping[Any, float]) -> tuple[float, float]:
    """The statistic, and its 1e-6 quantile (Wilson and Hilferty's approximation)."""
    draws = sum(counts.values())
    statistic = sum((counts.get(key, 0) - draws * p) ** 2 / (draws * p) for key, p in expected.items())
    freedom = len(expected) - 1
    return statistic, freedom * (1 - 2 / (9 * freedom) + 4.753 * math.sqrt(2 / (9 * freedom))) ** 3


class StopAt(Callback):
    """Ends the training after a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_batch_end(self, epoch: int) -> None:
        if self.trainer.step == self.step:
            raise Stopped


class Stopped(Exception):
    """Training ended where a test wanted it to."""


def task_of(**functions: Any) -> Task:
    """A small task of two classes; 40 samples, 8 of them held out."""
    module = ModuleType("task")
    x = inputs(40, seed=1, dtype=torch.float32)
    vars(module).update({"train_dataset": lambda: TensorDataset(x, (x[:, 0] > 0).long()), **functions})
    return Task(UserModule("task.py", module, None))


def trainer_of(
    mutator_class: type[Mutator],
    model_class: type[nn.Module] = Mixed,
    precision: str = "float64",
    epochs: int = 4,
    callbacks: Sequence[Callback] = (),
    task: Task | None = None,
    loop: type[Trainer] | None = None,
    **options: Any,
) -> Trainer:
    """A trainer whose start depends on nothing but its arguments; five batches an epoch."""
    model = built(model_class, torch.float64 if precision == "float64" else torch.float32)
    generator = torch.Generator().manual_seed(5)
    mutator = mutator_class(model, generator, **options)  # type: ignore[call-arg]
    task = task or task_of()
    settings = DataSettings(batch_size=7, seed=3)
    train, valid = build_batches(task, settings)
    return (loop or mutator.trainer or Trainer)(
        model,
        task,
        train,
        valid,
        epochs,
        mutator=mutator,
        generators={"mutator": generator},
        callbacks=callbacks,
        architecture_batches=architecture_batches(task, settings),
        precision=precision,
    )


def run(trainer: Trainer) -> Trainer:
    """Train until the end, or until ``StopAt``; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        with contextlib.suppress(Stopped):
            trainer.train()
    return trainer


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a nested state that is no time."""
    if isinstance(state, Mapping):
        for name, value in state.items():
            if name not in ("elapsed", "seconds"):
                yield from tensors(value, f"{path}/{name}")
    elif isinstance(state, (list, tuple)):
        for index, value in enumerate(state):
            yield from tensors(value, f"{path}/{index}")
    else:
        yield path, state


def assert_equal_states(one: Any, other: Any) -> None:
    """Equal to the bit."""
    mine, theirs = dict(tensors(one)), dict(tensors(other))
    assert mine.keys() == theirs.keys()
    for path, value in mine.items():
        same = torch.equal(value, theirs[path]) if isinstance(value, Tensor) else value == theirs[path]
        assert same, path
