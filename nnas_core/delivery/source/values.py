"""A value as the expression that gives it, and long expressions in lines that can be read."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.delivery.source.definitions import Definitions, refusal

__all__ = ["Call", "Expression", "Values", "rendered"]

_WIDTH = 92

_MOST = 1000
"""Numbers of a tensor that is no part of the weights, and so stands in the source."""


@dataclass(frozen=True)
class Call:
    """An expression of several parts, ``head(parts)``.

    Attributes:
        head: what stands before the bracket.
        parts: arguments, each with what stands before it, as in ``("bias=", "False")``.
        brackets: around them.
    """

    head: str
    parts: Sequence[tuple[str, Expression]]
    brackets: str = "()"


Expression = str | Call


def rendered(expression: Expression, indent: int, before: str = "") -> str:
    """The text of an expression, one part a line where it is too long for one line.

    Args:
        expression: what to write.
        indent: spaces before the statement that it is in.
        before: what stands before it on its first line.
    """
    line = _flat(expression)
    if isinstance(expression, str) or (len(before) + len(line) + indent <= _WIDTH and "\n" not in line):
        return before + line
    inner = indent + 4
    lines = [" " * inner + rendered(part, inner, name) + "," for name, part in expression.parts]
    first, last = expression.brackets[0], expression.brackets[1]
    return "\n".join([f"{before}{expression.head}{first}", *lines, " " * indent + last])


def _flat(expression: Expression) -> str:
    if isinstance(expression, str):
        return expression
    first, last = expression.brackets[0], expression.brackets[1]
    parts = ", ".join(name + _flat(part) for name, part in expression.parts)
    comma = "," if expression.brackets == "()" and not expression.head and len(expression.parts) == 1 else ""
    return f"{expression.head}{first}{parts}{comma}{last}"


class Values:
    """Writes values as expressions.

    Args:
        definitions: provides the names of classes and functions.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def expression(self, value: object, where: str, known: Mapping[int, str]) -> Expression:
        """The expression that gives a value.

        Args:
            value: plain data, a class or function, or several of them.
            where: whose value it is, for errors.
            known: identity -> the expression of a module that is there already.

        Raises:
            UserCodeError: it is something else.
        """

        def of(one: object) -> Expression:
            return self.expression(one, where, known)

        definitions = self._definitions
        kind = type(value)
        if id(value) in known:
            return known[id(value)]
        if value is None or value is Ellipsis or kind in (bool, int, str, bytes, complex):
            return repr(value) if value is not Ellipsis else "..."
        if isinstance(value, float) and kind is float:
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        if kind in (tuple, torch.Size, list, set, frozenset) and isinstance(value, tuple | list | set | frozenset):
            return _several(value, [("", of(one)) for one in value])
        if kind in (dict, OrderedDict) and isinstance(value, dict):
            pairs = [(f"{_flat(of(name))}: ", of(one)) for name, one in value.items()]
            braces = Call("", pairs, "{}")
            return braces if kind is dict else Call(definitions.name_of(OrderedDict, where), [("", braces)])
        if isinstance(value, torch.dtype | torch.memory_format):
            return str(value).replace("torch.", f"{definitions.torch}.", 1)
        if isinstance(value, torch.device):
            return f"{definitions.torch}.device({str(value)!r})"
        if isinstance(value, slice | range):
            ends = (value.start, value.stop, value.step)
            return Call(kind.__name__, [("", of(one)) for one in ends])
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, enum.Enum):
            return f"{definitions.name_of(kind, where)}.{value.name}"
        if isinstance(value, functools.partial):
            parts = [("", of(one)) for one in (value.func, *value.args)]
            parts += [(f"{name}=", of(one)) for name, one in value.keywords.items()]
            return Call(definitions.name_of(functools.partial, where), parts)
        if isinstance(value, types.MethodType) and id(value.__self__) in known:
            return f"{known[id(value.__self__)]}.{value.__name__}"
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return definitions.name_of(value, where)
        if dataclasses.is_dataclass(value) and not isinstance(value, type | nn.Module):
            fields = [(f"{one.name}=", of(getattr(value, one.name))) for one in dataclasses.fields(value) if one.init]
            definitions.constructed.add(kind)
            return Call(definitions.name_of(kind, where), fields)
        if isinstance(value, np.ndarray) and kind is np.ndarray and value.dtype.kind in "biuf" and value.size <= _MOST:
            parts = [("", of(value.tolist())), ("dtype=", repr(value.dtype.name))]
            return Call(f"{definitions.imported('np', np, 'import numpy as np')}.array", parts)
        if isinstance(value, np.generic):
            return of(value.item())
        raise refusal(where, f"is a {kind.__name__}, which cannot be written as source")

    def _tensor(self, value: Tensor, where: str) -> Expression:
        if value.numel() > _MOST or value.is_sparse or value.is_complex():
            raise refusal(
                where,
                f"is a tensor of the shape {list(value.shape)} that is no part of the state_dict, too large to write",
            )
        numbers = self.expression(value.detach().cpu().tolist(), where, {})
        dtype = str(value.dtype).replace("torch.", f"{self._definitions.torch}.", 1)
        return Call(f"{self._definitions.torch}.tensor", [("", numbers), ("dtype=", dtype)])


def _several(value: Sequence[object] | set[object] | frozenset[object], parts: list[tuple[str, Expression]]) -> Call:
    if isinstance(value, list):
        return Call("", parts, "[]")
    if isinstance(value, tuple):
        return Call("", parts)
    if isinstance(value, frozenset) or not value:
        return Call(type(value).__name__, [("", Call("", parts, "[]"))])
    return Call("", parts, "{}")
