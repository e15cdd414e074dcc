"""An architecture is one decision at every key; this file is the only place that converts its forms.

    masks        {"KEY": [false, true]}                  one entry a candidate; numbers are weights
    names        {"KEY": "pool"}                         a list unless exactly one is chosen
    indices      {"KEY": [1]}
    parameters   {"KEY": {"_value": "pool", "_idx": 1}}  what tuners return
    document     {"format": "nnas.architecture/1", "architecture": masks, ...}

Reading takes any of them, key by key, and everything that NNI 1.x wrote.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from nnas_core import schema
from nnas_core.errors import ArchitectureError, NnasWarning
from nnas_core.space.choice import Choice, Decision, Parameter, natural_order

__all__ = ["DOCUMENT_FORMAT", "FORMS", "Architecture", "Mask", "Weights", "document_of"]

DOCUMENT_FORMAT = "nnas.architecture/1"
FORMS = ("masks", "names", "indices", "parameters")

Mask = tuple[bool, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Weights:
    """A soft decision: one finite number a candidate."""

    values: tuple[float, ...]


class Architecture:
    """All decisions of a search space; immutable, compared by its decisions.

    Args:
        choices: what is decided, by key; its order is the order of every form.
        decisions: for each key the sorted indices of the chosen candidates, or ``Weights``.
    """

    __slots__ = ("_choices", "_decisions", "_fits", "_is_hard")

    def __init__(self, choices: Mapping[str, Choice], decisions: Mapping[str, Decision | Weights]) -> None:
        self._choices = choices
        self._decisions = decisions
        self._fits: Mapping[str, Choice] | None = None  # whose rules it was found to keep
        self._is_hard: bool | None = None

    @classmethod
    def parse(
        cls, document: object, choices: Mapping[str, Choice], *, strict: bool = True, where: str | None = None
    ) -> Architecture:
        """Reads any form of architecture against the choices it must decide.

        Tensors and arrays count as lists. A bare list of integers means indices, also when it is as long
        as the candidates and holds only 0 and 1 (a warning says so).

        Args:
            document: one of the forms above.
            choices: what must be decided, by key (``SearchSpace.choices``).
            strict: refuse keys that the space does not have.
            where: the file that it is from, for errors.

        Raises:
            ArchitectureError: keys are missing or unexpected, or a value cannot be read; all are listed.
        """
        if isinstance(document, Mapping) and document.get("format") == DOCUMENT_FORMAT:
            schema.check("architecture-document", document, where or "architecture document")
            document = document["architecture"]
        if not isinstance(document, Mapping):
            raise ArchitectureError(f"an architecture is an object of keys, not {_kind(document)}", where=where)
        problems = []
        unexpected = sorted(set(document) - set(choices), key=lambda key: natural_order(str(key)))
        missing = sorted(set(choices) - set(document), key=natural_order)
        if unexpected and strict:
            problems.append(f"unexpected keys found: {', '.join(map(repr, unexpected))}")
        if missing:
            problems.append(f"missing keys: {', '.join(map(repr, missing))}")
        decisions: dict[str, Decision | Weights] = {}
        for key, choice in choices.items():
            if key in document:
                try:
                    decisions[key] = _read_decision(choice, document[key])
                except _Unreadable as error:
                    problems.append(f"{key}: {error}")
        if problems:
            raise ArchitectureError(
                "the architecture does not fit the search space",
                where=where,
                problems=problems,
                hint="compare it with the output of `nnas ss-gen`",
            )
        return cls(choices, decisions)

    # ---- the forms

    @property
    def is_hard(self) -> bool:
        """Returns true if every decision chooses candidates, false if any weighs them."""
        if self._is_hard is None:
            self._is_hard = Weights not in set(map(type, self._decisions.values()))
        return self._is_hard

    def masks(self) -> dict[str, list[bool] | list[float]]:
        """Returns one entry a candidate: booleans for a hard decision, numbers for weights."""
        return {key: self._mask(key) for key in self._decisions}

    def _mask(self, key: str) -> list[bool] | list[float]:
        decision = self._decisions[key]
        if isinstance(decision, Weights):
            return list(decision.values)
        chosen = set(decision)
        return [index in chosen for index in range(len(self._choices[key].candidates))]

    def indices(self) -> dict[str, Decision]:
        """Returns the chosen indices by key.

        Raises:
            ArchitectureError: a decision weighs its candidates.
        """
        if self.is_hard:  # nothing to look at key by key
            return cast("dict[str, Decision]", dict(self._decisions))
        return {key: self._hard(key) for key in self._decisions}

    def _hard(self, key: str) -> Decision:
        decision = self._decisions[key]
        if isinstance(decision, Weights):
            raise ArchitectureError(
                "the decision weighs its candidates, so it has no names or indices",
                where=key,
                hint="export it as masks",
            )
        return decision

    def names(self) -> dict[str, str | int | list[str | int]]:
        """Candidates' names: a string where exactly one is chosen, else a list; indices where names repeat."""
        result: dict[str, str | int | list[str | int]] = {}
        for key, decision in self.indices().items():
            candidates = self._choices[key].candidates
            unique = len(set(candidates)) == len(candidates)
            chosen: list[str | int] = [candidates[index] if unique else index for index in decision]
            result[key] = chosen[0] if len(chosen) == 1 else chosen
        return result

    def parameters(self) -> dict[str, Parameter]:
        """Returns the parameters of one trial: ``_value`` and ``_idx``, lists for input choices.

        Raises:
            ArchitectureError: a decision weighs its candidates, or one of a layer choice takes not one of them.
        """
        result: dict[str, Parameter] = {}
        for key, decision in self.indices().items():
            choice = self._choices[key]
            if choice.kind == "layer_choice" and len(decision) != 1:
                raise ArchitectureError(
                    f"a layer choice of a trial takes one candidate, this takes {len(decision)}",
                    where=key,
                    hint="export it as masks",
                )
            result[key] = choice.parameter(decision)
        return result

    def to_form(self, form: str) -> dict[str, object]:
        """Returns one of ``FORMS`` by name."""
        if form == "indices":
            return {key: list(decision) for key, decision in self.indices().items()}
        convert: dict[str, Callable[[], Mapping[str, object]]] = {
            "masks": self.masks,
            "names": self.names,
            "parameters": self.parameters,
        }
        return dict(convert[form]())

    @property
    def canonical(self) -> str:
        """Compact JSON that is equal exactly for equal architectures of one space."""
        form = [
            list(decision.values) if isinstance(decision, Weights) else decision
            for decision in (self._decisions[key] for key in self._choices)
        ]
        return json.dumps(form, separators=(",", ":"))

    @classmethod
    def from_canonical(cls, text: str, choices: Mapping[str, Choice]) -> Architecture:
        """Reads what ``canonical`` wrote for the same choices."""
        return cls(
            choices,
            {
                key: Weights(tuple(entry)) if any(isinstance(x, float) for x in entry) else tuple(entry)
                for key, entry in zip(choices, json.loads(text), strict=True)
            },
        )

    def replace(self, key: str, decision: Decision) -> Architecture:
        """Returns the same architecture with another decision at ``key``."""
        return Architecture(self._choices, {**self._decisions, key: decision})

    # ---- a mapping of key -> mask, compared by value

    def __getitem__(self, key: str) -> Mask:
        return tuple(self._mask(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._decisions)

    def __len__(self) -> int:
        return len(self._decisions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and dict(self._decisions) == dict(other._decisions)

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        return f"Architecture({self.names() if self.is_hard else self.masks()})"

    def problems(self, choices: Mapping[str, Choice]) -> list[str]:
        """Everything in which this architecture breaks the rules of ``choices``, one line each."""
        if self._fits is choices:
            return []
        found = [f"{key}: not in the search space" for key in self if key not in choices]
        for key, choice in choices.items():
            if key not in self._decisions:
                found.append(f"{key}: not decided")
                continue
            decision = self._decisions[key]
            count = len(choice.candidates)
            if choice.n_chosen == 1 and type(decision) is tuple and len(decision) == 1 and 0 <= decision[0] < count:
                continue  # nearly all of them, and 100 architectures a second are checked
            if isinstance(decision, Weights):
                if len(decision.values) != count:
                    found.append(f"{key}: {len(decision.values)} weights for {count} candidates")
            elif decision and not (min(decision) >= 0 and max(decision) < count):
                found.append(f"{key}: index {max(decision)} of {count} candidates")
            elif choice.kind == "input_choice" and choice.n_chosen not in (None, len(decision)):
                found.append(f"{key}: chooses {len(decision)} candidates, n_chosen is {choice.n_chosen}")
        if not found:
            self._fits = choices
        return found


def document_of(architecture: Architecture, fingerprint: str, **parts: Mapping[str, object]) -> dict[str, object]:
    """Returns the architecture document.

    Args:
        architecture: what was found.
        fingerprint: of its search space.
        parts: ``metrics``, ``cost``, ``provenance``; left out where empty.
    """
    document: dict[str, object] = {
        "format": DOCUMENT_FORMAT,
        "architecture": architecture.masks(),
        "space": {"fingerprint": fingerprint},
    }
    document.update({name: dict(part) for name, part in parts.items() if part})
    return document


# ---- reading one decision


class _Unreadable(ValueError):
    """A value that is no decision; the message goes into the list of problems."""


def _kind(value: object) -> str:
    names = {bool: "a boolean", str: "a text", int: "a number", float: "a number", list: "a list"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def _read_decision(choice: Choice, value: object) -> Decision | Weights:
    if hasattr(value, "tolist"):  # tensors and arrays, without importing torch
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Mapping):
        return _from_parameters(choice, value)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return (_index_of(choice, value),)
    if not isinstance(value, list):
        raise _Unreadable(f"{value!r} is no decision; {_expected(choice)}")
    return _from_list(choice, [one.item() if hasattr(one, "item") else one for one in value])


def _from_list(choice: Choice, value: list[object]) -> Decision | Weights:
    count = len(choice.candidates)
    if not value:
        return ()
    if all(isinstance(one, bool) for one in value):
        if len(value) != count:
            raise _Unreadable(f"a mask of {len(value)} entries for {count} candidates; {_expected(choice)}")
        return tuple(index for index, chosen in enumerate(value) if chosen)
    numbers = [one for one in value if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(numbers) == len(value) and any(isinstance(one, float) for one in numbers):
        return _weights(choice, numbers)
    if len(numbers) == len(value) == count > 1 and set(numbers) <= {0, 1}:
        chosen = sorted({int(one) for one in numbers})
        warnings.warn(
            f"{choice.key}: {value} is read as the indices {chosen}; write booleans for a mask",
            NnasWarning,
            stacklevel=2,
        )
        return tuple(chosen)
    indices = [_index_of(choice, one) for one in value]
    if len(set(indices)) != len(indices):
        raise _Unreadable(f"{value!r} chooses a candidate twice")
    return tuple(sorted(indices))


def _weights(choice: Choice, value: Sequence[float]) -> Weights:
    if len(value) != len(choice.candidates):
        raise _Unreadable(f"{len(value)} weights for {len(choice.candidates)} candidates")
    if not all(math.isfinite(one) for one in value):
        raise _Unreadable(f"the weights {list(value)!r} are not all finite")
    return Weights(tuple(float(one) for one in value))


def _index_of(choice: Choice, value: object) -> int:
    if isinstance(value, str):
        if value in choice.positions:
            return choice.positions[value]
        raise _Unreadable(f"no candidate is named {value!r}; {_expected(choice)}")
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(choice.candidates):
            return value
        raise _Unreadable(f"index {value} is out of range; {_expected(choice)}")
    raise _Unreadable(f"{value!r} is neither a candidate's name nor an index; {_expected(choice)}")


def _expected(choice: Choice) -> str:
    count = len(choice.candidates)
    shown = ", ".join(map(repr, choice.candidates[:10])) + (", ..." if count > 10 else "")
    return f"expected a name among {shown}, an index below {count}, or a mask of {count}"


def _from_parameters(choice: Choice, value: Mapping[str, object]) -> Decision:
    position = value.get("_idx", value.get("_idex"))  # the second is how NNI's documentation spelt it once
    if position is None or "_value" not in value:
        raise _Unreadable("an object needs both _value and _idx")
    names = value["_value"]
    if choice.kind == "layer_choice":
        names, position = [names], [position]
    if not isinstance(names, list) or not isinstance(position, list) or len(names) != len(position):
        raise _Unreadable("_value and _idx must be lists of one length")
    for name, index in zip(names, position, strict=True):
        if choice.candidates[_index_of(choice, index)] != name or isinstance(index, str):
            raise _Unreadable(f"_idx {index!r} is {choice.candidates[_index_of(choice, index)]!r}, not {name!r}")
    if len(set(position)) != len(position):
        raise _Unreadable(f"_idx {position} chooses a candidate twice")
    if choice.n_chosen is not None and len(position) != choice.n_chosen:
        raise _Unreadable(f"chooses {len(position)} candidates, n_chosen is {choice.n_chosen}")
    return tuple(sorted(position))
