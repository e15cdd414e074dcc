"""Tables of a width: numbers stay whole, texts are folded at words, and what is long is cut or left out.

A table that fits is shown as it is. Else, in this order: columns move together; texts are folded over lines, and those
that have a shorter form get it; columns that can be missed are left out; and where even that is too wide, as on a
screen of 30 columns, each row becomes lines of names and values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rich.cells import cell_len, chop_cells, set_cell_size

from nnas_cli.escapes import printable

__all__ = ["Drawn", "Shorter", "Table", "cut", "folded"]

_WHOLE = 20
"""Cells of so many characters are not folded: names, states, dates."""

_LEAST = 20
"""The narrowest that a column of texts becomes, if its words allow that."""

_NUMBER = re.compile(r"-|[-+]?(?:\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?%?|inf|nan)(?: ± \d+(?:\.\d+)?)?|", re.IGNORECASE)


@dataclass(frozen=True)
class Shorter:
    """A shorter form of a column.

    Attributes:
        cells: for a width; each is one line, and cut if it is longer yet.
        how: what it leaves out, for a line below the table.
    """

    cells: Callable[[int], Sequence[str]]
    how: str


@dataclass(frozen=True)
class Drawn:
    """A table in a width.

    Attributes:
        head: the lines of the names.
        lines: those below.
        notes: what is not shown whole.
    """

    head: Sequence[str]
    lines: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Names of columns, and rows of texts; everything becomes printable.

    Attributes:
        columns: their names.
        rows: a cell for each.
        shorter: by the name of a column, its shorter form; what has none is folded at words.
        left_out: the names of columns that can be missed, the first to go first.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    shorter: Mapping[str, Shorter] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    def drawn(self, width: int) -> Drawn:
        """The table in lines of at most ``width`` cells."""
        columns = [
            _Column(printable(name), tuple(printable(row[place]) for row in self.rows), self.shorter.get(name))
            for place, name in enumerate(self.columns)
        ]
        notes: list[str] = []
        layout = _laid_out(columns, width)
        for name in self.left_out:
            if layout is None:
                notes.append(f"{name}: left out")
                columns = [one for one in columns if one.name != name]
                layout = _laid_out(columns, width)
        if layout is None:
            return Drawn([], list(_records(columns, width)), notes)
        for column, room in zip(columns, layout[0], strict=True):
            if column.shorter is not None and room < max(map(cell_len, column.cells), default=0):
                notes.append(f"{column.name}: {column.shorter.how}")
        return Drawn(*_in_columns(columns, *layout), notes)


@dataclass(frozen=True)
class _Column:
    name: str
    cells: Sequence[str]
    shorter: Shorter | None

    @cached_property
    def is_number(self) -> bool:
        return bool(self.cells) and all(_NUMBER.fullmatch(cell) for cell in self.cells)

    @cached_property
    def natural(self) -> int:
        return max(cell_len(self.name), *map(cell_len, self.cells), 0)

    @cached_property
    def least(self) -> int:
        """The least width that breaks no number, and nothing short."""
        words = max(map(cell_len, self.name.split()), default=0)
        content = max(map(cell_len, self.cells), default=0)
        if self.is_number or content <= _WHOLE:
            return max(words, content)
        if self.shorter is None:
            parts = (cell_len(word) for cell in self.cells for word in cell.split())
            words = max(words, *(width for width in parts if width <= _WHOLE), 0)
        return max(words, min(content, _LEAST))

    def cell_lines(self, width: int) -> list[list[str]]:
        """The lines of each cell."""
        if all(cell_len(cell) <= width for cell in self.cells):
            return [[cell] for cell in self.cells]
        if self.shorter is not None:
            return [[cut(printable(cell), width)] for cell in self.shorter.cells(width)]
        return [list(folded(cell, width)) for cell in self.cells]

    def in_lines_of(self, width: int) -> list[str]:
        """The name and the cell, for each cell; a shorter form is asked for what is left of a line."""
        name = f"{self.name}: " if self.name else ""
        room = max(1, width - cell_len(name))
        cells = self.cells
        if self.shorter is not None and any(cell_len(cell) > room for cell in cells):
            cells = [cut(printable(cell), room) for cell in self.shorter.cells(room)]
        return [f"{name}{cell}" for cell in cells]


def _laid_out(columns: Sequence[_Column], width: int) -> tuple[list[int], int] | None:
    """The width of each column and the gap between two; None if there is no room."""
    widths = [column.natural for column in columns]
    for gap in (3, 2):
        room = width - gap * (len(columns) - 1)
        if sum(widths) <= room:
            return widths, gap
    least = [column.least for column in columns]
    if sum(least) > room:
        return None
    widths = [max(fewest, min(wanted, room)) for fewest, wanted in zip(least, widths, strict=True)]
    while sum(widths) > room:  # the widest of those that can give
        widest = max((place for place, one in enumerate(widths) if one > least[place]), key=lambda place: widths[place])
        widths[widest] -= 1
    return widths, gap


def _in_columns(columns: Sequence[_Column], widths: Sequence[int], gap: int) -> tuple[list[str], list[str]]:
    """The lines of the head, and those below, a rule first."""
    space = " " * gap

    def lines(row: Sequence[Sequence[str]]) -> Iterator[str]:
        for number in range(max(map(len, row), default=0)):
            parts = (cell[number] if number < len(cell) else "" for cell in row)
            placed = zip(columns, parts, widths, strict=True)
            yield space.join(_placed(part, width, column.is_number) for column, part, width in placed).rstrip()

    head = lines([list(folded(column.name, width)) for column, width in zip(columns, widths, strict=True)])
    cells = [column.cell_lines(width) for column, width in zip(columns, widths, strict=True)]
    rule = "─" * (sum(widths) + gap * (len(columns) - 1))
    return list(head), [rule, *(line for row in zip(*cells, strict=True) for line in lines(row))]


def _records(columns: Sequence[_Column], width: int) -> Iterator[str]:
    """Each row in lines of its own."""
    yield "─" * width
    for row in zip(*(column.in_lines_of(width) for column in columns), strict=True):
        for cell in row:
            yield from folded(cell, width)
        yield "─" * width


def _placed(text: str, width: int, to_the_right: bool) -> str:
    blank = " " * max(0, width - cell_len(text))
    return blank + text if to_the_right else text + blank


def folded(text: str, width: int) -> Iterator[str]:
    """A text in lines of at most ``width`` cells, broken at spaces; only a word that is longer is broken itself."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *full, line = chop_cells(word, width) or [""]
        yield from full
    yield line


def cut(text: str, width: int) -> str:
    """A text in at most ``width`` cells; one that is longer ends with ``…``."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"
