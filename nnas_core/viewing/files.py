"""Views of what lies in files: a search space, an architecture, a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnas_core.errors import InputError
from nnas_core.files import finite, finite_only, read_json, read_json_lines, source_name
from nnas_core.runs.summary import RunSummary, read_run
from nnas_core.space.architecture import DOCUMENT_FORMAT
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.space.sizes import size_in_words
from nnas_core.viewing.costs import read_costs
from nnas_core.viewing.view import Epoch, View

__all__ = ["size_facts", "view_file", "view_run"]

_MOST_EPOCHS = 10**9
"""No number from there on is that of an epoch."""


def view_file(path: str, space: str | None = None, costs: tuple[str, ...] = ()) -> View:
    """What a JSON file shows: a search space, or an architecture in any form.

    Args:
        path: of the file; ``-``: standard input.
        space: the file of the search space of an architecture; None: that beside it, or, for masks, one without
            names.
        costs: reports of profiles and latency tables.

    Raises:
        InputError: it is neither, or it does not fit.
    """
    document, where = read_json(path), source_name(path)
    if _is_space(document):
        if space is not None:
            raise InputError("is a search space itself", where=where, hint="leave out `space`")
        found = SearchSpace.from_json(document, where)
        return View("space", where, found, size_facts(found), costs=read_costs(costs, found))
    if isinstance(document, Mapping) and document.get("format") not in (None, DOCUMENT_FORMAT):
        raise InputError(
            "is no search space and no architecture",
            where=where,
            hint="give one of these, a run folder, or a study by `study`",
        )
    given = _space_of(document, path, space)
    architecture = given.parse(document, where)
    facts = [*size_facts(given), *_document_facts(document)]
    masks = architecture.masks()
    weights = None if architecture.is_hard else {key: [float(one) for one in mask] for key, mask in masks.items()}
    return View(
        "architecture",
        where,
        given,
        facts,
        architecture=architecture,
        weights=weights,
        meaning=None if weights is None else "weights of the architecture",
        costs=read_costs(costs, given),
    )


def _is_space(document: object) -> bool:
    return (
        isinstance(document, Mapping)
        and bool(document)
        and all(isinstance(one, Mapping) and "_type" in one for one in document.values())
    )


def size_facts(space: SearchSpace) -> list[tuple[str, str]]:
    """How many choices, candidates and architectures there are."""
    candidates = sum(len(choice.candidates) for choice in space)
    return [
        ("choices", f"{len(space):,}"),
        ("candidates", f"{candidates:,}"),
        ("architectures", size_in_words(space.size)),
    ]


def _document_facts(document: object) -> list[tuple[str, str]]:
    facts = []
    for part in ("metrics", "cost"):
        numbers = document.get(part) if isinstance(document, Mapping) else None
        if isinstance(numbers, Mapping):
            facts += [(name, f"{value:.6g}") for name, value in finite_only(numbers).items()]
    return facts


def _space_of(document: object, path: str, space: str | None) -> SearchSpace:
    """The space that is given, that beside the file, or one that masks tell."""
    beside = Path(path).parent / "search_space.json"
    if space is None and path != "-" and beside.is_file():
        space = str(beside)
    if space is not None:
        return SearchSpace.from_json(read_json(space), source_name(space))
    masks = document
    if isinstance(document, Mapping) and document.get("format") == DOCUMENT_FORMAT:
        masks = document.get("architecture")
    if isinstance(masks, Mapping) and masks and all(map(_is_mask, masks.values())):
        return SearchSpace(_nameless(str(key), mask) for key, mask in masks.items())
    raise InputError(
        "without its search space, only masks can be shown",
        where=source_name(path),
        hint="give the file of the search space with `space`, as `nnas ss-gen MODEL` prints it",
    )


def _nameless(key: str, mask: Sequence[object]) -> Choice:
    return Choice(key, "layer_choice", tuple(map(str, range(len(mask)))), 1 if sum(map(bool, mask)) == 1 else None)


def _is_mask(value: object) -> bool:
    """Return true for truth values or weights; whole numbers alone may be indices."""
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    return kinds <= {bool, int, float} and bool(kinds & {bool, float})


def view_run(folder: str, costs: tuple[str, ...] = ()) -> View:
    """What a run folder shows; files that it lacks are named.

    Raises:
        InputError: it holds no run, or one of its files is damaged.
    """
    run, path = read_run(folder), Path(folder)
    notes = []
    space = architecture = None
    if (path / "search_space.json").is_file():
        space = SearchSpace.from_json(read_json(path / "search_space.json"), str(path / "search_space.json"))
    elif run.command == "search":
        notes.append("search_space.json is missing: choices cannot be shown")
    if space is None and costs:
        raise InputError(
            "without search_space.json, there are no candidates that have costs", where=folder, hint="leave out `costs`"
        )
    if (path / "architecture.json").is_file() and space is not None:
        file = path / "architecture.json"
        architecture = space.parse(read_json(file), str(file))
    elif not (path / "architecture.json").is_file():
        notes.append("architecture.json is missing: nothing is shown as chosen")
    if (path / "events.jsonl").is_file():
        events = read_json_lines(path / "events.jsonl")
    else:
        events = []
        notes.append("events.jsonl is missing: there are no curves")
    epochs, odd = _epochs(events, space)
    if odd:
        notes.append(f"events.jsonl: decision weights of {odd} epochs do not fit the search space and are left out")
    last = next((epoch for epoch in reversed(epochs) if epoch.weights is not None), None)
    if run.command == "search" and epochs and last is None and not odd:
        notes.append(f"no decision weights are recorded: {run.mutator or 'the mutator'} learns none")
    return View(
        run.command or "search",
        folder,
        space,
        [*_run_facts(run), *(size_facts(space) if space is not None else [])],
        architecture=architecture,
        weights=None if last is None else last.weights,
        meaning=None if last is None else f"decision weights after epoch {last.number}",
        epochs=epochs,
        costs={} if space is None else read_costs(costs, space),
        notes=notes,
        running=run.state == "running",
    )


def _run_facts(run: RunSummary) -> list[tuple[str, str]]:
    facts = [("state", run.state), ("model", run.model), ("mutator", run.mutator)]
    facts.append(("epochs", f"{run.epochs} of {run.wanted}" if run.wanted else str(run.epochs)))
    facts += [(f"{run.measured_on} {name}", f"{value:.6g}") for name, value in run.metrics.items()]
    facts.append(("began", run.began))
    return [(name, value) for name, value in facts if value is not None]


def _epochs(events: Sequence[Mapping[str, object]], space: SearchSpace | None) -> tuple[list[Epoch], int]:
    """The epochs by number, the last line of each, and how many have weights that fit no key."""
    found: dict[int, Epoch] = {}
    odd = 0
    for event in events:
        number = event.get("epoch")
        if event.get("event") != "epoch" or not isinstance(number, int) or isinstance(number, bool):
            continue
        if not 0 < number < _MOST_EPOCHS:
            continue
        train, valid = event.get("train"), event.get("valid")
        given = event.get("decision_weights")
        weights = _weights(given, space) if isinstance(given, Mapping) and space is not None else None
        odd += given is not None and weights is None and space is not None
        found[number] = Epoch(
            number,
            finite_only(train) if isinstance(train, dict) else {},
            finite_only(valid) if isinstance(valid, dict) else {},
            weights,
        )
    return [found[number] for number in sorted(found)], odd


def _weights(given: Mapping[object, object], space: SearchSpace) -> dict[str, list[float]] | None:
    """The weights in a line of events; None if they do not fit the space."""
    rows: dict[str, list[float]] = {}
    for key, row in given.items():
        if not (isinstance(key, str) and key in space and isinstance(row, list)):
            return None
        numbers = [number for number in map(finite, row) if number is not None]
        if len(numbers) != len(row) or len(row) != len(space[key].candidates):
            return None
        rows[key] = numbers
    return rows
