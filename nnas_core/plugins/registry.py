"""Names become classes here: an algorithm's file name is its name, no list is kept by hand.

The folders ``mutators/``, ``tuners/`` and ``assessors/`` are read without importing them (a class is imported
when it is used), and so are their options; entry points of the groups ``nnas.mutators``, ``nnas.tuners`` and
``nnas.assessors`` add more, and ``file.py:Class`` names one of the user's own.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, TypeVar

from nnas_core.errors import UsageError, UserCodeError
from nnas_core.files import read_bytes, read_json
from nnas_core.plugins.arguments import refuse_unknown
from nnas_core.plugins.folders import own_classes
from nnas_core.plugins.loading import check_source, load_class, split_reference
from nnas_core.plugins.signatures import Option, options_of

__all__ = ["Entry", "Ranking", "check_ahead", "check_name", "entries", "find", "find_subclass", "measured"]

_T = TypeVar("_T")

_FILLED = {
    "mutators": {"model", "generator"},
    "tuners": {"seed", "optimize_mode"},
    "assessors": {"optimize_mode"},
}
"""Parameters of constructors that nnas gives; all others are options."""

_ROOT = Path(__file__).parents[2]

_MEASURED = _ROOT / "nnas_core" / "mutators" / "measured.json"
"""Results of benchmarks/groundtruth, by space and mutator."""


def _own_source(module: str) -> str | None:
    """The text of a module of nnas_core."""
    return _source(_ROOT, module) if module.split(".")[0] == "nnas_core" else None


def _source(folder: Path, module: str) -> str | None:
    """The text of a module below ``folder``; None if it is not there, or no text."""
    base = folder.joinpath(*module.split("."))
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if file.is_file():
            return file.read_bytes().decode(errors="replace")
    return None


class Ranking(TypedDict):
    """How good a mutator was found to be on a space of which every architecture was trained alone: means over seeds.

    Attributes:
        kendall_tau, kendall_tau_std: of the ranking with inherited weights against the truth.
        accuracy: of the architectures that searches handed out.
        rank: of those among all.
        proposed_rank: of what the algorithm itself says.
        architectures: how many there are.
        seeds: how many searches there were.
    """

    kendall_tau: float
    kendall_tau_std: float
    accuracy: float
    rank: float
    proposed_rank: float
    architectures: int
    seeds: int


@dataclass(frozen=True)
class Entry:
    """One algorithm.

    Attributes:
        name: as users give it for `mutator`, `tuner` or `assessor`.
        target: ``package.module:Class``.
        summary: the first line of its module's docstring.
        source: the paper, from the docstring's line ``Source: ...``.
        group: ``"mutators"``, ``"tuners"`` or ``"assessors"``.
        sources: finds the text of its module, and of those that it derives from.
    """

    name: str
    target: str
    summary: str
    source: str
    group: str
    sources: Callable[[str], str | None] = field(default=_own_source, compare=False, repr=False)

    def load(self) -> type[object]:
        """Import the class."""
        module, _, name = self.target.partition(":")
        loaded: type[object] = getattr(importlib.import_module(module), name)
        return loaded

    def options(self) -> tuple[Option, ...] | None:
        """The arguments that users may set, read without importing; None if they cannot be read."""
        module, _, name = self.target.partition(":")
        leading = 1 if self.group == "mutators" else 0  # the model, whatever it is called
        return options_of(module, name, self.sources, _FILLED[self.group], leading)


@functools.cache
def entries(group: str) -> dict[str, Entry]:
    """All algorithms of ``group`` (``"mutators"``, ``"tuners"`` or ``"assessors"``) by name, sorted.

    Raises:
        UserCodeError: an installed package claims a name that is taken.
    """
    found = {}
    for cls, module in own_classes(group).items():
        summary, source = _describe((_ROOT / "nnas_core" / group / f"{module}.py").read_text(encoding="utf-8"))
        name = module.replace("_", "-")
        found[name] = Entry(name, f"nnas_core.{group}.{module}:{cls}", summary, source, group)
    for point in importlib.metadata.entry_points(group=f"nnas.{group}"):
        if point.name in found:
            raise UserCodeError(
                f"the entry point {point.value!r} claims the name {point.name!r}, which "
                f"{found[point.name].target!r} has",
                hint="uninstall one of the two packages",
            )
        found[point.name] = _from_package(point, group)
    return dict(sorted(found.items()))


def check_ahead(group: str, name: str, arguments: Iterable[str]) -> None:
    """Refuse a name and arguments that can be seen to be wrong before anything is imported.

    Args:
        group: as in ``entries``.
        name: as ``find`` takes it.
        arguments: the names of arguments; of the user's own classes nothing is known yet.

    Raises:
        UsageError: no such name, or no such argument.
        InputError: there is no such file.
    """
    check_name(group, name)
    entry = entries(group).get(name)
    options = None if entry is None else entry.options()
    if options is not None:
        given = [one for one in arguments if one not in _FILLED[group]]
        refuse_unknown(given, [option.name for option in options], f"{group.removesuffix('s')} {name!r}")


def _from_package(point: importlib.metadata.EntryPoint, group: str) -> Entry:
    """Describes an algorithm of an installed package, as far as its files are where it says."""
    distribution = point.dist

    def sources(module: str) -> str | None:
        own = _own_source(module)
        if own is not None or distribution is None:
            return own
        return _source(Path(str(distribution.locate_file(""))), module)

    summary, source = "", ""
    text = sources(point.module)
    if text is not None:
        with contextlib.suppress(SyntaxError, ValueError):  # whoever uses it is told
            summary, source = _describe(text)
    package = f"from the package {distribution.name if distribution is not None else point.value}"
    shown = f"{summary} ({package})" if summary else package
    return Entry(point.name, point.value, shown, source, group, sources)


def measured() -> dict[str, dict[str, Ranking]]:
    """Measurements of mutators, by space and by name; empty if there are none."""
    spaces = read_json(_MEASURED)["spaces"] if _MEASURED.is_file() else {}
    return {name: space["mutators"] for name, space in spaces.items()}


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


def find_subclass(group: str, name: str, base: type[_T]) -> type[_T]:
    """The class that ``name`` means, if it derives from ``base``; see ``find``.

    Raises:
        UserCodeError: it does not.
    """
    found = find(group, name)
    if not issubclass(found, base):
        kind = base.__name__
        raise UserCodeError(f"{found.__name__} is no {kind}", where=name, hint=f"derive it from nnas_core.{kind}")
    return found


def find(group: str, name: str) -> type[object]:
    """The class that ``name`` means: a registered name, or ``file.py:Class`` of the user's own.

    Raises:
        UsageError: no such name (the nearest one is suggested).
        InputError, UserCodeError: the user's file cannot be loaded.
    """
    check_name(group, name)
    known = entries(group)
    return known[name].load() if name in known else load_class(name)


def check_name(group: str, name: str) -> None:
    """Refuse what ``find`` would not find, before anything is imported.

    Raises:
        UsageError: no such name (the nearest one is suggested).
        InputError: there is no such file.
    """
    known = entries(group)
    if name in known:
        return
    if ":" in name:
        check_source(split_reference(name)[0])
        return
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
