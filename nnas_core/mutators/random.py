"""Sample every architecture with equal probability: a single path a step, as the supernets of SPOS are trained.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
arXiv:1904.00420 (section 3.1).
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from numpy.typing import NDArray
from torch import Tensor

from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Direct, Mutator
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

    def __init__(self, model: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__(model)
        self._generator = generator

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask."""
        cpu = torch.device("cpu")
        return {key: hard_mask(decision, len(self._choices[key]), cpu) for key, decision in self._draw().items()}

    def sample_final(self) -> Mapping[str, Tensor]:
        """Another sample; a uniform distribution has no best architecture."""
        return self.sample_search()

    def reset(self) -> None:
        """Decide anew."""
        if type(self).sample_search is not RandomMutator.sample_search:
            super().reset()  # a subclass samples in its own way
            return
        self._require_bound()
        plan = self._single_path()
        if plan is None:
            self.decide(self._draw())
            return
        positions = plan.draw(self._generator)
        self._calls[:] = plan.pick(positions)
        self.__dict__["_current"] = _LazyDecisions(self._choices, positions)

    def _draw(self) -> dict[str, Decision]:
        count = sum(len(mutable) for mutable in self._choices.values())
        numbers = iter(torch.rand(count, generator=self._generator, dtype=torch.float64).tolist())
        return {
            key: _decide(mutable.choice, [next(numbers) for _ in range(len(mutable))])
            for key, mutable in self._choices.items()
        }

    def _single_path(self) -> _SinglePath | None:
        """How to decide everything with one draw; None where a mutable takes more than one candidate or a mask."""
        if "_single_path_cache" not in self.__dict__:
            direct, indirect = self._routes()
            possible = all(mutable.choice.n_chosen == 1 for mutable in self._choices.values())
            possible = possible and not any(indirect.values()) and bool(direct)
            self.__dict__["_single_path_cache"] = _SinglePath(direct) if possible else None
        plan: _SinglePath | None = self.__dict__["_single_path_cache"]
        return plan

    def candidates_changed(self, mutable: LayerChoice) -> None:
        super().candidates_changed(mutable)
        self.__dict__.pop("_single_path_cache", None)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_single_path_cache", None)
        return state


def _decide(choice: Choice, numbers: list[float]) -> Decision:
    """A uniform decision from one uniform number a candidate."""
    if choice.n_chosen is None:
        return tuple(index for index, number in enumerate(numbers) if number < 0.5)
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return tuple(sorted(order[: choice.n_chosen]))


class _SinglePath:
    """The LayerChoices of a model, flat, for a draw of one candidate each.

    Small arrays are quicker in numpy than in torch, and it can look up all candidates in one call.
    """

    def __init__(self, direct: Mapping[str, list[Direct]]) -> None:
        groups = list(direct.values())
        mutables = [(number, candidates) for number, group in enumerate(groups) for _, candidates in group]
        flat = [candidate for _, candidates in mutables for candidate in candidates]
        # fromiter never looks into a candidate, which may well be a sequence of modules
        self._candidates = np.fromiter(flat, dtype=object, count=len(flat))
        counts = [len(candidates) for _, candidates in mutables]
        self._starts = np.cumsum([0, *counts[:-1]])
        # float64: in float32 a number just below 1 times a count above 512 rounds up to the count
        self._sizes = np.array([len(group[0][1]) for group in groups], dtype=np.float64)
        self._drawn = torch.empty(len(groups), dtype=torch.float64, device="cpu")
        self._numbers = self._drawn.numpy()  # the same memory
        shares_keys = len(mutables) > len(groups)
        self._spread = np.array([number for number, _ in mutables]) if shares_keys else None

    def draw(self, generator: torch.Generator | None) -> NDArray[np.int64]:
        """One position a key ``[K]``."""
        self._drawn.uniform_(generator=generator)
        return (self._numbers * self._sizes).astype(np.int64)

    def pick(self, positions: NDArray[np.int64]) -> list[nn.Module]:
        """The candidates of all mutables, from one position a key."""
        spread = positions if self._spread is None else positions[self._spread]
        picked: list[nn.Module] = self._candidates[self._starts + spread].tolist()
        return picked


class _LazyDecisions(Mapping[str, Decision]):
    """The positions of a draw as decisions by key; made into Python numbers only if somebody looks."""

    __slots__ = ("_keys", "_positions")

    def __init__(self, keys: Mapping[str, Any], positions: NDArray[np.int64]) -> None:
        self._keys = keys
        self._positions = positions

    def __getitem__(self, key: str) -> Decision:
        return (int(self._positions[list(self._keys).index(key)]),)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> ItemsView[str, Decision]:
        positions = self._positions.tolist()
        return {key: (position,) for key, position in zip(self._keys, positions, strict=True)}.items()
