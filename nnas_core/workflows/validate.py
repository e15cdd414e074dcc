"""Files are recognised and checked: which kind, does it keep its schema, does it fit a search space."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnas_core import schema
from nnas_core._listing import listed
from nnas_core.errors import InputError, NnasError
from nnas_core.files import parse_json, read_bytes
from nnas_core.space.architecture import Architecture
from nnas_core.space.latency_table import latency_problems
from nnas_core.space.search_space import SearchSpace

__all__ = ["FileCheck", "validate_file"]

_MOST_PROBLEMS = 1000
"""In the lines of a file; nobody reads on, and the lines may be millions."""

_ZIP = b"PK\x03\x04"
_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class FileCheck:
    """The findings about one file.

    Attributes:
        file: its path.
        kind: the name of a schema, ``checkpoint``, ``weights``, ``study-database``, ``events``, or ``unknown``.
        problems: one line each, of many the first; empty: valid.
        cost: of the architecture in it, by name, where that was asked for.
        document: what is in it, if it is JSON.
    """

    file: str
    kind: str
    problems: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    document: object = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", listed(self.problems))

    def to_json(self) -> dict[str, object]:
        """As an entry of the report."""
        found = {"file": self.file, "kind": self.kind, "valid": not self.problems, "problems": self.problems}
        return {**found, "cost": self.cost} if self.cost else found


def validate_file(file: str, space: SearchSpace | None = None, kind: str | None = None) -> FileCheck:
    """Check a file.

    Args:
        file: path; ``-`` is standard input.
        space: an architecture, parameters, a latency table or a checkpoint must fit it.
        kind: how to check a JSON file, or each line of a JSONL file; None recognises it by what it looks like.

    Raises:
        UsageError: no such kind.
    """
    if kind is not None:
        schema.check_kind(kind)
    found = "unknown"
    try:
        content = read_bytes(file)
        if content.startswith(_ZIP):
            found = "checkpoint"
            found, problems = _torch_file(file, space)
            return FileCheck(file, found, problems if kind is None else [_no_json(kind)])
        if content.startswith(_SQLITE):
            found = "study-database"
            return FileCheck(file, found, _database_problems(content) if kind is None else [_no_json(kind)])
        if file.endswith(".jsonl"):
            found = kind or "events"
            return FileCheck(file, found, _line_problems(kind or "event", content, space))
        document = parse_json(content, file)
        found = kind or _recognise(document)
        return FileCheck(file, found, _problems(found, document, space), document=document)
    except NnasError as error:
        return FileCheck(file, found, [_placed(error, file), *error.problems])


def _placed(error: NnasError, file: str) -> str:
    """The message, with the line and column that it is about."""
    place = (error.where or "").removeprefix(file).lstrip(":")
    return f"{place}: {error.message}" if place else error.message


def _recognise(document: object) -> str:
    if isinstance(document, list) and document and all(isinstance(one, Mapping) for one in document):
        return "results" if "parameter" in document[0] else "unknown"
    if not isinstance(document, Mapping):
        return "unknown"
    if isinstance(document.get("format"), str):
        return schema.kind_of(document) or "unknown"
    values = [value for value in document.values() if isinstance(value, Mapping)]
    if values and len(values) == len(document):
        if any("_type" in value for value in values):
            return "search-space"
        if any("_value" in value for value in values):
            return "parameters"
        if set(document) <= {"search", "retrain"}:
            return "config"
    return "architecture"


def _problems(kind: str, document: Any, space: SearchSpace | None) -> list[str]:
    if kind == "unknown":
        tag = document.get("format") if isinstance(document, Mapping) else None
        is_ours = isinstance(tag, str) and tag.startswith("nnas.")
        return [f"$.format: no kind of file is tagged {tag!r}" if is_ours else "$: no kind of file that nnas writes"]
    if kind == "architecture" and space is not None:
        return _misfits(document, space)  # names and indices have no schema without their space
    found = schema.problems(kind, document)
    if found:
        return found
    if kind == "search-space":
        SearchSpace.from_json(document)
    elif kind in ("parameters", "architecture-document") and space is not None:
        return _misfits(document, space)
    elif kind == "results" and space is not None:
        return [
            f"$[{place}].parameter: {line}"
            for place, entry in enumerate(document)
            for line in _misfits(entry["parameter"], space)
        ]
    elif kind == "latency-table" and space is not None:
        return latency_problems(document, space)
    return []


def _misfits(document: object, space: SearchSpace) -> list[str]:
    try:
        architecture: Architecture = space.parse(document)
        space.validate(architecture)
    except InputError as error:
        return list(error.problems) or [error.message]
    return []


def _line_problems(kind: str, content: bytes, space: SearchSpace | None) -> list[str]:
    problems = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, "")
        except InputError as error:
            if number != len(lines):  # a torn last line is what a crash leaves
                problems.append(f"line {number}: {error.message}")
            continue
        problems += [f"line {number}: {problem}" for problem in _problems(kind, record, space)]
        if len(problems) >= _MOST_PROBLEMS:
            return listed(problems, and_more=True)
    return problems


def _no_json(kind: str) -> str:
    return f"is no JSON, and so not of the kind {kind!r}"


def _torch_file(file: str, space: SearchSpace | None) -> tuple[str, list[str]]:
    """Returns the kind, and the problems: a checkpoint has a header, weights are tensors by name."""
    if file == "-":
        raise InputError("a checkpoint or weights, which are not read from standard input: give the path of the file")
    # by name and only here: the kinds of files that need torch
    header, problems = importlib.import_module("nnas_core.runs.weights").examine(file)
    if header is None:
        return "weights", problems
    if space is None or "space" not in header:
        return "checkpoint", []
    theirs = SearchSpace.from_json(header["space"], file)
    return "checkpoint", space.differences(theirs, ("the space", "the checkpoint"))


def _database_problems(content: bytes) -> list[str]:
    """Opens a copy, as what is checked must stay as it is: an older one would be brought up to date."""
    from nnas_core.study.storage.store import StudyStore  # late: no other kind needs SQLAlchemy

    # what becomes of the copy is nobody's concern: its warnings are recorded, and left there
    with tempfile.TemporaryDirectory(prefix="nnas-") as folder, warnings.catch_warnings(record=True):
        copy = Path(folder) / "copy.db"
        copy.write_bytes(content)
        try:
            with StudyStore.open(f"sqlite:///{copy}", create=False, go_on=None) as store:
                for study in store.studies():
                    store.trials(study)
                    store.intermediates(study)
        except NnasError as error:
            return [error.message, *error.problems]
    return []
