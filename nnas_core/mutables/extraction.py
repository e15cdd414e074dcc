"""An architecture is taken out of its supernet as a plain module: nothing of nnas and no unused weight is left.

A LayerChoice that runs one candidate becomes that candidate. Every other choice becomes a ``torch.fx.GraphModule``,
which carries its own few lines of generated code, so the result can be pickled, exported and loaded where nnas is
not installed. (A class of the user's that derives from ``MutableScope`` stays what it is, a class of the user's.)
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor, fx

from nnas_core.errors import InputError, UserCodeError
from nnas_core.mutables.base import MutableScope
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.copying import check_hooks, deepcopy, watch_first_pass
from nnas_core.mutables.tree import parse
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace

__all__ = ["extract", "replacement", "transfer_weights"]

_Take = Callable[[nn.Module], nn.Module]
"""What becomes of a candidate that is used: a copy, or itself."""


def extract(model: nn.Module, architecture: Architecture | Mapping[str, Any]) -> nn.Module:
    """Copy one architecture out of a supernet.

    Outputs are equal to those of the supernet with this architecture to the bit, weights that the model shares
    stay shared, and the supernet is not touched, bound or not. A function cannot be copied, so one that closes over the
    supernet (``lambda x: self.proj(x)``) would go on using it: that is looked for here, in hooks, and in the first
    forward pass with gradients, which fails and names the module whose weights it used.

    Args:
        model: the supernet.
        architecture: an ``Architecture``, or any form of one.

    Returns:
        The copy, in the same training mode.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        UserCodeError: a choice is of a class with a forward pass of its own, which would be lost; or a hook closes over
            a part of the supernet.
    """
    masks = _masks(model, architecture)
    # A deep copy that finds, in its memo, a replacement for every choice: it reaches each reference to one, in
    # containers and attributes too, and never copies a candidate that is not used.
    memo: dict[int, Any] = {}
    for mutable in parse(model).traverse(deduplicate=False):
        if isinstance(mutable, LayerChoice | InputChoice):
            memo[id(mutable)] = replacement(mutable, masks[mutable.key], lambda one: deepcopy(one, memo))
        memo[id(mutable._given_key)] = mutable.key  # where the model stored it before it was numbered
    child = deepcopy(model, memo)
    check_hooks(model, child, memo)
    watch_first_pass(model, child)
    for module in child.modules():
        if isinstance(module, MutableScope):
            module.retire()
    return child


def transfer_weights(
    model: nn.Module, architecture: Architecture | Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The part of a supernet's weights that an extracted (or fixed) model has, under its names.

    Args:
        model: a supernet of the same structure; its own weights do not matter.
        architecture: what was extracted.
        state: ``state_dict`` of the supernet.

    Returns:
        What ``load_state_dict`` of ``extract(model, architecture)`` takes; the tensors are not copied.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        InputError: ``state`` lacks weights of the model.
    """
    masks = _masks(model, architecture)
    moves: dict[str, str | None] = {}  # the prefix of a candidate -> what it becomes; None: it is not used
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, LayerChoice):
            mask = masks[module.key]
            only = _only_candidate(module, mask)
            base = f"{path}." if path else ""
            for name, value in zip(module.names, mask, strict=True):
                if only == name:
                    moves[f"{base}{name}."] = base
                elif not value:
                    moves[f"{base}{name}."] = None
                else:
                    moves[f"{base}{name}."] = f"{base}{_target(name)}."
    result, missing = {}, []
    for key in model.state_dict():
        ends = [position + 1 for position, letter in enumerate(key) if letter == "."]
        candidate = next((key[:end] for end in ends if key[:end] in moves), "")
        becomes = moves.get(candidate, candidate)
        if becomes is None:
            continue
        new_key = becomes + key[len(candidate) :]
        if key in state:
            result[new_key] = state[key]
        else:
            missing.append(key)
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} of the tensors that the model needs",
            problems=[f"{key}: missing" for key in missing[:3]],
            hint="take the checkpoint of this model",
        )
    return result


def _masks(model: nn.Module, architecture: Architecture | Mapping[str, Any]) -> dict[str, Any]:
    space = SearchSpace.from_model(model)
    if not isinstance(architecture, Architecture):
        architecture = space.parse(architecture)
    space.validate(architecture)
    return dict(architecture.masks())


