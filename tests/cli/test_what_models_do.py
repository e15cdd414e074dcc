"""Models that do what models do: work in place, close over themselves, have paths without weights, give tuples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nnas_core.mutables.settling import settle
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import measure
from nnas_core.training.model import build_model
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from tests.cli_support import Cli, Result

HEAD = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from nnas_core import InputChoice, LayerChoice


def train_dataset():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.sum(1) > 0).long())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
"""

CLOSING = """
        self.proj = nn.Linear(4, 4)
        self.op = LayerChoice([nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))], key="op")
        self.seen = {}
        self.project = lambda x: self.proj(self.op(x))
        self.stem.register_forward_hook(lambda module, args, output: self.seen.update(stem=output))

    def forward(self, x):
        return self.head(self.project(self.stem(x)) + self.seen["stem"])
"""

ADDING = """
        self.op = LayerChoice([nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.ReLU()], key="op")

    def forward(self, x):
        x = self.stem(x)
        y = self.op(x)
        y += x
        return self.head(y)
"""

LIGHT = """
        del self.stem, self.head
        self.op = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="op")

    def forward(self, x):
        return self.op(x)[:, :2]
"""

HIDING = """
        self.ops = [LayerChoice([nn.Linear(4, 4), nn.ReLU()], key="op")]

    def forward(self, x):
        return self.head(self.ops[0](self.stem(x)))
"""

TUPLES = """
        self.op = LayerChoice([nn.GRU(4, 4), nn.LSTM(4, 4)], key="op")

    def forward(self, x):
        return self.head(self.op(self.stem(x))[0])
"""

BROKEN = """
        self.op = LayerChoice([nn.Linear(4, 4), nn.Linear(5, 4), nn.Linear(6, 4)], key="op")

    def forward(self, x):
        return self.head(self.op(self.stem(x)))
"""


def search(nnas: Cli, tmp_path: Path, text: str, mutator: str, *more: object) -> Result:
    (tmp_path / "model.py").write_text(HEAD + text)
    options = ("--mutator", mutator, "--epochs", 1, "--batch-size", 8, "-o", "run")
    return nnas("search", "model.py", *options, *more)


def retrain(nnas: Cli, tmp_path: Path, choice: int, *more: object) -> Result:
    (tmp_path / "architecture.json").write_text(json.dumps({"op": [choice == 0, choice == 1]}))
    options = ("--architecture", "architecture.json", "--epochs", 1, "--batch-size", 8, "-o", "alone", "--json")
    return nnas("retrain", "model.py", *options, *more)


@pytest.mark.parametrize("choice", [0, 1])
def test_what_closes_over_the_model_is_retrained_and_loaded_again(nnas: Cli, tmp_path: Path, choice: int) -> None:
    (tmp_path / "model.py").write_text(HEAD + CLOSING)
    report = json.loads(retrain(nnas, tmp_path, choice).out)
    # Nothing but what was saved goes into a model that is built anew.
    model, user = build_model("model.py")
    alone = settle(model, {"op": choice})
    alone.load_state_dict(torch.load("alone/weights.pt", weights_only=True))
    task = Task(user)
    valid = build_batches(task, DataSettings(batch_size=8))[1]
    found = measure(alone, task, valid.epoch(0), torch.device("cpu"))
    assert found["loss"] == pytest.approx(report["test"]["loss"], rel=1e-6)


def test_a_change_in_place_is_told_once_with_its_line(nnas: Cli, tmp_path: Path) -> None:
    result = search(nnas, tmp_path, ADDING, "random")
    assert result.code == 0, result.err
    line = (HEAD + ADDING).splitlines().index("        y += x") + 1
    told = [one for one in result.err.splitlines() if one.startswith("nnas: warning")]
    changes = "changes in place what the backward pass needs; a copy is changed instead"
    advice = "(write `out = out + x` for `out += x`)"
    assert told == [f"nnas: warning: {tmp_path}/model.py:{line}: {changes} {advice}"]
    assert retrain(nnas, tmp_path, 0).code == 0


def test_a_path_without_weights_is_counted_and_retrained(nnas: Cli, tmp_path: Path) -> None:
    result = search(nnas, tmp_path, LIGHT, "random")
    assert result.code == 0, result.err
    count = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    passes = [one["weightless_passes"] for one in count if one["event"] == "epoch"]
    assert f"nnas: warning: {passes[0]} passes in 4 training steps updated nothing" in result.err
    alone = retrain(nnas, tmp_path, 1)
    assert alone.code == 0, alone.err
    assert json.loads(alone.out)["parameters"] == 0


def test_choices_in_a_plain_list_are_refused(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(HEAD + HIDING)
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    assert "ops[0]: the LayerChoice 'op' is in a plain list, use nn.ModuleList\n" in result.err


def test_tuples_that_cannot_be_mixed_are_refused(nnas: Cli, tmp_path: Path) -> None:
    result = search(nnas, tmp_path, TUPLES, "darts")
    assert result.code == 4
    assert result.err == (
        "nnas: error: op: the outputs of the candidates of 'op' cannot be mixed: '0' gives ([8, 4], [1, 4]), '1' gives"
        " ([8, 4], ([1, 4], [1, 4]))\n"
        "hint: let the candidates give equal shapes, or use a mutator that runs what is chosen only: enas, fairnas,"
        " gdas, random, spos\n"
    )


@pytest.mark.parametrize("mutator", ["darts", "random"])
def test_candidates_that_fail_are_listed_before_anything_is_written(nnas: Cli, tmp_path: Path, mutator: str) -> None:
    result = search(nnas, tmp_path, BROKEN, mutator)
    assert result.code == 4
    assert result.err == (
        "nnas: error: model.py: 2 candidates fail on the first training batch\n"
        "  with op=1: RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and 5x4)\n"
        "  with op=2: RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and 6x4)\n"
        "hint: mend the candidates, or leave this trial out by --no-try-candidates\n"
    )
    assert not (tmp_path / "run" / "config.json").exists()


def test_without_the_trial_the_error_of_a_step_says_what_was_decided(nnas: Cli, tmp_path: Path) -> None:
    result = search(nnas, tmp_path, BROKEN, "random", "--no-try-candidates")
    assert result.code == 4
    assert result.err.splitlines()[-1].endswith((" (with op=1)", " (with op=2)"))
