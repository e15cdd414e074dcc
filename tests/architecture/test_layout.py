"""Facts that would otherwise stand in two places, and sizes that would otherwise grow."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import click
import tomllib

import nnas_core
from nnas_cli.commands.study import SUMMARIES
from nnas_cli.commands.study import command as study
from nnas_cli.main import COMMANDS, cli
from tests.architecture.sources import ROOT, found_at, nodes, python_files

FILES = [
    str(file.relative_to(ROOT))
    for file in python_files("nnas_core", "nnas_cli", "schemas", "tests", "examples", "benchmarks", "docs", "scripts")
]


def setup_cfg() -> configparser.ConfigParser:
    """The metadata."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def pyproject() -> dict[str, object]:
    """The settings of the tools."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text_of(file: str) -> str:
    """A file of the repository as text."""
    return (ROOT / file).read_text(encoding="utf-8")


def test_a_file_has_at_most_400_lines() -> None:
    sizes = {file: len(text_of(file).splitlines()) for file in FILES}
    assert {file: lines for file, lines in sizes.items() if lines > 400} == {}


def test_a_function_of_a_command_has_at_most_60_lines() -> None:
    long = [
        found_at(file, node, f"{node.name} has {node.end_lineno - node.lineno + 1} lines")
        for file in python_files("nnas_cli/commands")
        for node in nodes(file, ast.FunctionDef)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "misc", "helpers", "common"}
    assert [file for file in FILES if Path(file).stem in drawers] == []


def test_the_version_is_written_once() -> None:
    assert setup_cfg()["metadata"]["version"] == "attr: nnas_core.__version__"
    product = [file for file in FILES if not file.startswith("tests/")]
    quoted = re.compile(rf"""(?<![\d.]){re.escape(nnas_core.__version__)}(?![\d.])["']""")
    written = [file for file in (*product, "setup.cfg", "pyproject.toml") if quoted.search(text_of(file))]
    assert written == ["nnas_core/__init__.py"]


def test_pyproject_holds_the_build_backend_and_tools_only() -> None:
    assert set(pyproject()) == {"build-system", "tool"}


def test_setup_cfg_holds_no_settings_of_tools() -> None:
    assert sorted(setup_cfg().sections()) == [
        "metadata",
        "options",
        "options.entry_points",
        "options.extras_require",
        "options.package_data",
    ]


def test_every_package_of_the_product_is_installed() -> None:
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for folder in ("nnas_core", "nnas_cli")
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setup_cfg()["options"]["packages"].split()) == packages | {"nnas_core.schemas"}


def test_both_packages_are_typed() -> None:
    assert [(ROOT / package / "py.typed").is_file() for package in ("nnas_core", "nnas_cli")] == [True, True]


def test_every_command_has_a_module_and_every_module_a_command() -> None:
    files = {file.stem.replace("_", "-") for file in (ROOT / "nnas_cli" / "commands").glob("[!_]*")}
    assert files == set(COMMANDS)


def test_every_command_of_a_group_has_a_module_and_every_module_a_command() -> None:
    files = {file.stem for file in (ROOT / "nnas_cli" / "commands" / "study").glob("[!_]*")}
    assert files == set(SUMMARIES)


def test_the_summary_of_a_command_of_a_group_is_the_first_line_of_its_own_help() -> None:
    context = cli.make_context("nnas", ["study"], resilient_parsing=True)
    assert {name: first_line(study.get_command(context, name), name) for name in SUMMARIES} == SUMMARIES


def test_the_summary_of_a_command_is_the_first_line_of_its_own_help() -> None:
    contexts = {name: cli.make_context("nnas", [name], resilient_parsing=True) for name in COMMANDS}
    assert {name: first_line(cli.get_command(contexts[name], name), name) for name in COMMANDS} == COMMANDS


def first_line(command: click.Command | None, name: str) -> str:
    """Returns the first line of the help of a command."""
    assert command is not None
    assert command.name == name
    return (command.help or "").splitlines()[0]


def test_the_summary_of_a_command_is_short() -> None:
    summaries = [*COMMANDS.values(), *SUMMARIES.values()]
    assert [summary for summary in summaries if len(summary) > 60] == []
