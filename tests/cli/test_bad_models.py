"""Models, data and training that cannot work: what is said, with which exit code, and whose traceback is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from nnas_core.runs.checkpoint import read_checkpoint
from tests.cli.test_search import events
from tests.cli_support import MODEL, Cli

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16, "-o", "run")

TWO = """
import torch.nn as nn
from nnas_core import LayerChoice


class A(nn.Module):
    def __init__(self):
        super().__init__()
        self.choice = LayerChoice([nn.ReLU(), nn.Tanh()])


class B(A):
    pass
"""


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("none.py", 3, "none.py: no such file\nhint: give the path of a Python file, or package.module\n"),
        (
            "none.module",
            3,
            "none.module: no such file, and no module of that name\nhint: give file.py or package.module\n",
        ),
        ("folder", 3, "folder: is a directory, a Python file is needed\n"),
        ("text.txt", 3, "text.txt: is no Python file (its name must end in .py)\n"),
        ("model.py:Nett", 4, "model.py: nothing is named 'Nett' in it\nhint: did you mean 'Net'?\n"),
        ("model.py:torch", 4, "model.py: torch is a module, no model\n"),
        ("two.py", 4, "two.py: several classes could be the model: A, B\nhint: name one: two.py:B\n"),
        (
            "quits.py",
            4,
            (
                "quits.py: called sys.exit() while it was imported\n"
                'hint: put what the file does as a script under `if __name__ == "__main__":`\n'
            ),
        ),
        (
            "plain.py",
            4,
            (
                "Plain contains no mutables\nhint: mark choices with LayerChoice or InputChoice in "
                "__init__ (in forward they are not found)\n"
            ),
        ),
        (
            "empty.py",
            4,
            "empty.py: no model in it\nhint: name one (empty.py:NAME, arguments with -a), or define build_model()\n",
        ),
        ("returns.py", 4, "returns.py: build_model returned a int, not an nn.Module\n"),
        (
            "model.py:data",
            2,
            (
                "model.py:data: wrong model arguments: missing a required argument: 'count'\n"
                "hint: it takes count, seed; give them with -a NAME=VALUE\n"
            ),
        ),
    ],
)
def test_a_model_that_cannot_be_found_is_told_from_one_that_is_none(
    nnas: Cli, small_model: Path, reference: str, code: int, message: str
) -> None:
    Path("folder").mkdir()
    Path("text.txt").write_text("hello")
    Path("two.py").write_text(TWO)
    Path("quits.py").write_text("import sys\nsys.exit(3)\n")
    Path("plain.py").write_text("import torch.nn as nn\n\n\nclass Plain(nn.Module):\n    pass\n")
    Path("empty.py").write_text("x = 1\n")
    Path("returns.py").write_text("def build_model():\n    return 3\n")
    result = nnas("ss-gen", reference)
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")


def test_an_argument_that_the_model_does_not_take_is_refused(nnas: Cli, small_model: Path) -> None:
    result = nnas("ss-gen", "model.py", "-a", "wdth=3")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: model.py: wrong model arguments: got an unexpected keyword argument 'wdth'\n"
        "hint: it takes width; give them with -a NAME=VALUE\n"
    )


def test_a_module_that_raises_on_import_shows_its_traceback_from_its_own_frame_on(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def f():\n    raise RuntimeError('boom')\n\n\nf()\n")
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/model.py", line 5, in <module>\n'
        "    f()\n"
        f'  File "{tmp_path}/model.py", line 2, in f\n'
        "    raise RuntimeError('boom')\n"
        "RuntimeError: boom\n"
        f"nnas: error: {tmp_path}/model.py:5: RuntimeError: boom\n"
    )


def test_a_missing_import_of_the_module_is_its_own_failure(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import nothing_of_that_name\n")
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    assert result.err.endswith("model.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'\n")


def test_a_syntax_error_has_its_line(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\ndef f(:\n")
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    assert result.err == f"nnas: error: {tmp_path}/model.py:2: SyntaxError: invalid syntax\n"


def test_a_constructor_that_raises_shows_its_traceback(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        MODEL.replace("super().__init__()", "super().__init__()\n        raise KeyError('no')")
    )
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/model.py", line ')
    assert result.err.endswith("KeyError: 'no'\n")
    assert "nnas_core" not in result.err


def test_a_forward_that_raises_shows_its_traceback(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.replace("return self.head(", "return self.missing("))
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/model.py", line ')
    assert "AttributeError: 'Net' object has no attribute 'missing'" in result.err


def test_a_mutable_that_is_created_in_forward_gets_a_clear_error(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        MODEL.replace("b = self.op(a)", "b = LayerChoice([nn.ReLU(), nn.Tanh()])(self.op(a))")
    )
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (4, "")
    assert re.fullmatch(
        r"nnas: error: Mutator not set for 'LayerChoice\d+'\n"
        r"hint: bind the model to a mutator first; a mutable that is created in forward\(\) is never found, "
        r"create it in __init__\n",
        result.err,
    )


def test_all_problems_of_a_space_are_listed_with_their_module_paths(nnas: Cli, tmp_path: Path) -> None:
    text = MODEL.replace('key="act"', 'key="op"').replace('"op", "act"', '"opp", "act"')
    text = text.replace("skip=nn.Identity()", 'skip=LayerChoice([nn.ReLU(), nn.Tanh()], key="inner")')
    (tmp_path / "model.py").write_text(text)
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (4, "")
    lines = result.err.splitlines()
    assert lines[0] == "nnas: error: the mutables of Net make no search space"
    assert lines[-1] == "hint: mend these places in the model"
    problems = "\n".join(lines[1:-1])
    assert "op.skip: nested search space: a LayerChoice inside the LayerChoice 'op'" in problems
    assert "link: choose_from names 'opp', which is no key of a mutable before 'link', and not NO_KEY" in problems
    assert (
        "act: the key 'op' is a layer_choice of [relu, tanh] here, but a layer_choice of [linear, skip, deep] at op"
        in problems
    )


# ---- data


def test_a_dataset_that_is_missing_raises_the_users_own_error(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.replace("return data(60, 1)", "return open('data.bin')"))
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (4, "")
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'data.bin'\n" in result.err
    assert "nnas_core" not in result.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "def train_dataset",
            "def my_dataset",
            (
                "model.py: it defines no train_dataset()\n"
                "hint: define train_dataset() there, or name the file that does with --task FILE\n"
            ),
        ),
        (
            "data(60, 1)",
            "data(0, 1)",
            "model.py: train_dataset() returned an empty dataset\nhint: check its path and its filter\n",
        ),
        (
            "data(60, 1)",
            "None",
            (
                "model.py: train_dataset() returned None, it must return one dataset: with __len__ and __getitem__, or"
                " a torch.utils.data.IterableDataset\nhint: write `return` before it\n"
            ),
        ),
        ("data(60, 1)", "data(1, 1)", "model.py: 1 training samples cannot be split with --valid-fraction 0.2\n"),
        (
            "data(60, 1)",
            "iter([])",
            (
                "model.py: train_dataset() returned a list_iterator, it must return one dataset: with __len__ and"
                " __getitem__, or a torch.utils.data.IterableDataset\n"
            ),
        ),
        ("# end", "metric_mode = 'best'", "model.py: metric_mode is 'best', it must be 'max' or 'min'\n"),
        (
            "# end",
            "def metrics(output, target):\n    return 3\n",
            (
                "model.py: metrics() returned an int (3), it must return a dictionary of numbers\n"
                'hint: as in {"accuracy": 0.9}; the first is the metric\n'
            ),
        ),
        (
            "# end",
            "def build_dataloaders(batch_size, workers):\n    return []\n",
            (
                "model.py: build_dataloaders() returned an empty list, it must return a dictionary with 'train' and"
                " 'valid', and perhaps 'test'\nhint: each is a torch.utils.data.DataLoader\n"
            ),
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused(nnas: Cli, tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "model.py").write_text((MODEL + "\n\n# end\n").replace(old, new))
    result = nnas(*SEARCH)
    assert (result.code, result.out, result.err) == (4, "", f"nnas: error: {message}")


def test_output_and_target_that_cannot_be_compared_are_shown_by_shape(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.replace(".long()", ".long()[:, None].repeat(1, 3)"))
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(
        "nnas: error: model.py: cross entropy cannot compare output [16, 2] and target [16, 3]: "
    )
    assert result.err.endswith("hint: define loss(output, target) and metrics(output, target) beside the model\n")


# ---- divergence

DIVERGING = (
    MODEL
    + """