def _require_plain_forward(mutable: LayerChoice | InputChoice) -> None:
    own = type(mutable).forward not in (LayerChoice.forward, InputChoice.forward)
    hooks = mutable._forward_hooks or mutable._forward_pre_hooks
    if own or hooks or mutable._backward_hooks or mutable._backward_pre_hooks:
        what = "a forward() of its own" if own else "hooks"
        raise UserCodeError(
            f"{type(mutable).__name__} has {what}, which an extracted model would lose",
            where=mutable.name,
            hint="do that in a module around the choice",
        )


def _only_candidate(mutable: LayerChoice, mask: list[Any]) -> str | None:
    """The name of the candidate that can stand for the whole choice, if there is one."""
    chosen = [index for index, value in enumerate(mask) if value]
    if len(chosen) == 1 and mask[chosen[0]] is True and not mutable.return_mask and mutable.reduction != "none":
        return mutable.names[chosen[0]]
    return None


def replacement(mutable: LayerChoice | InputChoice, mask: list[Any], take: _Take) -> nn.Module:
    """The plain module that does what a choice does once it is decided.

    Args:
        mutable: the choice.
        mask: its decision.
        take: makes of each candidate that is used what the replacement holds.

    Raises:
        UserCodeError: the choice is of a class with a forward pass of its own, or has hooks.
    """
    _require_plain_forward(mutable)
    if isinstance(mutable, InputChoice):
        return _input_module(mutable, mask)
    only = _only_candidate(mutable, mask)
    if only is None:
        return _layer_module(mutable, mask, take)
    candidate = take(mutable[only])
    candidate.__dict__.setdefault("key", mutable.key)  # forward passes may read it to name their inputs
    return candidate


def _layer_module(mutable: LayerChoice, mask: list[Any], take: _Take) -> fx.GraphModule:
    chosen = [name for name, value in zip(mutable.names, mask, strict=True) if value]
    graph, root = fx.Graph(), nn.Module()
    arguments, keywords = _arguments(graph, [mutable[name] for name in chosen])
    outputs = []
    for name in chosen:
        holder = root
        if "." in _target(name):
            root.add_module("candidates", holder := root._modules.get("candidates") or nn.Module())
        holder.add_module(name, take(mutable[name]))
        outputs.append(graph.call_module(_target(name), arguments, keywords))
    return _finish(graph, root, outputs, mutable, mask)


@functools.cache
def _target(name: str) -> str:
    """Where a candidate is in its GraphModule, which has a few names for itself."""
    return f"candidates.{name}" if hasattr(fx.GraphModule(nn.Module(), fx.Graph()), name) else name


def _arguments(graph: fx.Graph, candidates: list[nn.Module]) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
    """Placeholders for what every candidate takes, with the names and defaults of the most particular one.

    Generated code cannot hand on ``*args`` and ``**kwargs``: where no candidate names its arguments, one is taken.
    """
    signatures = [_own_arguments(candidate) for candidate in candidates]
    named = [signature for signature in signatures if signature is not None]
    if not named:
        node = graph.placeholder("input")
        return (node,) if candidates else (), {}
    narrowest = min(named, key=lambda signature: len(signature[0]))
    arguments = [graph.placeholder(one.name, default_value=one.default) for one in narrowest[0]]
    keywords = {
        name: graph.placeholder(name, default_value=one.default)
        for name, one in narrowest[1].items()
        if all(name in signature[1] for signature in named)
    }
    return tuple(arguments), keywords


def _own_arguments(candidate: nn.Module) -> tuple[list[inspect.Parameter], dict[str, inspect.Parameter]] | None:
    """Positional and keyword-only parameters of the forward pass; None if it takes whatever it is given."""
    parameters = inspect.signature(candidate.forward).parameters.values()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    keyword = {one.name: one for one in parameters if one.kind == one.KEYWORD_ONLY}
    if not positional and any(one.kind == one.VAR_POSITIONAL for one in parameters):
        return None
    return positional, keyword


