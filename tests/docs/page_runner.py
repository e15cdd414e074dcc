"""Reading the documentation: its blocks of code, and a small shell that runs what they show.

What is run, page by page and in order:

- a block ``python`` that begins with a comment like ``# mine.py`` is that file in the current folder;
- any other block ``python`` is run; what it prints is the block ``text`` right after it, if there is one;
- a block ``console`` has commands after ``$`` and what they say. A line ``...`` stands for any number of lines;
- a block ``json`` after a line that ends with a name like `` `space.json`:`` is that file in the current folder. What
  other blocks ``json``, ``jsonl`` and ``toml`` are, the test of their page knows.

Measured numbers differ from run to run and from machine to machine. So where output is compared, ``masked`` makes all
numbers with a decimal point equal, and those before a unit. Everything else must be as it is shown.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sklearn  # noqa: F401  (it sets environment variables when it is first imported, which no test may do)

from tests.cli_support import Cli

__all__ = ["HOME", "ROOT", "Block", "Shell", "blocks", "check_output", "markdown_files", "run_page"]

ROOT = Path(__file__).parents[2]

HOME = "/home/me/project"
"""How pages call the folder in which their commands run."""


@dataclass(frozen=True)
class Block:
    """A block of code: where it begins, its language, its text, and the last line before it."""

    file: str
    line: int
    language: str
    text: str
    before: str = ""

    @property
    def where(self) -> str:
        """``docs/cli.md:12``."""
        return f"{self.file}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The file that a block is: python by its first line, json by the line before it."""
        if self.language == "json":
            found = re.search(r"`([\w-]+\.json)`:$", self.before)
        else:
            found = re.match(r"# ([\w-]+\.py)\n", self.text)
        return found[1] if found else None


def markdown_files() -> list[str]:
    """Every page, those of the examples too."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found += [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    return sorted(str(file.relative_to(ROOT)) for file in found)


def blocks(file: str) -> list[Block]:
    """The blocks of code of a page."""
    found: list[Block] = []
    language, start, lines, before = None, 0, list[str](), ""
    of_block = ""
    for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
            before = line or before
        elif language is None:
            language, start, lines = line[3:], number, []
            of_block = before
        else:
            found.append(Block(file, start, language, "".join(f"{one}\n" for one in lines), of_block))
            language = None
    assert language is None, f"{file}:{start}: the block does not end"
    return found


class Shell:
    """Runs command lines of ``nnas`` in this process, with pipes, ``>`` and settings of the environment.

    Args:
        folder: the current one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._may_fail = False

    def run(self, line: str, *, fails: bool = False) -> str:
        """What a command line says: the standard error of its commands, then its standard output.

        Args:
            line: as it would be typed.
            fails: whether it must fail; else it must not.
        """
        self._may_fail = fails
        said = b""
        data = b""
        with contextlib.chdir(self._folder):
            for words in _commands(line):
                target = words[words.index(">") + 1] if ">" in words else None
                words = words[: words.index(">")] if target else words
                out, err = self._command(words, data)
                said, data = said + err, out
                if target:
                    Path(target).write_bytes(out)
                    data = b""
        return (said + data).decode().replace(str(self._folder), HOME)

    def _command(self, words: list[str], stdin: bytes) -> tuple[bytes, bytes]:
        settings = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=.*", word))
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[0] == "cat":
            return Path(words[1]).read_bytes(), b""
        if words[:2] == ["tail", "-n"]:
            return b"".join(Path(words[3]).read_bytes().splitlines(keepends=True)[-int(words[2]) :]), b""
        if words[0] == "ls":
            return "".join(f"{name}\n" for name in sorted(os.listdir(words[1])) if name[0] != ".").encode(), b""
        assert words[0] == "nnas", f"the documentation's tests cannot run {words[0]!r}"
        with _environment(settings):
            result = Cli()(*words[1:], stdin=stdin)
        assert (result.code != 0) == self._may_fail, f"nnas {words[1:]} ended with {result.code}: {result.err}"
        return result.out.encode(), result.err.encode()


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word == "|":
            yield words
            words = []
        else:
            words.append(word)
    yield words


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


# ---- running a page


def run_page(file: str, folder: Path) -> None:
    """Run the blocks of a page in order, in one folder, and compare what they say."""
    names: dict[str, object] = {}
    printed = None
    for block in blocks(file):
        if block.language == "console":
            run_console(block, Shell(folder))
        elif block.language == "text" and printed is not None:
            check_output(block.where, block.text, printed)
        printed = None
        if block.language in ("json", "python") and block.file_name:
            (folder / block.file_name).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            names, printed = _run_python(block, folder, names)


def run_console(block: Block, shell: Shell) -> None:
    """Run the commands of a block and compare what they say; one that is shown to fail must."""
    for command, expected in _transcript(block):
        fails = re.search(r"^nnas: error|^  \"error\": ", expected, re.MULTILINE) is not None
        check_output(f"{block.where}: {command}", expected, shell.run(command, fails=fails))


def _transcript(block: Block) -> Iterator[tuple[str, str]]:
    command, expected, unfinished = None, "", False
    for line in block.text.splitlines():
        if unfinished and command is not None:
            command += " " + line.strip().removesuffix("\\")
        elif line.startswith("$ "):
            if command is not None:
                yield command, expected
            command, expected = line[2:].removesuffix("\\"), ""
        else:
            expected += line + "\n"
            continue
        unfinished = line.endswith("\\")
    assert command is not None, f"{block.where}: no command after $"
    yield command, expected


def _run_python(block: Block, folder: Path, names: dict[str, object]) -> tuple[dict[str, object], str]:
    program = folder / ".block.py"
    program.write_text("\n" * block.line + block.text, encoding="utf-8")  # errors show the page's line
    with contextlib.chdir(folder), _importable(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        left = runpy.run_path(str(program), init_globals=names)
    return {name: value for name, value in left.items() if not name.startswith("__")}, out.getvalue()


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The page's files can be imported, as beside a script, and are forgotten afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[name]


# ---- comparing


def check_output(where: str, expected: str, actual: str) -> None:
    """Compare what is shown with what was said, by the rules of this file."""
    assert _matches(masked(expected), masked(actual)), f"{where}\nshown:\n{expected}\nsaid:\n{actual}"
    for one, other in zip(_test_accuracies(expected), _test_accuracies(actual), strict=False):
        assert abs(one - other) <= 0.05, f"{where}: shows the accuracy {one}, it is {other}"


def _matches(shown: list[str], said: list[str]) -> bool:
    if not shown:
        return not said
    if shown[0] == "...":
        return any(_matches(shown[1:], said[skipped:]) for skipped in range(len(said) + 1))
    return bool(said) and shown[0] == said[0] and _matches(shown[1:], said[1:])


def masked(text: str) -> list[str]:
    """The lines of a text without what is measured, and without the widths of columns that depend on it."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\d", "#", text)
    text = re.sub(r"\d+\.\d+(e[-+]?\d+)?|\d+e-\d+", "#", text)
    text = re.sub(r"\d+(?= samples/s| MiB)", "#", text)
    text = re.sub(r"sha256:[0-9a-f]{16}\b", "#", text)  # of weights: their last bits depend on the machine
    text = re.sub(r"─+", "─", text)
    return [re.sub(r"(?<=\S) +", " ", line).rstrip() for line in text.splitlines()]


def _test_accuracies(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"^test .*accuracy (\d\.\d+)", text, re.MULTILINE)]
