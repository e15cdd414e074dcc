"""Tuners see an architecture as a code: the number of the decision at each key, in the space's order.

Codes are plain tuples of integers: quick to draw, to change and to remember, also with a thousand keys.
"""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from nnas_core.errors import NnasWarning
from nnas_core.files import finite
from nnas_core.space.choice import Choice, Decision, Parameter
from nnas_core.space.search_space import SearchSpace

__all__ = ["Code", "Codes", "below", "shuffled"]

Code = tuple[int, ...]

_INT64 = 2**63


def below(rng: np.random.Generator, limit: int) -> int:
    """Returns an integer drawn uniformly from ``0 <= n < limit``, of any size."""
    if limit < _INT64:
        return int(rng.integers(limit))
    bits = (limit - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes((bits + 7) // 8), "little") & ((1 << bits) - 1)
        if drawn < limit:
            return drawn


def shuffled(rng: np.random.Generator, count: int) -> Iterator[int]:
    """Returns every ``0 <= n < count`` once, in a random order that costs only what is taken of it."""
    moved: dict[int, int] = {}  # the shuffle of Fisher and Yates on a list of which only what changed exists
    for last in range(count - 1, -1, -1):
        place = below(rng, last + 1)
        drawn = moved.get(place, place)
        moved[place] = moved.pop(last, last)
        yield drawn


class Codes:
    """All codes of one search space.

    Args:
        space: its choices give the codes their meaning.

    Attributes:
        space: as given.
        size: the number of codes, exact.
        sizes: the number of decisions at each key.
        degrees: the number of neighbours that differ at each key, the same for every code.
        degree: the number of all neighbours.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.size = space.size
        self._choices: tuple[Choice, ...] = tuple(space)
        self.sizes = tuple(choice.size for choice in self._choices)
        self._limits = np.array([min(size, _INT64 - 1) for size in self.sizes], dtype=np.int64)
        self._huge = [place for place, size in enumerate(self.sizes) if size >= _INT64]
        self.degrees = tuple(choice.degree for choice in self._choices)
        self._ends = list(itertools.accumulate(self.degrees))
        self.degree = self._ends[-1] if self._ends else 0
        self._free = [place for place, size in enumerate(self.sizes) if size > 1]

    def sample(self, rng: np.random.Generator) -> Code:
        """Returns a code drawn uniformly."""
        drawn: list[int] = rng.integers(self._limits).tolist()
        for place in self._huge:
            drawn[place] = below(rng, self.sizes[place])
        return tuple(drawn)

    def mutate(self, code: Code, rng: np.random.Generator) -> Code:
        """``code`` with another decision at one key; key and decision are drawn uniformly.

        Keys with a single decision are never drawn; where there are no others the code comes back as it is.
        """
        if not self._free:
            return code
        place = self._free[int(rng.integers(len(self._free)))]
        drawn = below(rng, self.sizes[place] - 1)
        drawn += drawn >= code[place]  # all but the present one, equally likely
        return (*code[:place], drawn, *code[place + 1 :])

    def neighbour(self, code: Code, index: int) -> Code:
        """Neighbour number ``index`` of ``code``, ``0 <= index < degree``: the smallest step at one key.

        ``Choice.neighbour`` says which steps are the smallest; those at the first key come first.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= index < self.degree:
            raise IndexError(f"neighbour {index} of {self.degree}")
        place = bisect.bisect_right(self._ends, index)
        step = index - (self._ends[place - 1] if place else 0)
        return (*code[:place], _neighbour(self._choices[place], code[place], step), *code[place + 1 :])

    def all(self) -> itertools.product[Code]:
        """Returns every code, the last key varying fastest."""
        return itertools.product(*map(range, self.sizes))

    def parameters(self, code: Code) -> dict[str, Parameter]:
        """Returns the parameters of a trial, newly built."""
        return {
            choice.key: choice.parameter((number,) if choice.n_chosen == 1 else choice.decision(number))
            for choice, number in zip(self._choices, code, strict=True)
        }

    def decisions(self, code: Code) -> dict[str, Decision]:
        """Returns the chosen indices by key."""
        return {
            choice.key: (number,) if choice.n_chosen == 1 else choice.decision(number)
            for choice, number in zip(self._choices, code, strict=True)
        }

    def code(self, decisions: Mapping[str, Decision]) -> Code:
        """Returns the code of valid decisions: the inverse of ``decisions``."""
        return tuple(choice.number(decisions[choice.key]) for choice in self._choices)

    def read(self, parameters: Mapping[str, Parameter]) -> Code:
        """Returns the code of parameters that were proposed before; use ``parse`` for those of strangers."""
        return tuple(choice.number(_indices(parameters[choice.key])) for choice in self._choices)

    def parse(self, document: object) -> Code:
        """Returns the code of an architecture in any form.

        Raises:
            ArchitectureError: it does not fit the space.
        """
        architecture = self.space.parse(document)
        self.space.validate(architecture)
        return self.read(architecture.parameters())

    def trials(self, data: Iterable[Mapping[str, object]]) -> list[tuple[Code, float | None]]:
        """Code and value of trials of elsewhere, as ``Tuner.import_data`` gets them.

        A value that is no finite number is None, and is warned about.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        read = []
        for entry in data:
            value = finite(entry.get("value"))
            if value is None:
                warnings.warn(
                    f"imported value {entry.get('value')!r} is not a finite number: the trial only counts as known",
                    NnasWarning,
                    stacklevel=3,  # where import_data was called
                )
            read.append((self.parse(entry["parameter"]), value))
        return read


def _indices(parameter: Parameter) -> Decision:
    """Returns the decision that a parameter is."""
    index = parameter["_idx"]
    return tuple(sorted(index)) if isinstance(index, list | tuple) else (index,)


def _neighbour(choice: Choice, number: int, index: int) -> int:
    """Returns the number of neighbour ``index`` of decision ``number``; of most choices it is known at once."""
    if choice.n_chosen is None:
        return number ^ 1 << index
    if choice.n_chosen == 1:
        return index + (index >= number)
    return choice.number(choice.neighbour(choice.decision(number), index))
