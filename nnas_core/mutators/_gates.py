"""Binary gates: one candidate runs, and the gradients of all gates come from outputs that nothing else needs.

With gates g, of which one is 1 and the others 0, the output of a choice is ``sum_k g_k o_k``: the chosen one's, to the
bit. The gradient of gate k is the dot product of ``o_k`` and the gradient of the output, also where g_k is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnas_core import random_state
from nnas_core.errors import UserCodeError
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.plans import shapes_of
from nnas_core.mutables.reduction import dot
from nnas_core.mutables.untouched import own_buffers
from nnas_core.mutators._relaxation import RelaxedMutator, one_at_a_time
from nnas_core.mutators._serving import mutators_that

__all__ = ["Call", "gate_among", "gate_layer", "ungated"]

_Terms = Callable[[Sequence[Tensor], Tensor], Iterator[tuple[int, Tensor]]]


class Call:
    """One call of a LayerChoice: one candidate runs as usual, others can be run without leaving a trace.

    They run as the first one did: with the random numbers and in the autocast of the call. torch's random states are
    put back, and their buffers, such as the statistics of BatchNorm, are copies for the time.

    Args:
        mutable: the LayerChoice.
        args, kwargs: of the call.
        device: of the model.
    """

    def __init__(
        self, mutable: LayerChoice, args: Sequence[object], kwargs: Mapping[str, object], device: torch.device
    ) -> None:
        values = [*args, *kwargs.values()]
        self.mutable = mutable
        self._tensors = [position for position, value in enumerate(values) if isinstance(value, Tensor)]
        self._rest = [None if isinstance(value, Tensor) else value for value in values]
        self._names = list(kwargs)
        self._device = device
        self._random = random_state.torch_states(device)
        self._autocast: dict[str, Any] = {
            "device_type": device.type,
            "dtype": torch.get_autocast_dtype(device.type),
            "enabled": torch.is_autocast_enabled(device.type),
            "cache_enabled": torch.is_autocast_cache_enabled(),
        }

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Those of the arguments that ``rerun`` takes; the call itself holds on to none."""
        values = [*args, *kwargs.values()]
        return [values[position] for position in self._tensors]

    def run(self, index: int, tensors: Sequence[Tensor]) -> Tensor:
        """The output of a candidate.

        Raises:
            UserCodeError: it is no tensor.
        """
        values = list(self._rest)
        for position, tensor in zip(self._tensors, tensors, strict=True):
            values[position] = tensor
        count = len(values) - len(self._names)
        named = dict(zip(self._names, values[count:], strict=True))
        candidate = self.mutable.sharing.call(self.mutable.names[index], self.mutable[index])
        output = candidate(*values[:count], **named)
        if not isinstance(output, Tensor):
            raise self._refused(index, f"gives {shapes_of(output)}, a gate needs a tensor")
        return output

    def rerun(self, index: int, tensors: Sequence[Tensor]) -> Tensor:
        """The output that a candidate would have given, without a graph and without a trace."""
        now = random_state.torch_states(self._device)
        random_state.set_torch_states(self._random, self._device)
        try:
            with torch.no_grad(), torch.autocast(**self._autocast), own_buffers(self.mutable[index]):
                return self.run(index, tensors)
        finally:
            random_state.set_torch_states(now, self._device)

    def _refused(self, index: int, why: str) -> UserCodeError:
        return UserCodeError(
            f"candidate {self.mutable.names[index]!r} of {self.mutable.key!r} {why}",
            where=self.mutable.name,
            hint=f"let the candidate give one tensor, or use another mutator: {one_at_a_time()}, or where all give"
            " equal shapes one that mixes them, such as darts",
        )


