"""The source of a module of the user's, and which names a piece of it needs."""

from __future__ import annotations

import ast
import copy
import inspect
import symtable
from collections.abc import Iterable
from types import ModuleType

__all__ = ["Definition", "File", "annotated_names", "free_names", "free_names_without"]

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


class File:
    """The source of a module of the user's."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        try:
            self.text = inspect.getsource(module).encode()
        except (OSError, TypeError):
            with open(str(module.__file__), "rb") as stream:
                self.text = stream.read()
        self.tree = ast.parse(self.text)
        self._starts = [0]
        for line in self.text.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def at(self, line: int, column: int = 0) -> int:
        """The position of a place in the text, in bytes."""
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """The positions of the beginning and the end of a node."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def statements(self) -> Iterable[ast.stmt]:
        """Those that run when the module is imported; inside ``if`` and ``try`` too."""
        waiting: list[ast.stmt] = list(self.tree.body)
        while waiting:
            one = waiting.pop(0)
            yield one
            for part in ("body", "orelse", "finalbody", "handlers"):
                if not isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    inner = getattr(one, part, [])
                    waiting += [step for step in inner if isinstance(step, ast.stmt)]
                    waiting += [
                        step for handler in inner if isinstance(handler, ast.ExceptHandler) for step in handler.body
                    ]

    def definition(self, name: str) -> Definition | None:
        """The last one of a name."""
        found: Definition | None = None
        for one in self.statements():
            if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and one.name == name:
                found = one
            elif isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None:
                targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    found = one
        return found

    def imports(self, name: str) -> list[ast.Import | ast.ImportFrom]:
        """The statements that bind a name by an import."""
        found: list[ast.Import | ast.ImportFrom] = []
        for one in self.statements():
            if isinstance(one, ast.Import | ast.ImportFrom):
                bound = [alias for alias in one.names if (alias.asname or alias.name.partition(".")[0]) == name]
                found += [_with_names(one, [alias]) for alias in bound]
        return found


def _with_names(node: ast.Import | ast.ImportFrom, names: list[ast.alias]) -> ast.Import | ast.ImportFrom:
    node = copy.copy(node)
    node.names = names
    return node


class _Bare(ast.NodeTransformer):
    """Takes annotations out, which are not evaluated where they stand."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([node.target], node.value)


def free_names(node: ast.AST) -> set[str]:
    """The global names that a definition reads, annotations apart."""
    bare = _Bare().visit(copy.deepcopy(node))
    if isinstance(bare, ast.ClassDef) and not bare.body:
        bare.body = [ast.Pass()]
    table = symtable.symtable(ast.unparse(ast.fix_missing_locations(bare)), "<copied>", "exec")
    names: set[str] = set()
    tables = [table]
    while tables:
        one = tables.pop()
        at_top = one.get_type() == "module"
        names |= {
            symbol.get_name()
            for symbol in one.get_symbols()
            if symbol.is_referenced() and (at_top or symbol.is_global())
        }
        tables += one.get_children()
    return names


def annotated_names(node: ast.AST) -> set[str]:
    """The names that annotations have."""
    parts: list[ast.expr] = []
    for one in ast.walk(node):
        if isinstance(one, ast.arg | ast.AnnAssign) and one.annotation is not None:
            parts.append(one.annotation)
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.returns is not None:
            parts.append(one.returns)
    return {one.id for part in parts for one in ast.walk(part) if isinstance(one, ast.Name)}


def free_names_without(node: ast.ClassDef, bases: list[ast.expr]) -> set[str]:
    """The same of a class without some of its bases."""
    reduced = copy.copy(node)
    reduced.bases = [base for base in node.bases if base not in bases]
    return free_names(reduced)
