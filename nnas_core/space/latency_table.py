"""Latencies of candidates: a table from a file, checked against its schema and a search space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnas_core import schema
from nnas_core.errors import InputError
from nnas_core.files import read_json, source_name
from nnas_core.space.choice import natural_order
from nnas_core.space.search_space import SearchSpace

__all__ = ["LATENCY_FORMAT", "Latencies", "latency_problems", "read_latencies"]

LATENCY_FORMAT = "nnas.latency-table/1"

Latencies = Mapping[str, Mapping[str, float]]
"""key -> candidate's name -> latency, 0 or more."""


def read_latencies(table: str | Path | Latencies, space: SearchSpace) -> dict[str, dict[str, float]]:
    """Returns the latency of every candidate of ``space`` that has one in ``table``.

    Args:
        table: a file (``-``: standard input) of the schema ``latency-table``, or what stands in it as ``latencies``.
        space: whose keys and candidates it must have. An input choice, or some of its inputs, may be absent.

    Raises:
        InputError: no such file, not of its schema, or not of this space; every problem is listed.
    """
    if isinstance(table, Mapping):
        where = "latency_table"
        document: Any = {"format": LATENCY_FORMAT, "unit": "ms", "latencies": table}
    else:
        where = source_name(table)
        document = read_json(table)
    schema.check("latency-table", document, where)
    found = latency_problems(document, space)
    if found:
        raise InputError(
            "the latency table is not one of this model",
            where=where,
            problems=found,
            hint="`nnas ss-gen MODEL` prints the keys and candidates that are needed",
        )
    return {key: {name: float(value) for name, value in row.items()} for key, row in document["latencies"].items()}


def latency_problems(document: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """Lists what does not fit ``space`` in a document that its schema has passed, one line a key or candidate."""
    latencies: Latencies = document["latencies"]
    choices = {choice.key: choice for choice in space}
    problems = [f"{key}: no key of the model" for key in sorted(set(latencies) - set(choices), key=natural_order)]
    for key, choice in choices.items():
        row = latencies.get(key)
        if row is None:
            if choice.kind == "layer_choice":
                problems.append(f"{key}: missing, with the candidates {', '.join(map(repr, choice.candidates))}")
            continue
        for name, value in row.items():
            if name not in choice.candidates:
                problems.append(f"{key}: {name!r} is no candidate; there are {', '.join(map(repr, choice.candidates))}")
            elif not _is_finite(value):
                problems.append(f"{key}: the latency of {name!r} is too large a number")
        if choice.kind == "layer_choice":
            problems += [f"{key}: no latency for {name!r}" for name in choice.candidates if name not in row]
    return problems


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        return False
