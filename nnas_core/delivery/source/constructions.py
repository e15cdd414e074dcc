"""With what arguments modules were made: seen while they are, because most do not keep them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch.nn as nn

__all__ = ["Constructions"]


class Constructions:
    """The arguments of the constructors of modules.

    Only those of modules that were made inside ``recorded()`` are known.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[nn.Module, dict[str, Any]]] = {}  # the module is kept: its id stays its own

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Watch the constructors that are called in the block."""
        before = sys.getprofile()
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name != "__init__" or not code.co_argcount:
            return
        values = frame.f_locals
        made = values.get(code.co_varnames[0])
        if isinstance(made, nn.Module) and id(made) not in self._found:
            self._found[id(made)] = made, {name: value for name, value in values.items() if value is not made}

    def arguments(self, module: nn.Module) -> tuple[list[object], dict[str, object]] | None:
        """What its class is to be called with, without defaults; None where that is not known.

        Of a module that was made out of sight, its attributes of the parameters' names stand for the arguments.
        """
        kind = type(module)
        try:
            parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        except (TypeError, ValueError):
            return None
        seen = self._found.get(id(module))
        given = seen[1] if seen is not None else _attributes(module, [one.name for one in parameters])
        positional: list[object] = []
        named: dict[str, object] = {}
        for one in parameters:
            if one.kind is one.VAR_POSITIONAL:
                rest = given.get(one.name, ())
                if named and rest:
                    return None
                positional += rest if isinstance(rest, tuple) else ()
            elif one.kind is one.VAR_KEYWORD:
                more = given.get(one.name)
                named.update(more if isinstance(more, dict) else {})
            elif one.name not in given:
                if one.default is one.empty:
                    return None
            elif one.default is not one.empty and _is_default(given[one.name], one.default):
                continue
            elif one.kind is one.KEYWORD_ONLY or named or one.default is not one.empty:
                named[one.name] = given[one.name]
            else:
                positional.append(given[one.name])
        return positional, named


def _attributes(module: nn.Module, names: list[str]) -> dict[str, object]:
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if "bias" in found and not isinstance(found["bias"], bool):
        found["bias"] = found["bias"] is not None
    return found


def _is_default(value: object, default: object) -> bool:
    if value is default:
        return True
    plain = (bool, int, float, str, tuple)
    return type(value) is type(default) and isinstance(value, plain) and value == default
