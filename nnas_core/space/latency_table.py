"""Latencies of candidates: a table from a file, checked against its schema and a search space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nnas_core import schema
from nnas_core.errors import InputError
from nnas_core.files import read_json, source_name
from nnas_core.space.choice import natural_order
from nnas_core.space.search_space import SearchSpace

__all__ = [
    "LATENCY_FORMAT",
    "Latencies",
    "Milliseconds",
    "latency_problems",
    "milliseconds_of",
    "read_latencies",
    "read_milliseconds",
]

LATENCY_FORMAT = "nnas.latency-table/1"

_MILLISECONDS = {"s": Fraction(1000), "ms": Fraction(1), "us": Fraction(1, 1000), "ns": Fraction(1, 10**6)}

Latencies = Mapping[str, Mapping[str, float] | Sequence[float]]
"""key -> candidate's name -> latency, 0 or more; or key -> latencies in the order of the candidates.

The second form prices inputs apart that have one name, as those without a tag have.
"""


def read_latencies(table: str | Path | Latencies, space: SearchSpace) -> dict[str, list[float]]:
    """Returns the latencies of all candidates, key by key, in their order; 0 for inputs that ``table`` does not have.

    Args:
        table: a file (``-``: standard input) of the schema ``latency-table``, or what stands in it as ``latencies``.
        space: whose keys and candidates it must have. An input choice, or some of its inputs, may be absent.

    Raises:
        InputError: no such file, not of its schema, or not of this space; every problem is listed.
    """
    if isinstance(table, Mapping):
        document: Any = {"format": LATENCY_FORMAT, "unit": "ms", "latencies": table}
        return _checked(document, space, "latency_table")[0]
    return _checked(read_json(table), space, source_name(table))[0]


@dataclass(frozen=True)
class Milliseconds:
    """A table in milliseconds, whatever unit it has.

    Attributes:
        candidates: latencies of all candidates, key by key, in their order.
        fixed: what every architecture takes besides.
    """

    candidates: Mapping[str, Sequence[Fraction]]
    fixed: Fraction = Fraction(0)


def read_milliseconds(table: str | Path, space: SearchSpace) -> Milliseconds:
    """Returns what a table says in milliseconds; else as ``read_latencies``.

    Raises:
        InputError: see there.
    """
    return milliseconds_of(read_json(table), space, source_name(table))


def milliseconds_of(document: Any, space: SearchSpace, where: str) -> Milliseconds:
    """Returns what ``read_milliseconds`` does, of a document that is read already.

    Args:
        document: of the schema ``latency-table``.
        space: whose keys and candidates it must have.
        where: it comes from, for errors.

    Raises:
        InputError: it is not of its schema, or not of this space; every problem is listed.
    """
    rows, unit = _checked(document, space, where)
    scale = _MILLISECONDS[unit]
    return Milliseconds(
        {key: [Fraction(repr(value)) * scale for value in row] for key, row in rows.items()},
        Fraction(repr(float(document.get("fixed", 0)))) * scale,
    )


def _checked(document: Any, space: SearchSpace, where: str) -> tuple[dict[str, list[float]], str]:
    schema.check("latency-table", document, where)
    found = latency_problems(document, space)
    if found:
        raise InputError(
            "the latency table is not one of this model",
            where=where,
            problems=found,
            hint="`nnas ss-gen MODEL` prints the keys and candidates that are needed",
        )
    rows = {choice.key: document["latencies"].get(choice.key, {}) for choice in space}
    return {choice.key: _in_order(rows[choice.key], choice.candidates) for choice in space}, str(document["unit"])


def _in_order(row: Mapping[str, float] | Sequence[float], candidates: Sequence[str]) -> list[float]:
    if isinstance(row, Mapping):
        return [float(row.get(name, 0.0)) for name in candidates]
    return [float(value) for value in row]


def latency_problems(document: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """Lists what does not fit ``space`` in a document that its schema has passed, one line a key or candidate."""
    latencies: Latencies = document["latencies"]
    choices = {choice.key: choice for choice in space}
    problems = [] if _is_finite(document.get("fixed", 0)) else ["fixed: is too large a number"]
    problems += [f"{key}: no key of the model" for key in sorted(set(latencies) - set(choices), key=natural_order)]
    for key, choice in choices.items():
        row = latencies.get(key)
        if row is None:
            if choice.kind == "layer_choice":
                problems.append(f"{key}: missing, with the candidates {', '.join(map(repr, choice.candidates))}")
            continue
        if isinstance(row, Mapping):
            problems += [
                f"{key}: {name!r} is no candidate; there are {', '.join(map(repr, choice.candidates))}"
                for name in row
                if name not in choice.candidates
            ]
            if choice.kind == "layer_choice":
                problems += [f"{key}: no latency for {name!r}" for name in choice.candidates if name not in row]
            priced = [(repr(name), value) for name, value in row.items() if name in choice.candidates]
        else:
            count = len(choice.candidates)
            if len(row) != count:
                problems.append(f"{key}: a list of {len(row)} latencies for {count} candidates")
            priced = [(f"candidate {index}", value) for index, value in enumerate(row)]
        problems += [
            f"{key}: the latency of {name} is too large a number" for name, value in priced if not _is_finite(value)
        ]
    return problems


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        return False
