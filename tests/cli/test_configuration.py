"""Where options come from: command line > environment > ``--config`` or ``[tool.nnas]`` > defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli_support import Cli

SEARCH = ("search", "model.py", "--mutator", "random", "-o", "run")


def config_of(run: str) -> dict[str, Any]:
    """The resolved options of a search."""
    options: dict[str, Any] = json.loads(Path(run, "config.json").read_text())["search"]
    return options


@pytest.fixture
def pyproject(tmp_path: Path) -> Path:
    """``[tool.nnas]`` with options for every command, and for search."""
    path = tmp_path / "pyproject.toml"
    path.write_text(
        "[tool.nnas]\nseed = 5\n\n[tool.nnas.search]\nepochs = 2\nbatch-size = 30\nmodel-arg = {width = 4}\n"
    )
    return path


def test_tool_nnas_of_pyproject_is_read(nnas: Cli, small_model: Path, pyproject: Path) -> None:
    nnas.ok(*SEARCH)
    config = config_of("run")
    assert (config["epochs"], config["batch_size"], config["seed"]) == (2, 30, 5)
    assert config["model_arg"] == {"width": 4}


def test_a_pyproject_of_other_tools_is_no_configuration(nnas: Cli, small_model: Path) -> None:
    Path("pyproject.toml").write_text("[tool.other]\nepochs = 0\n")
    nnas.ok(*SEARCH, "--epochs", 1)
    assert config_of("run")["epochs"] == 1


def test_the_environment_wins_over_the_file(
    nnas: Cli, small_model: Path, pyproject: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SEARCH_BATCH_SIZE", "20")
    monkeypatch.setenv("NNAS_SEED", "6")
    nnas.ok(*SEARCH)
    config = config_of("run")
    assert (config["epochs"], config["batch_size"], config["seed"]) == (2, 20, 6)


def test_the_command_line_wins_over_both(
    nnas: Cli, small_model: Path, pyproject: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SEARCH_BATCH_SIZE", "20")
    monkeypatch.setenv("NNAS_SEED", "6")
    nnas.ok(*SEARCH, "--batch-size", 16, "--seed", 7, "--epochs", 1)
    config = config_of("run")
    assert (config["epochs"], config["batch_size"], config["seed"]) == (1, 16, 7)


def test_config_replaces_tool_nnas(nnas: Cli, small_model: Path, pyproject: Path) -> None:
    Path("mine.toml").write_text("[search]\nepochs = 1\n")
    nnas.ok(*SEARCH, "--config", "mine.toml")
    config = config_of("run")
    assert (config["epochs"], config["batch_size"], config["seed"]) == (1, 64, 0)


def test_config_may_come_from_the_environment(nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("[search]\nepochs = 1\n")
    monkeypatch.setenv("NNAS_CONFIG", "mine.toml")
    nnas.ok(*SEARCH)
    assert config_of("run")["epochs"] == 1


def test_another_pyproject_can_be_the_config(nnas: Cli, small_model: Path, pyproject: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    pyproject.rename(tmp_path / "sub" / "pyproject.toml")
    nnas.ok(*SEARCH, "--config", "sub/pyproject.toml")
    assert config_of("run")["epochs"] == 2


def test_a_configuration_may_hold_everything(nnas: Cli, small_model: Path) -> None:
    Path("all.toml").write_text('[search]\nmodel = "model.py"\nmutator = "random"\nepochs = 1\noutput = "here"\n')
    nnas.ok("search", "--config", "all.toml")
    assert config_of("here")["model"] == "model.py"


def test_options_of_other_commands_do_not_disturb(nnas: Cli, small_model: Path) -> None:
    Path("mine.toml").write_text("[tune]\ntrials = 3\n\n[search]\nepochs = 1\n")
    nnas.ok(*SEARCH, "--config", "mine.toml")
    nnas.ok("ss-gen", "model.py", "--config", "mine.toml")


def test_an_option_of_all_commands_may_be_one_that_a_command_lacks(nnas: Cli, small_model: Path) -> None:
    Path("mine.toml").write_text('device = "cpu"\nseed = 3\n')
    nnas.ok("ss-gen", "model.py", "--config", "mine.toml")


@pytest.mark.parametrize("command", [("info",), ("ss-gen", "model.py"), ("list", "mutators")])
def test_an_option_beside_the_tables_may_be_one_of_any_command(
    nnas: Cli, small_model: Path, command: tuple[str, ...]
) -> None:
    Path("pyproject.toml").write_text('[tool.nnas]\nbatch_size = 32\ntop = 3\ntrial-dir = "."\n')
    nnas.ok(*command)


def test_options_go_by_the_names_they_have_on_the_command_line(nnas: Cli, small_model: Path) -> None:
    """The epochs of a search are no --train-epochs of a study."""
    Path("mine.toml").write_text("epochs = 9\n\n[tune]\ntrain-epochs = 1\ntrials = 1\n")
    answer = nnas.ok("tune", "model.py", "--tuner", "random", "--config", "mine.toml", "--json").json
    assert answer["measured_on"] == "validation data, 1 epoch from scratch"


# ---- and --resume


def test_options_that_are_just_around_do_not_disturb_a_resume(
    nnas: Cli, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config_of("run")
    monkeypatch.setenv("NNAS_SEED", "3")
    Path("pyproject.toml").write_text('[tool.nnas.search]\nepochs = 9\noutput = "other"\n')
    nnas.ok("search", "--resume", "run")
    assert config_of("run") == before
    assert not Path("other").exists()


def test_a_config_that_is_named_beside_resume_must_agree_with_the_run(nnas: Cli, small_run: Path) -> None:
    Path("mine.toml").write_text("[search]\nclip_grad = 9\n")
    result = nnas("search", "--resume", "run", "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run: the run was started with other options\n"
        "  clip_grad: 5.0 before, 9.0 now\n"
        "hint: leave them out to resume, or start a new run\n"
    )


def test_a_run_resumes_with_its_own_config(nnas: Cli, small_run: Path) -> None:
    nnas.ok("search", "--resume", "run", "--config", "run/config.json")


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[search]\nepoch = 1\n", "mine.toml: [search]: no option is named 'epoch'\nhint: did you mean 'epochs'?\n"),
        ("epcohs = 1\n", "mine.toml: no option is named 'epcohs'\nhint: did you mean 'epochs'?\n"),
        ("[serch]\nepochs = 1\n", "mine.toml: no option is named 'serch'\nhint: did you mean 'search'?\n"),
        ("[search]\nqqqqq = 1\n", "mine.toml: [search]: no option is named 'qqqqq'\nhint: see the command's --help\n"),
        ("search = 3\n", "mine.toml: search is no table of options\n"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_name(nnas: Cli, small_model: Path, text: str, message: str) -> None:
    Path("mine.toml").write_text(text)
    result = nnas(*SEARCH, "--config", "mine.toml")
    assert (result.code, result.out, result.err) == (3, "", f"nnas: error: {message}")


def test_a_config_that_is_no_toml_is_refused_with_its_place(nnas: Cli, small_model: Path) -> None:
    Path("mine.toml").write_text("[search\n")
    result = nnas(*SEARCH, "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: mine.toml: not TOML: ")
    assert "line 1" in result.err


def test_a_missing_config_is_refused(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: mine.toml: no such file\nhint: check the path\n"


def test_a_wrong_value_in_the_config_is_refused_with_its_place(nnas: Cli, small_model: Path) -> None:
    Path("mine.toml").write_text('[search]\nepochs = "many"\n')
    result = nnas(*SEARCH, "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: mine.toml: [search]: epochs: 'many' is not a valid integer range\n"


def test_a_list_where_one_value_belongs_is_refused(nnas: Cli, small_model: Path) -> None:
    Path("mine.toml").write_text("epochs = [1, 2]\n")
    result = nnas(*SEARCH, "--config", "mine.toml")
    assert (result.code, result.out, result.err) == (
        3,
        "",
        "nnas: error: mine.toml: epochs: [1, 2] is no value for it\n",
    )


@pytest.mark.parametrize(("text", "name"), [("[tool]\nnnas = 3\n", "nnas"), ("tool = 3\n", "tool")])
def test_tool_nnas_must_be_a_table(nnas: Cli, small_model: Path, text: str, name: str) -> None:
    Path("pyproject.toml").write_text(text)
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.out) == (3, "")
    assert result.err == f"nnas: error: pyproject.toml: {name} is no table\nhint: options stand in [tool.nnas]\n"


def test_a_wrong_value_in_the_environment_is_refused(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SEARCH_EPOCHS", "0")
    result = nnas(*SEARCH)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: NNAS_SEARCH_EPOCHS: ")
    assert "0 is not in the range x>=1" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mutator", "random"), "MODEL is missing\nhint: give it, or a --config that has it\n"),
        (("model.py",), "--mutator is missing\nhint: give it, or a --config that has it\n"),
    ],
)
def test_what_neither_the_command_line_nor_a_config_gives_is_named(
    nnas: Cli, small_model: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = nnas("search", *arguments)
    assert (result.code, result.out, result.err) == (2, "", f"nnas: error: {message}")
