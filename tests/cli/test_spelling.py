"""Parameters that the library names in backquotes become options of the command that runs."""

from __future__ import annotations

import pytest

from nnas_cli.commands import search, study, tune
from nnas_cli.spelling import with_options


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("lower `batch_size`", "lower --batch-size"),
        ("choose another `output`", "choose another -o"),
        ("leave out `drop_last`, or give `no_drop_last`", "leave out --drop-last, or give --no-drop-last"),
        ("give the `model_arg` of then", "give the --model-arg of then"),
        ("take one of `nnas search`", "take one of `nnas search`"),
        ("set `tuner`", "set `tuner`"),
        ("nothing to write", "nothing to write"),
    ],
)
def test_a_parameter_is_written_as_the_option_of_the_command(text: str, written: str) -> None:
    assert with_options(text, search.command) == written


def test_an_option_of_another_name_than_its_parameter_goes_by_both() -> None:
    assert with_options("`epochs` or `train_epochs`", tune.command) == "--train-epochs or --train-epochs"


def test_a_group_has_the_options_of_its_commands() -> None:
    assert with_options("more `trials`", study.command) == "more --trials"


def test_without_a_command_the_text_stays() -> None:
    assert with_options("lower `batch_size`", None) == "lower `batch_size`"
