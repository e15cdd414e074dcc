"""The parameters of constructors, read from source text: to list an algorithm's options, nothing is imported."""

from __future__ import annotations

import ast
import functools
import json
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Option", "Sources", "options_of"]

Sources = Callable[[str], str | None]
"""The text of a module by its dotted name; None if there is none, or it is not known where."""


@dataclass(frozen=True)
class Option:
    """One parameter of a constructor.

    Attributes:
        name: as users give it in `mutator_arg`, `tuner_arg` and `assessor_arg`.
        default: as a JSON literal where it is one; None: it must be given.
        type: the annotation, as written.
        summary: the first sentence about it in ``Args:`` of the docstring.
    """

    name: str
    default: str | None
    type: str
    summary: str


def options_of(
    module: str, cls: str, sources: Sources, ours: Collection[str] = (), leading: int = 0
) -> tuple[Option, ...] | None:
    """The options of a class: parameters of its constructor, or of the nearest base class that has one.

    A constructor with ``**names`` hands them on, so it takes those of its base classes too.

    Args:
        module: dotted name of the module that defines or imports the class.
        cls: its name.
        sources: finds the texts of modules.
        ours: parameters that are no options, since nnas fills them.
        leading: how many of the first parameters are none either, whatever their names are.

    Returns:
        None if the class or its constructor cannot be found.
    """
    found = _find(module, cls, sources, frozenset())
    if found is None:
        return None
    documented: dict[str, str] = {}
    parameters: dict[str, Option] = {}
    known = hands_on = False
    for one in _line(found, sources):
        for name, text in one.documented().items():
            documented.setdefault(name, text)
        constructor = one.constructor()
        if constructor is not None and (not known or hands_on):
            for option in one.parameters(constructor, leading):
                parameters.setdefault(option.name, option)
            known, hands_on = True, constructor.args.kwarg is not None
    return tuple(
        Option(one.name, one.default, one.type, _first_sentence(documented.get(name, "")))
        for name, one in parameters.items()
        if name not in ours
    )


@dataclass(frozen=True)
class _Class:
    """A class in its module."""

    module: str
    tree: ast.Module
    node: ast.ClassDef

    def constructor(self) -> ast.FunctionDef | None:
        own = [one for one in self.node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        return own[-1] if own else None

    def documented(self) -> dict[str, str]:
        constructor = self.constructor()
        texts = [ast.get_docstring(self.node) or ""]
        if constructor is not None:
            texts.append(ast.get_docstring(constructor) or "")
        return {name: text for docstring in texts for name, text in _arguments(docstring)}

    def parameters(self, constructor: ast.FunctionDef, leading: int) -> Iterator[Option]:
        arguments = constructor.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
        pairs = [*zip(positional, defaults, strict=True)][1 + leading :]  # the first one is self
        for one, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
            annotation = ast.unparse(one.annotation) if one.annotation is not None else ""
            yield Option(one.arg, None if default is None else self._written(default), annotation, "")

    def _written(self, default: ast.expr) -> str:
        """A default as a JSON literal, if it or the constant of the module that it names is one."""
        if isinstance(default, ast.Name) and (value := _constants(self.tree).get(default.id)) is not None:
            return self._written(value)
        try:
            return json.dumps(ast.literal_eval(default))
        except (ValueError, TypeError):
            return ast.unparse(default)


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Finds the literals that names of a module are assigned."""
    found = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        found.update({one.id: value for one in targets if isinstance(one, ast.Name) and value is not None})
    return {name: value for name, value in found.items() if not isinstance(value, ast.Name)}


def _find(module: str, cls: str, sources: Sources, visited: frozenset[tuple[str, str]]) -> _Class | None:
    """A class, in the module that it was imported from if need be."""
    text = sources(module) if (module, cls) not in visited else None
    tree = _parsed(text) if text is not None else None
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            return _Class(module, tree, node)
    imported = _imports(module, tree).get(cls)
    if imported is None:
        return None
    home, _, name = imported.rpartition(".")
    return _find(home, name, sources, visited | {(module, cls)})


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> ast.Module | None:
    """The syntax tree of a module; all algorithms share most of their base classes."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _imports(module: str, tree: ast.Module) -> Mapping[str, str]:
    """Maps names in the module to the dotted names that they were imported by."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            home = ".".join([*package, *filter(None, [node.module])])
            found.update({alias.asname or alias.name: f"{home}.{alias.name}" for alias in node.names})
    return found


def _line(one: _Class, sources: Sources, visited: frozenset[tuple[str, str]] = frozenset()) -> Iterator[_Class]:
    """A class and its base classes, the nearest first, as far as they can be found."""
    key = (one.module, one.node.name)
    if key in visited:
        return
    yield one
    names = _imports(one.module, one.tree)
    for base in one.node.bases:
        path = ast.unparse(base)
        owner, _, name = path.rpartition(".")
        home = names.get(owner, owner) if owner else one.module
        found = _find(home, name, sources, frozenset())
        if found is not None:
            yield from _line(found, sources, visited | {key})


def _arguments(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and text of the entries of ``Args:``; ``a, b: text`` are two."""
    section = re.search(r"^Args:\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", docstring, re.MULTILINE)
    lines = textwrap.dedent(section[1]).splitlines() if section else []
    entries: list[list[str]] = []
    for line in lines:
        if line and not line[0].isspace():
            entries.append([line])
        elif entries:
            entries[-1].append(line.strip())
    for entry in entries:
        head, _, text = " ".join(entry).partition(":")
        for name in re.sub(r"\(.*?\)", "", head).split(","):
            yield name.strip().lstrip("*"), text.strip()


def _first_sentence(text: str) -> str:
    """Up to the first full stop that a capital letter, or nothing, follows."""
    found = re.match(r"(.*?\.)(?=\s+[A-Z`]|$)", text)
    return found[1] if found else text
