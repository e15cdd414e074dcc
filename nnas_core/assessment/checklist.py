"""The community's checklist for research on architecture search, as a document: what is asked, what is stored of it.

Source: Lindauer and Hutter, "Best Practices for Scientific Research on Neural Architecture Search", Journal of Machine
Learning Research 21(243), 2020. Items have the numbers of its three blocks; what they ask is said in words of our own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnas_core.assessment._markdown import escaped, plain

__all__ = ["BLOCKS", "SOURCE", "STATUSES", "Checklist", "Command", "Fact", "Item", "Spell"]

SOURCE = (
    'M. Lindauer and F. Hutter, "Best Practices for Scientific Research on Neural Architecture Search", JMLR 21(243), '
    "2020"
)

BLOCKS = ("Releasing code", "Comparing methods", "Reporting details")

STATUSES = ("answered", "open", "not applicable")

Spell = Callable[[str], str]
"""Writes the options of a command line where a text names parameters in backquotes."""


@dataclass(frozen=True)
class Fact:
    """Something that is stored.

    Attributes:
        what: it is.
        value: as people read it.
        where: it is stored: a file of the run folder, or a part of the study.
    """

    what: str
    value: str
    where: str

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {"what": self.what, "value": self.value, "where": self.where}


@dataclass(frozen=True)
class Command:
    """A command of nnas, apart from how options are written.

    Attributes:
        name: of the command.
        words: its arguments.
        options: parameters and their values; None for a switch.
    """

    name: str
    words: Sequence[str] = ()
    options: Sequence[tuple[str, str | None]] = ()

    def line(self, spell: Spell) -> str:
        """Returns the line that a shell takes."""
        words = ["nnas", self.name, *map(shlex.quote, self.words)]
        for name, value in self.options:
            words += [spell(f"`{name}`"), *([] if value is None else [shlex.quote(value)])]
        return " ".join(words)


@dataclass(frozen=True)
class Item:
    """An item of the checklist, with its answer.

    Attributes:
        number: of the block, and in it: ``"2.6"``.
        asked: in one sentence.
        status: one of ``STATUSES``.
        facts: what is stored about it.
        left: what the user has to say or do, or why it does not apply; None: nothing.
        command: that would answer it, or shows or repeats what is stored.
    """

    number: str
    asked: str
    status: str
    facts: Sequence[Fact] = ()
    left: str | None = None
    command: Command | None = None

    def to_json(self, spell: Spell) -> dict[str, object]:
        """Returns everything."""
        return {
            "item": self.number,
            "asked": self.asked,
            "status": self.status,
            "facts": [fact.to_json() for fact in self.facts],
            "left": None if self.left is None else spell(self.left),
            "command": None if self.command is None else self.command.line(spell),
        }


@dataclass(frozen=True)
class Checklist:
    """The checklist of a run or a study.

    Attributes:
        kind: ``"search"``, ``"retrain"`` or ``"study"``.
        name: of the run folder or the study.
        items: in their order.
    """

    kind: str
    name: str
    items: Sequence[Item]

    def count(self, status: str) -> int:
        """Returns how many items have a status."""
        return sum(item.status == status for item in self.items)

    def to_json(self, spell: Spell) -> dict[str, object]:
        """Returns the document of the schema ``checklist-report``, without its tag.

        Args:
            spell: writes the options of commands.
        """
        return {
            "kind": self.kind,
            "name": self.name,
            "source": SOURCE,
            "counts": {status: self.count(status) for status in STATUSES},
            "items": [item.to_json(spell) for item in self.items],
        }

    def _summary(self) -> str:
        return ", ".join(f"{self.count(status)} {status}" for status in STATUSES)

    def _in_blocks(self) -> list[tuple[str, list[Item]]]:
        return [
            (f"{place} {title}", [item for item in self.items if item.number.startswith(f"{place}.")])
            for place, title in enumerate(BLOCKS, 1)
        ]

    def lines(self, spell: Spell) -> list[str]:
        """Returns the checklist for a terminal, a line each, with nothing escaped.

        Args:
            spell: as for ``to_json``.
        """
        found = [f"NAS checklist of the {self.kind} {self.name}: {self._summary()}", SOURCE]
        for title, items in self._in_blocks():
            found += ["", title]
            for item in items:
                found.append(f"{item.number} {_MARKS[item.status]} {item.asked}")
                found += [f"        {fact.what}: {fact.value} ({fact.where})" for fact in item.facts]
                if item.left is not None:
                    found.append(f"     -> {spell(item.left)}")
                if item.command is not None:
                    found.append(f"     $  {item.command.line(spell)}")
        return found

    def markdown(self, spell: Spell) -> str:
        """Returns the checklist as a page of Markdown, with task lists.

        Args:
            spell: as for ``to_json``.
        """
        parts = [f"# NAS checklist of the {self.kind} {escaped(self.name)}", "", f"{self._summary()}.", ""]
        parts += [f"The items are those of {escaped(SOURCE)}, in other words."]
        for title, items in self._in_blocks():
            parts += ["", f"## {title}", ""]
            for item in items:
                done = "x" if item.status == "answered" else " "
                parts.append(f"- [{done}] **{item.number}** {item.asked} *{item.status}*")
                parts += [
                    f"  - {escaped(fact.what)}: {escaped(fact.value)} ({escaped(fact.where)})" for fact in item.facts
                ]
                if item.left is not None:
                    parts.append(f"  - {escaped(spell(item.left))}")
                if item.command is not None:
                    parts.append(f"  - {_code(item.command.line(spell))}")
        return "\n".join(parts) + "\n"


_MARKS = {"answered": "[x]", "open": "[ ]", "not applicable": "[-]"}


def _code(text: str) -> str:
    """A code span, fenced by more backquotes than the text has side by side."""
    line = plain(text)
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"
