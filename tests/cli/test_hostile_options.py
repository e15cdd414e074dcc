"""Options that are no numbers, too large, too long or not text: refused by name, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from nnas_cli.groups import LazyGroup
from nnas_cli.main import cli
from tests.cli_support import Cli

LONG = "9" * 5000
HUGE = "1" + "0" * 30
DEEP = "[" * 5000 + "]" * 5000

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", "1", "-o", "run")
TUNE = ("tune", "space.json", "--trial-command", "true", "--trials", "1", "--storage", "sqlite:///new.db", "-o", "best")
STUDY = ("--storage", "sqlite:///new.db")

REFUSED: list[tuple[tuple[str, ...], str, str]] = [
    *((SEARCH, f"--{name}", "nan") for name in ("learning-rate", "momentum", "weight-decay", "clip-grad")),
    *((SEARCH, f"--{name}", "nan") for name in ("min-learning-rate", "valid-fraction", "epochs", "batch-size", "seed")),
    *((SEARCH, f"--{name}", "inf") for name in ("learning-rate", "clip-grad", "weight-decay", "min-learning-rate")),
    *((SEARCH, f"--{name}", HUGE) for name in ("learning-rate", "epochs", "batch-size", "workers", "seed", "derive")),
    *((SEARCH, f"--{name}", LONG) for name in ("learning-rate", "epochs", "workers", "checkpoint-every", "device")),
    (SEARCH, "--learning-rate", "-0.0"),
    (SEARCH, "--valid-fraction", "-0.0"),
    (SEARCH, "--clip-grad", "1e30"),
    (SEARCH, "--checkpoint-every", f"{LONG}s"),
    (SEARCH, "--checkpoint-every", "0"),
    (SEARCH, "--checkpoint-every", "1d"),
    (SEARCH, "--device", f"cuda:{LONG}"),
    (SEARCH, "--device", "cuda:99999"),
    (SEARCH, "--model-arg", f"width={DEEP}"),
    (SEARCH, "--model-arg", f"width={LONG}"),
    (SEARCH, "--model-arg", "width=NaN"),
    (SEARCH, "--model-arg", "width=[1, -Infinity]"),
    (SEARCH, "--model-arg", "width=1e999"),
    (SEARCH, "--model-arg", 'width={"a": 1, "a": 2}'),
    (SEARCH, "--model-arg", 'width="\\ud800"'),
    (SEARCH, "--model-arg", "width=\udcff"),
    (SEARCH, "--task", "\udcff.py"),
    (SEARCH, "--task", "x" * 5000),
    (SEARCH, "--mutator", "\udcff"),
    (SEARCH, "--output", "\udcff"),
    (TUNE, "--duration", f"{LONG}h"),
    (TUNE, "--duration", "1" + "0" * 9 + "m"),
    (TUNE, "--top", HUGE),
    (TUNE, "--trials", LONG),
    (TUNE, "--linger", f"{HUGE}s"),
    (TUNE, "--trial-timeout", "nan"),
    (TUNE, "--concurrency", HUGE),
    (TUNE, "--trial-threads", HUGE),
    (TUNE, "--attempts", HUGE),
    (TUNE, "--max-failures", HUGE),
    (TUNE, "--gpus", LONG),
    (TUNE, "--gpus", ",".join(["0"] * 5000)),
    (TUNE, "--tuner-arg", "n=NaN"),
    (TUNE, "--storage", "sqlite:///\udcff.db"),
    (TUNE, "--study", "\udcff"),
    (("study", "export", *STUDY), "--best", HUGE),
    (("study", "trials", *STUDY), "--head", LONG),
    (("study", "log", "1", *STUDY), "--attempt", HUGE),
    (("study", "update", *STUDY), "--trials", HUGE),
    (("study", "top", *STUDY), "--interval", "nan"),
    (("study", "top", *STUDY), "--interval", "1e30"),
    (("study", "list"), "--storage", "sqlite:///\udcff.db"),
    (("validate", "space.json"), "--space", "\udcff"),
    (("ss-gen", "model.py"), "--seed", HUGE),
]


@pytest.fixture(autouse=True)
def files(nnas: Cli, small_model: Path) -> None:
    """A model and a space."""
    Path("space.json").write_text('{"op": {"_type": "layer_choice", "_value": ["a", "b"]}}')


@pytest.mark.parametrize(("command", "option", "value"), REFUSED)
def test_the_option_is_named_and_nothing_is_written(
    nnas: Cli, command: tuple[str, ...], option: str, value: str
) -> None:
    before = sorted(os.listdir())
    result = nnas(*command, option, value)
    assert (result.code, result.out) == (2, ""), result.err
    assert result.err.startswith("nnas: error: invalid value for "), result.err
    assert option in result.err
    assert len(result.err) < 400
    assert result.err.replace("\n", "").isprintable()
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("tuner", "argument"),
    [
        ("evolution", f"population={HUGE}"),
        ("tpe", f"n_startup_trials={HUGE}"),
        ("cmaes", "population=100000000000000000"),
        ("bayes", "xi=1e16"),
    ],
)
def test_an_argument_that_no_algorithm_can_mean_is_named(nnas: Cli, tuner: str, argument: str) -> None:
    result = nnas(*TUNE, "--tuner", tuner, "--tuner-arg", argument)
    assert (result.code, result.out) == (2, ""), result.err
    assert argument.partition("=")[0] in result.err
    assert not Path("best").exists()


def test_forcing_a_run_that_cannot_begin_leaves_the_old_one(nnas: Cli, small_run: Path) -> None:
    before = {file.name: file.read_bytes() for file in small_run.iterdir()}
    result = nnas(*SEARCH, "--force", "--learning-rate", "nan")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: invalid value for '--learning-rate': nan is not a finite number\nhint: see `nnas search --help`\n"
    )
    assert {file.name: file.read_bytes() for file in small_run.iterdir()} == before


def test_a_password_in_a_url_that_is_refused_is_not_shown(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://me:secret@db/x\udcff"
    said = nnas("study", "list", "--storage", url)
    monkeypatch.setenv("NNAS_STUDY_LIST_STORAGE", url)
    for result, name in ((said, "--storage"), (nnas("study", "list"), "NNAS_STUDY_LIST_STORAGE")):
        assert (result.code, result.out) == (2, "")
        assert name in result.err
        assert "is no UTF-8" in result.err
        assert "secret" not in result.err


def test_minus_zero_is_zero(nnas: Cli) -> None:
    nnas.ok(*SEARCH, "--clip-grad", "-0.0", "--weight-decay", "-0.0")
    assert '"clip_grad": 0.0' in Path("run/config.json").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate = nan", "learning_rate: nan is not a finite number"),
        ("learning_rate = 1e30", "learning_rate: 1e+30 is too large, the most is 1000000000"),
        ("epochs = 1.5", "epochs: 1.5 is not a whole number that means something here"),
        ("epochs = true", "epochs: True is not a whole number that means something here"),
        ("epochs = [1]", "epochs: [1] is no value for it"),
        ("drop_last = [1]", "drop_last: [1] is no value for it"),
        (f"epochs = {HUGE}", f"epochs: {HUGE} is too large, the most is 1000000000"),
        ('device = "cuda:99999"', "device: no device is named 'cuda:99999'; use auto, cpu, cuda or cuda:N"),
        ('task = "a\\u0000b"', "task: 'a\\x00b' has a zero byte in it"),
        ("model_arg = {width = nan}", "model_arg: width: not JSON: NaN is not a number that JSON knows"),
        ("model_arg = {width = 2020-01-01}", "model_arg: width: datetime.date(2020, 1, 1) is nothing that JSON has a"),
        ('model_arg = {"a b" = 1}', "model_arg: 'a b' is not KEY=VALUE"),
    ],
)
def test_a_configuration_is_checked_as_the_command_line_is(nnas: Cli, line: str, message: str) -> None:
    Path("c.toml").write_text(f"[search]\n{line}\n")
    result = nnas(*SEARCH[:-4], "-o", "run", "--config", "c.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"nnas: error: c.toml: [search]: {message}"), result.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[search]\nepochs = {LONG}\n", "no configuration: a number is too long"),
        (f"x = {'[' * 2000}{']' * 2000}\n", "no configuration: nested too deeply"),
        (f"x = {'[' * 150}{']' * 150}\n", "no configuration: nested too deeply"),
        ("x = " + "[" * 100_000, "no configuration: nested too deeply"),
        ("x = \udcff", "not UTF-8 text (byte 4)"),
    ],
)
def test_a_configuration_without_bounds_is_refused(nnas: Cli, text: str, message: str) -> None:
    Path("c.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    result = nnas(*SEARCH, "--config", "c.toml")
    assert (result.code, result.out, result.err) == (3, "", f"nnas: error: c.toml: {message}\n")


@pytest.mark.parametrize("value", ["nan", HUGE, LONG, "\udcff"])
def test_a_variable_is_checked_as_an_option_is(nnas: Cli, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NNAS_SEARCH_BATCH_SIZE", value)
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: NNAS_SEARCH_BATCH_SIZE: ")
    assert len(result.err) < 400
    assert not Path("run").exists()


@pytest.mark.parametrize("command", ["ss-gen", "export", "tune", "validate", "search"])
def test_a_file_name_that_is_no_utf_8_is_a_bad_input(nnas: Cli, command: str) -> None:
    Path(os.fsdecode(b"\xff.json")).write_text("{}")
    extra = {"tune": TUNE[2:], "search": SEARCH[2:]}.get(command, ())
    result = nnas(command, os.fsdecode(b"\xff.json"), *extra)
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: \\udcff.json: the name is no UTF-8\nhint: give the file another name\n"


def test_every_parameter_that_takes_a_text_is_checked() -> None:
    def unchecked(group: LazyGroup) -> list[str]:
        context = click.Context(group)
        found = []
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, LazyGroup):
                found += unchecked(command)
            numbers = (click.types.StringParamType, click.types.IntParamType, click.types.FloatParamType)
            found += [
                f"{name} {one.name}"
                for one in command.params
                if type(one.type) in (*numbers, click.IntRange, click.FloatRange)
            ]
        return found

    assert isinstance(cli, LazyGroup)
    assert [one for one in unchecked(cli) if not one.endswith(("quiet", "verbose"))] == []
