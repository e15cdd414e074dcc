"""A choice is what can be decided at one key: which candidates there are and how many are taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np

from nnas_core.space.sizes import size_in_words

__all__ = ["Choice", "ChoiceDocument", "Decision", "InputsDocument", "Parameter", "natural_order"]

Decision = tuple[int, ...]
"""A hard decision: the sorted indices of the chosen candidates."""


class InputsDocument(TypedDict):
    """The inputs of an input choice in a search-space file."""

    candidates: list[str]
    n_chosen: int | None


class ChoiceDocument(TypedDict):
    """An entry of a search-space file: names for a layer choice, names and how many of them for an input choice."""

    _type: str
    _value: list[str] | InputsDocument


class Parameter(TypedDict):
    """A decision as a trial gets it: one name and its index for a layer choice, lists of both for an input choice."""

    _value: str | list[str]
    _idx: int | list[int]


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that puts ``LayerChoice2`` before ``LayerChoice10``."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(part), part) if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]


class _Blocks:
    """Counts subsets in the combinatorial number system, in lexicographic order, one candidate after the other.

    Each count comes of the one before: a binomial of thousands costs thousands of times as much as the step to it.

    Attributes:
        size: how many subsets choose the next candidate, given what was chosen before.
    """

    def __init__(self, candidates: int, chosen: int) -> None:
        self._candidates, self._chosen = candidates, chosen
        self.size = math.comb(candidates - 1, chosen - 1) if chosen > 0 and candidates > 0 else 0

    def go_on(self, taken: bool) -> None:
        """Goes to the next candidate; this one was taken, or not."""
        rest = self._candidates - 1
        if rest > 0:
            self.size = self.size * (self._chosen - 1 if taken else rest - self._chosen + 1) // rest
        self._candidates, self._chosen = rest, self._chosen - taken


@dataclass(frozen=True)
class Choice:
    """A choice at one key, among candidates.

    Attributes:
        key: the identity of the decision.
        kind: ``"layer_choice"`` or ``"input_choice"``.
        candidates: the candidates' names, in the order of their indices.
        n_chosen: how many candidates a decision takes; None: any number, none included.
    """

    key: str
    kind: str
    candidates: tuple[str, ...]
    n_chosen: int | None

    @property
    def size(self) -> int:
        """The number of different decisions, exact."""
        count = len(self.candidates)
        return 2**count if self.n_chosen is None else math.comb(count, self.n_chosen)

    def decision(self, index: int) -> Decision:
        """Decision number ``index``, ``0 <= index < size``; a bijection."""
        if not 0 <= index < self.size:
            raise IndexError(f"decision {size_in_words(index)} of {size_in_words(self.size)} at {self.key!r}")
        if self.n_chosen == 1:
            return (index,)
        if self.n_chosen is None:
            return tuple(i for i in range(len(self.candidates)) if index >> i & 1)
        chosen: list[int] = []
        blocks = _Blocks(len(self.candidates), self.n_chosen)
        for candidate in range(len(self.candidates)):
            taken = index < blocks.size and len(chosen) < self.n_chosen
            if taken:
                chosen.append(candidate)
            else:
                index -= blocks.size
            blocks.go_on(taken)
        return tuple(chosen)

    def number(self, decision: Decision) -> int:
        """Returns the number of a valid decision: the inverse of ``decision``."""
        if self.n_chosen == 1:
            return decision[0]
        if self.n_chosen is None:
            return sum(1 << index for index in decision)
        number, chosen = 0, set(decision)
        blocks = _Blocks(len(self.candidates), self.n_chosen)
        for candidate in range(decision[-1] + 1 if decision else 0):
            number += 0 if candidate in chosen else blocks.size
            blocks.go_on(candidate in chosen)
        return number

    def sample(self, rng: np.random.Generator) -> Decision:
        """Returns a decision drawn uniformly; among subsets, each subset is equally likely."""
        count = len(self.candidates)
        if self.n_chosen == 1:
            return (int(rng.integers(count)),)
        if self.n_chosen is None:
            return tuple(np.flatnonzero(rng.integers(0, 2, count)).tolist())
        return tuple(sorted(rng.choice(count, self.n_chosen, replace=False).tolist()))

    def sample_other(self, rng: np.random.Generator, than: Decision) -> Decision:
        """Returns a decision drawn uniformly among all but ``than``; the choice must have at least two."""
        while (drawn := self.sample(rng)) == than:
            pass
        return drawn

    @property
    def degree(self) -> int:
        """The number of neighbours that every decision has."""
        count = len(self.candidates)
        return count if self.n_chosen is None else self.n_chosen * (count - self.n_chosen)

    def neighbour(self, decision: Decision, index: int) -> Decision:
        """Neighbour number ``index`` of a decision, ``0 <= index < degree``: the smallest step away from it.

        Where any number of candidates may be chosen one of them enters or leaves; elsewhere one that is chosen makes
        room for one that is not. So the neighbours of a choice of one candidate are all its other decisions, and a
        choice of any of 100 candidates has 100 neighbours of its 2^100 - 1 other decisions.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= index < self.degree:
            raise IndexError(f"neighbour {index} of {self.degree} at {self.key!r}")
        chosen = set(decision)
        if self.n_chosen is None:
            return tuple(sorted(chosen ^ {index}))
        others = [candidate for candidate in range(len(self.candidates)) if candidate not in chosen]
        leaves, enters = divmod(index, len(others))
        return tuple(sorted({*decision, others[enters]} - {decision[leaves]}))

    def neighbours(self, decision: Decision) -> Iterator[Decision]:
        """Returns every neighbour of a decision; of one of a layer choice that chooses several, all of one."""
        if self.n_chosen == 1:
            return ((index,) for index in range(len(self.candidates)) if (index,) != decision)
        return (self.neighbour(decision, index) for index in range(self.degree))

    @cached_property
    def positions(self) -> dict[str, int]:
        """The index of each name; of a name that several candidates have, the first one's."""
        return {name: index for index, name in reversed(list(enumerate(self.candidates)))}

    @property
    def turns(self) -> int:
        """How many decisions it takes to choose every candidate."""
        return 1 if not self.n_chosen else math.ceil(len(self.candidates) / self.n_chosen)

    def in_turn(self, turn: int) -> Decision:
        """A decision whose candidates follow on those of the turn before; all candidates if any number may be chosen.

        Args:
            turn: 0 or more; after ``turns`` of them it begins again.
        """
        count = len(self.candidates)
        if self.n_chosen is None:
            return tuple(range(count))
        first = turn % self.turns * self.n_chosen
        return tuple(sorted((first + one) % count for one in range(self.n_chosen)))

    def decisions(self) -> Iterator[Decision]:
        """Returns every decision, in the order of their numbers."""
        return (self.decision(index) for index in range(self.size))

    def to_json(self) -> ChoiceDocument:
        """Returns the entry of a search-space file."""
        if self.kind == "layer_choice":
            return {"_type": "layer_choice", "_value": list(self.candidates)}
        return {"_type": "input_choice", "_value": {"candidates": list(self.candidates), "n_chosen": self.n_chosen}}

    @classmethod
    def from_json(cls, key: str, entry: ChoiceDocument) -> Choice:
        """Reads an entry that its schema has passed."""
        value = entry["_value"]
        if isinstance(value, list):
            return cls(key, "layer_choice", tuple(value), 1)
        return cls(key, "input_choice", tuple(value["candidates"]), value["n_chosen"])

    def parameter(self, decision: Decision) -> Parameter:
        """Returns what a trial gets of a valid decision."""
        names = [self.candidates[index] for index in decision]
        if self.kind == "layer_choice":
            return {"_value": names[0], "_idx": decision[0]}
        return {"_value": names, "_idx": list(decision)}

    def __str__(self) -> str:
        shown = ", ".join(self.candidates[:8]) + (", ..." if len(self.candidates) > 8 else "")
        count = "" if self.kind == "layer_choice" else f" with n_chosen {self.n_chosen}"
        return f"{self.kind} of [{shown}]{count}"
