"""Help, version, and the commands that say what there is."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap

import click
import pytest

import nnas_core
from nnas_cli.commands.study import SUMMARIES
from nnas_cli.help_sections import SECTIONS, SectionedCommand
from nnas_cli.main import COMMANDS, cli
from nnas_core import schema
from tests.cli_support import Cli


def test_help_names_every_command_and_nothing_goes_to_standard_error(nnas: Cli) -> None:
    result = nnas("--help")
    assert (result.code, result.err) == (0, "")
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", result.out, re.MULTILINE)


def test_h_is_help(nnas: Cli) -> None:
    assert nnas("-h") == nnas("--help")


def test_no_arguments_give_the_help_on_standard_error_and_exit_code_2(nnas: Cli) -> None:
    result = nnas()
    assert (result.code, result.out) == (2, "")
    assert result.err == nnas("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_begins_with_its_line_in_the_list(nnas: Cli, command: str) -> None:
    result = nnas(command, "-h")
    assert (result.code, result.err) == (0, "")
    assert result == nnas(command, "--help")
    lines = result.out.splitlines()
    assert lines[0].startswith(f"Usage: nnas {command} [OPTIONS]")
    assert lines[2].strip() == COMMANDS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_of_its_command(nnas: Cli, command: str) -> None:
    _, _, examples = nnas(command, "-h").out.partition("Examples:\n")
    assert re.search(rf"\bnnas {command} ", examples)


@pytest.mark.parametrize("verb", SUMMARIES)
def test_every_command_of_a_group_has_help_that_begins_with_its_line_in_the_list(nnas: Cli, verb: str) -> None:
    result = nnas("study", verb, "-h")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith(f"Usage: nnas study {verb} [OPTIONS]")
    assert lines[2].strip() == SUMMARIES[verb]
    assert re.search(rf"^    nnas study {verb}\b", result.out.partition("Examples:\n")[2], re.MULTILINE)


def test_a_wrong_command_of_a_group_gets_the_nearest_name(nnas: Cli) -> None:
    result = nnas("study", "exprot")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: no command is named 'exprot', did you mean 'export'?\nhint: see `nnas study --help`\n"
    )


RANDOM = {"ss-gen", "search", "tune", "retrain", "evaluate", "profile", "assess"}
"""Commands that draw random numbers, or run code of the user's that may."""


@pytest.mark.parametrize("command", [*(one for one in COMMANDS if one != "study"), *(f"study {v}" for v in SUMMARIES)])
def test_every_command_has_the_common_options(nnas: Cli, command: str) -> None:
    words = set(re.findall(r"--?[a-z-]+", nnas(*command.split(), "-h").out))
    common = {"--output", "--json", "--config", "-q", "-v", "--color", "--no-progress", "--debug", "-h"}
    assert common <= words
    assert ("--seed" in words) == (command in RANDOM)


def leaves(group: click.Group = cli, path: str = "") -> dict[str, click.Command]:
    """All commands, those of groups too, by what is typed."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.update(
            leaves(command, f"{path}{name} ") if isinstance(command, click.Group) else {f"{path}{name}": command}
        )
    return found


def options_of(command: click.Command) -> list[click.Option]:
    """The options of a command, but for --help."""
    return [one for one in command.params if isinstance(one, click.Option)]


def test_no_option_of_a_command_means_nothing() -> None:
    idle = []
    for name, command in leaves().items():
        assert command.callback is not None
        function = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(command.callback)))).body[0]
        assert isinstance(function, ast.FunctionDef)
        used = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
        idle += [f"{name}: {one.arg}" for one in function.args.args if one.arg not in used]
    assert idle == []


BEGINNINGS = {
    *("Begin", "Check", "Compute", "Confirm", "Draw", "End", "Give", "Go", "Hold", "Inherit", "Keep", "Leave", "Let"),
    *("Load", "Look", "Lower", "Measure", "Print", "Propose", "Put", "Read", "Replace", "Return", "Run", "Save", "Say"),
    *("Search", "Shorten", "Show", "Sort", "Start", "Stop", "Store", "Take", "Train", "Try", "Use", "Wait", "Work"),
    "Write",
}
"""Verbs; an option's help is a sentence that says what to do."""


def test_the_help_of_every_option_is_a_sentence() -> None:
    wrong = set()
    for name, command in leaves().items():
        for option in options_of(command):
            text = re.sub(r"( +\[[^]]*\])+$", "", option.help or "")
            words = text.split()
            if len(words) < 2 or words[0] not in BEGINNINGS or not text.endswith((".", ").")):
                wrong.add(f"{name} {option.opts[-1]}: {option.help}")
    assert sorted(wrong) == []


def test_every_option_has_a_section_of_the_help() -> None:
    without = [
        f"{name} {option.opts[-1]}"
        for name, command in leaves().items()
        for option in options_of(command)
        if not isinstance(command, SectionedCommand) or command.section_of(option) == "Options"
    ]
    assert without == []


def test_no_option_is_in_two_sections_and_every_one_is_some_commands() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert len(set(names)) == len(names)
    there = {
        option[2:].replace("-", "_")
        for command in leaves().values()
        for one in options_of(command)
        for option in one.opts
        if option.startswith("--")
    }
    assert set(names) - there == {"help"}