calls = []


def loss(output, target):
    calls.append(1)
    value = nn.functional.cross_entropy(output, target)
    return value * WRONG if len(calls) == 6 else value
"""
)


def test_a_loss_that_is_not_finite_ends_the_search_and_keeps_the_last_good_checkpoint(
    nnas: Cli, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(DIVERGING.replace("WRONG", "float('nan')"))
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (5, "")
    assert result.err.endswith(
        "nnas: error: the loss is not finite (nan) at step 5, epoch 2; "
        "the last good checkpoint is run/checkpoint.pt\n"
        "hint: lower the learning rate, set --clip-grad, or look for bad input data\n"
    )
    content = read_checkpoint("run/checkpoint.pt")
    assert content["header"]["progress"]["epoch"] == 1
    for tensor in content["state"]["model"].values():
        assert torch.isfinite(tensor).all()
    assert [event["event"] for event in events("run")] == ["started", "epoch"]
    assert nnas("export", "run/checkpoint.pt").code == 0


def test_the_search_goes_on_from_the_last_good_checkpoint(nnas: Cli, small_model: Path, tmp_path: Path) -> None:
    nnas.ok(*SEARCH[:-1], "whole")
    (tmp_path / "model.py").write_text(DIVERGING.replace("WRONG", "float('nan')"))
    assert nnas(*SEARCH).code == 5
    (tmp_path / "model.py").write_text(MODEL)
    nnas.ok("search", "--resume", "run")
    assert Path("run/architecture.json").read_bytes() == Path("whole/architecture.json").read_bytes()


def test_before_the_first_step_the_checkpoint_is_that_of_the_beginning(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.replace("return self.head(", "return float('inf') * self.head("))
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith(
        "nnas: error: the loss is not finite (nan) at step 1, epoch 1; the last good checkpoint is run/checkpoint.pt\n"
    )
    assert read_checkpoint("run/checkpoint.pt")["header"]["progress"]["step"] == 0


def test_weights_that_are_not_finite_never_replace_good_ones(nnas: Cli, tmp_path: Path) -> None:
    # the loss is finite (0), its gradient is not: sqrt has no derivative at 0
    wrong = DIVERGING.replace("value * WRONG", "(output.sum() * 0).sqrt()")
    (tmp_path / "model.py").write_text(wrong)
    result = nnas(*SEARCH, "--checkpoint-every", 1)
    assert (result.code, result.out) == (5, "")
    assert "nnas: error: the weights are not finite (stem.weight) after step 5; " in result.err
    content = read_checkpoint("run/checkpoint.pt")
    assert content["header"]["progress"]["step"] == 4
    for tensor in content["state"]["model"].values():
        assert torch.isfinite(tensor).all()


def test_a_metric_that_is_not_finite_does_not_end_a_search(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL + "\n\ndef metrics(output, target):\n    return {'odd': float('nan')}\n")
    result = nnas(*SEARCH, "--json")
    assert (result.code, result.err) == (0, "")
    assert set(result.json["metrics"]) == {"loss"}
    assert nnas("validate", "run/events.jsonl", "run/checkpoint.pt").code == 0
