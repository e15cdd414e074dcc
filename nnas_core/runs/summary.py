"""What is known of a run without its checkpoint, which takes torch to read: from its configuration and its events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from nnas_core.errors import InputError, NnasError
from nnas_core.files import finite, finite_only, read_json, read_json_lines
from nnas_core.runs.folder import is_locked
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace

__all__ = ["RunSummary", "find_runs", "read_architecture", "read_run", "runs_in"]

_COMMANDS = ("search", "retrain")

_SKIPPED = frozenset({"__pycache__", "node_modules"})
"""Folders in which nobody has runs, besides those whose names begin with a dot."""


@dataclass(frozen=True)
class RunSummary:
    """What a run folder says of its run.

    Attributes:
        path: of the folder.
        command: ``"search"`` or ``"retrain"``; None where that cannot be read.
        state: ``"running"``, ``"finished"``, ``"interrupted"`` or ``"damaged"``.
        mutator: of a search.
        model: the reference of the model.
        epochs: how many are done.
        wanted: how many it is to have; None where that cannot be read.
        metrics: of the last epoch on the validation data, or of the end on ``measured_on``.
        measured_on: ``"validation"`` or ``"test"``; None where nothing is measured yet.
        began, changed: when the run began, and the time of its last event, UTC, ISO 8601; None without events.
        options: those that it was started with.
        problem: what is wrong with a damaged one.
    """

    path: str
    command: str | None
    state: str
    mutator: str | None = None
    model: str | None = None
    epochs: int = 0
    wanted: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured_on: str | None = None
    began: str | None = None
    changed: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    problem: str | None = None

    def to_json(self) -> dict[str, object]:
        """Returns everything but the options."""
        return {
            "run": self.path,
            "command": self.command,
            "state": self.state,
            "mutator": self.mutator,
            "model": self.model,
            "epochs": {"done": self.epochs, "wanted": self.wanted},
            "metrics": dict(self.metrics),
            "measured_on": self.measured_on,
            "began": self.began,
            "changed": self.changed,
            "problem": self.problem,
        }


def find_runs(folder: str | Path, unreadable: Callable[[str], None]) -> Iterator[RunSummary]:
    """Looks for run folders in a folder and below it; links are followed, each folder is looked at once.

    Args:
        folder: where to begin.
        unreadable: told, in one line each, which folders cannot be read.

    Raises:
        InputError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError("no such folder", where=str(folder), hint="check the path")
    seen: set[tuple[int, int]] = set()
    left = [Path(folder)]
    while left:
        here = left.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            below = [entry.name for entry in found if _may_hold_runs(entry)]
        except OSError as error:
            unreadable(f"{here}: cannot be read: {error.strerror or error}")
            continue
        left += [here / name for name in reversed(below)]
        run = _run_of(here, {entry.name for entry in found})
        if run is not None:
            yield run


def runs_in(folder: str | Path) -> list[RunSummary]:
    """Returns the runs whose folders are in ``folder``, by name; those that cannot be read are left out."""
    try:
        inner = sorted(one for one in Path(folder).iterdir() if (one / "config.json").is_file())
    except OSError:
        return []
    found = (_run_of(one, {"config.json"}) for one in inner)
    return [run for run in found if run is not None]


def _may_hold_runs(entry: os.DirEntry[str]) -> bool:
    try:
        return not entry.name.startswith(".") and entry.name not in _SKIPPED and entry.is_dir()
    except OSError:  # a link to itself
        return False


def _run_of(folder: Path, names: set[str]) -> RunSummary | None:
    """Returns the run in a folder; None where a file of that name belongs to something else."""
    if "config.json" not in names:
        return None
    try:
        return read_run(folder)
    except NnasError as error:
        if names.isdisjoint({"events.jsonl", "checkpoint.pt"}):
            return None
        return RunSummary(str(folder), None, "damaged", problem=str(error))


def read_run(folder: str | Path) -> RunSummary:
    """Returns what a run folder says.

    Raises:
        InputError: it holds no run, or its configuration is damaged.
        EnvironmentFailure: it may not be read.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError("holds no run of `nnas search` or `nnas retrain`", where=str(folder), hint="check the path")
    document = read_json(path / "config.json")
    command = next((one for one in _COMMANDS if isinstance(document, dict) and one in document), None)
    options = document[command] if command is not None else None
    if command is None or not isinstance(options, dict):
        raise InputError("is no configuration of `nnas search` or `nnas retrain`", where=str(path / "config.json"))
    events = read_json_lines(path / "events.jsonl") if (path / "events.jsonl").is_file() else []
    return _summary(path, command, options, events)


def _summary(path: Path, command: str, options: Mapping[str, object], events: list[dict[str, object]]) -> RunSummary:
    numbered = [(_count(event.get("epoch")), event) for event in events if event.get("event") == "epoch"]
    epochs, last = max(numbered, key=lambda one: one[0] or 0, default=(None, {}))
    ended = next((event for event in reversed(events) if event.get("event") != "derived"), {})
    tested = _metrics(ended.get("test")) if ended.get("event") == "finished" else {}
    metrics = tested or _metrics(last.get("valid"))
    state = "running" if is_locked(path) else "finished" if ended.get("event") == "finished" else "interrupted"
    return RunSummary(
        path=str(path),
        command=command,
        state=state,
        mutator=_text(options.get("mutator")) if command == "search" else None,
        model=_text(options.get("model")),
        epochs=epochs or 0,
        wanted=_count(options.get("epochs")),
        metrics=metrics,
        measured_on=(_text(ended.get("tested_on")) if tested else "validation") if metrics else None,
        began=_time(events[0]) if events else None,
        changed=_time(events[-1]) if events else None,
        options=options,
    )


def read_architecture(folder: str | Path) -> Architecture | None:
    """Returns the final architecture of a run so far; None where it has none yet.

    Raises:
        InputError: its files are damaged.
    """
    path = Path(folder)
    space, found = path / "search_space.json", path / "architecture.json"
    if not (space.is_file() and found.is_file()):
        return None
    return SearchSpace.from_json(read_json(space), str(space)).parse(read_json(found), str(found))


def _count(value: object) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9
    return value if is_one and isinstance(value, int) else None


def _metrics(value: object) -> dict[str, float]:
    return finite_only(value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(event: Mapping[str, object]) -> str | None:
    seconds = finite(event.get("time"))
    try:
        return None if seconds is None else datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()
    except (OverflowError, OSError, ValueError):  # beyond all calendars
        return None
