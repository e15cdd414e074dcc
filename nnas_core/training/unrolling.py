"""The next step of an optimizer without taking it: where it would lead, how that depends on the gradient, and back.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, section 2.3 (plain gradient
descent); the other rules are those of ``torch.optim``, differentiated by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from nnas_core.errors import UserCodeError
from nnas_core.training.optimizers import FusedSGD

__all__ = [
    "VirtualStep",
    "frozen",
    "holding",
    "require_twice_differentiable",
    "require_unrollable",
    "trained_by",
    "virtual_step",
]


@dataclass(frozen=True)
class VirtualStep:
    """The next step of an optimizer, not taken.

    Attributes:
        weights: the parameters that it would move: those with a gradient.
        moved: for each, its value after the step. Gradients do not flow through it.
        slopes: for each, the derivative of ``moved`` in the gradient: a number, or elementwise a tensor of its shape.
            Every entry of a gradient moves its own weight only, so the Jacobian has nothing beside this diagonal.
    """

    weights: list[Tensor]
    moved: list[Tensor]
    slopes: list[Tensor | float]

    def pulled_back(self, gradients: Sequence[Tensor | None]) -> dict[Tensor, Tensor]:
        """A loss's gradients in ``moved`` (None: it does not depend on it) as those in the gradients of each weight."""
        return {
            weight: gradient * slope
            for weight, gradient, slope in zip(self.weights, gradients, self.slopes, strict=True)
            if gradient is not None
        }


