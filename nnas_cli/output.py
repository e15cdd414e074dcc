"""Output: the answer goes to standard output, everything else to standard error."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from nnas_cli.escapes import printable, shown
from nnas_cli.spelling import with_options
from nnas_core._listing import shortened
from nnas_core.errors import NnasWarning
from nnas_core.files import atomic_writer, dump_json

if TYPE_CHECKING:
    from rich.console import Console

    from nnas_cli.tables import Table
    from nnas_core.viewing.view import View

__all__ = ["Output"]


class Output:
    """The streams of one command.

    While it is entered, ``sys.stdout`` is standard error: what the user's own code prints is no answer.

    Args:
        as_json: the answer is one document, and standard error carries errors only.
        verbosity: 0 says nothing but errors, 1 is normal, 2 and more say more.
        color: ``auto``, ``always`` or ``never``.
        progress: allow progress bars.
    """

    def __init__(self, *, as_json: bool, verbosity: int, color: str, progress: bool, debug: bool) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self.debug = debug
        self._color = color
        self._progress = progress
        self._stdout = sys.stdout
        self._stderr = sys.stderr
        self._warnings = warnings.catch_warnings()
        self.above: Callable[[str], None] | None = None  # writes a line above what is pinned to the terminal

    def __enter__(self) -> Output:
        self._stdout = sys.stdout
        sys.stdout = self._stderr
        self._warnings.__enter__()
        warnings.simplefilter("default", NnasWarning)
        self._show_warning = warnings.showwarning
        warnings.showwarning = self._show_ours
        return self

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        sys.stdout = self._stdout

    def _show_ours(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        """The library's warnings are lines of ours; those of others look as Python shows them."""
        if issubclass(category, NnasWarning):
            self.warn(str(message))
        else:
            self._show_warning(message, category, *where, **more)

    # ---- the answer

    def answer(self, text: str) -> None:
        """Write to standard output; a terminal gets escapes for what would move or colour it."""
        self._write_whole(shown(text) if self._stdout.isatty() else text)

    def _write_whole(self, text: str) -> None:
        """Write all of it: an unbuffered stream may take less at a time than it is given."""
        self._stdout.flush()
        rest = memoryview(text.encode(self._stdout.encoding, "backslashreplace"))
        while rest:
            rest = rest[self._stdout.buffer.write(rest) or 0 :]
        self._stdout.flush()

    def report(self, kind: str, document: Mapping[str, object], path: str = "-") -> None:
        """Write a report as JSON, to standard output or to a file.

        Args:
            kind: the name of its schema; the report gets the tag ``format`` of it.
            document: the report.
            path: ``-`` is standard output.
        """
        from nnas_core.schema import tagged  # late: texts need none

        self.write(path, dump_json(tagged(kind, document)))

    def write(self, path: str, content: str) -> None:
        """Write to a file, atomically, or to standard output for ``-``."""
        if path == "-":
            self.answer(content)
            return
        with atomic_writer(path) as stream:
            stream.write(content.encode())
        self.note(f"wrote {path}")

    # ---- everything else

    def note(self, line: str, level: int = 1, *, fold: bool = False) -> None:
        """Tell something on standard error from verbosity ``level`` on.

        Args:
            line: of any length.
            level: the least verbosity.
            fold: let no number of it be broken over lines of a terminal; a command, which is pasted, stays one line.
        """
        if self.verbosity < level or self.as_json:
            return
        context = click.get_current_context(silent=True)
        line = printable(with_options(line, None if context is None else context.command))
        lines = [line]
        if fold and self._stderr.isatty():
            from nnas_cli.tables import folded  # late: as below

            lines = list(folded(line, self.width(self._stderr)))
        if self.above is not None:
            self.above("\n".join(lines))
            return
        self._stderr.write("".join(f"{one}\n" for one in lines))
        self._stderr.flush()

    def picture(self, view: View) -> None:
        """Draw a view as the answer, in the width and with the characters and colours that standard output has."""
        from rich.console import Console  # late: as below

        from nnas_cli.pictures import picture

        drawn = _Drawn()
        drawn.encoding = self._stdout.encoding or "utf-8"
        colors, width = self._wants_color(self._stdout), self.width()
        console = Console(file=drawn, force_terminal=colors, no_color=not colors, width=width, highlight=False)
        can_draw = not console.options.ascii_only
        for part in picture(view, width, can_draw=can_draw):
            console.print(part)
        text = drawn.getvalue()
        self._write_whole(text if can_draw else text.translate(_PLAIN))

    def announce(self, line: str) -> None:
        """Tell what begins: on a terminal, where somebody waits, and elsewhere with ``--verbose``."""
        self.note(line, level=1 if self.shows_bars else 2, fold=True)

    def warn(self, line: str) -> None:
        """Warn on standard error."""
        self.note(f"nnas: warning: {shortened(line)}")

    @property
    def shows_bars(self) -> bool:
        """Returns true if both streams are terminals and nothing speaks against progress bars."""
        return (
            self._progress
            and not self.as_json
            and self.verbosity >= 1
            and self._stdout.isatty()
            and self._stderr.isatty()
            and not os.environ.get("CI")
            and os.environ.get("TERM") != "dumb"
        )

    def console(self, stream: TextIO | None = None) -> Console:
        """A rich console on standard error, or on ``stream``; wide enough to cut nothing where nobody looks."""
        from rich.console import Console

        stream = stream or self._stderr
        colors = self._wants_color(stream)
        return Console(
            file=stream,
            force_terminal=True if colors else None if stream.isatty() else False,
            no_color=not colors,
            color_system="auto" if colors else None,
            width=None if stream.isatty() else 10_000,
            highlight=False,
        )

    def _wants_color(self, stream: TextIO) -> bool:
        if self._color != "auto":
            return self._color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return stream.isatty() and os.environ.get("TERM") != "dumb"

    def width(self, stream: TextIO | None = None) -> int:
        """The columns of a stream, or of standard output: ``COLUMNS``, those of its terminal, or 80."""
        given = os.environ.get("COLUMNS", "")
        if given.isascii() and given.isdecimal() and 0 < len(given) < 6 and int(given) > 0:
            return int(given)
        try:
            return os.get_terminal_size((stream or self._stdout).fileno()).columns or _WIDTH
        except (OSError, ValueError):  # no terminal
            return _WIDTH

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, answer: bool = False) -> None:
        """Print a table of texts that are folded where they are too long; see ``show``."""
        from nnas_cli.tables import Table  # late: most commands have none

        self.show(Table(columns, rows), answer=answer)

    def show(self, table: Table, *, answer: bool = False) -> None:
        """Print a table in the width of its stream, as the answer or beside it."""
        if not answer and (self.verbosity < 1 or self.as_json):
            return
        stream = self._stdout if answer else self._stderr
        drawn = table.drawn(self.width(stream))
        colors = self._wants_color(stream)
        head = [f"\x1b[1m{line}\x1b[0m" if colors else line for line in drawn.head]
        text = "".join(f"{line}\n" for line in (*head, *drawn.lines))  # cells are printable, colours are ours
        if not _can_write(stream, text):
            text = text.translate(_PLAIN)
        if answer:
            self._write_whole(text)
        else:
            stream.write(text)
            stream.flush()
        if drawn.notes:
            self.note(f"{'; '.join(drawn.notes)} (--json has all)", fold=True)


class _Drawn(io.StringIO):
    """A text that is drawn with the characters of some encoding."""

    encoding = "utf-8"


_WIDTH = 80
"""Columns, where nobody says how many there are."""

_PLAIN = str.maketrans({"─": "-", "…": ">", "±": "~"})


def _can_write(stream: TextIO, text: str) -> bool:
    """Return true if the encoding of a stream has all characters of a text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
