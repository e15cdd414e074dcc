"""Every example takes every mutator of ``nnas list mutators``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_on_meta
from tests.cli_support import Cli

EXAMPLES = Path(__file__).parents[2] / "examples"

SHAPES = {"digits": (1, 8, 8), "mnist1d": (1, 40), "fashion_mnist": (1, 28, 28)}

FEW = """
import torch
from torch.utils.data import TensorDataset


def few(count):
    return TensorDataset(torch.arange(count * {size}).reshape(count, *{shape}) % 17 / 16, torch.arange(count) % 10)


train_dataset = lambda: few(8)
valid_dataset = lambda: few(4)
"""

OPTIONS: dict[str, dict[str, object]] = {
    "enas": {"mutator_steps": 1, "aggregate": 1},
    "pcdarts": {"k": 1},  # for candidates that are built for all channels
}


def options_of(mutator: str, model: Path) -> dict[str, object]:
    """What a mutator cannot do without here, and what saves time."""
    if mutator != "fbnet":
        return OPTIONS.get(mutator, {})
    space = SearchSpace.from_model(build_on_meta(str(model))[0])
    layers = [choice for choice in space if choice.kind == "layer_choice"]
    return {"latency_table": {choice.key: dict.fromkeys(choice.candidates, 1.0) for choice in layers}}


@pytest.mark.parametrize("mutator", registry.entries("mutators"))
@pytest.mark.parametrize("example", SHAPES)
def test_an_example_takes_a_mutator(nnas: Cli, tmp_path: Path, example: str, mutator: str) -> None:
    shape, model = SHAPES[example], EXAMPLES / example / "model.py"
    size = 1
    for length in shape:
        size *= length
    (tmp_path / "few.py").write_text(FEW.format(size=size, shape=shape))
    arguments = [f"--mutator-arg={name}={json.dumps(value)}" for name, value in options_of(mutator, model).items()]
    epochs = 3 if mutator == "pdarts" else 1  # one a stage
    command = ("search", model, "--mutator", mutator, "--task", "few.py", "--epochs", epochs, "--batch-size", 4)
    report = nnas.ok(*command, "--no-try-candidates", "--derive", 2, *arguments, "-o", "run", "--json").json
    assert report["derived"]["tried"] == 2
