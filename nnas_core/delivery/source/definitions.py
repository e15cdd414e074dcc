"""Classes and functions of the user's are copied with everything that they need; installed ones are imported."""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType

import torch
import torch.nn as nn

from nnas_core.delivery.source.user_files import Definition, File, annotated_names, free_names, free_names_without
from nnas_core.errors import UserCodeError
from nnas_core.mutables.base import MutableScope

__all__ = ["Definitions", "refusal"]


def refusal(where: str, reason: str) -> UserCodeError:
    """Returns the error of a network whose source cannot be written."""
    return UserCodeError(
        reason, where=where, hint="move what is needed into a module of its own, or take the program of torch.export"
    )


class Definitions:
    """What a file of source needs besides its network.

    Args:
        modules: of the user's; what is defined there is copied.
        mentioned: names of attributes and methods that copied code mentions; other methods are left out.

    Attributes:
        imports: lines.
        texts: of definitions, in an order in which they can be executed.
        mentions: what the copied code was seen to mention.
        looks_up: true if it reads attributes by names that it computes.
        constructed: classes whose own constructor is kept.
        generated: the constructors that were written anew, by class; see ``modules``.
    """

    def __init__(self, modules: Iterable[ModuleType], mentioned: frozenset[str]) -> None:
        self._files = {module.__name__: File(module) for module in modules if getattr(module, "__file__", None)}
        self._mentioned = mentioned
        self._identity: dict[str, object] = {}
        self._copied: dict[tuple[str, str], str] = {}
        self.imports: dict[str, None] = {}
        self.texts: dict[str, str] = {}
        self.mentions: set[str] = set()
        self.looks_up = False
        self.constructed: set[type[object]] = set()
        self.generated: dict[type[object], str] = {}
        self.torch, self.nn = (
            self.imported("torch", torch, "import torch"),
            self.imported("nn", nn, "import torch.nn as nn"),
        )

    def is_users(self, value: object) -> bool:
        """True for a class or function that is defined in a module of the user's."""
        return getattr(value, "__module__", None) in self._files

    def name_of(self, value: type[object] | Callable[..., object], where: str) -> str:
        """The expression for a class or function; it is copied, or an import is added.

        Raises:
            UserCodeError: it can be neither.
        """
        module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        name = getattr(value, "__name__", "")
        if not isinstance(module, str) or not name:
            raise refusal(where, f"{value!r} has no name that it could be imported by")
        if getattr(nn, name, None) is value:
            return f"{self.nn}.{name}"
        if getattr(torch, name, None) is value:
            return f"{self.torch}.{name}"
        if module in self._files:
            if not qualified.isidentifier() or self._files[module].definition(name) is None:
                raise refusal(where, f"{qualified} is not defined at the top of {_shown(module, self._files)}")
            return self._copy(name, self._files[module], where)
        if hasattr(builtins, name) and getattr(builtins, name) is value:
            return name
        top, _, _ = qualified.partition(".")
        found: object = sys.modules.get(module)
        for part in qualified.split("."):
            found = getattr(found, part, None)
        if found is not value or module.partition(".")[0] in _OURS:
            raise refusal(where, f"{qualified or name} of {module} cannot be imported where nnas is not installed")
        holder = self.imported(top, getattr(sys.modules[module], top), f"from {module} import {top}")
        return holder + qualified.removeprefix(top)

    def imported(self, name: str, value: object, line: str) -> str:
        """Import something under a name, or under another one if that is taken; returns how it is called."""
        own = self._free_name(name, value)
        self._identity[own] = value
        self.imports[line if own == name else f"{line.removesuffix(f' as {name}')} as {own}"] = None
        return own

    def _free_name(self, name: str, identity: object) -> str:
        own, number = name, 1
        while own in self._identity and self._identity[own] is not identity:
            number += 1
            own = f"{name}_{number}"
        return own

    def new_name(self, name: str) -> str:
        """A name that nothing has, and now is taken."""
        own = self._free_name(name, object())
        self._identity[own] = object()
        return own

    # ---- copying

    def _copy(self, name: str, file: File, where: str) -> str:
        key = (file.module.__name__, name)
        if key in self._copied:
            return self._copied[key]
        node = file.definition(name)
        if node is None:
            raise refusal(where, f"{name} of {_shown(key[0], self._files)} cannot be found in its source")
        own = self._free_name(name, key)
        self._identity[own] = key
        self._copied[key] = own
        try:
            self.texts[own] = self._text(node, own, file, where)
        except UserCodeError:
            del self._copied[key], self._identity[own]
            raise
        return own

    def _text(self, node: Definition, own: str, file: File, where: str) -> str:
        """The text of a definition, after those of all that it needs."""
        decorators = getattr(node, "decorator_list", [])
        start = file.at(min([node.lineno, *(one.lineno for one in decorators)]))
        edits: list[tuple[int, int, str]] = []
        kept: ast.AST = node
        if isinstance(node, ast.ClassDef):
            kept, edits = self._class(node, file)
        if own != getattr(node, "name", own) and isinstance(node, ast.ClassDef | ast.FunctionDef):
            begin = file.span(node)[0]
            found = re.search(rb"\b(class|def)\s+(\w+)", file.text[begin:])
            if found is not None:
                edits.append((begin + found.start(2), begin + found.end(2), own))
        edits += self._references(kept, file, where)
        end = file.span(node)[1]
        if isinstance(node, ast.Assign | ast.AnnAssign):  # with the comment behind it
            end = file.at((node.end_lineno or 0) + 1)
        text = file.text[start:end]
        for begin, stop, new in sorted(edits, reverse=True):
            text = text[: begin - start] + new.encode() + text[stop - start :]
        return textwrap.dedent(text.decode()).rstrip() + "\n"

    def _class(self, node: ast.ClassDef, file: File) -> tuple[ast.ClassDef, list[tuple[int, int, str]]]:
        """A class without the methods that nobody needs, and the edits that take them out."""
        value = getattr(file.module, node.name, None)
        new = self.generated.get(value) if isinstance(value, type) else None
        keeps = value in self.constructed
        edits: list[tuple[int, int, str]] = []
        body: list[ast.stmt] = []
        for number, one in enumerate(node.body):
            is_method = isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            name = one.name if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) else ""
            if not is_method or (keeps if name == "__init__" else _is_special(name) or name in self._mentioned):
                body.append(one)
                continue
            first = min([one.lineno, *(step.lineno for step in getattr(one, "decorator_list", []))])
            before = file.at((node.body[number - 1].end_lineno or 0) + 1) if number else file.at(first)
            stop = file.at((one.end_lineno or 0) + 1)
            if new is not None and name == "__init__":
                edits.append((file.at(first), stop, textwrap.indent(new, " " * one.col_offset)))
                new = None
            else:
                is_blank = not number and not file.text[stop : file.at((one.end_lineno or 0) + 2)].strip()
                edits.append((before, file.at((one.end_lineno or 0) + 2) if is_blank else stop, ""))
        reduced = copy.copy(node)
        reduced.body = body
        indent = " " * node.body[0].col_offset
        if new is not None:  # the class inherits its constructor
            doc = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            place = file.at((node.body[0].end_lineno or 0) + 1) if doc else file.at(node.body[0].lineno)
            edits.append((place, place, ("\n" if doc else "") + textwrap.indent(new, indent) + ("" if doc else "\n")))
        elif not body and value not in self.generated:
            edits.append((file.span(node)[1], file.span(node)[1], f"\n{indent}pass"))
        return reduced, edits

    def _references(self, node: ast.AST, file: File, where: str) -> list[tuple[int, int, str]]:
        """Provide everything that a definition refers to; returns the edits where it has another name here."""
        self._look(node)
        self._refuse_imports(node, where)
        edits: list[tuple[int, int, str]] = []
        names = free_names(node)
        if isinstance(node, ast.ClassDef):
            scopes = [base for base in node.bases if _value_of(base, file.module) is MutableScope]
            edits += [(*file.span(base), f"{self.nn}.Module") for base in scopes]
            if scopes:
                names = free_names_without(node, scopes)
        for name in sorted(annotated_names(node) - names):
            value = getattr(file.module, name, None)
            if value is not None and not self.is_users(value):
                with contextlib.suppress(UserCodeError):  # nothing evaluates it
                    self._provide(name, value, file, where)
        for name in sorted(names):
            if not hasattr(file.module, name):
                continue
            value = getattr(file.module, name)
            if isinstance(value, ModuleType) and value.__name__ in self._files:
                edits += self._attributes(node, name, self._files[value.__name__], file, where)
                continue
            own = self._provide(name, value, file, where)
            if own != name:
                edits += [
                    (*file.span(one), own) for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == name
                ]
        return edits

    def _attributes(self, node: ast.AST, name: str, other: File, file: File, where: str) -> list[tuple[int, int, str]]:
        """``ops.f`` of a module of the user's becomes ``f``, which is copied."""
        edits = []
        bare = sum(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))
        for one in ast.walk(node):
            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == name:
                edits.append((*file.span(one), self._provide(one.attr, getattr(other.module, one.attr), other, where)))
                bare -= 1
        if bare:
            raise refusal(where, f"it uses the module {name} itself, whose functions cannot be copied one by one")
        return edits

    def _provide(self, name: str, value: object, file: File, where: str) -> str:
        """Make a global name of a module available; returns how it is called here."""
        if file.definition(name) is not None:
            return self._copy(name, file, where)
        if getattr(value, "__module__", "").partition(".")[0] in _OURS or value is MutableScope:
            raise refusal(where, f"it uses {name} of nnas in code that the network needs")
        if self.is_users(value) and isinstance(value, type | type(_shown)):
            return self.name_of(value, where)
        statements = file.imports(name)
        is_plain = all(isinstance(one, ast.ImportFrom) or one.names[0].asname is not None for one in statements)
        if self._identity.get(name) is value and is_plain:
            return name  # by another statement
        for one in statements:
            alias = one.names[0]
            if isinstance(one, ast.Import):
                if alias.name.partition(".")[0] in _OURS:
                    raise refusal(where, f"it uses {name} of nnas in code that the network needs")
                own = self._free_name(name, value)
                self._identity[own] = value
                renamed = alias.asname is not None or own != name
                self.imports[f"import {alias.name} as {own}" if renamed else f"import {alias.name}"] = None
                return own if len(statements) == 1 else self._rest(statements, value, own)
            source = one.module or ""
            if one.level or source in self._files:
                found = next(
                    (
                        other
                        for other in self._files.values()
                        if hasattr(other.module, alias.name)
                        and getattr(other.module, alias.name) is value
                        and other is not file
                    ),
                    None,
                )
                if found is not None:
                    return self._provide(alias.name, value, found, where)
            elif source.partition(".")[0] not in _OURS:
                own = self._free_name(name, value)
                self._identity[own] = value
                self.imports[f"from {source} import {alias.name}" + ("" if own == alias.name else f" as {own}")] = None
                return own
        if isinstance(value, ModuleType):
            return self.imported(name, value, f"import {value.__name__} as {name}")
        if isinstance(value, type) or callable(value):
            return self.name_of(value, where)
        raise refusal(where, f"{name} cannot be imported from elsewhere, and is not defined by a statement of its own")

    def _rest(self, statements: list[ast.Import | ast.ImportFrom], value: object, own: str) -> str:
        """``import torch`` and ``import torch.utils.checkpoint`` bind one name, and both are needed."""
        for one in statements:
            if isinstance(one, ast.Import) and one.names[0].asname is None:
                self.imports[f"import {one.names[0].name}"] = None
        return own

    def _refuse_imports(self, node: ast.AST, where: str) -> None:
        """Refuse imports inside of functions of what is not there without nnas, or the files beside the model's."""
        own = {name.partition(".")[0] for name in self._files}
        for one in ast.walk(node):
            if isinstance(one, ast.Import):
                names = [alias.name for alias in one.names]
            elif isinstance(one, ast.ImportFrom):
                names = ["." * one.level + (one.module or "")]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top in _OURS:
                    raise refusal(where, f"it imports {name} in code that the network needs")
                if not top or top in own:
                    raise refusal(where, f"it imports {name}, which is no installed module, inside a function")

    def _look(self, node: ast.AST) -> None:
        for one in ast.walk(node):
            if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Load):
                self.mentions.add(one.attr)
                self.looks_up |= one.attr == "__dict__"
            elif isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.isidentifier():
                self.mentions.add(one.value)
            elif isinstance(one, ast.Call) and isinstance(one.func, ast.Name):
                computed = one.func.id in ("getattr", "hasattr") and not isinstance(one.args[1], ast.Constant)
                self.looks_up |= computed or one.func.id == "vars"


_OURS = ("nnas_core", "nnas_cli")


def _shown(module: str, files: dict[str, File]) -> str:
    return str(files[module].module.__file__) if module in files else module


def _is_special(name: str) -> bool:
    return name == "forward" or (name.startswith("__") and name.endswith("__") and name != "__init__")


def _value_of(node: ast.expr, module: ModuleType) -> object:
    if isinstance(node, ast.Name):
        return getattr(module, node.id, None)
    if isinstance(node, ast.Attribute):
        return getattr(_value_of(node.value, module), node.attr, None)
    return None