def test_help_shows_options_in_sections(nnas: Cli) -> None:
    lines = nnas("search", "-h").out.splitlines()
    sections = [line[:-1] for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    asked = ["Algorithm", "What is asked for", "Model and data", "Training", "Device and speed"]
    assert sections == [*asked, "Run folder", "In general"]
    training = lines[lines.index("Training:") : lines.index("Device and speed:")]
    assert any(line.startswith("  --learning-rate ") for line in training)
    assert "  --resume RUN" in "\n".join(lines[lines.index("Run folder:") : lines.index("In general:")])


@pytest.mark.parametrize("command", ["search", "tune", "retrain", "evaluate"])
def test_commands_that_run_a_model_have_its_options(nnas: Cli, command: str) -> None:
    words = set(re.findall(r"--?[a-z-]+", nnas(command, "-h").out))
    assert {"-a", "--model-arg", "--task", "--device"} <= words


def test_help_shows_defaults(nnas: Cli) -> None:
    help_text = " ".join(nnas("search", "-h").out.split())
    for shown in ("[default: 50; x>=1]", "[default: 64; x>=1]", "[default: 0.025; x>0]", "[default: auto]"):
        assert shown in help_text


def test_version_is_one_line(nnas: Cli) -> None:
    result = nnas("--version")
    assert (result.code, result.out, result.err) == (0, f"nnas {nnas_core.__version__}\n", "")


def test_a_wrong_command_gets_the_nearest_name(nnas: Cli) -> None:
    result = nnas("serch", "model.py")
    assert (result.code, result.out) == (2, "")
    assert result.err == ("nnas: error: no command is named 'serch', did you mean 'search'?\nhint: see `nnas --help`\n")


def test_commands_cannot_be_abbreviated(nnas: Cli) -> None:
    result = nnas("exp", "x.pt")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: no command is named 'exp'")


def test_a_wrong_option_gets_the_nearest_name(nnas: Cli) -> None:
    result = nnas("search", "model.py", "--epoch", 3)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: no such option '--epoch'")
    assert "--epochs" in result.err
    assert result.err.endswith("hint: see `nnas search --help`\n")


def test_list_names_the_algorithms_with_their_papers(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    result = nnas("list", "tuners")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^evolution .*arXiv:1802\.01548", result.out, re.MULTILINE)
    assert re.search(r"^random .*arXiv:1902\.07638", result.out, re.MULTILINE)
    assert re.search(r"^random .*arXiv:1904\.00420", nnas("list", "mutators").out, re.MULTILINE)


def test_list_as_json_is_sorted_by_name(nnas: Cli) -> None:
    result = nnas("list", "tuners", "--json")
    assert (result.code, result.err) == (0, "")
    names = [entry["name"] for entry in result.json["tuners"]]
    assert names == sorted(names)
    assert {"evolution", "random"} <= set(names)
    assert set(result.json["tuners"][0]) == {"name", "summary", "source", "class", "options"}


def test_list_without_an_argument_lists_all_three(nnas: Cli) -> None:
    found = nnas.ok("list")
    assert re.findall(r"^(mutators|tuners|assessors)$", found.out, re.MULTILINE) == ["mutators", "tuners", "assessors"]
    assert re.search(r"^hyperband ", found.out, re.MULTILINE)
    document = nnas.ok("list", "--json").json
    assert schema.problems("list-report", document) == []
    for group in ("mutators", "tuners", "assessors"):
        assert document[group] == nnas.ok("list", group, "--json").json[group]


def test_no_help_has_an_escape_in_it(nnas: Cli) -> None:
    assert [name for name in leaves() if "\\n" in nnas(*name.split(), "-h").out] == []


def test_list_writes_to_a_file(nnas: Cli) -> None:
    result = nnas("list", "mutators", "-o", "list.json")
    assert (result.code, result.out, result.err) == (0, "", "wrote list.json\n")
    with open("list.json", encoding="utf-8") as file:
        assert json.load(file) == nnas("list", "mutators", "--json").json


def test_list_of_something_else_is_refused(nnas: Cli) -> None:
    result = nnas("list", "samplers")
    assert (result.code, result.out) == (2, "")
    assert "'samplers' is not one of 'mutators', 'tuners'" in result.err


def test_info_has_the_versions_for_a_bug_report(nnas: Cli) -> None:
    result = nnas("info", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["nnas"] == nnas_core.__version__
    assert result.json["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(result.json["packages"]) == {"torch", "numpy", "click", "rich", "jsonschema", "SQLAlchemy"}
    assert result.json["devices"][0] == "cpu"


def test_info_as_text_has_the_same_versions(nnas: Cli) -> None:
    result = nnas("info")
    assert (result.code, result.err) == (0, "")
    for name, version in nnas("info", "--json").json["packages"].items():
        assert re.search(rf"^{name} +{re.escape(version)}$", result.out, re.MULTILINE)


def test_python_m_nnas_cli_is_nnas_and_help_needs_no_torch() -> None:
    code = "import sys; sys.argv[1:] = ['tune', '-h']\nfrom nnas_cli.main import entry\nentry()\n"
    code += "print([name for name in ('torch', 'rich', 'jsonschema', 'sqlalchemy') if name in sys.modules])"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert imported.stdout.splitlines()[-1] == "[]"
    module = subprocess.run(
        [sys.executable, "-m", "nnas_cli", "tune", "-h"], capture_output=True, text=True, check=True
    )
    assert imported.stdout.removesuffix("[]\n") == module.stdout
