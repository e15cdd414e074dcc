"""A search space is the ordered set of all choices: every architecture that a model can become."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, cast

import numpy as np

from nnas_core import schema
from nnas_core.errors import ArchitectureError, InputError, SpaceError
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Choice, ChoiceDocument, Decision, natural_order
from nnas_core.space.sizes import size_in_words

__all__ = ["SearchSpace", "SearchSpaceDocument"]

SearchSpaceDocument: TypeAlias = dict[str, ChoiceDocument]
"""A search space as JSON: what can be decided, by key."""


class SearchSpace:
    """All choices of a model, in natural order of their keys whatever they were read from.

    Iterating gives ``Choice`` objects; ``space[key]`` and ``key in space`` look one up; ``len`` counts the keys.
    """

    def __init__(self, choices: Iterable[Choice]) -> None:
        self._choices = {choice.key: choice for choice in sorted(choices, key=lambda one: natural_order(one.key))}

    @classmethod
    def from_model(cls, model: object) -> SearchSpace:
        """Returns the search space of a module; building it on the meta device is enough.

        Raises:
            SpaceError: no mutables, or mutables that contradict each other (all problems are listed).
        """
        # By name and only here: whoever has a model has torch, and everybody else must not load it.
        choices = importlib.import_module("nnas_core.mutables.tree").read_choices(model)
        if not choices:
            raise SpaceError(
                f"{type(model).__name__} contains no mutables",
                hint="mark choices with LayerChoice or InputChoice in __init__ (in forward they are not found)",
            )
        return cls(choices)

    @classmethod
    def from_json(cls, document: object, where: str = "search space") -> SearchSpace:
        """Reads a search-space document.

        Raises:
            InputError: the document breaks its schema; every problem is listed with its JSON path.
        """
        schema.check("search-space", document, where)
        space = cls(Choice.from_json(key, entry) for key, entry in cast(SearchSpaceDocument, document).items())
        too_many = [
            f"$.{choice.key}._value.n_chosen: {choice.n_chosen} of {len(choice.candidates)} candidates cannot be chosen"
            for choice in sorted(space, key=lambda one: one.key)
            if (choice.n_chosen or 0) > len(choice.candidates)
        ]
        if too_many:
            raise InputError("not a valid search space", where=where, problems=too_many)
        return space

    def to_json(self) -> SearchSpaceDocument:
        """Returns the search-space document, the form that tuners receive."""
        return {choice.key: choice.to_json() for choice in self}

    def __iter__(self) -> Iterator[Choice]:
        return iter(self._choices.values())

    def __len__(self) -> int:
        return len(self._choices)

    def __getitem__(self, key: str) -> Choice:
        return self._choices[key]

    def __contains__(self, key: object) -> bool:
        return key in self._choices

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._choices == other._choices

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self)} keys, size {size_in_words(self.size)})"

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The choices by key, in natural order of the keys."""
        return self._choices

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in natural order."""
        return tuple(self._choices)

    @property
    def size(self) -> int:
        """The number of different architectures, exact."""
        return math.prod(choice.size for choice in self)

    @property
    def fingerprint(self) -> str:
        """``sha256:`` and the hash of the canonical JSON: equal for equal spaces, on every machine."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def parse(self, document: object, where: str | None = None) -> Architecture:
        """Reads an architecture in any form (see ``Architecture.parse``); ``where`` names its file in errors."""
        return Architecture.parse(document, self._choices, where=where)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Returns an architecture drawn uniformly."""
        return Architecture(self._choices, {choice.key: choice.sample(rng) for choice in self})

    def covering(self) -> Iterator[Architecture]:
        """Architectures that together choose every candidate, as few as possible; of any number of inputs, all."""
        for turn in range(max((choice.turns for choice in self), default=1)):
            yield Architecture(self._choices, {choice.key: choice.in_turn(turn) for choice in self})

    def at(self, index: int) -> Architecture:
        """Architecture number ``index``, ``0 <= index < size``; the last key varies fastest."""
        if not 0 <= index < self.size:
            raise IndexError(f"architecture {size_in_words(index)} of {size_in_words(self.size)}")
        decisions: dict[str, Decision] = {}
        for choice in reversed(self._choices.values()):
            index, number = divmod(index, choice.size)
            decisions[choice.key] = choice.decision(number)
        return Architecture(self._choices, {key: decisions[key] for key in self._choices})

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Returns every architecture that is the smallest step away from ``architecture``: at exactly one key.

        Where one candidate is chosen it is another one; where any number may be, one enters or leaves; where k of n
        are, one of the chosen makes room for another. So there are few of them however many decisions a key has: 100
        for a choice of any of 100 inputs. ``sample`` and ``Architecture.replace`` reach decisions farther away.
        """
        decisions = architecture.indices()
        for choice in self:
            for other in choice.neighbours(decisions[choice.key]):
                yield Architecture(self._choices, {**decisions, choice.key: other})

    def validate(self, architecture: Architecture) -> None:
        """Checks keys, lengths and the number of chosen candidates.

        Raises:
            ArchitectureError: with every problem listed.
        """
        problems = architecture.problems(self._choices)
        if problems:
            raise ArchitectureError("the architecture does not fit the search space", problems=problems)

    def differences(self, other: SearchSpace, names: tuple[str, str]) -> list[str]:
        """Returns one line a key that the two spaces do not have in common; empty for equal spaces."""
        lines = []
        for key in sorted(set(self.keys) | set(other.keys), key=natural_order):
            mine, theirs = self._choices.get(key), other._choices.get(key)
            if mine is None or theirs is None:
                lines.append(f"{key}: only in {names[0] if theirs is None else names[1]}")
            elif mine != theirs:
                lines.append(f"{key}: {mine} in {names[0]}, {theirs} in {names[1]}")
        return lines
