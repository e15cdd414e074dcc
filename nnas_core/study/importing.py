"""Trials of elsewhere become trials of a study, which its tuner learns from.

Such a trial is one event in the stored order of the tuner's calls: where a trial of the study has two numbers,
for its proposal and for its result, this one has the same number twice. Replay hands it to ``Tuner.import_data``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from sqlalchemy import insert

from nnas_core import schema
from nnas_core.errors import ArchitectureError, InputError
from nnas_core.files import finite, finite_only, parse_json
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.administration import read_trials
from nnas_core.study.csv_results import is_csv, read_csv
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.leases import shut_out
from nnas_core.study.storage.records import StudyRecord, digest_of, worst_value
from nnas_core.study.storage.rows import Damage, sealed
from nnas_core.study.storage.tables import intermediates, trials
from nnas_core.study.storage.trial_writer import timestamp
from nnas_core.study.storage.tuner_log import next_numbers

__all__ = ["GivenResult", "ImportResult", "import_results", "read_file", "read_results"]


@dataclass(frozen=True)
class GivenResult:
    """A trial of elsewhere.

    Attributes:
        architecture: valid in the space of the study.
        value: finite.
        metrics, cost: what else was measured, finite.
        intermediate: what it reported on its way; None for what was not finite.
    """

    architecture: Architecture
    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    intermediate: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """Says what became of the trials of a file.

    Attributes:
        imported: trials of the study now.
        known: left out, the study has a trial of their architecture.
    """

    imported: int
    known: int


# ---- reading


def read_file(content: bytes, space: SearchSpace, where: str) -> tuple[list[GivenResult], int]:
    """Reads a file for ``read_results``: JSON, or the table that ``results_csv`` wrote.

    Raises:
        InputError: it is neither, or ``read_results`` refuses what is in it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""  # which is no table, and JSON says where it is wrong
    document = read_csv(text, space, where) if is_csv(text) else parse_json(content, where)
    return read_results(document, space, where)


def read_results(document: Any, space: SearchSpace, where: str) -> tuple[list[GivenResult], int]:
    """Reads what ``nnictl experiment export`` or ``nnas study export`` wrote, or the JSON of ``nnas study trials``.

    Args:
        document: a list of objects with ``parameter`` and ``value``, or an object with the list of ``trials``.
        space: of the study.
        where: the file, for errors.

    Returns:
        The trials that have a value, and the number of those that have none.

    Raises:
        InputError: another document, an architecture of another space, or a value that is not finite; all are listed.
    """
    if isinstance(document, Mapping) and isinstance(document.get("trials"), list):
        document = [_as_result(one) if isinstance(one, Mapping) else one for one in document["trials"]]
    schema.check("results", document, where)
    found: list[GivenResult] = []
    problems: list[str] = []
    without = 0
    for place, entry in enumerate(document):
        if entry["value"] is None:
            without += 1
            continue
        try:
            found.append(_read(entry, space))
        except ArchitectureError as error:
            problems += [f"$[{place}].parameter: {line}" for line in error.problems or [str(error.message)]]
        except _Unreadable as error:
            problems.append(f"$[{place}].{error}")
    if problems:
        raise InputError(
            "not results of this study's search space",
            where=where,
            problems=problems,
            hint="nothing was imported; the JSON document of `nnas study show` has the search space",
        )
    return found, without


def _as_result(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial document in the form of a result."""
    names = ("value", "metrics", "cost")
    kept = {name: trial[name] for name in names if name in trial}
    return {**kept, "parameter": trial["architecture"]} if "architecture" in trial else dict(trial)


class _Unreadable(ValueError):
    """Says where a result is wrong, and how."""


def _read(entry: Mapping[str, Any], space: SearchSpace) -> GivenResult:
    architecture = space.parse(entry["parameter"])
    space.validate(architecture)
    architecture.parameters()  # refuses what no trial can be: weights, several candidates of a layer choice
    given = _decoded(entry["value"], "value")
    metrics = dict(entry.get("metrics", {}))
    if isinstance(given, Mapping):  # a trial that reported several metrics, of which "default" ranks
        metrics = {**{name: one for name, one in given.items() if name != "default"}, **metrics}
        given = given.get("default")
    value = finite(given)
    if value is None:
        raise _Unreadable(f"value: {json.dumps(entry['value'])} is not a finite number")
    steps = [_decoded(one, "intermediate") for one in entry.get("intermediate", [])]
    for place, step in enumerate(steps):
        if isinstance(step, bool) or not isinstance(step, (int, float, NoneType)):
            raise _Unreadable(f"intermediate[{place}]: not a number")
    reported = tuple(map(finite, steps))
    return GivenResult(architecture, value, finite_only(metrics), finite_only(entry.get("cost", {})), reported)


def _decoded(value: object, name: str) -> object:
    """Returns a value that is JSON in a text, as NNI's are, once or twice."""
    for _ in range(2):
        if not isinstance(value, str):
            break
        text = value
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(f"{name}: the text {text[:80]!r} is not JSON") from error
    return value


# ---- storing


def import_results(database: Database, study: StudyRecord, results: list[GivenResult]) -> ImportResult:
    """Stores results as finished trials, all of them or none.

    Args:
        database: where the study is.
        study: which.
        results: from ``read_results``.

    Raises:
        EnvironmentFailure: somebody works on the study.
    """
    with database.write() as connection:
        shut_out(database, connection, study)
        damage = Damage(database.where)
        known = {row.digest for row in read_trials(connection, study, damage)}
        damage.refuse()
        rows, steps = _rows(study, results, known, *next_numbers(connection, database.where, study))
        if rows:
            connection.execute(insert(trials), [sealed(trials, row) for row in rows])
        if steps:
            connection.execute(insert(intermediates), [sealed(intermediates, step) for step in steps])
    return ImportResult(len(rows), len(results) - len(rows))


def _rows(
    study: StudyRecord, results: list[GivenResult], known: set[str], number: int, order: int
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    rows: list[dict[str, object]] = []
    steps: list[dict[str, object]] = []
    worst = worst_value(study.settings.optimize_mode)
    time = timestamp()
    for result in results:
        canonical = result.architecture.canonical
        digest = digest_of(canonical)
        if digest in known:
            continue
        known.add(digest)
        ours = {"study_id": study.id, "number": number + len(rows), "attempt": 0}
        reported = [worst if value is None else value for value in result.intermediate]
        steps += [{**ours, "sequence": place, "value": value} for place, value in enumerate(reported)]
        rows.append(
            {
                **ours,
                "state": "succeeded",
                "digest": digest,
                "architecture": canonical,
                "value": result.value,
                "metrics": dict(result.metrics),
                "cost": dict(result.cost),
                "finished": time,
                "proposed_order": order + len(rows),
                "told_order": order + len(rows),
            }
        )
    return rows, steps
