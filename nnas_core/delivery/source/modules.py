"""A module as the expression that makes it: a call of its class, or of a class with a constructor of its own."""

from __future__ import annotations

import keyword
import re
import types
from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor, fx

from nnas_core import random_state
from nnas_core.delivery.source.constructions import Constructions
from nnas_core.delivery.source.definitions import Definitions, refusal
from nnas_core.delivery.source.likeness import alike
from nnas_core.delivery.source.values import Call, Expression, Values, rendered
from nnas_core.errors import UserCodeError
from nnas_core.mutables.base import Mutable, MutableScope

__all__ = ["Modules", "is_plain_name"]

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_OF_CHOICES = frozenset({"key", "_given_key", "_key", "_path", "_retired"})

_OF_DECIDED = frozenset({"key", "name", "reduction", "return_mask", "n_candidates", "n_chosen", "choose_from"})
"""Attributes of choices that what is chosen may have in their place."""


class Modules:
    """Writes modules as expressions.

    Args:
        network: all of them.
        decided: identities of the modules in which something was decided, whose own constructors make choices.
        takes_sequences: identities of modules that take inputs by their positions, not by their names.
        constructions: of their arguments.
        definitions: where classes go.
        mentioned: the attributes that are needed of classes of the user's, unless these read some by computed names.

    Attributes:
        tied: a later place of a module or weight -> its first.
        facts: attributes of what was chosen, which the choice had too, and code reads: their places and values.
        classes: the texts of classes with constructors of their own: base (None: of no class) -> bodies.
    """

    def __init__(
        self,
        network: nn.Module,
        decided: frozenset[int],
        takes_sequences: frozenset[int],
        constructions: Constructions,
        definitions: Definitions,
        mentioned: frozenset[str],
    ) -> None:
        self._decided = decided
        self._takes_sequences = takes_sequences
        self._constructions = constructions
        self._definitions = definitions
        self._values = Values(definitions)
        self._mentioned = mentioned
        self._places: dict[int, list[str]] = {}
        for path, module in network.named_modules(remove_duplicate=False):
            self._places.setdefault(id(module), []).append(path)
        self._weights: dict[int, list[str]] = {}
        for path, tensor in (*network.named_parameters(remove_duplicate=False), *_buffers(network)):
            self._weights.setdefault(id(tensor), []).append(path)
        self._whole: list[str] = []
        self.classes: dict[type[nn.Module] | None, list[str]] = {}
        self._tied: dict[str, str] = {}
        self.facts: dict[str, str] = {}

    @property
    def tied(self) -> dict[str, str]:
        """After all was written: a later place of a module or weight -> its first."""
        found = dict(self._tied)
        for places in self._weights.values():
            for place in places[1:]:
                in_tied = any(place.startswith(f"{path}.") for path in self._tied)
                if not in_tied and not any(_inside(place, one) and _inside(places[0], one) for one in self._whole):
                    found[place] = places[0]
        return found

    def expression(self, module: nn.Module, path: str) -> Expression:
        """The expression of a module; at any place but its first that of a place holder.

        Raises:
            UserCodeError: it cannot be written; it is named.
        """
        first = self._places[id(module)][0]
        nn_name, kind = self._definitions.nn, type(module)
        if first != path:
            self._tied[path] = first
            return f"{nn_name}.Identity()"
        if id(module) not in self._decided or isinstance(module, fx.GraphModule | nn.Sequential):
            for name in _OF_DECIDED & vars(module).keys() & self._mentioned:
                self.facts[f"{path}.{name}"] = rendered(self._values.expression(vars(module)[name], path, {}), 0)
        if isinstance(module, torch.jit.ScriptModule):
            raise refusal(path or "the model", "is a scripted module, which has no source any more")
        if kind in (nn.Sequential, nn.ModuleList, nn.ModuleDict) and not _hooks(module):
            return self._container(module, path)
        if id(module) not in self._decided and not isinstance(module, fx.GraphModule):
            call = self._constructed(module, path)
            if call is not None:
                self._whole.append(path)
                return call
        if _hooks(module):
            raise refusal(path or "the model", "has hooks, or weights that others compute, which have no source")
        text = self._graph(module, path) if isinstance(module, fx.GraphModule) else self._explicit(module, path)
        bodies = self.classes.setdefault(None if isinstance(module, fx.GraphModule) else kind, [])
        if text not in bodies:
            bodies.append(text)
        base = "" if isinstance(module, fx.GraphModule) else self._definitions.name_of(kind, path or "the model")
        return f"\x00{base}:{bodies.index(text)}\x00()"

    def _children(self, module: nn.Module, path: str) -> list[tuple[str, Expression]]:
        return [
            (name, "None" if one is None else self.expression(one, f"{path}.{name}" if path else name))
            for name, one in module._modules.items()
        ]

    def _container(self, module: nn.Module, path: str) -> Expression:
        children = self._children(module, path)
        head = f"{self._definitions.nn}.{type(module).__name__}"
        counted = [name for name, _ in children] == [str(number) for number in range(len(children))]
        if isinstance(module, nn.ModuleDict):
            return Call(head, [("", Call("", [(f"{name!r}: ", one) for name, one in children], "{}"))])
        if isinstance(module, nn.ModuleList):
            return Call(head, [("", Call("", [("", one) for _, one in children], "[]"))])
        if counted:
            return Call(head, [("", one) for _, one in children])
        pairs = [("", Call("", [("", repr(name)), ("", one)])) for name, one in children]
        ordered = self._definitions.name_of(OrderedDict, path)
        return Call(head, [("", Call(ordered, [("", Call("", pairs, "[]"))]))])

    # ---- by its own constructor

    def _constructed(self, module: nn.Module, path: str) -> Expression | None:
        """A call of its class, if that makes the same module; None if it does not."""
        kind = type(module)
        given = self._constructions.arguments(module)
        if given is None or not self._is_closed(module, path):
            return None
        definitions = self._definitions
        is_users, kept = definitions.is_users(kind), set(definitions.constructed)
        try:
            known: dict[int, str] = {}
            parts = [("", self._argument(one, path, known)) for one in given[0]]
            parts += [(f"{name}=", self._argument(one, path, known)) for name, one in given[1].items()]
            with random_state.untouched({}):
                fresh = kind(*given[0], **given[1])
            if not alike(fresh, module):
                return None
            if is_users:
                definitions.constructed.update(one for one in kind.__mro__ if definitions.is_users(one))
            name = definitions.name_of(kind, path)
        except Exception:  # noqa: BLE001  (whatever a constructor says of arguments that were not its own)
            definitions.constructed.intersection_update(kept)
            return None
        return Call(name, parts)

    def _argument(self, value: object, path: str, known: Mapping[int, str]) -> Expression:
        if isinstance(value, Tensor | nn.Module):
            raise refusal(path, "was made of modules or tensors")
        return self._values.expression(value, path, known)

    def _is_closed(self, module: nn.Module, path: str) -> bool:
        """True if none of the modules in it is used anywhere else."""
        inner = [one for one in module.modules() if one is not module]
        return all(_inside(place, path) for one in inner for place in self._places[id(one)])

    # ---- by a constructor that is written anew

    def _explicit(self, module: nn.Module, path: str) -> str:
        """The body of a constructor that makes what a module holds."""
        definitions, where = self._definitions, path or "the model"
        kind = type(module)
        users = [one for one in kind.__mro__ if definitions.is_users(one)]
        others = [one for one in kind.__mro__ if one not in users and not _is_plain_base(one)]
        is_alone = len(users) <= 1 and not others and kind not in definitions.constructed
        lines = ["super().__init__()" if is_alone else f"{definitions.nn}.Module.__init__(self)"]
        known = {id(child): f"self.{name}" for name, child in module._modules.items() if child is not None}
        known[id(module)] = "self"
        later: list[str] = []
        for name, value in vars(module).items():
            if name in _OF_EVERY_MODULE or (name in _OF_CHOICES and not self._is_needed(name, others)):
                continue
            if self._is_needed(name, others):
                try:
                    expression = self._values.expression(value, f"{where}.{name}", known)
                except UserCodeError:
                    if name not in self._mentioned and not others:  # nobody knows whether it is needed
                        continue
                    raise
                statement = rendered(expression, 0, f"self.{name} = ")
                (later if "self." in statement.partition(" = ")[2] else lines).append(statement)
        for name, tensor in module._parameters.items():
            made = "None" if tensor is None else self._empty(tensor, f"{definitions.nn}.Parameter")
            lines.append(f"self.{name} = {made}" if tensor is not None else f"self.register_parameter({name!r}, None)")
        for name, buffer in module._buffers.items():
            lines.append(self._buffer(module, name, buffer, where))
        for name, child in self._children(module, path):
            lines.append(_assigned(name, child))
        return "\n".join([*lines, *later])

    def _is_needed(self, name: str, others: list[type[object]]) -> bool:
        return bool(others) or self._definitions.looks_up or name in self._mentioned

    def _empty(self, tensor: Tensor, head: str) -> str:
        shape = ", ".join(map(str, tensor.shape)) or "()"
        dtype = "" if tensor.dtype.is_floating_point else f", dtype={tensor.dtype!s}"
        flag = "" if tensor.requires_grad or head.endswith("tensor") else ", requires_grad=False"
        return f"{head}({self._definitions.torch}.empty({shape}{dtype}){flag})"

    def _buffer(self, module: nn.Module, name: str, value: Tensor | None, where: str) -> str:
        if value is None:
            return f"self.register_buffer({name!r}, None)"
        if name in module._non_persistent_buffers_set:
            text = rendered(self._values.expression(value, f"{where}.{name}", {}), 0)
            return f"self.register_buffer({name!r}, {text}, persistent=False)"
        shape = ", ".join(map(str, value.shape)) or "()"
        dtype = "" if value.dtype.is_floating_point else f", dtype={value.dtype}"
        return f"self.register_buffer({name!r}, {self._definitions.torch}.zeros({shape}{dtype}))"

    # ---- what was chosen

    def _graph(self, module: fx.GraphModule, path: str) -> str:
        """The body of a class for what became of a choice: its constructor, and its few operations."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.output(graph.graph_copy(module.graph, copies))
        if id(module) in self._takes_sequences:
            _by_position(graph)
        code = graph.python_code("self")
        for name, value in code.globals.items():
            if isinstance(value, types.ModuleType) or not re.search(rf"\b{name}\(", code.src):
                continue
            self._definitions.name_of(value, path)
        forward = re.sub(r";  \w[\w, =]* = None", "", code.src.strip()).replace("    \n", "")
        forward = "\n".join(line.rstrip() for line in forward.splitlines() if line.strip())
        forward = _without_names_of_inputs(forward)
        forward = re.sub(r"\n    (\w+) = (.+)\n    return \1$", r"\n    return \2", forward)
        lines = ["super().__init__()"]
        lines += [_assigned(name, child) for name, child in self._children(module, path)]
        if len(lines) == 1:
            return forward
        constructor = "\n".join(
            ["def __init__(self) -> None:", *(f"    {line}" for line in "\n".join(lines).split("\n"))]
        )
        return f"{constructor}\n\n{forward}"


def _without_names_of_inputs(code: str) -> str:
    """``inputs[1]`` where it is used, for ``getitem_1 = inputs[1]`` before that."""
    for name, taken in re.findall(r"\n    (getitem\w*) = (inputs\[.+\])(?=\n)", code):
        code = code.replace(f"\n    {name} = {taken}", "")
        code = re.sub(rf"\b{name}\b", taken.replace("\\", r"\\"), code)
    return code


def _by_position(graph: fx.Graph) -> None:
    """Leave out the question whether inputs have names, where they are known to have none."""
    for node in list(graph.nodes):
        index = node.args[1] if node.op == "call_function" and len(node.args) == 2 else None
        if isinstance(index, fx.Node) and isinstance(index.args[0], tuple):
            node.args = (node.args[0], index.args[0][1])
    graph.eliminate_dead_code()


def is_plain_name(name: str) -> bool:
    """True if a name may stand behind a point."""
    return name.isidentifier() and not keyword.iskeyword(name)


def _assigned(name: str, child: Expression) -> str:
    if is_plain_name(name):
        return rendered(child, 0, f"self.{name} = ")
    return rendered(Call("self.add_module", [("", repr(name)), ("", child)]), 0)


def _buffers(network: nn.Module) -> list[tuple[str, Tensor]]:
    return list(network.named_buffers(remove_duplicate=False))


def _inside(place: str, path: str) -> bool:
    return not path or place.startswith(f"{path}.")


def _is_plain_base(kind: type[object]) -> bool:
    return kind in (nn.Module, object, Mutable, MutableScope) or kind.__module__ == "typing"


def _hooks(module: nn.Module) -> bool:
    return any(value for name, value in vars(module).items() if name.endswith("_hooks") and isinstance(value, dict))