def _input_module(mutable: InputChoice, mask: list[Any]) -> fx.GraphModule:
    graph = fx.Graph()
    inputs = graph.placeholder("inputs")
    outputs = [
        graph.call_function(operator.getitem, (inputs, _position(graph, mutable, index, inputs)))
        for index, value in enumerate(mask)
        if value
    ]
    return _finish(graph, nn.Module(), outputs, mutable, mask)


def _position(graph: fx.Graph, mutable: InputChoice, index: int, inputs: fx.Node) -> Any:
    """Where an input stands: its index, its tag where the choice was seen to take dictionaries, or both.

    Pickling traces generated code again, and a tracer takes the branch of a list; only a choice that takes
    dictionaries but was never run before it was extracted and pickled depends on that.
    """
    tag = mutable.choose_from[index]
    if mutable.takes_dictionary:
        return tag
    if len(set(mutable.choose_from)) < len(mutable.choose_from) or tag == InputChoice.NO_KEY:
        return index
    is_sequence = graph.call_function(hasattr, (inputs, "index"))
    return graph.call_function(operator.getitem, ((tag, index), is_sequence))


def _finish(
    graph: fx.Graph,
    root: nn.Module,
    outputs: list[fx.Node],
    mutable: LayerChoice | InputChoice,
    mask: list[Any],
) -> fx.GraphModule:
    exact = torch.as_tensor(mask)  # weights are rounded as a mutator rounds them
    soft = exact.dtype != torch.bool
    weights = [value for value in exact.tolist() if value]
    output = _reduced(graph, outputs, mutable.reduction, weights if soft else None)
    if mutable.return_mask:
        dtype: dict[str, Any] = {"dtype": exact.dtype}
        like = outputs[0] if outputs else _some_input(graph, mutable)
        output = (output, graph.call_method("new_tensor", (like, exact.tolist()), dtype))
    graph.output(output)
    module = fx.GraphModule(root, graph, "Chosen")
    module.train(mutable.training)
    facts = _facts(mutable)
    vars(module).update(facts)
    module.meta["_user_preserved_attributes"] = facts  # those that a copy of a GraphModule keeps
    return module


def _facts(mutable: LayerChoice | InputChoice) -> dict[str, Any]:
    """What forward passes may read of a choice, to name their inputs or to know how many there are."""
    facts: dict[str, Any] = {one: getattr(mutable, one) for one in ("key", "name", "reduction", "return_mask")}
    if isinstance(mutable, InputChoice):
        own = ("n_candidates", "n_chosen")
        facts.update({one: getattr(mutable, one) for one in own}, choose_from=list(mutable.choose_from))
    return facts


def _some_input(graph: fx.Graph, mutable: LayerChoice | InputChoice) -> fx.Node:
    """A tensor on the model's device where nothing is run: the first that the choice is given."""
    given: fx.Node = next(node for node in graph.nodes if node.op == "placeholder")
    if isinstance(mutable, LayerChoice):
        return given
    return graph.call_function(operator.getitem, (given, _position(graph, mutable, 0, given)))


def _reduced(graph: fx.Graph, outputs: list[fx.Node], reduction: str, weights: list[float] | None) -> Any:
    """The nodes of ``nnas_core.mutables.reduction``, operation by operation."""
    if weights is not None:
        scalars = [
            graph.call_method("new_tensor", (output, weight)) for output, weight in zip(outputs, weights, strict=True)
        ]
        if reduction in ("none", "concat"):
            outputs = [graph.call_function(operator.mul, pair) for pair in zip(outputs, scalars, strict=True)]
        elif outputs:
            total = graph.call_function(operator.mul, (outputs[0], scalars[0]))
            for output, scalar in zip(outputs[1:], scalars[1:], strict=True):
                total = graph.call_function(torch.addcmul, (total, output, scalar))
            return graph.call_function(operator.truediv, (total, len(outputs))) if reduction == "mean" else total
    if reduction == "none":
        return list(outputs)
    if not outputs:
        return None
    if len(outputs) == 1:
        return outputs[0]
    if reduction == "concat":
        return graph.call_function(torch.cat, (list(outputs),), {"dim": 1})
    total = outputs[0]
    for output in outputs[1:]:
        total = graph.call_function(operator.add, (total, output))
    return graph.call_function(operator.truediv, (total, len(outputs))) if reduction == "mean" else total
