"""The documentation is complete and consistent: links, tables, options, and the command lines that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

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


def prose(file: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", text_of(file), flags=re.DOTALL)


def leads_somewhere(file: str, target: str) -> bool:
    """True if a relative link of a page has a file and a heading at its end."""
    path, _, anchor = target.partition("#")
    page = (ROOT / file).parent / path if path else ROOT / file
    return page.exists() and (not anchor or anchor in anchors(str(page.resolve().relative_to(ROOT))))


def test_every_relative_link_leads_somewhere() -> None:
    links = [(file, target) for file in markdown_files() for target in re.findall(r"\]\(([^)\s]+)\)", prose(file))]
    relative = [link for link in links if "://" not in link[1].partition("#")[0]]
    assert [f"{file}: {target}" for file, target in relative if not leads_somewhere(file, target)] == []


def test_the_index_leads_to_every_page_and_the_readme_to_the_index() -> None:
    index = text_of("docs/README.md")
    names = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/README.md"]
    assert [name for name in names if not re.search(rf"\]\({re.escape(name)}[#)]", index)] == []
    assert "](docs/README.md)" in text_of("README.md")


def test_lines_fit_beside_each_other() -> None:
    lines = [(file, line) for file in markdown_files() for line in prose(file).splitlines()]
    assert [f"{file}: {line}" for file, line in lines if len(line) > 120 and not line.startswith("|")] == []


# ---- what the code knows


def test_the_generated_parts_are_up_to_date() -> None:
    stale = [file for file in PAGES if generate.render(text_of(file)) != text_of(file)]
    assert stale == [], "run python docs/generate.py"


def all_commands() -> dict[str, click.Command]:
    """Every command and every command of a group, by the words that call it."""
    found = {}
    for name in COMMANDS:
        found[f"nnas {name}"] = generate.command(name)
        found.update({f"nnas {name} {verb}": one for verb, one in generate.verbs(name).items()})
    return found


def options(command: click.Command) -> list[click.Option]:
    """The options of a command, without its arguments."""
    return [one for one in command.params if isinstance(one, click.Option)]


def test_every_option_is_in_the_page_of_the_command_line() -> None:
    missing = [
        f"{words} {spelling}"
        for words, command in all_commands().items()
        for one in options(command)
        for spelling in (*one.opts, *one.secondary_opts)
        if spelling not in section("docs/cli.md", words)
    ]
    assert missing == []


def test_every_option_has_a_help_text() -> None:
    silent = [
        f"{words} {one.opts[-1]}"
        for words, command in all_commands().items()
        for one in options(command)
        if not (one.help or "").strip()
    ]
    assert silent == []


def test_the_help_of_a_command_has_examples() -> None:
    assert [name for name in COMMANDS if f"  nnas {name}" not in (generate.command(name).help or "")] == []


def test_the_readme_lists_all_commands() -> None:
    assert re.findall(r"`nnas ([a-z-]+)", section("README.md", "Commands")) == list(COMMANDS)


def test_the_pages_of_algorithms_have_all_of_them() -> None:
    assert set(registry.entries("mutators")) <= anchors("docs/algorithms.md")
    assert first_column(section("docs/tuners.md", "All of them")) == list(registry.entries("tuners"))


def test_all_exit_codes_are_listed() -> None:
    assert first_column(section("docs/cli.md", "Exit codes")) == [str(code.value) for code in sorted(ExitCode)]


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
    for words, command in all_commands().items():
        found += [(f"{words} --help", line) for line in _lines(command.help or "")]
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


def test_a_command_line_that_is_shown_can_be_parsed() -> None:
    refused = [f"{where}: {line}: {problem}" for where, line in shown_commands() for problem in problems_of(line)]
    assert refused == []


def problems_of(line: str) -> list[str]:
    """Lists what the command line refuses of a line, one problem at most, without running it."""
    words = shlex.split(line)[1:]
    context = cli.make_context("nnas", list(words[:1]), resilient_parsing=True)
    command = cli.get_command(context, words[0])
    if isinstance(command, click.Group) and len(words) > 1:
        command = command.get_command(context, words[1])
        words = words[1:]
    if command is None:
        return ["no such command"]
    try:
        command.make_parser(click.Context(command, info_name=words[0], parent=context)).parse_args(words[1:])
    except click.UsageError as error:
        return [error.format_message()]
    return []


def test_a_file_of_the_examples_that_is_shown_exists() -> None:
    shown = [
        (where, word.partition(":")[0])
        for where, line in shown_commands()
        for word in shlex.split(line)
        if word.startswith("examples/")
    ]
    assert [f"{where}: {file}" for where, file in shown if not Path(ROOT / file).exists()] == []


def test_a_block_of_code_says_its_language() -> None:
    known = {"sh", "console", "python", "json", "toml", "text", "yaml"}
    assert [block.where for file in markdown_files() for block in blocks(file) if block.language not in known] == []


def test_pages_and_examples_import_from_two_levels() -> None:
    files = [*markdown_files(), *(str(one.relative_to(ROOT)) for one in (ROOT / "examples").rglob("*.py"))]
    deep = [
        f"{file}: {line.strip()}"
        for file in files
        for line in text_of(file).splitlines()
        if re.match(r"\s*(from nnas_core\.\w+\.[\w.]+ import|import nnas_core\.\w+\.\w)", line)
    ]
    assert deep == []
