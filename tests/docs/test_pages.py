"""The documentation is complete and consistent: links, tables, options, and the command lines that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from docs import generate
from nnas_cli.main import COMMANDS, cli
from nnas_core.errors import ExitCode
from nnas_core.plugins import registry
from tests.docs.page_runner import ROOT, blocks, markdown_files

PAGES = [str(file.relative_to(ROOT)) for file in generate.pages()]


def text_of(file: str) -> str:
    """A page as text."""
    return (ROOT / file).read_text(encoding="utf-8")


def section(file: str, title: str) -> str:
    """A page from a heading to the next one of the same rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", text_of(file), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{file} has no section {title!r}"
    return found[2]


def first_column(table: str) -> list[str]:
    """The first cells of a table's rows, without code marks."""
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [row.split("|")[1].strip().strip("`") for row in rows]


def anchors(file: str) -> set[str]:
    """The anchors of a page's headings."""
    text = re.sub(r"```.*?```", "", text_of(file), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


# ---- links


@pytest.mark.parametrize("file", markdown_files())
def test_every_relative_link_leads_somewhere(file: str) -> None:
    text = re.sub(r"```.*?```", "", text_of(file), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        page = (ROOT / file).parent / path if path else ROOT / file
        if not page.exists() or (anchor and anchor not in anchors(str(page.resolve().relative_to(ROOT)))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("file", [page for page in PAGES if page.startswith("docs/")])
def test_the_readme_leads_to_every_page(file: str) -> None:
    assert f"]({file})" in text_of("README.md")


@pytest.mark.parametrize("file", markdown_files())
def test_lines_fit_beside_each_other(file: str) -> None:
    prose = re.sub(r"```.*?```", "", text_of(file), flags=re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert long == []


# ---- what the code knows


@pytest.mark.parametrize("file", PAGES)
def test_the_generated_parts_are_up_to_date(file: str) -> None:
    assert generate.render(text_of(file)) == text_of(file), "run python docs/generate.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_the_page_of_the_command_line(name: str) -> None:
    documented = section("docs/cli.md", f"nnas {name}")
    options = [option for one in generate.command(name).params for option in (*one.opts, *one.secondary_opts)]
    missing = [option for option in options if option.startswith("-") and option not in documented]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_help_text(name: str) -> None:
    options = [one for one in generate.command(name).params if isinstance(one, click.Option)]
    assert [one.name for one in options if not (one.help or "").strip()] == []


@pytest.mark.parametrize("name", generate.verbs("study"))
def test_every_option_of_a_command_of_a_group_is_documented_and_has_a_help_text(name: str) -> None:
    documented = section("docs/cli.md", f"nnas study {name}")
    options = [one for one in generate.verbs("study")[name].params if isinstance(one, click.Option)]
    assert [one.name for one in options if one.opts[-1] not in documented or not (one.help or "").strip()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_examples(name: str) -> None:
    assert f"  nnas {name}" in (generate.command(name).help or "")


def test_the_readme_lists_all_commands() -> None:
    assert re.findall(r"`nnas ([a-z-]+)", section("README.md", "Commands")) == list(COMMANDS)


@pytest.mark.parametrize(("group", "title"), [("mutators", "Mutators"), ("tuners", "Tuners")])
def test_the_readme_lists_all_algorithms(group: str, title: str) -> None:
    assert first_column(section("README.md", title)) == list(registry.entries(group))


def test_the_readme_lists_all_exit_codes() -> None:
    assert first_column(section("README.md", "Exit codes")) == [str(code.value) for code in sorted(ExitCode)]


def test_the_changelog_names_every_command_and_algorithm() -> None:
    text = text_of("CHANGELOG.md")
    names = [*COMMANDS, *registry.entries("mutators"), *registry.entries("tuners")]
    assert [name for name in names if f"`{name}`" not in text] == []


# ---- the command lines that are shown


def shown_commands() -> list[tuple[str, str]]:
    """Every command line of nnas in a block of code, in the help of a command, or in an example's first lines."""
    found = []
    for file in markdown_files():
        for block in blocks(file):
            if block.language in ("sh", "console"):
                found += [(block.where, line) for line in _lines(block.text)]
    for name in COMMANDS:
        for command in (generate.command(name), *generate.verbs(name).values()):
            found += [(f"nnas {name} {command.name} --help", line) for line in _lines(command.help or "")]
    for program in sorted((ROOT / "examples").rglob("*.py")):
        docstring = program.read_text(encoding="utf-8").split('"""')[1].replace("\\\\", "\\")
        found += [(str(program.relative_to(ROOT)), line) for line in _lines(docstring)]
    return found


def _lines(text: str) -> list[str]:
    """The commands of nnas in a text, those of a pipe apart."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    pieces = [piece.strip() for line in lines if re.match(r"nnas [a-z]", line) for piece in line.split("|")]
    return [re.split(r" >|  +#", piece)[0] for piece in pieces if piece.startswith("nnas ")]


@pytest.mark.parametrize(("where", "line"), shown_commands())
def test_a_command_line_that_is_shown_can_be_parsed(where: str, line: str) -> None:
    words = shlex.split(line)[1:]
    context = cli.make_context("nnas", list(words[:1]), resilient_parsing=True)
    command = cli.get_command(context, words[0])
    if isinstance(command, click.Group) and len(words) > 1:
        command = command.get_command(context, words[1])
        words = words[1:]
    assert command is not None, where
    command.make_parser(click.Context(command, info_name=words[0], parent=context)).parse_args(words[1:])


@pytest.mark.parametrize(("where", "line"), shown_commands())
def test_a_file_of_the_examples_that_is_shown_exists(where: str, line: str) -> None:
    files = [word.partition(":")[0] for word in shlex.split(line) if word.startswith("examples/")]
    assert [file for file in files if not Path(ROOT / file).exists()] == []


@pytest.mark.parametrize("file", markdown_files())
def test_a_block_of_code_says_its_language(file: str) -> None:
    known = {"sh", "console", "python", "json", "toml", "text", "yaml"}
    assert [block.where for block in blocks(file) if block.language not in known] == []
