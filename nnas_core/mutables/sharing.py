"""Candidates that run on the same arguments, although some of them change their input in place.

``nn.Sequential(nn.ReLU(inplace=True), ...)`` beside ``nn.Identity()``: where both run, the second one would be given
what the first one left. Such a candidate gets copies of its own. Which ones need them is found in the first batch, by
the version counters of tensors; from then on all others are called as if there were nothing to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nnas_core.mutables.base import Forward
from nnas_core.mutables.nested import changed, tensors

__all__ = ["Sharing"]


class Sharing:
    """What is known of the candidates of one LayerChoice: which of them change in place what they are given."""

    def __init__(self) -> None:
        self._harmless: set[str] = set()
        self._in_place: set[str] = set()

    def calls(self, candidates: Mapping[str, Forward]) -> list[Forward]:
        """The calls of candidates that are to run on the same arguments, in their order.

        Args:
            candidates: what is called, by the name of the candidate. One alone shares its arguments with nobody.

        Returns:
            A list that changes once: a candidate that was found harmless stands in it as it was given.
        """
        if len(candidates) < 2:
            return list(candidates.values())
        calls: list[Forward] = []
        for position, (name, candidate) in enumerate(candidates.items()):
            calls.append(self._call(name, candidate, calls, position))
        return calls

    def call(self, name: str, candidate: Forward) -> Forward:
        """What can be called in place of one candidate, whose arguments somebody else needs afterwards."""
        return self._call(name, candidate, [candidate], 0)

    def _call(self, name: str, candidate: Forward, calls: list[Forward], position: int) -> Forward:
        if name in self._harmless:
            return candidate
        copying = _with_own_input(candidate)
        if name in self._in_place:
            return copying

        def finding_out(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():  # the compiler leaves out copies that nothing changes
                return copying(*args, **kwargs)
            args, kwargs = changed((args, kwargs), _lazy_copy)
            given = [one for one in tensors((args, kwargs)) if not one.is_inference()]  # those count no versions
            versions = [one._version for one in given]
            output = candidate(*args, **kwargs)
            if versions != [one._version for one in given]:
                self._in_place.add(name)
                calls[position] = copying
            elif torch.is_grad_enabled() and given:  # where nothing is trained, a dropout in place changes nothing
                self._harmless.add(name)
                calls[position] = candidate
            return output

        return finding_out


def _with_own_input(candidate: Forward) -> Forward:
    def copying(*args: object, **kwargs: object) -> object:
        args, kwargs = changed((args, kwargs), _copy)
        return candidate(*args, **kwargs)

    return copying


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _lazy_copy(value: object) -> object:
    """A copy whose memory is that of the original until one of the two is written to, where torch can do that."""
    if not isinstance(value, Tensor):
        return value
    try:
        return torch._lazy_clone(value)
    except RuntimeError:  # of memory that is not torch's own, or of a kind that has no such copy
        return value.clone()
