"""A network as one file of Python, which is run and compared before anybody gets it."""

from __future__ import annotations

import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn as nn
from torch import fx

from nnas_core.delivery.comparison import Sample, require_equal, run
from nnas_core.delivery.source.constructions import Constructions
from nnas_core.delivery.source.definitions import Definitions, refusal
from nnas_core.delivery.source.modules import Modules, is_plain_name
from nnas_core.delivery.source.values import Expression, rendered
from nnas_core.errors import NnasError, UserCodeError

__all__ = ["written"]

_ROUNDS = 20
"""How often code that is needed may turn out to mention more that is needed."""

_HEAD = '''"""{title}

    network = build()
    network.load_state_dict(torch.load("weights.pt"))  # or safetensors.torch.load_file("weights.safetensors")
    network.eval()
"""

from __future__ import annotations
'''


def written(
    network: nn.Module,
    samples: list[Sample],
    modules: Sequence[ModuleType],
    decided: frozenset[int],
    constructions: Constructions,
    title: str,
) -> bytes:
    """The source of a network, proven: its ``build()`` with these weights gives the outputs of the supernet.

    Args:
        network: plain, with its weights.
        samples: to compare on.
        modules: those of the user's, whose classes are copied.
        decided: identities of the modules in which something was decided.
        constructions: the arguments that modules were made with.
        title: the first line of the file; any text.

    Raises:
        UserCodeError: it cannot be written; what stands in the way is named.
        NoResultError: the outputs differ.
    """
    sequences = _takes_sequences(network, samples)
    mentioned = frozenset({"forward"})
    try:
        for _ in range(_ROUNDS):
            text, definitions = _text(network, modules, decided, sequences, constructions, mentioned, title)
            if definitions.mentions <= mentioned:
                break
            mentioned |= definitions.mentions
    except NnasError:
        raise
    except Exception as error:  # any code may stand in a file of the user's, and any value in a module
        raise _failed("it cannot be written as source", error) from error
    _prove(text, network, samples)
    return text.encode()


