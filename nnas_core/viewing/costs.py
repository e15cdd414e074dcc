"""What candidates cost, from the files that ``nnas profile`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict, cast

from nnas_core import schema
from nnas_core.errors import InputError
from nnas_core.files import read_json, source_name
from nnas_core.space.latency_table import LATENCY_FORMAT, milliseconds_of
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.view import ViewedCost

__all__ = ["read_costs"]


class _Candidate(TypedDict):
    """An entry of the table of candidates in a report of ``nnas profile``."""

    key: str
    candidate: str
    parameters: int
    macs: int | None
    output: list[int] | None


def read_costs(paths: tuple[str, ...], space: SearchSpace) -> dict[str, list[ViewedCost]]:
    """The costs of candidates, those of all files together.

    Args:
        paths: of reports of ``nnas profile``, or of latency tables.
        space: what they must be of.

    Raises:
        InputError: one is neither, or of another space.
    """
    found = {choice.key: [ViewedCost()] * len(choice.candidates) for choice in space}
    for path in paths:
        document = read_json(path)
        tag = document.get("format") if isinstance(document, dict) else None
        if tag == LATENCY_FORMAT:
            rows = milliseconds_of(document, space, source_name(path)).candidates
            for key in document["latencies"]:  # of others nothing is measured
                found[key] = [
                    replace(old, latency_ms=float(new)) for old, new in zip(found[key], rows[key], strict=True)
                ]
        elif isinstance(document, dict) and schema.kind_of(document) == "profile-report":
            schema.check("profile-report", document, source_name(path))
            _add(found, document, space, source_name(path))
        else:
            raise InputError(
                "is neither a report of a profile nor a latency table",
                where=source_name(path),
                hint="`nnas profile MODEL` writes one with `output`, or with `latency_table`",
            )
    return found if paths else {}


def _add(found: dict[str, list[ViewedCost]], document: Mapping[str, object], space: SearchSpace, where: str) -> None:
    problems = []
    for one in cast("list[_Candidate]", document["candidates"]):
        key, name = one["key"], one["candidate"]
        if key not in space or name not in space[key].positions:
            problems.append(f"{key}: {name}: no candidate of the search space")
            continue
        place = space[key].positions[name]
        output = None if one["output"] is None else tuple(one["output"])
        found[key][place] = replace(found[key][place], parameters=one["parameters"], macs=one["macs"], output=output)
    if problems:
        raise InputError("the profile is not one of this search space", where=where, problems=problems)
