"""Copies of modules that stand alone: what ``copy.deepcopy`` cannot copy, and what it leaves behind in the original.

A function is never copied. One that closes over the model (``lambda x: self.proj(x)``) goes on using the original from
within a copy, with weights that nobody trains or saves.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from nnas_core.errors import UserCodeError
from nnas_core.mutables.nested import tensors

__all__ = ["check_hooks", "deepcopy", "watch_first_pass"]

_HINT = "build the model anew and decide it in place by apply_fixed_architecture(), or let it be a method of the module"


def deepcopy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """``copy.deepcopy``, also of modules with scripted parts, or with results of computations among their attributes.

    The old ``weight_norm`` keeps such a tensor, and computes it anew in each forward pass.

    Args:
        module: any.
        memo: of replacements, as for ``copy.deepcopy``.
    """
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            if id(part) not in memo:
                memo[id(part)] = _copied_script(part)
            continue
        for value in tensors(list(vars(part).values())):
            if not value.is_leaf and id(value) not in memo:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def _copied_script(module: nn.Module) -> nn.Module:
    with torch.no_grad():  # else its parameters would be results of a computation
        twin: nn.Module = copy.deepcopy(module)
    for mine, its in zip(twin.parameters(), module.parameters(), strict=True):
        mine.requires_grad_(its.requires_grad)
    return twin


def check_hooks(model: nn.Module, child: nn.Module, memo: Mapping[int, Any]) -> None:
    """Refuse a copy whose hooks would work on the original.

    Args:
        model: the original.
        child: its copy.
        memo: of ``copy.deepcopy``: what was copied.

    Raises:
        UserCodeError: naming the module.
    """
    names = {id(memo.get(id(module))): path for path, module in model.named_modules()}
    for path, module in child.named_modules():
        for attribute, hooks in vars(module).items():
            if attribute.endswith("_hooks") and isinstance(hooks, dict):
                for hook in hooks.values():
                    if _closes_over(hook, memo):
                        raise UserCodeError(
                            "has a hook that closes over a part of the model, so that in a copy it would work on the"
                            " original",
                            where=names.get(id(module), path) or "the model",
                            hint=_HINT,
                        )


def _closes_over(function: object, memo: Mapping[int, Any]) -> bool:
    """Return true if a function holds something of which a copy was made."""
    if not isinstance(function, types.FunctionType):
        return False
    held = list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is empty
            held.append(cell.cell_contents)
    return any(memo.get(id(one), one) is not one or _closes_over(one, memo) for one in held)


def watch_first_pass(model: nn.Module, child: nn.Module) -> None:
    """Check in the first pass of ``child`` that has gradients that all of them go to its own parameters.

    Raises:
        UserCodeError: in that pass; naming the module of ``model``, of which ``child`` is a copy, that it uses.
    """
    originals = WeakTensorKeyDictionary()
    own = set(map(id, child.parameters()))
    for path, parameter in model.named_parameters():
        if id(parameter) not in own:
            originals[parameter] = path
    child.register_forward_hook(_FirstPass(originals))


class _FirstPass:
    """A hook of a copy that goes away after its first pass with gradients.

    Args:
        originals: parameters of the original, and their names.
    """

    def __init__(self, originals: WeakTensorKeyDictionary) -> None:
        self._originals = originals

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        if torch.compiler.is_compiling():
            return
        outputs = [one for one in tensors(output) if one.grad_fn is not None]
        if not outputs:
            return
        for parameter in _leaves(outputs):
            if parameter in self._originals:
                path = self._originals[parameter]
                owner = path.rpartition(".")[0]
                raise UserCodeError(
                    f"the extracted model uses {path} of the model that it was extracted from, not its own: a function"
                    " closes over the original",
                    where=owner or "the model",
                    hint=_HINT,
                )
        for number, hook in list(module._forward_hooks.items()):
            if hook is self:
                del module._forward_hooks[number]

    def __deepcopy__(self, memo: object) -> _FirstPass:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Where nnas is not installed, a hook that takes anything and does nothing.
        return getattr, (contextlib.nullcontext(), "__exit__")


def _leaves(outputs: list[Tensor]) -> Iterator[Tensor]:
    """The parameters that gradients of ``outputs`` go to."""
    waiting = [one.grad_fn for one in outputs]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        for further, _ in node.next_functions:
            if further not in seen:
                seen.add(further)
                waiting.append(further)
