"""Write the parts of the documentation that the code knows: tables, every --help, docs/api.md.

    python docs/generate.py            rewrite them
    python docs/generate.py --check    only say which files are out of date; exit code 1 if any is

They stand between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import ast
import enum
import importlib
import inspect
import itertools
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import is_typeddict

import click

from nnas_cli.main import COMMANDS, cli
from nnas_core.plugins import registry

ROOT = Path(__file__).resolve().parents[1]
REGION = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, say which files are out of date")
    check = parser.parse_args().check
    stale = 0
    for file in pages():
        before = file.read_text(encoding="utf-8")
        after = render(before)
        if before == after:
            continue
        stale += 1
        name = file.relative_to(ROOT)
        if check:
            print(f"{name} is out of date: run python docs/generate.py")
        else:
            file.write_text(after, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


def pages() -> list[Path]:
    """The documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def render(text: str) -> str:
    """A page with its generated parts as they should be."""
    return REGION.sub(lambda found: f"{found[1]}{GENERATORS[found[2]]()}{found[3]}", text)


def commands() -> str:
    """A table of all commands."""
    rows = [
        [f"[`{usage(name)}`](docs/cli.md#nnas-{name})", summary.removesuffix(".")] for name, summary in COMMANDS.items()
    ]
    return table(["command", "what it does"], rows)


def gain() -> str:
    """A table of what a search finds in the spaces where all is known, from the page of the algorithms."""
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    tables = [judged(found[1]) for found in re.finditer(r"<!-- measured: [\w-]+ -->\n(.*?)<!-- end", page, re.DOTALL)]
    shown = {
        "found by `snas`": "`snas`",
        "found by `drnas`": "`drnas`",
        "found by `proxyless`": "`proxyless`",
        "found by `spos`": "`spos`",
        "random search with the same compute": "random search",
        "a random network": "random choice",
    }
    rows = [[label, *(cell for table in tables for cell in table[name])] for label, name in shown.items()]
    return table(["", "MNIST-1D: accuracy, %", "rank of 243", "digits: accuracy, %", "rank of 81"], rows)


def judged(measured: str) -> dict[str, tuple[str, str]]:
    """Accuracy in per cent and rank of what each row of a table finds, by the row's name up to a comma."""
    found = {}
    for line in measured.splitlines()[2:]:
        name, _tau, _rank, _accuracy, rank, accuracy, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        per_cent = re.sub(r"[\d.]+", lambda number: f"{100 * float(number[0]):.1f}", accuracy)
        found[name.partition(",")[0]] = (per_cent, rank)
    return found


def mutator_options() -> str:
    """A section for each mutator: its options."""
    sections = []
    for entry in registry.entries("mutators").values():
        options = entry.options() or ()
        rows = [[f"`{one.name}`", f"`{one.default}`", one.summary] for one in options]
        shown = table(["option", "default", "meaning"], rows) if rows else "It has no options.\n"
        said = textwrap.fill(f"{entry.summary} {entry.source}", 120, break_long_words=False, break_on_hyphens=False)
        sections.append(f"### {entry.name}\n\n{said}\n\n{shown}")
    return "\n" + "\n".join(sections) + "\n"


def algorithms(group: str) -> str:
    """A table of tuners."""
    rows = [
        [f"`{entry.name}`", entry.summary.removesuffix("."), arguments(entry.load()), entry.source.removesuffix(".")]
        for entry in registry.entries(group).values()
    ]
    return table(["name", "what it does", "arguments", "source"], rows)


def arguments(cls: type) -> str:
    """Lists what ``--mutator-arg`` or ``--tuner-arg`` may set, with the defaults as they would be written there."""
    ours = {"model", "generator", "seed", "optimize_mode"}
    given = [one for name, one in inspect.signature(cls).parameters.items() if name not in ours]
    return ", ".join(f"`{one.name}={json.dumps(one.default)}`" for one in given) or "none"


def help_of_all() -> str:
    """A section for each command: its ``--help``."""
    sections = [f"## nnas\n\n{block(cli, None)}"]
    for name in COMMANDS:
        sections.append(f"## nnas {name}\n\n{block(command(name), name)}")
        sections += [f"## nnas {name} {verb}\n\n{block(one, f'{name} {verb}')}" for verb, one in verbs(name).items()]
    return "\n" + "\n\n".join(sections) + "\n\n"


def block(which: click.Command, name: str | None) -> str:
    """The help of a command as it looks in a terminal of 100 columns."""
    return f"```text\n{context(which, name).get_help()}\n```"


def usage(name: str) -> str:
    """``nnas search MODEL``: the command with its arguments."""
    pieces = command(name).collect_usage_pieces(context(command(name), name))
    return " ".join(["nnas", name, *(piece for piece in pieces if piece != "[OPTIONS]")])


def context(which: click.Command, name: str | None) -> click.Context:
    """A context as the command line makes it, but of a fixed width."""
    settings = dict(cli.context_settings)
    if name is None:
        return click.Context(which, info_name="nnas", terminal_width=100, **settings)
    return click.Context(which, info_name=name, parent=context(cli, None), terminal_width=100)