def trained_by(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters of an optimizer that require gradients."""
    return [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]


def require_unrollable(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Refuse an optimizer whose step is not known here. A subclass may step in its own way, so it is refused too.

    Args:
        optimizer: of the weights.
        where: it comes from, for the error.

    Raises:
        UserCodeError: naming its class and what can be unrolled.
    """
    if type(optimizer) not in _RULES:
        names = [one.__name__ for one in _RULES if one is not FusedSGD]
        raise UserCodeError(
            f"order=2 cannot unroll a step of {type(optimizer).__name__}, only one of {', '.join(names[:-1])} or"
            f" {names[-1]} of torch.optim",
            where=where,
            hint="use order=1, or let build_optimizer() return one of these",
        )


def require_twice_differentiable(gradients: Iterable[Tensor], hint: str) -> None:
    """Refuse gradients that went through a function marked ``once_differentiable``.

    torch would not: asked for the gradient in given tensors, it never gets to its own error, and takes what went
    through such a function as zero. Other functions without a second derivative raise when it is computed.

    Args:
        gradients: made with ``create_graph``.
        hint: what to do, for the error.

    Raises:
        UserCodeError: there is one.
    """
    waiting = [one.grad_fn for one in gradients if one.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().endswith("Error"):
            raise UserCodeError(
                "the backward pass cannot be differentiated once more: a function in it is marked once_differentiable",
                hint=hint,
            )
        for further, _ in node.next_functions:
            if further is not None and further not in seen:
                seen.add(further)
                waiting.append(further)


@torch.no_grad()
def virtual_step(optimizer: torch.optim.Optimizer, gradients: Mapping[Tensor, Tensor]) -> VirtualStep:
    """Compute the effect of ``optimizer.step()`` with its numbers and its state of now, which stay as they are.

    Args:
        optimizer: one that ``require_unrollable`` lets pass.
        gradients: of its parameters; as in torch, one without a gradient stays where it is.
    """
    step = VirtualStep([], [], [])
    rule = _RULES[type(optimizer)]
    for group in optimizer.param_groups:
        weights = [weight for weight in group["params"] if weight in gradients]
        if weights:
            dense = [_dense(gradients[weight].detach()) for weight in weights]
            signed = [-gradient for gradient in dense] if group["maximize"] else dense
            states = [optimizer.state.get(weight, {}) for weight in weights]
            moved, slopes = rule(group, [weight.detach() for weight in weights], signed, states)
            step.weights.extend(weights)
            step.moved.extend(moved)
            step.slopes.extend([-slope for slope in slopes] if group["maximize"] else slopes)
    return step


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


_Rule = Callable[
    [Mapping[str, Any], list[Tensor], list[Tensor], list[Mapping[str, Any]]],
    tuple[list[Tensor], list[Tensor | float]],
]


def _sgd(
    group: Mapping[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[Mapping[str, Any]]
) -> tuple[list[Tensor], list[Tensor | float]]:
    rate, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
    change = list(torch._foreach_add(gradients, weights, alpha=decay)) if decay else gradients
    slopes: list[Tensor | float] = [1.0] * len(weights)
    if momentum:
        kept = 1 - float(group["dampening"])
        buffers = [state.get("momentum_buffer") for state in states]
        old = {index: buffer for index, buffer in enumerate(buffers) if buffer is not None}
        velocity = list(change)  # a first step starts from the gradient itself, undampened
        if old:
            rolling = torch._foreach_mul(list(old.values()), momentum)
            torch._foreach_add_(rolling, [change[index] for index in old], alpha=kept)
            for index, buffer in zip(old, rolling, strict=True):
                velocity[index], slopes[index] = buffer, kept
        if group["nesterov"]:
            change = list(torch._foreach_add(change, velocity, alpha=momentum))
            slopes = [1 + momentum * slope for slope in slopes]
        else:
            change = velocity
    return list(torch._foreach_add(weights, change, alpha=-rate)), [-rate * slope for slope in slopes]


def _adam(
    group: Mapping[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[Mapping[str, Any]]
) -> tuple[list[Tensor], list[Tensor | float]]:
    pairs = [_adam_one(group, *one) for one in zip(weights, gradients, states, strict=True)]
    return [moved for moved, _ in pairs], [slope for _, slope in pairs]


def _adam_one(
    group: Mapping[str, Any], weight: Tensor, gradient: Tensor, state: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    rate, decay, tiny = float(group["lr"]), float(group["weight_decay"]), float(group["eps"])
    first, second = (float(beta) for beta in group["betas"])
    if group["decoupled_weight_decay"]:
        weight = weight * (1 - rate * decay)
    elif decay:
        gradient = gradient.add(weight, alpha=decay)
    count = float(state["step"]) + 1 if state else 1.0
    mean = (1 - first) * gradient
    square = (1 - second) * gradient * gradient
    if state:
        mean.add_(state["exp_avg"], alpha=first)
        square.add_(state["exp_avg_sq"], alpha=second)
    of_root = (1 - second) * gradient  # the derivative of the square, halved: that of its root, once divided by it
    if group["amsgrad"] and state:
        largest = state["max_exp_avg_sq"]
        of_root = torch.where(square >= largest, of_root, 0.0)
        square = torch.maximum(square, largest)
    root = square.sqrt()
    correction = math.sqrt(1 - second**count)
    divisor = root / correction + tiny
    # Where the root is zero, so is the gradient, and what it contributes vanishes with it.
    of_divisor = torch.where(root > 0, of_root / root, 0.0) / correction
    size = rate / (1 - first**count)
    slope = -size * ((1 - first) / divisor - mean * of_divisor / (divisor * divisor))
    return weight - size * mean / divisor, slope


_RULES: dict[type[torch.optim.Optimizer], _Rule] = {SGD: _sgd, FusedSGD: _sgd, Adam: _adam, AdamW: _adam}


# ---- there and back


@contextmanager
def holding(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Inside, ``weights`` hold ``values``; afterwards what they held before, to the bit.

    Graphs that hold the weights do not notice, so they can be differentiated afterwards, though not inside.
    """
    data = [weight.data for weight in weights]  # not detach(): it would count the change, and such graphs would refuse
    before = [one.clone() for one in data]
    torch._foreach_copy_(data, list(values))
    try:
        yield
    finally:
        torch._foreach_copy_(data, before)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter of ``model`` requires a gradient: graphs leave out what leads to them only."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    for one in parameters:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in parameters:
            one.requires_grad_(True)
