"""The only place where several outputs of one choice become one.

Every function here is also what an extracted model runs, so its outputs are equal to the supernet's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["REDUCTIONS", "reduce_hard", "reduce_soft"]


def _sum(outputs: Sequence[Tensor]) -> Tensor:
    total = outputs[0]
    for output in outputs[1:]:
        total = total + output
    return total


def _mean(outputs: Sequence[Tensor]) -> Tensor:
    return _sum(outputs) / len(outputs)


def _concat(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(outputs), dim=1)


def _none(outputs: Sequence[Tensor]) -> list[Tensor]:
    return list(outputs)


REDUCTIONS: dict[str, Callable[[Sequence[Tensor]], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "concat": _concat,
    "none": _none,
}
"""By name, for two outputs or more (``none``: any number)."""


def reduce_hard(outputs: Sequence[Tensor], reduction: str) -> Any:
    """Reduce the outputs of the chosen candidates.

    Returns:
        None for no outputs (an empty list for ``"none"``), one output as it is, else their reduction.
    """
    if reduction == "none":
        return list(outputs)
    if not outputs:
        return None
    return outputs[0] if len(outputs) == 1 else REDUCTIONS[reduction](outputs)


def reduce_soft(outputs: Sequence[Tensor], weights: Sequence[Tensor], reduction: str) -> Any:
    """Reduce outputs that are weighted.

    Args:
        outputs: C tensors.
        weights: C scalars ``[]``; cast to the dtype of the outputs. Gradients flow to both.
        reduction: ``"mean"`` divides by C, not by the sum of the weights (as NNI).

    Returns:
        None for no outputs (an empty list for ``"none"``).
    """
    if reduction in ("concat", "none"):
        weighted = [o * w.to(o.dtype) for o, w in zip(outputs, weights, strict=True)]
        return weighted if reduction == "none" else torch.cat(weighted, dim=1) if weighted else None
    if not outputs:
        return None
    first = outputs[0]
    if all(o.shape == first.shape and o.dtype == first.dtype for o in outputs):
        total = _WeightedSum.apply(torch.stack(list(weights)).to(first.dtype), *outputs)  # type: ignore[no-untyped-call]
    else:
        total = first * weights[0].to(first.dtype)
        for o, w in zip(outputs[1:], weights[1:], strict=True):
            total = torch.addcmul(total, o, w.to(o.dtype))
    return total / len(outputs) if reduction == "mean" else total


class _WeightedSum(torch.autograd.Function):
    """``sum_i w_i o_i`` in one buffer: no temporary a candidate, and a dot product for each weight's gradient.

    The backward pass is made of differentiable operations, so second derivatives exist.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *outputs: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *outputs)
        total = outputs[0] * weights[0]
        for position, output in enumerate(outputs[1:], start=1):
            total.addcmul_(output, weights[position])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weights, *outputs = ctx.saved_tensors
        of_weights = None
        if ctx.needs_input_grad[0]:
            of_weights = torch.stack([(gradient * output).sum() for output in outputs])
        needed = ctx.needs_input_grad[1:]
        return of_weights, *(gradient * weights[position] if needs else None for position, needs in enumerate(needed))
