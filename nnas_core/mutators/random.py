"""Sample every architecture with equal probability: a single path a step, as the supernets of SPOS are trained.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
arXiv:1904.00420 (section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn as nn
from numpy.typing import NDArray
from torch import Tensor

from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import Binding, Decided, Route, per_binding
from nnas_core.mutables.choices import AnyChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.plans import hard_mask
from nnas_core.space.choice import Choice, Decision

__all__ = ["RandomMutator"]


class RandomMutator(Mutator):
    """Uniform sampling: one candidate of a LayerChoice, a subset of an InputChoice (each equally likely).

    All random numbers of a reset come from one call, and a decision that takes one candidate is stored without
    making a tensor, so a reset of 1,000 mutables costs about as much as 20 calls of ``torch.randint``.

    Args:
        model: to be bound.
        generator: source of randomness, on the CPU; torch's default generator if None.
    """

    derives = True
    draws_uniformly = True
    samples_within = True

    def __init__(self, model: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__(model)
        self.generator = generator

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask."""
        single_path = self._single_path if self.region is None else None
        return self.hard(self._decided()) if single_path is None else single_path.draw(self.generator)

    def sample_final(self) -> Mapping[str, Tensor]:
        """Another sample; a uniform distribution has no best architecture."""
        return self.hard(self._decided())

    def _decided(self) -> dict[str, Decision]:
        """A draw within the constraints of the search, each equally likely."""
        return self._draw() if self.region is None else self.draw_within(self._draw)

    def _draw(self) -> dict[str, Decision]:
        choices = self.binding.choices
        count = sum(len(mutable) for mutable in choices.values())
        numbers = iter(torch.rand(count, generator=self.generator, dtype=torch.float64).tolist())
        return {
            key: _decide(mutable.choice, [next(numbers) for _ in range(len(mutable))])
            for key, mutable in choices.items()
        }

    @per_binding
    def _single_path(self) -> _SinglePath | None:
        """How to decide everything with one draw; None where a mutable takes more than one candidate or a mask."""
        direct, indirect = self.binding.routes
        choices = self.binding.choices
        possible = all(mutable.choice.n_chosen == 1 for mutable in choices.values()) and not any(indirect.values())
        return _SinglePath(choices, direct) if possible and direct else None


def _decide(choice: Choice, numbers: list[float]) -> Decision:
    """A uniform decision from one uniform number a candidate."""
    if choice.n_chosen is None:
        return tuple(index for index, number in enumerate(numbers) if number < 0.5)
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return tuple(sorted(order[: choice.n_chosen]))


_FEW = 64
"""Choices for which a loop in Python is quicker: each operation on arrays comes cold after the kernels of a network."""


class _SinglePath:
    """The LayerChoices of a model, flat, for a draw of one candidate each.

    Small arrays are quicker in numpy than in torch, and it can look up all candidates in one call.
    """

    def __init__(self, choices: Mapping[str, AnyChoice], direct: Mapping[str, Sequence[Route]]) -> None:
        self.choices = choices
        self.rows = {key: number for number, key in enumerate(choices)}
        groups = list(direct.values())
        # of each LayerChoice the row of its key, how many candidates it has, and what they are called by
        self._few = [(row, float(len(runs)), runs) for row, group in enumerate(groups) for _, runs in group]
        flat = [run for *_, runs in self._few for run in runs]
        # fromiter never looks into a candidate, which may well be a sequence of modules
        self._runs = np.fromiter(flat, dtype=object, count=len(flat))
        counts = [len(runs) for *_, runs in self._few]
        self._starts = np.cumsum([0, *counts[:-1]])
        # float64: in float32 a number just below 1 times a count above 512 rounds up to the count
        self.sizes = np.array([len(group[0][1]) for group in groups], dtype=np.float64)
        self._drawn = torch.empty(len(groups), dtype=torch.float64, device="cpu")
        self._numbers = self._drawn.numpy()  # the same memory
        shares_keys = len(self._few) > len(groups)
        self._spread = np.array([row for row, *_ in self._few]) if shares_keys else None

    def draw(self, generator: torch.Generator | None) -> _Path:
        """One position a key."""
        drawn = self._drawn.uniform_(generator=generator)
        few: list[float] | None = drawn.tolist() if len(self._few) <= _FEW else None
        return _Path(self, self._numbers.copy() if few is None else few)

    def calls(self, numbers: Sequence[float] | NDArray[np.float64]) -> list[Forward]:
        """What the LayerChoices are called by where those numbers, one a key, were drawn."""
        if not isinstance(numbers, np.ndarray):
            return [runs[int(numbers[row] * count)] for row, count, runs in self._few]
        positions = (numbers * self.sizes).astype(np.int64)
        spread = positions if self._spread is None else positions[self._spread]
        found: list[Forward] = self._runs[self._starts + spread].tolist()
        return found


class _Path(Decided):
    """One draw.

    Args:
        single_path: it is of.
        numbers: from 0 to 1, one a key: the candidate is where it lies among all of the key.
    """

    def __init__(self, single_path: _SinglePath, numbers: Sequence[float] | NDArray[np.float64]) -> None:
        super().__init__(single_path.choices)
        self._single_path = single_path
        self._numbers = numbers

    def install(self, binding: Binding) -> bool:
        binding.calls[:] = self._single_path.calls(self._numbers)
        return True

    def mask(self, key: str) -> Tensor:
        row = self._single_path.rows[key]
        position = int(self._numbers[row] * self._single_path.sizes[row])
        return hard_mask((position,), len(self._choices[key]), torch.device("cpu"))
