"""Names become classes here: an algorithm's file name is its name, no list is kept by hand.

The folders ``mutators/`` and ``tuners/`` are read without importing them (a class is imported when it is
used), entry points of the groups ``nnas.mutators`` and ``nnas.tuners`` add more, and ``file.py:Class``
names one of the user's own.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnas_core import loading
from nnas_core.errors import UsageError, UserCodeError
from nnas_core.files import read_bytes

__all__ = ["Entry", "entries", "find"]

_SUFFIX = {"mutators": "Mutator", "tuners": "Tuner"}


@dataclass(frozen=True)
class Entry:
    """One algorithm.

    Attributes:
        name: what ``--mutator`` or ``--tuner`` takes.
        target: ``package.module:Class``.
        summary: the first line of its module's docstring.
        source: the paper, from the docstring's line ``Source: ...``.
    """

    name: str
    target: str
    summary: str
    source: str

    def load(self) -> type[Any]:
        """Import the class."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(module), name)
        return loaded


@functools.cache
def entries(group: str) -> dict[str, Entry]:
    """All algorithms of ``group`` (``"mutators"`` or ``"tuners"``) by name, sorted.

    Raises:
        UserCodeError: an installed package claims a name that is taken.
    """
    found = {}
    for file in sorted((Path(__file__).parent / group).glob("[!_]*.py")):
        summary, source = _describe(file.read_text(encoding="utf-8"))
        camel = "".join(word.capitalize() for word in file.stem.split("_"))
        target = f"nnas_core.{group}.{file.stem}:{camel}{_SUFFIX[group]}"
        name = file.stem.replace("_", "-")
        found[name] = Entry(name, target, summary, source)
    for point in importlib.metadata.entry_points(group=f"nnas.{group}"):
        if point.name in found:
            raise UserCodeError(
                f"the entry point {point.value!r} claims the name {point.name!r}, which "
                f"{found[point.name].target!r} has",
                hint="uninstall one of the two packages",
            )
        package = point.dist.name if point.dist is not None else point.value
        found[point.name] = Entry(point.name, point.value, f"from the package {package}", "")
    return dict(sorted(found.items()))


def _describe(text: str) -> tuple[str, str]:
    lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    sources = []
    for number, line in enumerate(lines):
        if line.startswith("Source:"):
            sources.append(line.removeprefix("Source:").strip())
            for continued in lines[number + 1 :]:
                if not continued.strip():
                    break
                sources.append(continued.strip())
            break
    return (lines[0] if lines else ""), " ".join(sources)


def _classes(content: bytes, where: str) -> list[str]:
    """The classes that a file defines, without importing it."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise UserCodeError(f"{type(error).__name__}: {error}", where=where) from error
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def find(group: str, name: str) -> type[Any]:
    """The class that ``name`` means: a registered name, or ``file.py:Class`` of the user's own.

    Raises:
        UsageError: no such name (the nearest one is suggested).
        InputError, UserCodeError: the user's file cannot be loaded.
    """
    known = entries(group)
    if name in known:
        return known[name].load()
    if ":" in name:
        return loading.load_class(name)
    if name.endswith(".py"):
        classes = _classes(read_bytes(name), name)
        there = f"; there {'is' if len(classes) == 1 else 'are'} {', '.join(classes)}" if classes else ""
        raise UsageError(f"{name!r} names no class", hint=f"write {name}:Class{there}")
    near = difflib.get_close_matches(name, known, n=1)
    kind = group.removesuffix("s")
    raise UsageError(
        f"no {kind} is named {name!r}",
        hint=(f"did you mean {near[0]!r}? " if near else "")
        + f"there are {', '.join(known)}, or one of your own as file.py:Class",
    )
