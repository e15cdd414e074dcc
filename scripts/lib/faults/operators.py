"""Single-line faults of a source: what a slip of the hand or of the thought would have written instead.

Nothing is changed in docstrings, messages, ``__repr__``, annotations, assertions and imports: there a fault is none, or
is no test's affair.
"""

from __future__ import annotations

import ast
import builtins
import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Fault", "faults_of"]

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}

_OPPOSITES = {
    one: other
    for pair in (
        ("min", "max"),
        ("argmin", "argmax"),
        ("any", "all"),
        ("ceil", "floor"),
        ("minimum", "maximum"),
        ("amin", "amax"),
        ("softmax", "log_softmax"),
        ("sum", "mean"),
        ("no_grad", "enable_grad"),
        ("train", "eval"),
        ("append", "extend"),
        ("startswith", "endswith"),
        ("commit", "rollback"),
    )
    for one, other in (pair, pair[::-1])
}

_UNSAID = {"__repr__", "__str__"}
_LOGGING = {"debug", "info", "warning", "error", "exception"}
# Swapped, their arguments are of the wrong types, which every call notices.
_TYPED = {"cast", "filter", "getattr", "hasattr", "isinstance", "issubclass", "map", "setattr"}


@dataclass(frozen=True)
class Fault:
    """A line that says something else.

    Attributes:
        line: its number, from 1.
        operator: the kind of the change.
        before: the line as it is.
        after: the line with the fault.
    """

    line: int
    operator: str
    before: str
    after: str

    def applied(self, source: str) -> str:
        """Returns the source with the fault."""
        lines = source.splitlines(keepends=True)
        lines[self.line - 1] = lines[self.line - 1].replace(self.before, self.after, 1)
        return "".join(lines)

    def diff(self, file: str, source: str) -> str:
        """Returns the fault as ``diff -u`` shows it."""
        lines = difflib.unified_diff(
            source.splitlines(), self.applied(source).splitlines(), file, f"{file} ({self.operator})", lineterm="", n=2
        )
        return "\n".join(lines)


def faults_of(source: str) -> list[Fault]:
    """Returns every fault that the operators make of a module, in the order of its lines."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(dict.fromkeys(finder.found), key=lambda fault: fault.line)


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.found: list[Fault] = []
        self._lines = source.splitlines()

    def _add(self, node: ast.expr | ast.stmt, operator: str, text: str) -> None:
        """Note that ``text`` stands in the place of ``node``, if on one line, and another thing said."""
        if node.lineno != node.end_lineno:
            return
        if isinstance(node, ast.expr) and ast.dump(ast.parse(text, mode="eval").body) == ast.dump(node):
            return
        before = self._lines[node.lineno - 1]
        encoded = before.encode()  # syntax trees count bytes
        after = (encoded[: node.col_offset] + text.encode() + encoded[node.end_col_offset :]).decode()
        self.found.append(Fault(node.lineno, operator, before, after))

    def _changed(self, node: ast.expr, operator: str, **fields: object) -> None:
        """Note ``node`` with other fields."""
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        text = ast.unparse(other)
        self._add(node, operator, f"({text})" if isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare) else text)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in _UNSAID:
            return
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in _said(node.body):
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in _said(node.body):
            self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        for statement in _said(node.body):
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if "__all__" in names:
            return
        if any("loss" in name for name in names):
            self._add(node.value, "sign of a loss", f"-({ast.unparse(node.value)})")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """A message."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A message."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """For readers and for mypy."""

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.UnaryOp) and not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            self._add(test, "condition negated", f"not ({ast.unparse(test)})")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if _is_text(node.left) or _is_text(node.right):
            return
        other = _ARITHMETIC.get(type(node.op))
        if other is not None:
            self._changed(node, "arithmetic", op=other())
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "statement removed", "pass")
        other = _ARITHMETIC.get(type(node.op))
        if other is not None and not _is_text(node.value):
            changed = copy.copy(node)
            changed.op = other()
            self._add(node, "arithmetic", ast.unparse(changed))
        self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, comparison in enumerate(node.ops):
            other = _COMPARISONS.get(type(comparison))
            if other is not None:
                operators = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                self._changed(node, "comparison", ops=operators)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._changed(node, "and, or", op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        if len(node.values) == 2:
            self._add(node, "condition left out", f"({ast.unparse(node.values[0])})")
            self._add(node, "condition left out", f"({ast.unparse(node.values[1])})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add(node, "not left out", f"({ast.unparse(node.operand)})")
        elif isinstance(node.op, ast.USub):
            self._add(node, "sign", f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(node, "constant", str(not value))
        elif isinstance(value, int):
            self._add(node, "constant", str(value + 1))
            self._add(node, "constant", str(value - 1) if value else "(-1)")
        elif isinstance(value, float):
            self._add(node, "constant", repr(value * 2 or 1.0))

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and not _is_log(node.value):
            self._add(node, "statement removed", "pass")
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        if name.endswith(("Error", "Warning")) or _is_log(node):
            return
        if name == "detach" and isinstance(node.func, ast.Attribute) and not node.args:
            self._add(node, "detach left out", f"({ast.unparse(node.func.value)})")
        if name in _OPPOSITES and (isinstance(node.func, ast.Attribute) or hasattr(builtins, _OPPOSITES[name])):
            self._add(node.func, "opposite", _renamed(node.func, _OPPOSITES[name]))
        if name == "range" and node.args:
            place = 0 if len(node.args) == 1 else 1
            shorter = ast.BinOp(node.args[place], ast.Sub(), ast.Constant(1))
            self._changed(node, "range", args=[*node.args[:place], shorter, *node.args[place + 1 :]])
        plain = len(node.args) >= 2 and not any(isinstance(one, ast.Starred) for one in node.args[:2])
        if plain and name not in _TYPED:
            self._changed(node, "arguments swapped", args=[node.args[1], node.args[0], *node.args[2:]])
        for place, keyword in enumerate(node.keywords):
            if keyword.arg is not None and not _is_text(keyword.value):
                rest = [*node.keywords[:place], *node.keywords[place + 1 :]]
                self._changed(node, "argument left out", keywords=rest)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Slice):
            for side in ("lower", "upper"):
                bound = getattr(node.slice, side)
                if bound is not None:
                    other = copy.copy(node.slice)
                    setattr(other, side, ast.BinOp(bound, ast.Add(), ast.Constant(1)))
                    self._changed(node, "slice", slice=other)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is None:
            return
        if isinstance(value, ast.Tuple) and value.elts:
            self._add(node, "return", f"return {ast.unparse(value.elts[0])}")
        elif not (isinstance(value, ast.Constant) and value.value is None):
            self._add(node, "return", "return None")
        self.visit(value)

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "break, continue", "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "break, continue", "break")


def _said(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body but its docstring."""
    for place, statement in enumerate(body):
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if place or not is_docstring:
            yield statement


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _renamed(function: ast.expr, name: str) -> str:
    if isinstance(function, ast.Attribute):
        return ast.unparse(ast.Attribute(function.value, name))
    return name


def _is_log(node: ast.Call) -> bool:
    function = node.func
    return isinstance(function, ast.Attribute) and function.attr in _LOGGING and "log" in ast.unparse(function.value)
