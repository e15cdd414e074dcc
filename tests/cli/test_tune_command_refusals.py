"""``nnas tune --trial-command``: what cannot work is refused before a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.trial_programs import tune, write_files
from tests.cli_support import Cli


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_files(tmp_path)


NO_PROGRAM = (
    "nnas: error: nothing-of-that-name: no such program, or one that cannot be executed\n"
    "hint: --trial-command takes a program and its arguments: python train.py\n"
)


def test_an_unknown_program_is_no_study(nnas: Cli) -> None:
    result = tune(nnas, command="nothing-of-that-name --fast")
    assert (result.code, result.out, result.err) == (2, "", NO_PROGRAM)
    assert tune(nnas, trials=1).code == 0  # there is none in the way


@pytest.mark.parametrize(
    ("space", "arguments", "code", "message"),
    [
        (
            "space.json",
            (),
            2,
            (
                "space.json: a search space alone cannot be evaluated\n"
                "hint: give the Python file of the model, or --trial-command\n"
            ),
        ),
        (
            "space.json",
            ("--trial-command", "'x"),
            2,
            '--trial-command "\'x": no closing quotation\nhint: close the quotes\n',
        ),
        (
            "space.json",
            ("--trial-command", " "),
            2,
            "--trial-command is empty\nhint: give a program and its arguments\n",
        ),
        (
            "space.json",
            ("--trial-command", "x", "--train-epochs", "1"),
            2,
            (
                "give one of --checkpoint (inherited weights), --train-epochs (training from scratch) and "
                "--trial-command (a program)\nhint: a checkpoint comes from `nnas search`\n"
            ),
        ),
        ("none.json", ("--trial-command", "x"), 3, "none.json: no such file\nhint: check the path\n"),
        (
            "space.json",
            ("--trial-command", "x", "--gpus", "0,1", "--concurrency", "3"),
            2,
            "--concurrency 3 is more than the 2 of --gpus\nhint: lower it, or name a GPU twice to give it two trials\n",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    nnas: Cli, space: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = nnas("tune", space, *arguments)
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--learning-rate", 1),
        ("--batch-size", 1),
        ("--workers", 1),
        ("--recalibrate", 1),
        ("--task", "task.py"),
        ("--device", "cpu"),
        ("--drop-last", None),
    ],
)
def test_an_option_of_models_is_refused_with_a_command(nnas: Cli, option: str, value: Any) -> None:
    result = tune(nnas, option, *([] if value is None else [value]))
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: {option} does nothing with --trial-command\nhint: leave it out\n"


def test_an_argument_of_the_model_is_refused_with_a_search_space(nnas: Cli) -> None:
    result = tune(nnas, "-a", "width=3")
    assert (result.code, result.out) == (2, "")
    assert result.err == "nnas: error: --model-arg does nothing with a search space\nhint: leave it out\n"


@pytest.mark.parametrize("text", ["", ",", "0,", "0 1", "a b"])
def test_what_is_no_list_of_gpus_is_refused(nnas: Cli, text: str) -> None:
    result = tune(nnas, "--gpus", text)
    assert (result.code, result.out) == (2, "")
    assert f"{text!r} is no list of GPUs; give their numbers: 0,1" in result.err


@pytest.mark.parametrize("option", ["--concurrency", "--attempts", "--max-failures", "--trial-timeout"])
def test_zero_is_refused(nnas: Cli, option: str) -> None:
    result = tune(nnas, option, 0)
    assert (result.code, result.out) == (2, "")
    assert f"invalid value for '{option}'" in result.err
