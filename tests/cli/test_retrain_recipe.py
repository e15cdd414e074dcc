"""``nnas retrain`` with a recipe and several seeds: what is reported, what goes on, what is refused."""

from __future__ import annotations

import json
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from nnas_core import schema
from tests.cli.test_resume import stopping
from tests.cli_support import Cli, ForkServer

IMAGES = """
import torch
import torch.nn as nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.op = LayerChoice([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Identity()], key="op")
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + self.op(x)).mean((2, 3))
        return (self.head(x), self.head(2 * x)) if self.training else self.head(x)


def data(count, seed):
    x = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long())


def train_dataset():
    return data(40, 1)


def test_dataset():
    return data(20, 2)
"""
ARCHITECTURE = ("--architecture", "a.json", "--batch-size", 8)
RETRAIN = ("retrain", "images.py", *ARCHITECTURE)
WHOLE = ("--drop-path", 0.3, "--cutout", 2, "--mixup", 0.2, "--label-smoothing", 0.1, "--ema", 0.9)
RECIPE = (*WHOLE, "--auxiliary-weight", 0.3)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, nnas: Cli) -> None:
    """A model of images, and an architecture of it."""
    (tmp_path / "images.py").write_text(IMAGES)
    (tmp_path / "a.json").write_text('{"op": 0}')


def events(run: str) -> list[dict[str, Any]]:
    """Those of a run."""
    return [json.loads(line) for line in Path(run, "events.jsonl").read_text().splitlines()]


def test_several_seeds_with_the_whole_recipe(nnas: Cli) -> None:
    report = nnas.ok(*RETRAIN, *RECIPE, "--epochs", 2, "--seeds", 3, "--seed", 4, "-o", "final", "--json").json
    assert schema.problems("retrain-report", report) == []
    # stem 4*(9+1), op 4*(4*9+1), head 4*2+2; multiply-adds on 6x6
    assert (report["parameters"], report["macs"]) == (40 + 148 + 10, 36 * (4 * 9 + 4 * 4 * 9) + 4 * 2)
    assert [one["epoch"] for one in report["curve"]] == [1, 2]
    assert report["curve"][-1]["valid"] == report["valid"]
    runs = [(one["run"], one["seed"], one["weights"]) for one in report["trainings"]]
    assert runs == [
        ("final", 4, "final/weights.pt"),
        ("final/seed-5", 5, "final/seed-5/weights.pt"),
        ("final/seed-6", 6, "final/seed-6/weights.pt"),
    ]
    losses = [one["test"]["loss"] for one in report["trainings"]]
    assert len(set(losses)) == 3
    assert report["mean"]["loss"] == pytest.approx(sum(losses) / 3)
    assert report["deviation"]["loss"] == pytest.approx(statistics.stdev(losses))
    assert events("final")[-1]["cost"] == {"parameters": report["parameters"], "macs": report["macs"]}
    document = nnas.ok("export", "final", "--format", "document").json
    assert document["cost"] == {"parameters": report["parameters"], "macs": report["macs"]}
    assert document["metrics"] == report["test"]
    # a further seed is what --seed gives alone
    alone = nnas.ok(*RETRAIN, *RECIPE, "--epochs", 2, "--seed", 5, "-o", "alone", "--json").json
    assert alone["test"] == report["trainings"][1]["test"]
    assert (alone["mean"], alone["deviation"]) == (None, None)
    nnas.ok("validate", "final/config.json", "final/events.jsonl")
    shown = nnas.ok("retrain", "--resume", "final").out.splitlines()
    assert shown[2].split()[:4] == ["test,", "3", "seeds", "loss"]
    assert "±" in shown[2]


def test_every_part_of_the_recipe_changes_the_training(nnas: Cli) -> None:
    def weights(*options: object) -> dict[str, torch.Tensor]:
        nnas.ok(*RETRAIN, *options, "--epochs", 1, "-o", "run", "--force", "-q")
        state: dict[str, torch.Tensor] = torch.load("run/weights.pt", weights_only=True)
        return state

    plain = weights()
    pairs = [RECIPE[number : number + 2] for number in range(0, len(RECIPE), 2)]
    same = [pair for pair in pairs if torch.equal(weights(*pair)["head.weight"], plain["head.weight"])]
    assert same == []
    assert torch.equal(weights("--auxiliary-weight", 0.4)["head.weight"], plain["head.weight"])  # the default


def test_a_second_seed_that_was_interrupted_goes_on_to_the_bit(nnas: Cli, small_model: Path) -> None:
    Path("a.json").write_text('{"op": "deep", "act": "tanh", "link": "act"}')
    command = ("retrain", "model.py", *ARCHITECTURE, "--ema", 0.9, "--cutout", 0, "--epochs", 2, "--seeds", 2)
    whole = nnas.ok(*command, "-o", "whole", "--json").json
    stopping(signal.SIGTERM, 24)  # two epochs of 6 + 2 batches, and a test of 3: in the second seed
    result = nnas(*command, "-o", "run")
    assert (result.code, result.out) == (143, "")
    assert result.err.endswith("hint: nnas retrain --resume run\n")
    assert Path("run/seed-1/checkpoint.pt").exists()
    again = nnas.ok("retrain", "--resume", "run", "--json").json
    assert [one["test"] for one in again["trainings"]] == [one["test"] for one in whole["trainings"]]
    for folder in ("", "seed-1/"):
        one, other = (torch.load(f"{run}/{folder}weights.pt", weights_only=True) for run in ("whole", "run"))
        assert all(torch.equal(one[name], other[name]) for name in one)


