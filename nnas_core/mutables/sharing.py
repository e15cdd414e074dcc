"""Candidates that run on the same arguments, although some of them change their input in place.

``nn.Sequential(nn.ReLU(inplace=True), ...)`` beside ``nn.Identity()``: where both run, the second one would be given
what the first one left. Such a candidate gets copies of its own. Which ones need them is found before the first call
with gradients, by a trial on copies and the version counters of tensors; all others are called as if there were nothing
to find. So that a resumed training goes on to the bit, the first call itself is as all later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.mutables.base import Forward
from nnas_core.mutables.nested import changed, tensors
from nnas_core.mutables.untouched import own_buffers

__all__ = ["Sharing"]


class Sharing:
    """What is known of the candidates of one LayerChoice: which of them change in place what they are given.

    Args:
        choice: the LayerChoice.
    """

    def __init__(self, choice: nn.Module) -> None:
        self._choice = choice
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
            if not torch.is_grad_enabled():  # where nothing is trained, a dropout in place changes nothing
                args, kwargs = changed((args, kwargs), _lazy_copy)
                return candidate(*args, **kwargs)
            changes = self._changes(candidate, args, kwargs)
            if changes is None:
                return copying(*args, **kwargs)
            (self._in_place if changes else self._harmless).add(name)
            calls[position] = copying if changes else candidate
            return calls[position](*args, **kwargs)

        return finding_out

    def _changes(self, candidate: Forward, args: Any, kwargs: Any) -> bool | None:
        """Try a candidate on copies, and leave no trace: true if it changed them, None if it did not come to an end."""
        args, kwargs = changed((args, kwargs), _copy)
        given = list(tensors((args, kwargs)))
        versions = [one._version for one in given]
        with torch.no_grad(), random_state.untouched({}), own_buffers(self._choice):
            try:
                candidate(*args, **kwargs)
            except RuntimeError:  # perhaps for want of gradients; else the call itself says so
                return None
        return versions != [one._version for one in given]


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
