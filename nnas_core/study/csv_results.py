"""Results as a table, a line a trial: written for people and their programs, and read again."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager

from nnas_core.errors import InputError
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Choice, Decision
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.records import TrialRecord

__all__ = ["is_csv", "read_csv", "results_csv"]

_STARTS_A_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""The beginning of a cell that spreadsheets compute, or that has been kept from it."""


def _columns(space: SearchSpace) -> list[str]:
    return ["id", *space.keys, "reward"]


def results_csv(trials: Sequence[TrialRecord], space: SearchSpace) -> str:
    """Returns a line a trial: ``id``, the candidates chosen at each key, ``reward``, and each metric and cost by name.

    The keys are in the order of the space and the metrics in that of their names, whatever the trials. Several
    candidates have commas between them. A column whose name is taken already gets ``_2`` after it. A text that a
    spreadsheet would compute (``=1+1``) has an apostrophe before it.

    Args:
        trials: that succeeded.
        space: of the study.
    """
    numbers = [{**trial.lasting_cost, **trial.metrics} for trial in trials]
    metrics = sorted({name for own in numbers for name in own})
    text = io.StringIO()
    columns = _distinct([*_columns(space), *metrics])
    # where lines end in \n, csv takes \r for a letter that needs no quotes
    returns = any("\r" in name for name in (*columns, *(name for choice in space for name in choice.candidates)))
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)
    writer.writerow(map(_defused, columns))
    for trial, own in zip(trials, numbers, strict=True):
        names = trial.architecture.names().values()
        chosen = [",".join(map(str, one)) if isinstance(one, list) else one for one in names]
        chosen = [_defused(str(one)) for one in chosen]
        writer.writerow([trial.number, *chosen, trial.value, *(own.get(name, "") for name in metrics)])
    return text.getvalue()


def _defused(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would compute it; numbers are what they are."""
    return f"'{text}" if _STARTS_A_FORMULA.match(text) and not _is_number(text) else text


def _as_it_was(cell: str) -> str:
    """Returns the text that became a cell."""
    return cell[1:] if cell.startswith("'") and _STARTS_A_FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is not None


def _distinct(names: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        column, count = name, 1
        while column in found:
            count += 1
            column = f"{name}_{count}"
        found[column] = None
    return list(found)


# ---- reading


def is_csv(text: str) -> bool:
    """Returns true if a text begins as ``results_csv`` begins one, and as no JSON does."""
    return text[:100].partition(",")[0].strip().strip('"') == "id"


def read_csv(text: str, space: SearchSpace, where: str) -> list[dict[str, object]]:
    """Returns the document of the schema ``results`` that says what a table says.

    Columns may stand in any order. Those that are neither a key nor ``id`` or ``reward`` are metrics, costs too.

    Args:
        text: as ``results_csv`` writes it.
        space: of the study.
        where: the file, for errors.

    Raises:
        InputError: columns are missing, or a cell has no meaning; all are listed with their lines.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[dict[str, object]] = []
    problems: list[str] = []
    try:
        with _cells_of_any_length(len(text)):
            header = [_as_it_was(name.strip()) for name in next(reader, [])]
            expected, there = _distinct(_columns(space)), frozenset(header)
            taken = frozenset(expected)
            problems += [f"line 1: there is no column {name!r}" for name in expected[1:] if name not in there]
            for row in reader if not problems else ():
                if not row:
                    continue
                try:
                    if len(row) != len(header):
                        raise _Unreadable(f"{len(row)} cells under {len(header)} columns")
                    found.append(_result(dict(zip(header, row, strict=True)), space, expected, taken))
                except _Unreadable as error:
                    problems.append(f"line {reader.line_num}: {error}")
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if problems:
        raise InputError(
            "not a table of results of this study's search space",
            where=where,
            problems=problems,
            hint="nothing was imported; `nnas study export` writes tables of this form",
        )
    return found


@contextmanager
def _cells_of_any_length(most: int) -> Iterator[None]:
    """Lets a cell be as long as the text, which is in memory anyway; a choice of many candidates needs it."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, most))
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _Unreadable(ValueError):
    """Says what is wrong with a line."""


def _result(cells: dict[str, str], space: SearchSpace, columns: Sequence[str], taken: Set[str]) -> dict[str, object]:
    decisions = {}
    for choice, column in zip(space, columns[1:-1], strict=True):
        decisions[choice.key] = _decision(choice, _as_it_was(cells[column]))
    metrics = {
        _without_number(name, taken): _number(cell, name)
        for name, cell in cells.items()
        if name not in taken and cell.strip()
    }
    reward = cells[columns[-1]]
    return {
        "parameter": Architecture(space.choices, decisions).parameters(),
        "value": _number(reward, columns[-1]) if reward.strip() else None,
        "metrics": metrics,
    }


def _without_number(name: str, taken: Set[str]) -> str:
    """Returns the name of a metric whose column has a number because another column is called so."""
    stem, underscore, number = name.rpartition("_")
    return stem if underscore and number.isdecimal() and stem in taken else name


def _number(cell: str, name: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise _Unreadable(f"{name}: {cell[:80]!r} is no number") from error


def _decision(choice: Choice, cell: str) -> Decision:
    """Returns the decision that a cell names."""
    unique = len(set(choice.candidates)) == len(choice.candidates)
    names = choice.candidates if unique else [str(index) for index in range(len(choice.candidates))]
    most = len(names) if choice.n_chosen is None else choice.n_chosen
    least = 0 if choice.n_chosen is None else choice.n_chosen
    found = _readings(cell, names, least, most)
    if len(found) == 1:
        return found[0]
    if not found:
        raise _Unreadable(f"{choice.key}: {cell[:80]!r} names no decision among {', '.join(map(repr, names))[:200]}")
    raise _Unreadable(f"{choice.key}: {cell[:80]!r} may be several decisions, as names have commas; import JSON")


_Chain = tuple["_Chain", int] | None
"""The numbers of the names that were read, the last one first: many readings begin alike."""


def _readings(cell: str, names: Sequence[str], least: int, most: int) -> list[Decision]:
    """Returns the ways to read a cell as so many different names in their order, with commas between them; 2 at most.

    Args:
        cell: what is read.
        names: those that may stand there; they may have commas themselves.
        least, most: numbers of names.
    """
    numbers = {name: index for index, name in enumerate(names)}
    lengths = sorted({name.count(",") + 1 for name in names})
    pieces = cell.split(",")
    # before each piece: how what is before it can be read, by the last name's number and the count of names
    read: list[dict[tuple[int, int], list[_Chain]]] = [{} for _ in range(len(pieces) + 1)]
    read[0][-1, 0] = [None]
    for begin, before in enumerate(read):
        for length in lengths if before else ():
            end = begin + length
            index = numbers.get(",".join(pieces[begin:end])) if end <= len(pieces) else None
            if index is None:
                continue
            for (last, count), chains in before.items():
                if last < index and count < most:
                    there = read[end].setdefault((index, count + 1), [])
                    there += [(chain, index) for chain in chains[: 2 - len(there)]]
    found: list[Decision] = [()] if not cell and not least else []
    for (_, count), chains in read[-1].items():
        found += [_unrolled(chain) for chain in chains if count >= least]
    return found[:2]


def _unrolled(chain: _Chain) -> Decision:
    found: list[int] = []
    while chain is not None:
        chain, index = chain
        found.append(index)
    return tuple(reversed(found))
