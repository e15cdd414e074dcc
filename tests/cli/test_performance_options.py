"""``nnas search --memory-format``, ``--compile`` and ``--recompute``: the same search, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.test_search import assert_same_result, weights
from tests.cli_support import Cli

IMAGES = """
import os
import signal
from pathlib import Path

import torch
import torch.nn as nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice


class Net(nn.Module):
    def __init__(self, flatten="reshape", drop=0.2):
        super().__init__()
        conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.first = LayerChoice([nn.Sequential(conv, nn.BatchNorm2d(4)), nn.Conv2d(2, 4, 1)], key="first")
        self.second = LayerChoice([nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(drop)], key="second")
        self.head = nn.Linear(4 * 9, 3)
        self.flatten = flatten

    def forward(self, x):
        y = torch.relu(self.second(self.first(x)))
        return self.head(y.view(len(y), -1) if self.flatten == "view" else y.reshape(len(y), -1))


def train_dataset():
    x = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(50) % 3)


def loss(output, target):
    if output.requires_grad and Path("stop").exists():
        Path("stop").unlink()
        os.kill(os.getpid(), signal.SIGINT)
    return nn.functional.cross_entropy(output, target)
"""

SMALL = """
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Linear(18, 3), nn.Sequential(nn.Linear(18, 3), nn.Tanh())], key="op")

    def forward(self, x):
        return self.op(x.flatten(1))
"""
SEARCH = ("search", "images.py", "--mutator", "darts", "--epochs", 2, "--batch-size", 8)


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    """A model of convolutions in the current folder."""
    (tmp_path / "images.py").write_text(IMAGES)


def format_of(run: str) -> str:
    """How the checkpoint's weights of convolutions lie in memory."""
    weight = weights(run)["second.0.weight"]
    return "channels-last" if weight.is_contiguous(memory_format=torch.channels_last) else "contiguous"


@pytest.mark.parametrize("options", [[], ["--recompute"], ["--memory-format", "contiguous"]])
def test_a_stopped_search_goes_on_to_the_bit(nnas: Cli, options: list[str]) -> None:
    nnas.ok(*SEARCH, *options, "-o", "whole")
    Path("stop").touch()
    assert nnas(*SEARCH, *options, "-o", "run").code == 130
    nnas.ok("search", "--resume", "run")
    assert_same_result("run", "whole")


def test_recomputing_gives_the_same_weights_to_the_bit(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    nnas.ok(*SEARCH, "--recompute", "-o", "again")
    assert_same_result("run", "again")


def test_auto_takes_channels_last_where_all_candidates_run(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "-o", "auto")
    nnas.ok(*SEARCH, "--memory-format", "channels-last", "-o", "last")
    nnas.ok(*SEARCH, "--memory-format", "contiguous", "-o", "contiguous")
    nnas.ok(*SEARCH, "--mutator", "random", "-o", "random")
    nnas.ok(*SEARCH, "--precision", "float64", "-o", "double")
    found = {run: format_of(run) for run in ("auto", "last", "contiguous", "random", "double")}
    assert found == {
        "auto": "channels-last",
        "last": "channels-last",
        "contiguous": "contiguous",
        "random": "contiguous",
        "double": "contiguous",
    }
    assert_same_result("auto", "last")
    assert json.loads(Path("auto/config.json").read_text())["search"]["memory_format"] == "auto"


def test_a_model_that_needs_contiguous_images_gets_them_with_a_warning(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "--memory-format", "contiguous", "-a", "flatten=view", "-o", "contiguous")
    result = nnas.ok(*SEARCH, "-a", "flatten=view", "--no-progress", "-o", "auto")
    assert "nnas: warning: the model fails in the memory format channels-last (view size is not comp" in result.err
    assert_same_result("auto", "contiguous")


def test_weights_in_channels_last_are_evaluated_and_exported(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    Path("one.json").write_text(nnas.ok("export", "run/checkpoint.pt").out)
    given = ("--checkpoint", "run/checkpoint.pt", "--architecture", "one.json")
    evaluated = nnas.ok("evaluate", "images.py", *given, "--json").json
    assert 0 <= evaluated["metrics"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--mutator", "random", "--recompute"],
            2,
            "--recompute needs a mutator that weights all candidates in every step, RandomMutator does not",
        ),
        (
            ["--mutator", "gdas", "--compile"],
            2,
            "--compile needs a mutator that weights all candidates in every step, GdasMutator does not",
        ),
        (
            ["--compile", "--recompute"],
            2,
            "--compile and --recompute exclude each other: the compiler decides itself what to compute once more",
        ),
        (["--compile"], 6, "torch.compile needs a C++ compiler, and 'no-such-compiler' is not on the PATH"),
    ],
)
def test_options_that_cannot_work_are_refused(
    nnas: Cli, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = nnas(*SEARCH, *options, "-o", "run")
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"nnas: error: {message}\nhint: ")
    assert not Path("run/checkpoint.pt").exists()


def test_a_run_goes_on_with_the_options_that_it_began_with(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    result = nnas("search", "--resume", "run", "--recompute")
    assert result.code == 3
    assert "recompute" in result.err


FORKING = """
import json, os, sys
from pathlib import Path
import torch._dynamo, torch._inductor.compile_fx  # once, and not by each command
from nnas_cli.main import entry

codes = []
for stops, command in json.loads(sys.argv[1]):
    if stops:
        Path("stop").touch()
    process = os.fork()
    if not process:
        code = entry(command)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
Path("codes.json").write_text(json.dumps(codes))
"""


@pytest.mark.slow
def test_a_compiled_search_finds_what_an_uncompiled_one_finds_and_goes_on_to_the_bit(nnas: Cli, tmp_path: Path) -> None:
    # with few kernels: the compiler of C++ takes seconds for each
    before, model = IMAGES.split("class Net")
    after = model[model.index("def train_dataset") :]
    (tmp_path / "small.py").write_text(f"{before}{SMALL}\n\n{after}")
    search = ["search", "small.py", *map(str, SEARCH[2:]), "--drop-last", "--mutator-arg", "learning_rate=0.1"]
    nnas.ok(*search, "-o", "plain")
    whole, stopped = ([*search, "--compile", "-o", run] for run in ("whole", "run"))
    commands = [(False, whole), (True, stopped), (False, ["search", "--resume", "run"])]
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    program = [sys.executable, "-c", FORKING, json.dumps(commands)]
    done = subprocess.run(program, env={**os.environ, **caches}, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(Path("codes.json").read_text()) == [0, 130, 0], done.stderr
    assert "warning" not in done.stderr.lower()
    assert any((tmp_path / "cache").rglob("*.so"))  # something was compiled
    assert Path("plain/architecture.json").read_bytes() == Path("whole/architecture.json").read_bytes()
    plain, compiled = weights("plain"), weights("whole")
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-2, atol=1e-3)
    assert_same_result("run", "whole")
