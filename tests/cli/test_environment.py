"""Options from the environment: which variables are read, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from nnas_cli.main import cli
from tests.cli_support import Cli, Result


def refused(result: Result, text: str) -> None:
    """The command ended with a usage error that begins so, and nothing else was said."""
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"nnas: error: {text}\nhint: "), result.err
    assert result.err.count("\n") == 2


def test_an_option_may_be_given_by_a_variable(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNAS_LIST_OUTPUT", "tuners.json")
    assert nnas("list", "tuners").code == 0
    assert Path("tuners.json").is_file()


@pytest.mark.parametrize(
    ("variable", "arguments", "near"),
    [
        ("NNAS_SEARCH_EPOCS", ("search", "model.py", "--mutator", "random"), "did you mean NNAS_SEARCH_EPOCHS?"),
        ("NNAS_SEACH_EPOCHS", ("search", "model.py", "--mutator", "random"), "did you mean NNAS_SEARCH_EPOCHS?"),
        ("NNAS_JSN", ("list", "mutators"), "did you mean NNAS_JSON?"),
        ("NNAS_STUDY_LIST_STORAG", ("study", "list"), "did you mean NNAS_STUDY_LIST_STORAGE?"),
        ("NNAS_LIST_QQQ", ("list", "tuners"), "see `nnas list --help`, or unset it"),
    ],
)
def test_a_variable_that_is_no_option_is_refused(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch, variable: str, arguments: tuple[str, ...], near: str
) -> None:
    monkeypatch.setenv(variable, "2")
    result = nnas(*arguments)
    command = " ".join(arguments[:2] if arguments[0] == "study" else arguments[:1])
    refused(result, f"{variable}: no option of `nnas {command}` is named so")
    assert not Path("runs").exists()


@pytest.mark.parametrize("variable", ["NNAS_TUNE_EPOCS", "NNAS_STUDY_LIST_QQQ", "NNAS_TRIAL_DIR", "NNAS_HOUSE_KEY"])
def test_variables_of_others_are_left_alone(nnas: Cli, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "2")
    assert nnas("list", "tuners").code == 0


def test_what_click_refuses_is_said_of_the_variable(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNAS_SEARCH_EPOCHS", "many")
    refused(
        nnas("search", "model.py", "--mutator", "random"), "NNAS_SEARCH_EPOCHS: 'many' is not a valid integer range"
    )


def test_what_the_library_refuses_is_said_of_the_variable(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SEARCH_DEVICE", "toaster")
    result = nnas("search", "model.py", "--mutator", "random", "--epochs", 1)
    assert result.code == 2
    assert "NNAS_SEARCH_DEVICE" in result.err
    assert "--device" not in result.err


def test_an_error_that_has_a_digit_of_a_variable_is_not_about_it(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SEED", "1")
    result = nnas("search", "model.py", "--mutator", "darts", "--mutator-arg", "order=17", "--epochs", 1)
    assert result.code == 2
    assert "17" in result.err
    assert "NNAS_SEED" not in result.err


def test_a_variable_is_named_as_its_option() -> None:
    """What click derives from the name of a parameter is what one expects who knows the option."""

    def options(group: click.Command, ctx: click.Context) -> list[tuple[str, click.Option]]:
        if isinstance(group, click.Group):
            inner = {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
            return [one for command in inner.values() if command is not None for one in options(command, ctx)]
        return [(group.name or "", one) for one in group.params if isinstance(one, click.Option)]

    found = options(cli, click.Context(cli))
    wrong = [
        (command, one.name, one.opts)
        for command, one in found
        if one.allow_from_autoenv and f"--{(one.name or '').replace('_', '-')}" not in [*one.opts, *one.secondary_opts]
    ]
    assert len(found) > 200
    assert wrong == []