def gate_layer(
    call: Call, chosen: int, others: Sequence[int], tensors: Sequence[Tensor], chances: Tensor, at_once: bool
) -> Tensor:
    """Run candidate ``chosen``, and let ``chances`` ``[W]`` have the gradient of the gates.

    Args:
        call: of a LayerChoice.
        chosen: index of the candidate.
        others: the candidates besides whose gates have a gradient that is not known to be zero.
        tensors: of ``call``.
        chances: their values do not matter.
        at_once: run ``others`` now and keep their outputs, instead of running them in the backward pass.

    Raises:
        UserCodeError: as ``Call.run``; or, in the backward pass, the outputs differ in shape.
    """
    output = call.run(chosen, tensors)
    mutable, dtype = call.mutable, chances.dtype
    if at_once:
        outputs = {position: call.rerun(position, tensors) for position in others}
        return gate_among(mutable, output, {chosen: output, **outputs}, chances)

    def terms(kept: Sequence[Tensor], gradient: Tensor) -> Iterator[tuple[int, Tensor]]:
        yield chosen, _dot(mutable, kept[0], gradient, dtype)
        for position in others:
            yield position, _dot(mutable, call.rerun(position, kept[1:]), gradient, dtype)

    return _apply(output, chances, terms, (output, *tensors))


def gate_among(
    mutable: LayerChoice | InputChoice,
    output: Tensor,
    candidates: Mapping[int, Tensor],
    chances: Tensor,
    mean_of: int = 0,
) -> Tensor:
    """``output``, made of some of ``candidates``, with the gradients of all their gates going to ``chances``.

    Args:
        mutable: for errors.
        output: one of the candidates, or a sum of several, or their mean.
        candidates: by index.
        chances: ``[W]``; their values do not matter.
        mean_of: how many were chosen if it is a mean, ``sum g x / sum g``: the derivative of that is
            ``(x_k - output) / mean_of``; 0 for a sum.
    """
    positions, dtype = tuple(candidates), chances.dtype

    def terms(kept: Sequence[Tensor], gradient: Tensor) -> Iterator[tuple[int, Tensor]]:
        for position, tensor in zip(positions, kept, strict=False):
            yield position, _dot(mutable, tensor, gradient, dtype)

    def terms_of_mean(kept: Sequence[Tensor], gradient: Tensor) -> Iterator[tuple[int, Tensor]]:
        common = _dot(mutable, kept[-1], gradient, dtype)
        for position, term in terms(kept, gradient):
            yield position, (term - common) / mean_of

    if mean_of:
        return _apply(output, chances, terms_of_mean, (*candidates.values(), output))
    return _apply(output, chances, terms, tuple(candidates.values()))


def _dot(mutable: LayerChoice | InputChoice, output: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """The dot product of an output and the gradient of the chosen one's."""
    if output.shape != gradient.shape:
        raise UserCodeError(
            f"what {mutable.key!r} chooses among has unequal shapes, {list(output.shape)} and {list(gradient.shape)}:"
            " a gate needs equal ones",
            where=mutable.name,
            hint=f"make the shapes equal, or use a mutator that runs what is chosen only: {one_at_a_time()}",
        )
    return dot(output.to(dtype), gradient.to(dtype))


def _apply(output: Tensor, chances: Tensor, terms: _Terms, kept: Sequence[Tensor]) -> Tensor:
    result: Tensor = _Gates.apply(output, chances, terms, *kept)  # type: ignore[no-untyped-call]
    return result


class _Gates(torch.autograd.Function):
    """A copy of the output, so that what follows may change it in place; ``terms`` gives the gradients of gates."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, chances: Tensor, terms: _Terms, *kept: Tensor) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.terms, ctx.shape, ctx.dtype = terms, chances.shape, chances.dtype
        return output.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        of_chances = None
        if ctx.needs_input_grad[1]:
            of_chances = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
            for position, term in ctx.terms(kept, gradient):
                of_chances[position] = term
        return gradient, of_chances, None, *(None for _ in kept)


def ungated() -> str:
    """The names of the mutators that train no logits, and so no gates; for hints."""
    return mutators_that(lambda mutator: not issubclass(mutator, RelaxedMutator))
