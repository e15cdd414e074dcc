"""A mask becomes plain Python here, once per reset: which candidates run, how they are weighted, what is called.

After that a forward pass tests no tensor and waits for no device.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nnas_core.errors import DecisionError, UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.naming import add_note
from nnas_core.mutables.reduction import reduce_elements, reduce_hard, reduce_soft
from nnas_core.space.choice import Decision

__all__ = ["Plan", "as_masks", "full_mask", "hard_mask", "hard_plan", "is_zero", "shapes_of", "soft_plan", "soft_run"]


class Plan:
    """A decision that is ready to run at one mutable.

    Attributes:
        run: called with the arguments of ``LayerChoice.forward``, or with the list of inputs; returns the output.
        mask: one entry a candidate, on the model's device.
    """

    __slots__ = ("mask", "run")

    def __init__(self, run: Forward, mask: Tensor) -> None:
        self.run = run
        self.mask = mask

    def run_with_mask(self, *args: object, **kwargs: object) -> tuple[Any, Tensor]:
        """The output and the mask, what ``return_mask`` asks for."""
        return self.run(*args, **kwargs), self.mask


# ---- reading what a mutator returned


def as_masks(
    decisions: Mapping[str, Any], expected: Mapping[str, LayerChoice | InputChoice], source: str
) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    """Check decisions and convert them.

    Args:
        decisions: key -> mask; a tensor, array, list or tuple of any boolean, integer or floating type.
        expected: the first mutable of each key.
        source: the mutator's class and method, for errors.

    Returns:
        key -> tensor (bool: hard; floating: weights; integers become bool if all are 0 or 1, else floating), and
        the same as lists of Python numbers, fetched from the device in one transfer.

    Raises:
        DecisionError: a key is missing or unknown, a length is wrong, or a number is not finite; all are listed.
    """
    if not isinstance(decisions, Mapping):
        raise DecisionError(f"{source} returned a {type(decisions).__name__}, not a dictionary of masks")
    problems = [
        f"{key!r} is no key of the model; it has {', '.join(map(repr, expected))}"
        for key in decisions
        if key not in expected
    ]
    masks: dict[str, Tensor] = {}
    for key, mutable in expected.items():
        if key not in decisions:
            problems.append(f"{key!r} ({mutable.name}): no decision")
            continue
        try:
            mask = _as_tensor(decisions[key])
        except (TypeError, ValueError, RuntimeError):
            problems.append(f"{key!r} ({mutable.name}): {decisions[key]!r} is no mask")
            continue
        if mask.shape != (len(mutable),):
            given = f"shape {list(mask.shape)}" if mask.dim() != 1 else f"length {len(mask)}"
            problems.append(f"{key!r} ({mutable.name}): expected a mask of length {len(mutable)}, given {given}")
            continue
        masks[key] = mask
    values = _fetch(masks)
    for key, numbers in values.items():
        if not all(map(math.isfinite, numbers)):
            problems.append(f"{key!r} ({expected[key].name}): {numbers} is not finite")
        elif not (masks[key].dtype.is_floating_point or masks[key].dtype == torch.bool):
            masks[key] = masks[key].bool() if set(numbers) <= {0, 1} else masks[key].float()
    if problems:
        raise DecisionError(f"{source} does not fit the model", problems=problems)
    return masks, values


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        value = torch.stack(list(value))
    mask = torch.as_tensor(value)
    if mask.layout != torch.strided or mask.is_complex() or mask.is_meta:
        raise TypeError("a mask is a dense tensor of real numbers")
    return mask


def _fetch(masks: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    if all(mask.device.type == "cpu" for mask in masks.values()):
        return {key: mask.tolist() for key, mask in masks.items()}
    with torch.no_grad():
        flat = torch.cat(
            [mask.detach().double().cpu() if mask.device.type == "cpu" else mask.detach() for mask in masks.values()]
        ).tolist()
    result, start = {}, 0
    for key, mask in masks.items():
        result[key] = flat[start : start + len(mask)]
        start += len(mask)
    return result


# ---- making it callable


def hard_mask(decision: Decision, count: int, device: torch.device) -> Tensor:
    """The boolean mask ``[count]`` of chosen indices."""
    chosen = set(decision)
    return torch.tensor([index in chosen for index in range(count)], dtype=torch.bool, device=device)


def full_mask(mutable: LayerChoice | InputChoice) -> Tensor:
    """The boolean mask ``[n]`` of all candidates, on the CPU."""
    return torch.ones(len(mutable), dtype=torch.bool)


def hard_plan(mutable: LayerChoice | InputChoice, decision: Decision, mask: Tensor) -> Plan:
    """Run the chosen candidates of ``mutable``, nothing else."""
    if isinstance(mutable, InputChoice):
        return Plan(_hard_inputs(decision, mutable.reduction), mask)
    return Plan(_hard_layers(mutable, decision), mask)


def _chosen(mutable: LayerChoice, decision: Iterable[int]) -> list[Forward]:
    modules = [mutable._modules[mutable.names[index]] for index in decision]
    gone = [index for index, module in zip(decision, modules, strict=True) if module is None]
    if gone:
        raise DecisionError(
            f"candidate {gone[0]} of {mutable.key!r} was removed by a fixed architecture", where=mutable.name
        )
    return modules  # type: ignore[return-value]  # modules are callables, and None was refused above


def _hard_layers(mutable: LayerChoice, decision: Decision) -> Forward:
    reduction = mutable.reduction
    chosen = _chosen(mutable, decision)
    if len(chosen) == 1 and reduction != "none":
        return chosen[0]
    names = [mutable.names[index] for index in decision]
    calls = mutable.sharing.calls(dict(zip(names, chosen, strict=True)))

    def run(*args: object, **kwargs: object) -> Any:
        outputs = [call(*args, **kwargs) for call in calls]
        if reduction != "none" and any(isinstance(output, (tuple, list, Mapping)) for output in outputs):
            hint = "choose one of them, or use reduction 'none'"
            raise _unmixed(mutable, names, [shapes_of(output) for output in outputs], hint)
        return reduce_hard(outputs, reduction)

    return run


def _hard_inputs(decision: Decision, reduction: str) -> Forward:
    if len(decision) == 1 and reduction != "none":
        return operator.itemgetter(decision[0])

    def run(inputs: Sequence[Tensor]) -> Any:
        return reduce_hard([inputs[index] for index in decision], reduction)

    return run


def soft_plan(mutable: LayerChoice | InputChoice, values: Sequence[float], mask: Tensor) -> Plan:
    """Run the candidates of ``mutable`` whose weight is not zero, and weight them.

    Args:
        mutable: where.
        values: the weights as Python numbers.
        mask: the same as a tensor ``[len(values)]`` on the model's device; gradients flow through it.
    """
    kept = [index for index, value in enumerate(values) if value != 0]
    return Plan(soft_run(mutable, kept, lambda: mask), mask)


def soft_run(
    mutable: LayerChoice | InputChoice,
    kept: Sequence[int],
    weights: Callable[[], Tensor],
    wrap: Callable[[int, Forward], Forward] = lambda index, candidate: candidate,
    hint: Callable[[], str] = lambda: "let a mutator choose one of them",
) -> Forward:
    """Run the candidates ``kept`` of ``mutable``, and weight them.

    Args:
        mutable: where.
        kept: their indices.
        weights: called in each forward pass; ``[W]``, W > max(kept): one weight a candidate. Gradients flow into it.
        wrap: makes, of the index of a candidate and the candidate, what is called in its place.
        hint: what to do if the outputs cannot be mixed, for the error of that forward pass (``UserCodeError``).

    Outputs that are nestings of tensors, such as output and state of an LSTM, are mixed element by element.
    A candidate that is known to give zero is not run, if another one says what shape its zeros have.
    """
    reduction = mutable.reduction
    count = len(kept)
    if isinstance(mutable, InputChoice):

        def choose(inputs: Sequence[Tensor]) -> Any:
            return reduce_soft([inputs[index] for index in kept], weights(), kept, reduction, count)

        return choose
    modules = _chosen(mutable, kept)
    if reduction in ("sum", "mean"):
        flowing = [(index, module) for index, module in zip(kept, modules, strict=True) if not is_zero(module)]
        if flowing:
            kept, modules = [index for index, _ in flowing], [module for _, module in flowing]
    wrapped = {mutable.names[index]: wrap(index, module) for index, module in zip(kept, modules, strict=True)}
    calls = mutable.sharing.calls(wrapped)

    def run(*args: object, **kwargs: object) -> Any:
        outputs: list[Any] = []
        try:
            outputs.extend(call(*args, **kwargs) for call in calls)
        except Exception as error:
            add_note(error, f"with {mutable.key}={list(wrapped)[len(outputs)]}")
            raise
        reduce = reduce_soft if not outputs or isinstance(outputs[0], Tensor) else reduce_elements
        try:
            return reduce(outputs, weights(), kept, reduction, count)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            shown = [shapes_of(output) for output in outputs]
            if isinstance(error, torch.OutOfMemoryError) or (reduce is reduce_soft and len(set(shown)) < 2):
                raise
            raise _unmixed(mutable, list(wrapped), shown, hint()) from error

    return run


def _unmixed(mutable: LayerChoice, names: Sequence[str], shown: Sequence[str], hint: str) -> UserCodeError:
    """The error of candidates whose outputs cannot be mixed, each with what it gives."""
    given = ", ".join(f"{name!r} gives {what}" for name, what in zip(names, shown, strict=True))
    return UserCodeError(
        f"the outputs of the candidates of {mutable.key!r} cannot be mixed: {given}", where=mutable.name, hint=hint
    )


def shapes_of(output: object) -> str:
    """The shape of an output, ``[N, C]``; of a nesting, ``([N, C], [1, N, C])``."""
    if isinstance(output, Tensor):
        return str(list(output.shape))
    if isinstance(output, (list, tuple)):
        return f"({', '.join(map(shapes_of, output))})"
    if isinstance(output, Mapping):
        return f"{{{', '.join(f'{name}: {shapes_of(one)}' for name, one in output.items())}}}"
    return type(output).__name__


def is_zero(candidate: Any) -> bool:
    """Return true if a candidate says that its output is always zero, by NNI's method ``is_zero_layer``."""
    says = getattr(candidate, "is_zero_layer", None)
    return callable(says) and bool(says())