KILLED = IMAGES.replace("        x = self.stem(x).relu()", "        killed_in_time()\n        x = self.stem(x).relu()")
KILLED += """

def killed_in_time():
    import os
    from pathlib import Path

    left = Path("left")
    if left.exists():
        left.write_text(left.read_text()[1:])
        if left.read_text() == "":
            left.unlink()
            os.kill(os.getpid(), 9)
"""


def test_a_training_with_the_whole_recipe_goes_on_to_the_bit_after_kill_9(
    nnas: Cli, forks: ForkServer, tmp_path: Path
) -> None:
    Path("images.py").write_text(KILLED)
    command = (*RETRAIN, *RECIPE, "--epochs", 3)
    whole = nnas.ok(*command, "-o", "whole", "--json").json
    Path("left").write_text("." * 16)  # in the second epoch: what is tried first has 6 passes, an epoch 4 + 1
    assert forks.run(tmp_path, *command, "--checkpoint-every", 3, "-o", "run").code == -9
    again = nnas.ok("retrain", "--resume", "run", "--json").json
    assert (again["test"], again["curve"]) == (whole["test"], whole["curve"])
    one, other = (torch.load(f"{run}/weights.pt", weights_only=True) for run in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_of_an_older_run_are_not_gone_on_with(nnas: Cli) -> None:
    nnas.ok(*RETRAIN, "--epochs", 1, "--seeds", 2, "--learning-rate", 1, "-o", "run")
    report = nnas.ok(*RETRAIN, "--epochs", 1, "--seeds", 2, "-o", "run", "--force", "--json").json
    fresh = nnas.ok(*RETRAIN, "--epochs", 1, "--seeds", 2, "-o", "other", "--json").json
    assert [one["test"] for one in report["trainings"]] == [one["test"] for one in fresh["trainings"]]


def test_init_scratch_takes_the_split_of_a_checkpoint_and_no_weights(nnas: Cli) -> None:
    nnas.ok("search", "images.py", "--mutator", "random", "--epochs", 1, "--seed", 7, "-o", "super")
    slow = ("--epochs", 1, "--learning-rate", 1e-12, "--min-learning-rate", 0, "-q")
    given = ("--checkpoint", "super/checkpoint.pt")
    for name, options in {"plain": (), "scratch": (*given, "--init", "scratch"), "inherited": given}.items():
        nnas.ok(*RETRAIN, *slow, *options, "-o", name)
    plain, scratch, inherited = (
        torch.load(f"{name}/weights.pt", weights_only=True)["stem.weight"] for name in ("plain", "scratch", "inherited")
    )
    supernet = torch.load("super/checkpoint.pt", weights_only=True)["state"]["model"]["stem.weight"]
    assert torch.allclose(scratch, plain, atol=1e-9)
    assert torch.allclose(inherited, supernet, atol=1e-9)
    curves = [events(name)[1]["valid"]["loss"] for name in ("plain", "scratch")]
    assert curves[0] != curves[1]  # other samples are held out


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (
            ("--init", "inherited"),
            IMAGES,
            "--init inherited needs the weights of a supernet\nhint: give its --checkpoint",
        ),
        (("--drop-path", 1), IMAGES, "1.0 is not in the range 0<=x<1"),
        (("--ema", 1), IMAGES, "1.0 is not in the range 0<=x<1"),
        (("--seeds", 0), IMAGES, "0 is not in the range"),
        (
            ("--drop-path", 0.2),
            IMAGES.replace("x + self.op(x)", "self.op(x)"),
            "--drop-path does nothing, no chosen layer of this network has a path beside it",
        ),
        (
            ("--auxiliary-weight", 0.2),
            IMAGES.replace(" if self.training else", " if False else"),
            "--auxiliary-weight does nothing, the model returns no pair of logits and auxiliary logits",
        ),
        (
            ("--mixup", 0.2),
            IMAGES + "\n\ndef loss(output, target):\n    return nn.functional.cross_entropy(output[0], target)\n",
            "--mixup changes the default loss, and images.py has a loss() of its own",
        ),
        (
            ("--label-smoothing", 0.2),
            IMAGES + "\n\ndef loss(output, target):\n    return nn.functional.cross_entropy(output[0], target)\n",
            "--label-smoothing changes the default loss, and images.py has a loss() of its own",
        ),
        (
            ("--cutout", 2),
            IMAGES.replace("x = self.stem(x)", "x = self.stem(x.unflatten(1, (1, 6, 6)))").replace(
                "TensorDataset(x,", "TensorDataset(x.flatten(1),"
            ),
            "--cutout is for images, [samples, channels, height, width], and the input is a tensor [8, 36] of float32",
        ),
        (("--cutout", 12), IMAGES, "--cutout 12 leaves nothing of images of 6x6\nhint: give a smaller one"),
        (
            ("--mixup", 2),
            IMAGES.replace("x = self.stem(x)", "x = self.stem(x.float())").replace(
                "TensorDataset(x,", "TensorDataset(x.long(),"
            ),
            "--mixup mixes inputs of floating numbers, and the input is a tensor [8, 1, 6, 6] of int64",
        ),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written(
    nnas: Cli, arguments: tuple[object, ...], text: str, message: str
) -> None:
    Path("images.py").write_text(text)
    result = nnas(*RETRAIN, *arguments, "--epochs", 1, "-o", "run")
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert not Path("run").exists()


def test_one_module_cannot_be_trained_several_times(nnas: Cli) -> None:
    Path("images.py").write_text(f"{IMAGES}\n\nnet = Net()\n")
    result = nnas("retrain", "images.py:net", *ARCHITECTURE, "--seeds", 2, "--epochs", 1, "-o", "run")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: net is one module, which every one of the --seeds would go on with\n"
        "hint: name a class or a function\n"
    )