def _takes_sequences(network: nn.Module, samples: list[Sample]) -> frozenset[int]:
    """What became of choices, and was seen to be given inputs by position."""
    found: set[int] = set()

    def see(module: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], list | tuple):
            found.add(id(module))

    handles = [one.register_forward_pre_hook(see) for one in network.modules() if isinstance(one, fx.GraphModule)]
    try:
        run(network, samples[0].args, samples[0].kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(found)


def _text(
    network: nn.Module,
    modules: Sequence[ModuleType],
    decided: frozenset[int],
    sequences: frozenset[int],
    constructions: Constructions,
    mentioned: frozenset[str],
    title: str,
) -> tuple[str, Definitions]:
    first = Definitions(modules, mentioned)  # finds out which constructors are kept, and which are written anew
    _, writer = _made(network, decided, sequences, constructions, first, mentioned)
    definitions = Definitions(modules, mentioned)
    definitions.constructed |= first.constructed
    definitions.looks_up = first.looks_up
    bases = {base for kind in writer.classes if kind is not None for base in kind.__mro__[1:]}
    bases |= {base for kind in first.constructed for base in kind.__mro__}
    for kind, bodies in writer.classes.items():
        if kind is not None and len(bodies) == 1 and first.is_users(kind) and kind not in bases:
            definitions.generated[kind] = _constructor(bodies[0])
    expression, writer = _made(network, decided, sequences, constructions, definitions, mentioned)
    definitions.mentions |= first.mentions
    names = _names(writer, definitions)
    parts = [*definitions.texts.values(), *_classes(writer, definitions, names)]
    parts.append(_build(network, rendered(expression, 0, "network = "), writer, definitions))
    body = "\n\n".join(parts)
    body = re.sub("\x00([^\x00]*):(\\d+)\x00", lambda found: names[found[1], int(found[2])], body)
    imports = "\n".join(sorted(definitions.imports, key=_import_order))
    return f"{_HEAD.format(title=_in_docstring(title))}\n{imports}\n\n\n{body}", definitions


def _in_docstring(text: str) -> str:
    """A text that neither ends the docstring it stands in nor its line."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')


def _made(
    network: nn.Module,
    decided: frozenset[int],
    sequences: frozenset[int],
    constructions: Constructions,
    definitions: Definitions,
    mentioned: frozenset[str],
) -> tuple[Expression, Modules]:
    writer = Modules(network, decided, sequences, constructions, definitions, mentioned)
    return writer.expression(network, ""), writer


def _constructor(body: str) -> str:
    return f"def __init__(self) -> None:\n{textwrap.indent(body, '    ')}\n"


def _names(writer: Modules, definitions: Definitions) -> dict[tuple[str, int], str]:
    """How each class with a constructor of its own is called."""
    names: dict[tuple[str, int], str] = {}
    for kind, bodies in writer.classes.items():
        base = "" if kind is None else definitions.name_of(kind, kind.__name__)
        plain = base.rpartition(".")[2] or "Chosen"
        for number in range(len(bodies)):
            wanted = plain if len(bodies) == 1 else f"{plain}{number + 1}"
            names[base, number] = base if kind in definitions.generated else definitions.new_name(wanted)
    return names


def _classes(writer: Modules, definitions: Definitions, names: dict[tuple[str, int], str]) -> list[str]:
    """The texts of those that stand beside the class of the user's."""
    found = []
    for kind, bodies in writer.classes.items():
        if kind in definitions.generated:
            continue
        base = "" if kind is None else definitions.name_of(kind, kind.__name__)
        for number, body in enumerate(bodies):
            inner = _constructor(body) if kind is not None else body
            head = f"class {names[base, number]}({base or f'{definitions.nn}.Module'}):"
            found.append(f"{head}\n{textwrap.indent(inner.rstrip(), '    ')}\n")
    return found


def _build(network: nn.Module, statement: str, writer: Modules, definitions: Definitions) -> str:
    lines = ['"""Returns the network with new weights."""', statement]
    lines += [_set(network, place, _attribute(network, first)) for place, first in writer.tied.items()]
    lines += [_set(network, place, value) for place, value in sorted(writer.facts.items())]
    kinds = {
        one.dtype for one in network.state_dict().values() if isinstance(one, torch.Tensor) and one.is_floating_point()
    }
    if len(kinds) == 1 and kinds != {torch.float32}:
        lines.append(f"network.to({kinds.pop()!s})")
    lines.append("return network")
    return f"def build() -> {definitions.nn}.Module:\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def _attribute(network: nn.Module, path: str) -> str:
    """``network.stem[0].weight`` of a path."""
    text, holder = "network", network
    for name in path.split(".") if path else ():
        if isinstance(holder, nn.ModuleDict) and name in holder:
            text += f"[{name!r}]"
        elif isinstance(holder, nn.Sequential | nn.ModuleList) and name.isdigit():
            text += f"[{name}]"
        else:
            text = f"{text}.{name}" if is_plain_name(name) else f"getattr({text}, {name!r})"
        holder = holder._modules.get(name) or nn.Module()
    return text


def _set(network: nn.Module, path: str, value: str) -> str:
    """The statement that puts a value in a place."""
    holder, _, name = path.rpartition(".")
    place = _attribute(network, path)
    is_odd = place.endswith(f", {name!r})")  # no statement assigns to a call
    return f"setattr({_attribute(network, holder)}, {name!r}, {value})" if is_odd else f"{place} = {value}"


def _import_order(line: str) -> tuple[int, str]:
    top = line.split()[1].partition(".")[0]
    return (0 if top in _STANDARD else 1), line


_STANDARD = sys.stdlib_module_names


def _prove(text: str, network: nn.Module, samples: list[Sample]) -> None:
    """Run the source as a module of its own, give it the weights, and compare."""
    with _imported(text) as imported:
        try:
            made = imported().build()
            made.load_state_dict(network.state_dict())
        except Exception as error:
            raise _failed("the source of it does not run", error) from error
        try:
            require_equal(made, samples, "the network of this source")
        except NnasError:
            raise
        except Exception as error:
            raise _failed("the source of it fails", error) from error


def _failed(how: str, error: Exception) -> UserCodeError:
    reason = next(iter(str(error).strip().splitlines()), "")
    return refusal("the model", f"{how}: {type(error).__name__}: {reason}")


@contextmanager
def _imported(text: str) -> Iterator[Callable[[], Any]]:
    """Yields a function that imports the source from a file, as whoever gets it does; afterwards it is gone."""
    module = ModuleType(_NAME)

    def run() -> Any:
        loader.exec_module(module)
        return module

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.py"
        file.write_text(text, encoding="utf-8")
        loader = SourceFileLoader(_NAME, str(file))
        sys.modules[_NAME] = module  # where dataclasses look for it
        try:
            yield run
        finally:
            del sys.modules[_NAME]


_NAME = "network_that_is_tried"
"""Of the module; it must be the name of nobody else's."""
