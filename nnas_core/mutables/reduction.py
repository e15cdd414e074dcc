"""The only place where several outputs of one choice become one.

Every function here is also what an extracted model runs, so its outputs are equal to the supernet's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from nnas_core.mutables.activation_checkpointing import is_second_run
from nnas_core.mutables.nested import changed, merged

__all__ = ["REDUCTIONS", "dot", "gate", "reduce_elements", "reduce_hard", "reduce_soft"]


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


def reduce_soft(outputs: Sequence[Tensor], weights: Tensor, kept: Sequence[int], reduction: str, count: int) -> Any:
    """Reduce outputs that are weighted.

    Args:
        outputs: C tensors.
        weights: ``[W]``, W > max(kept); cast to the dtype of the outputs. Gradients flow to both.
        kept: C positions: ``weights[kept[i]]`` is the weight of ``outputs[i]``.
        reduction: ``"mean"`` divides by ``count``, not by the sum of the weights (as NNI).
        count: how many candidates took part, those included whose output is known to be zero.

    Returns:
        None for no outputs (an empty list for ``"none"``).
    """
    if reduction in ("concat", "none"):
        weighted = [o * weights[i].to(o.dtype) for o, i in zip(outputs, kept, strict=True)]
        return weighted if reduction == "none" else torch.cat(weighted, dim=1) if weighted else None
    if not outputs:
        return None
    first = outputs[0]
    if torch.compiler.is_compiling():  # the compiler fuses this into one kernel, and its backward pass too
        total = first * weights[kept[0]].to(first.dtype)
        for o, i in zip(outputs[1:], kept[1:], strict=True):
            total = total + o * weights[i].to(o.dtype)
    elif all(o.shape == first.shape and o.dtype == first.dtype for o in outputs):
        total = _WeightedSum.apply(weights.to(first.dtype), tuple(kept), *outputs)  # type: ignore[no-untyped-call]
    else:
        total = first * weights[kept[0]].to(first.dtype)
        for o, i in zip(outputs[1:], kept[1:], strict=True):
            total = torch.addcmul(total, o, weights[i].to(o.dtype))
    return total / count if reduction == "mean" else total


def _can_be_weighted(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def reduce_elements(outputs: Sequence[Any], weights: Tensor, kept: Sequence[int], reduction: str, count: int) -> Any:
    """``reduce_soft`` of outputs that are nestings of tensors, element by element.

    What is no tensor of floating-point numbers must be the same in all of them.

    Raises:
        ValueError: the nestings or the shapes differ.
    """
    if reduction == "none":
        return [_scaled(output, weights[i]) for output, i in zip(outputs, kept, strict=True)]

    def reduce(parts: Sequence[Any]) -> Any:
        if all(_can_be_weighted(one) for one in parts):
            if reduction != "concat" and any(one.shape != parts[0].shape for one in parts):
                raise ValueError("the shapes differ")
            return reduce_soft(parts, weights, kept, reduction, count)
        if not all(_are_equal(one, parts[0]) for one in parts):
            raise ValueError("what is no tensor of numbers differs")
        return parts[0]

    return merged(outputs, reduce)


def _scaled(output: object, weight: Tensor) -> object:
    return changed(output, lambda one: one * weight.to(one.dtype) if _can_be_weighted(one) else one)


def _are_equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    plain = (int, float, bool, str, bytes, type(None))
    return isinstance(one, plain) and type(one) is type(other) and one == other


class _WeightedSum(torch.autograd.Function):
    """``sum_i w_i o_i`` in one buffer: no temporary a candidate, and a dot product for each weight's gradient.

    The backward pass can be differentiated. Where it is not, it makes no temporaries either.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, kept: tuple[int, ...], *outputs: Tensor) -> Tensor:
        # Without gradients of weights, as in the weights' half of a search, nobody needs the outputs any more. Weights
        # that nothing is differentiated by are not saved, so that a second run for what is saved may end before this.
        differentiated = ctx.needs_input_grad[0]
        ctx.save_for_backward(*((weights, *outputs) if differentiated else ()))
        ctx.constant = None if differentiated else weights
        ctx.kept = kept
        if is_second_run():  # for what was saved only: nobody looks at the sum, and who does shall notice
            return outputs[0].new_full((), torch.nan).expand_as(outputs[0])
        factors = _factors(weights)
        total = outputs[0] * factors[kept[0]]
        for output, position in zip(outputs[1:], kept[1:], strict=True):
            factor = factors[position]
            if isinstance(factor, float):
                total.add_(output, alpha=factor)
            else:
                total.addcmul_(output, factor)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weights, *outputs = ctx.saved_tensors or (ctx.constant,)
        of_weights = None
        if ctx.needs_input_grad[0]:
            products = {i: dot(gradient, output) for i, output in zip(ctx.kept, outputs, strict=True)}
            zero = gradient.new_zeros(())
            of_weights = torch.stack([products.get(i, zero) for i in range(len(weights))])
        del outputs  # what was recomputed is held by nothing else, and makes room for the gradients
        factors = weights.unbind() if torch.is_grad_enabled() else _factors(weights)
        needed = ctx.needs_input_grad[2:]
        of_outputs = (gradient * factors[i] if needs else None for i, needs in zip(ctx.kept, needed, strict=True))
        return of_weights, None, *of_outputs


def _factors(weights: Tensor) -> Sequence[float | Tensor]:
    """The weights, as numbers where reading them waits for no device, and a sum with numbers rounds as one without."""
    quick = weights.device.type == "cpu" and weights.dtype in _SUMMED_WELL
    numbers: list[float] = weights.tolist() if quick else []
    return numbers or weights.unbind()


def dot(one: Tensor, other: Tensor) -> Tensor:
    """The sum ``[]`` of the products of two tensors of equal shape; differentiable where gradients are enabled."""
    if one.dtype == other.dtype and one.dtype in _SUMMED_WELL and not torch.is_grad_enabled():
        # In memory, entries that belong together stand side by side in any order of the dimensions, so no product
        # has to be written anywhere.
        if one.is_contiguous() and other.is_contiguous():
            return torch.dot(one.view(-1), other.view(-1))
        if one.stride() == other.stride() and _is_dense(one):
            count = (one.numel(),)
            return torch.dot(one.as_strided(count, (1,)), other.as_strided(count, (1,)))
    return (one * other).sum()


_SUMMED_WELL = (torch.float32, torch.float64)  # torch.dot of half precision would be a sum in half precision


def _is_dense(tensor: Tensor) -> bool:
    """Return true if the entries fill a stretch of memory, each once."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def gate(output: Any, weight: Tensor) -> Any:
    """``output`` as it is, to the bit, as if it were multiplied by a ``weight`` ``[]`` that happens to be 1.

    The output of a candidate may be a nesting of tensors, such as the output and the state of an LSTM.

    The gradient of ``weight`` is the dot product of ``output`` and its gradient, whatever the value of ``weight``.
    """
    if not weight.requires_grad:
        return output
    if not isinstance(output, Tensor):
        return changed(output, lambda one: gate(one, weight) if _can_be_weighted(one) else one)
    gated: Tensor = _Gate.apply(output, weight)  # type: ignore[no-untyped-call]
    return gated


class _Gate(torch.autograd.Function):
    """See ``gate``; the backward pass can be differentiated."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(output, weight)
        return output.clone()  # models may change it in place: `relu(inplace=True)` right after a choice

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        output, weight = ctx.saved_tensors
        of_weight = dot(gradient, output).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return gradient if ctx.needs_input_grad[0] else None, of_weight
