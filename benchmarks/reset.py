"""Row 5: one reset of a mutator, against one call of ``torch.randint`` a mutable."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from harness import Line, compare, ratios, shown
from nets import Tiny, supernet

from nnas_core import RandomMutator

MUTABLES = 1000


def row_5(rounds: int) -> Iterator[Line]:
    """How many times quicker the reset is."""
    mutator = RandomMutator(Tiny(supernet, depth=MUTABLES))

    def randint() -> None:
        for _ in range(MUTABLES):
            torch.randint(4, (1,))

    seconds = compare(lambda number: {"nnas": mutator.reset, "randint": randint}, rounds)
    what = f"reset of {MUTABLES:,} mutables against as many calls of torch.randint"
    yield Line(5, what, "x", 30.0, ratios(seconds, "randint", "nnas"), at_least=True, note=shown(seconds))
