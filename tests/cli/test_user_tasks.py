"""What a task's functions return, through the commands: exit codes, messages, and that nothing was begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_support import MODEL, Cli

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 1, "--batch-size", 16)

HEAD = """
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


def rows(count, seed):
    return list(data(count, seed))

"""

OF_UNEQUAL_SIZE = """
class Sentences(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        words = torch.full((2 + index % 3, 4), float(index % 2))
        return words, index % 2


def pad(samples):
    words, labels = zip(*samples)
    return nn.utils.rnn.pad_sequence(words, batch_first=True).mean(1), torch.tensor(labels)


def train_dataset():
    return Sentences()


def valid_dataset():
    return Sentences()


def test_dataset():
    return Sentences()
"""


@pytest.fixture
def model(tmp_path: Path):
    """Write ``model.py`` with more at its end."""

    def write(more: str, text: str = MODEL) -> None:
        (tmp_path / "model.py").write_text(text + HEAD + more)

    return write


MSE = """
def loss(output, target):
    return F.mse_loss(output, target)
"""

MAE = """
metric_mode = "min"


def metrics(output, target):
    return {"mae": (output - target).abs().mean()}
"""


REGRESSION = MODEL.replace("(x[:, 0] + x[:, 1] > 0).long()", "x[:, :1] + x[:, 1:2]").replace(
    "nn.Linear(width, 2)", "nn.Linear(width, 1)"
)


@pytest.mark.parametrize("command", ["search", "tune"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "model.py: cross entropy cannot compare output [16, 1] and float target [16, 1]: one class is always"),
        (MSE, "model.py: accuracy cannot compare output [16, 1] and float target [16, 1]: one class is always"),
    ],
    ids=["no loss", "no metrics"],
)
def test_a_regression_without_its_own_loss_is_refused_before_training(
    nnas: Cli, model, command: str, more: str, message: str
) -> None:
    model(more, REGRESSION)
    if command == "search":
        result = nnas(*SEARCH, "-o", "run")
    else:
        result = nnas("tune", "model.py", "--train-epochs", 1, "--batch-size", 16, "--trials", 2, "-o", "best.json")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(f"nnas: error: {message}")
    assert 'metrics as in `def metrics(output, target): return {"mae": ' in result.err
    assert not Path("run/config.json").exists()
    assert not Path("best.json").exists()


def test_a_regression_with_them_is_trained(nnas: Cli, model) -> None:
    model(MSE + MAE, REGRESSION)
    assert "mae" in nnas.ok(*SEARCH, "-o", "run", "--json").json["metrics"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("def loss(output, target):\n    return {'ce': output.sum()}\n", "loss() returned a dict with 'ce'"),
        ("def metrics(output, target):\n    return {'a': None}\n", "metrics() returned None as 'a'"),
        (
            "def forward_batch(model, batch):\n    return model(batch[0])\n",
            "forward_batch() returned a tensor [16, 2]",
        ),
        (
            "def train_dataset():\n    return data(9, 1), data(9, 2)\n",
            "train_dataset() returned a tuple of 2",
        ),
        ("def build_optimizer(parameters):\n    pass\n", "build_optimizer() returned None"),
        ("loss = nn.BCEWithLogitsLoss()\n", "loss() failed: ValueError: Target size"),
        ("def collate(samples, more):\n    pass\n", "collate() takes samples, more; it is called as"),
    ],
)
def test_what_a_function_returned_is_no_bug_of_ours(nnas: Cli, model, more: str, message: str) -> None:
    model(more)
    result = nnas(*SEARCH, "-o", "run")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("nnas: error: model.py: ")
    assert message in result.err
    assert "Traceback" not in result.err


class TestSamplesOfUnequalSize:
    def test_they_need_a_way_to_become_a_batch(self, nnas: Cli, model) -> None:
        model(OF_UNEQUAL_SIZE)
        result = nnas(*SEARCH, "-o", "run")
        assert (result.code, result.out) == (4, "")
        assert "model.py: samples make no batch: they have the sizes [" in result.err
        assert "hint: define collate(samples) beside the model" in result.err

    def test_collate_is_one(self, nnas: Cli, model) -> None:
        model(OF_UNEQUAL_SIZE + "\n\ncollate = pad\n")
        nnas.ok(*SEARCH, "-o", "run")
        report = nnas.ok("retrain", "model.py", "--architecture", "run/architecture.json", "--epochs", 1, "-o", "final")
        assert "test" in report.out

    def test_test_data_that_makes_no_batch_is_refused_before_the_training(self, nnas: Cli, model) -> None:
        loaders = (
            "\n\ndef build_dataloaders(batch_size, workers):\n"
            "    loader = DataLoader(Sentences(), 8, collate_fn=pad)\n"
            "    return {'train': loader, 'valid': loader}\n"
        )
        model(OF_UNEQUAL_SIZE + loaders)
        nnas.ok(*SEARCH, "-o", "run")
        retrain = ("retrain", "model.py", "--architecture", "run/architecture.json", "--epochs", 1, "-o", "final")
        result = nnas(*retrain)
        assert (result.code, result.out) == (4, "")
        assert "samples make no batch" in result.err
        assert "epoch 1/1" not in result.err
        model(OF_UNEQUAL_SIZE + loaders.replace("'valid': loader}", "'valid': loader, 'test': loader}"))
        assert nnas.ok(*retrain, "--json", "--force").json["tested_on"] == "test"


RECALL = """
def metrics(output, target):
    return {"recall": (output.argmax(1) == target)[target == 5].float().mean()}
"""


def test_a_metric_without_a_value_is_neither_shown_as_a_number_nor_the_end(nnas: Cli, model) -> None:
    model(RECALL)
    for mutator in ("random", "enas"):
        result = nnas.ok("search", "model.py", "--mutator", mutator, "--epochs", 1, "--batch-size", 8, "-o", mutator)
        assert "nan" not in result.out + result.err
        assert "recall without a value" in result.err
    found = ("--checkpoint", "enas/checkpoint.pt", "--architecture", "enas/architecture.json")
    result = nnas("evaluate", "model.py", *found)
    assert (result.code, result.out) == (5, "")
    assert "the recall has a value in no batch of the validation data" in result.err


def test_a_report_that_cannot_be_written_is_said_before_the_measurement(nnas: Cli, model, small_run: Path) -> None:
    model("def metrics(output, target):\n    raise AssertionError('measured')\n")
    found = ("--checkpoint", "run/checkpoint.pt", "--architecture", "run/architecture.json")
    result = nnas("evaluate", "model.py", *found, "-o", "nowhere/report.json")
    assert (result.code, result.out) == (6, "")
    assert result.err.startswith("nnas: error: nowhere/report.json: ")
