"""The examples run as their READMEs say, with fewer epochs."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tests.cli_support import Cli

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits" / "model.py"


@pytest.mark.parametrize(
    ("example", "keys", "size"),
    [("digits", 7, 9000), ("mnist1d", 5, 6**4 * 6), ("fashion_mnist", 6, 4**6)],
)
def test_the_search_space_is_as_large_as_the_example_says(nnas: Cli, example: str, keys: int, size: int) -> None:
    result = nnas.ok("ss-gen", EXAMPLES / example / "model.py", "-v")
    assert len(result.json) == keys
    assert f"{keys} keys, {size} architectures" in result.err


def write_part(folder: Path, example: str, count: int) -> None:
    """``few.py``, a task with the first samples of an example, which are made once, and not by each command."""
    made = runpy.run_path(str(EXAMPLES / example / "model.py"))
    parts = {"train": made["train_dataset"](), "test": made["test_dataset"]()}
    few = {name: default_collate([data[index] for index in range(count)]) for name, data in parts.items()}
    torch.save(few, folder / "few.pt")
    (folder / "few.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        f"few = torch.load({str(folder / 'few.pt')!r})\n"
        "train_dataset = lambda: TensorDataset(*few['train'])\n"
        "valid_dataset = test_dataset = lambda: TensorDataset(*few['test'])\n"
    )


@pytest.mark.slow
def test_mnist1d_is_searched_and_retrained(nnas: Cli, tmp_path: Path) -> None:
    model = EXAMPLES / "mnist1d" / "model.py"
    write_part(tmp_path, "mnist1d", 160)
    data = ("--task", "few.py")
    nnas.ok("search", model, *data, "--mutator", "random", "--epochs", "1", "-o", "run")
    found = nnas.ok("tune", model, *data, "--checkpoint", "run/checkpoint.pt", "--trials", "2", "-o", "best.json")
    assert "2 trials, 0 failed" in found.err
    retrain = ("retrain", model, *data, "--architecture", "best.json", "--epochs", "1", "-o", "final", "--json")
    report = nnas.ok(*retrain).json
    assert report["tested_on"] == "test"
    assert 0 < report["test"]["accuracy"] < 1


def write_images(folder: Path, prefix: str, count: int) -> None:
    """Files in the format of Fashion-MNIST: class k is bright in row k."""
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    images[np.arange(count), 2 * labels, :] = 255
    with gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz", "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
    with gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz", "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.mark.slow
def test_fashion_mnist_trains_on_files_of_its_format(
    nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, "train", 6000)
    write_images(tmp_path, "t10k", 100)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    write_part(tmp_path, "fashion_mnist", 64)
    arguments = ("--mutator", "random", "--epochs", "1", "--batch-size", "32", "--task", "few.py", "-o", "run")
    nnas.ok("search", EXAMPLES / "fashion_mnist" / "model.py", *arguments)
    assert json.loads(Path("run/events.jsonl").read_text().splitlines()[1])["step"] == 2


def test_fashion_mnist_says_what_to_install(nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    result = nnas("search", EXAMPLES / "fashion_mnist" / "model.py", "--mutator", "random")
    assert (result.code, result.out) == (6, "")
    error, hint = result.err.splitlines()[-2:]
    assert error.startswith("nnas: error: ")
    assert "apt-get install dataset-fashion-mnist" in hint


@pytest.mark.slow
def test_the_custom_mutator_and_tuner_work_on_digits(nnas: Cli) -> None:
    reference = f"{EXAMPLES / 'custom_mutator' / 'mutator.py'}:ThriftyMutator"
    nnas.ok("search", DIGITS, "--mutator", reference, "--epochs", "1", "-o", "run")
    tuner = f"{EXAMPLES / 'custom_tuner' / 'tuner.py'}:HillClimber"
    found = nnas.ok("tune", DIGITS, "--checkpoint", "run/checkpoint.pt", "--tuner", tuner, "--trials", "6", "--json")
    assert (found.json["finished"], found.json["failed"]) == (6, 0)


@pytest.mark.slow
def test_the_custom_training_loop_writes_an_architecture(nnas: Cli, tmp_path: Path) -> None:
    script = EXAMPLES / "custom_training_loop" / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), "--epochs", "1", "-o", str(tmp_path / "architecture.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    nnas.ok("ss-gen", DIGITS, "-o", "space.json")
    nnas.ok("validate", "architecture.json", "--space", "space.json")
