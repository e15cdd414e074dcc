"""The environment variables that docs/cli.md lists do what it says, and its configuration works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_support import Cli, nnas, small_model
from tests.docs.page_runner import blocks

__all__ = ["nnas", "small_model"]


@pytest.fixture
def report(small_model: Path, nnas: Cli) -> Path:
    """A file that a variable can be asked about without any training."""
    (small_model.parent / "space.json").write_text('{"op": {"_type": "layer_choice", "_value": ["a"]}}\n')
    return small_model


def test_nnas_command_option_is_the_default_of_an_option(
    report: Path, nnas: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_SS_GEN_OUTPUT", "written.json")
    assert nnas.ok("ss-gen", "model.py").out == ""
    assert sorted(json.loads((report.parent / "written.json").read_text())) == ["act", "link", "op"]


def test_the_command_line_beats_the_environment(report: Path, nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNAS_SS_GEN_OUTPUT", "written.json")
    assert sorted(nnas.ok("ss-gen", "model.py", "-o", "-").json) == ["act", "link", "op"]
    assert not (report.parent / "written.json").exists()


@pytest.mark.slow
def test_nnas_seed_is_the_default_seed(report: Path, nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNAS_SEED", "7")
    assert nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "run", "--json").json["seed"] == 7


def test_nnas_config_is_the_default_configuration(report: Path, nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (report.parent / "mine.toml").write_text('[ss-gen]\noutput = "written.json"\n')
    monkeypatch.setenv("NNAS_CONFIG", "mine.toml")
    nnas.ok("ss-gen", "model.py")
    assert (report.parent / "written.json").is_file()


def test_no_color_and_force_color_and_the_option_beat_each_other_in_that_order(
    report: Path, nnas: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = nnas.ok("list", "tuners").out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = nnas.ok("list", "tuners").out
    always = nnas.ok("list", "tuners", "--color", "always").out
    assert [("\x1b[" in text) for text in (forced, plain, always)] == [True, False, True]


@pytest.mark.slow
def test_the_configuration_of_the_page_of_the_command_line_is_taken(report: Path, nnas: Cli) -> None:
    [shown] = [block.text for block in blocks("docs/cli.md") if block.language == "toml"]
    text = shown.replace("epochs = 100", "epochs = 1").replace("channels = 16", "width = 16")
    (report.parent / "mine.toml").write_text(text)
    result = nnas.ok("search", "model.py", "--config", "mine.toml", "-o", "runs/a", "--json").json
    assert (result["seed"], result["epochs"]) == (7, 1)
    config = json.loads((report.parent / "runs/a/config.json").read_text())["search"]
    assert (config["batch_size"], config["model_arg"], config["mutator"]) == (128, {"width": 16}, "random")


@pytest.mark.slow
def test_the_configuration_of_a_run_folder_repeats_it_with_another_seed(report: Path, nnas: Cli) -> None:
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "runs/a")
    again = nnas.ok("search", "--config", "runs/a/config.json", "--seed", 1, "-o", "runs/b", "--json").json
    assert (again["seed"], again["epochs"], again["run"]) == (1, 1, "runs/b")
