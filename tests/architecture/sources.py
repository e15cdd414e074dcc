"""What the tests of this folder read: every source file as a syntax tree, and what each module imports."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

__all__ = [
    "ROOT",
    "calls",
    "found_at",
    "imports",
    "loaded",
    "module_names",
    "modules",
    "nodes",
    "public_members",
    "python_files",
    "tree",
]

ROOT = Path(__file__).parents[2]

_Node = TypeVar("_Node", bound=ast.AST)


@functools.cache
def modules() -> dict[str, Path]:
    """The product's modules by dotted name."""
    found = {}
    for package in ("nnas_core", "nnas_cli"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def module_names(package: str) -> list[str]:
    """The names of all modules of a package, itself included."""
    return [name for name in modules() if name == package or name.startswith(f"{package}.")]


def python_files(*folders: str) -> list[Path]:
    """All Python files below folders of the repository; build outputs and environments are in none of them."""
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def nodes(file: Path, kind: type[_Node]) -> Iterator[_Node]:
    """Every node of a kind in a file."""
    return (node for node in _all_nodes(file) if isinstance(node, kind))


@functools.cache
def _all_nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(file)))


def found_at(file: Path, node: ast.expr | ast.stmt | ast.ExceptHandler, text: str) -> str:
    """Says what breaks a rule, and where: ``nnas_core/files.py:12: print``."""
    return f"{file.relative_to(ROOT)}:{node.lineno}: {text}"


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file: the text of what is called (``np.random.seed``), and its node."""
    return ((ast.unparse(node.func), node) for node in nodes(file, ast.Call))


@functools.cache
def imports(name: str, *, for_types: bool = False) -> frozenset[str]:
    """Lists what a module imports anywhere, in functions too: our modules by full name, others by their top-level name.

    Args:
        name: of the module.
        for_types: count what stands under ``if TYPE_CHECKING:``, which never runs.
    """
    everything = _all_nodes(modules()[name])
    unseen = set()
    if not for_types:
        for node in everything:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                unseen.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    found = set()
    for node in everything:
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            found.update(_known(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found.update(_known(f"{node.module}.{alias.name}") for alias in node.names)
    return frozenset(found - {name})


def _known(target: str) -> str:
    """The module of ours that ``target`` is or lies in, else the top-level package."""
    part = target
    while part:
        if part in modules():
            return part
        part = part.rpartition(".")[0]
    return target.partition(".")[0]


def public_members(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The functions and classes that a module defines itself and does not hide, by name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) or inspect.isroutine(value):
            yield name, value


def loaded(name: str) -> ModuleType:
    """The module itself."""
    return importlib.import_module(name)
