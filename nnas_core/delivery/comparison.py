"""Is it the same network? Its outputs are compared with those of the supernet, on batches of several sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.errors import NoResultError
from nnas_core.mutables.nested import changed, copied, tensors
from nnas_core.mutables.untouched import untouched

__all__ = ["SIZES", "TOLERANCE", "Sample", "require_equal", "require_near", "run"]

SIZES = (2, 3, 1)
"""Samples of the batches that a network is tried on: programs are traced with the first, and hold for all."""

TOLERANCE = 1e-5
"""Relative and absolute, of what another runtime computes."""


@dataclass(frozen=True)
class Sample:
    """A batch, and what the supernet makes of it.

    Attributes:
        args, kwargs: of the forward pass.
        output: tensors, nested or not.
    """

    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object


@contextmanager
def _settled(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients, with the kernels that a traced program has too, and equal random numbers."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with untouched(network), random_state.seeded(0), torch.no_grad():
        network.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def run(network: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
    """The output of a network in evaluation mode; its inputs are copies, which it may change in place."""
    with _settled(network):
        return network(*copied(args), **copied(dict(kwargs)))


def require_equal(network: nn.Module, samples: list[Sample], what: str) -> None:
    """Refuse a network whose outputs are not those of the supernet, to the bit.

    Args:
        network: takes what the supernet takes.
        samples: to compare on.
        what: its name in the error.

    Raises:
        NoResultError: they differ.
    """
    for sample in samples:
        found = run(network, sample.args, sample.kwargs)
        _require(sample.output, found, what, _same_bits, "to the bit")


def require_near(found: object, expected: object, what: str) -> None:
    """Refuse outputs that differ from those of the supernet by more than ``TOLERANCE``.

    Raises:
        NoResultError: they do.
    """
    _require(expected, found, what, _is_near, f"within {TOLERANCE}")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num()) and _equal_nans(one, other)


def _equal_nans(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan())


def _is_near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _compared(output: object) -> list[Tensor]:
    """The tensors of an output; those in fields of dataclasses too."""

    def plain(one: object) -> object:
        if isinstance(one, type) or not dataclasses.is_dataclass(one):
            return one
        return [changed(getattr(one, field.name), plain) for field in dataclasses.fields(one)]

    return list(tensors(changed(output, plain)))


def _require(expected: object, found: object, what: str, alike: Callable[[Tensor, Tensor], bool], how: str) -> None:
    theirs, ours = _compared(expected), _compared(found)
    if not theirs:
        raise NoResultError(
            f"the network returns no tensor, but {type(expected).__name__}: there is nothing to compare",
            hint="let forward() return tensors, in lists, tuples, dictionaries or dataclasses",
        )
    if len(theirs) != len(ours) or any(one.shape != two.shape for one, two in zip(theirs, ours, strict=True)):
        shapes = [[list(one.shape) for one in side] for side in (ours, theirs)]
        raise NoResultError(f"{what} has outputs of the shapes {shapes[0]}, the supernet of {shapes[1]}")
    for one, two in zip(theirs, ours, strict=True):
        if not alike(one, two):
            gap = (one.double() - two.double()).abs().max().item()
            raise NoResultError(
                f"the outputs of {what} are not those of the supernet {how}: they differ by up to {gap:.3g}",
                hint="look for what the forward pass does otherwise when it is traced or repeated",
            )