def command(name: str) -> click.Command:
    """A command by its name."""
    found = cli.get_command(context(cli, None), name)
    if found is None:
        raise KeyError(name)
    return found


def verbs(name: str) -> dict[str, click.Command]:
    """The commands of a group; of any other command none."""
    group = command(name)
    if not isinstance(group, click.Group):
        return {}
    found = {verb: group.get_command(context(group, name), verb) for verb in group.list_commands(context(group, name))}
    return {verb: one for verb, one in found.items() if one is not None}


# ---- the library


def library() -> str:
    """A section for each package and module of the library: what it is for, and its public names."""
    sections = [f"## {name}\n\n{markdown(documented.__doc__)}\n{names_of(documented)}" for name, documented in public()]
    return "\n" + "\n".join(sections) + "\n"


def public() -> list[tuple[str, ModuleType]]:
    """nnas_core, and every module and package in it that has public names."""
    folder = ROOT / "nnas_core"
    inside = sorted(one.stem for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file())
    names = ["nnas_core", *(f"nnas_core.{one}" for one in inside if not one.startswith("_"))]
    modules = [(name, importlib.import_module(name)) for name in names]
    return [(name, module) for name, module in modules if getattr(module, "__all__", [])]


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown; what is indented is a diagram or a program."""
    paragraphs = []
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        indented = all(line.startswith("    ") for line in paragraph.splitlines())
        paragraphs.append(f"```text\n{textwrap.dedent(paragraph)}\n```" if indented else ticks(paragraph))
    return "\n\n".join(paragraphs) + "\n"


def ticks(text: str) -> str:
    """Markdown's backquotes for those of docstrings."""
    return text.replace("``", "`")


def names_of(module: ModuleType) -> str:
    """A table of the public names of a module or package."""
    rows = []
    for name in sorted(set(module.__all__) - {"__version__"}, key=str.lower):
        value = getattr(module, name)
        rows.append([f"`{name}{signature(value)}`", first_sentences(module, name, value)])
    return table(["name", "what it is"], rows)


def signature(value: object) -> str:
    """Writes what a function or a constructor takes; nothing for what cannot be called like that."""
    if is_typeddict(value) or not (inspect.isclass(value) or inspect.isfunction(value)):
        return ""
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        return ""
    own = inspect.isclass(value) and value.__init__ is not object.__init__
    try:
        found = inspect.signature(value.__init__ if own else value)
    except ValueError:  # a built-in constructor, as that of an exception
        return ""
    parameters = list(found.parameters.values())[1 if own else 0 :]
    if [one.name for one in parameters] == ["args", "kwargs"]:
        return ""
    returned = (
        "" if inspect.isclass(value) or found.return_annotation is found.empty else f" -> {found.return_annotation}"
    )
    return f"({', '.join(spelt(parameters))}){returned}"


def spelt(parameters: list[inspect.Parameter]) -> list[str]:
    """Parameters as they are written in a definition."""
    written = []
    keyword_only = False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            written.append("*")
        keyword_only = keyword_only or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        typed = "" if one.annotation is one.empty else f": {one.annotation}"
        given = "" if one.default is one.empty else f" = {default_of(one)}"
        written.append(f"{star}{one.name}{typed}{given}")
    return written


def default_of(parameter: inspect.Parameter) -> str:
    """A default as it is written; ``...`` for an object that has no short form."""
    shown = repr(parameter.default)
    return "..." if "<" in shown else shown


def first_sentences(module: ModuleType, name: str, value: object) -> str:
    """The first paragraph of a name's docstring, and the public methods of a class."""
    named = inspect.isclass(value) or inspect.isfunction(value)
    docstring = inspect.getdoc(value) if named else assigned_docstring(module, name)
    said = ticks(" ".join((docstring or "").split("\n\n")[0].split()))
    if not inspect.isclass(value):
        return said
    methods = [one for one, member in vars(value).items() if inspect.isfunction(member) and not one.startswith("_")]
    return f"{said} Methods: {', '.join(f'`{one}`' for one in methods)}." if methods else said


def assigned_docstring(module: ModuleType, name: str) -> str | None:
    """The text right after the assignment of a constant or of an alias of a type, in the module that has it."""
    for source in (module, *(importlib.import_module(home) for home in homes(module, name))):
        body = ast.parse(inspect.getsource(source)).body
        for statement, after in itertools.pairwise(body):
            target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", [])), None)
            if isinstance(target, ast.Name) and target.id == name and isinstance(after, ast.Expr):
                return inspect.cleandoc(ast.literal_eval(after.value))
    return None


def homes(package: ModuleType, name: str) -> list[str]:
    """The modules that a package imports a name from."""
    statements = [one for one in ast.walk(ast.parse(inspect.getsource(package))) if isinstance(one, ast.ImportFrom)]
    return [one.module for one in statements if one.module and any(alias.name == name for alias in one.names)]


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


GENERATORS: dict[str, Callable[[], str]] = {
    "api": library,
    "commands": commands,
    "help": help_of_all,
    "gain": gain,
    "mutator-options": mutator_options,
    "tuners": lambda: algorithms("tuners"),
}

if __name__ == "__main__":
    sys.exit(main())
