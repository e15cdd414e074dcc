"""Errors of a user's model say what was decided when they happened: ``with a=1, b=conv5``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from nnas_core.space.choice import Choice, Decision

if TYPE_CHECKING:
    from nnas_core.mutables.mutator import BaseMutator

__all__ = ["add_note", "naming", "text_of"]

_MOST = 12


def text_of(choices: Mapping[str, Choice], decisions: Mapping[str, Decision]) -> str:
    """``a=1, b=conv5``: by name for candidates of a LayerChoice, by index for inputs; of many keys, the first."""
    parts = []
    for key, decision in list(decisions.items())[:_MOST]:
        choice = choices[key]
        names = [choice.candidates[one] if choice.kind == "layer_choice" else str(one) for one in decision]
        parts.append(f"{key}={names[0] if len(names) == 1 else '[' + ', '.join(names) + ']'}")
    more = len(decisions) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")


def add_note(error: BaseException, note: str) -> None:
    """Let an error carry a line, as ``BaseException.add_note`` does from Python 3.11 on; it stands in tracebacks."""
    notes = getattr(error, "__notes__", [])
    if note not in notes:
        error.__notes__ = [*notes, note]


@contextmanager
def naming(mutator: BaseMutator | None) -> Iterator[None]:
    """Add to an error of the block what ``mutator`` has decided, if that is one hard architecture."""
    try:
        yield
    except Exception as error:
        if mutator is not None and mutator.is_bound:
            masks = mutator.binding.decision
            if masks and all(mask.dtype == torch.bool for mask in masks.values()):
                decided = {key: tuple(mask.nonzero().flatten().tolist()) for key, mask in masks.items()}
                add_note(error, f"with {text_of(mutator.space.choices, decided)}")
        raise
