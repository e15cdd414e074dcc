"""Tables of results are read as they were written, whatever candidates are called and however many there are."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from nnas_core.errors import InputError
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.csv_results import read_csv, results_csv
from nnas_core.study.storage.store import StudyStore
from tests.study.known_studies import make


def space_of(names: list[str], n_chosen: int | None = None) -> SearchSpace:
    """A space of one input choice."""
    value = {"candidates": names, "n_chosen": n_chosen}
    return SearchSpace.from_json({"in": {"_type": "input_choice", "_value": value}})


def read(cell: str, space: SearchSpace) -> Any:
    """The indices of the candidates that a cell names."""
    (result,) = read_csv(f'id,in,reward\n0,"{cell}",1.5\n', space, "results.csv")
    parameter: Any = result["parameter"]
    return parameter["in"]["_idx"]


@pytest.mark.parametrize(
    ("names", "n_chosen", "cell", "indices"),
    [
        (["a", "b", "c"], None, "a,c", [0, 2]),
        (["a", "b", "c"], None, "", []),
        (["a,b", "b", "c"], None, "a,b,c", [0, 2]),
        (["a", "a,b", "b"], 1, "a,b", [1]),
        (["a", "a,b", "b"], 2, "a,b", [0, 2]),
        (["", "b"], 1, "", [0]),
        (["", "b"], 2, ",b", [0, 1]),
        (["a", "a"], None, "0,1", [0, 1]),  # names that are not unique are exported as numbers
    ],
)
def test_a_cell_is_the_names_that_were_chosen(
    names: list[str], n_chosen: int | None, cell: str, indices: list[int]
) -> None:
    assert read(cell, space_of(names, n_chosen)) == indices


@pytest.mark.parametrize(
    ("names", "n_chosen", "cell", "problem"),
    [
        (["a", "b"], None, "b,a", "in: 'b,a' names no decision among 'a', 'b'"),
        (["a", "b"], None, "a,a", "in: 'a,a' names no decision among 'a', 'b'"),
        (["a", "b"], 2, "a", "in: 'a' names no decision among 'a', 'b'"),
        (["a", "b"], None, "a,", "in: 'a,' names no decision among 'a', 'b'"),
        (["a", "a,b", "b"], None, "a,b", "in: 'a,b' may be several decisions, as names have commas; import JSON"),
        (["", "b"], None, "", "in: '' may be several decisions, as names have commas; import JSON"),
    ],
)
def test_a_cell_that_means_nothing_or_two_things_is_refused(
    names: list[str], n_chosen: int | None, cell: str, problem: str
) -> None:
    with pytest.raises(InputError) as failure:
        read(cell, space_of(names, n_chosen))
    assert failure.value.problems == (f"line 2: {problem}",)


def test_a_cell_may_have_thousands_of_names_and_more_letters_than_cells_mostly_have() -> None:
    limit = csv.field_size_limit()
    names = [f"candidate-{index}" for index in range(12_000)]
    cell = ",".join(names)
    assert len(cell) > limit
    assert read(cell, space_of(names)) == list(range(12_000))
    assert csv.field_size_limit() == limit


def test_names_that_repeat_one_another_do_not_take_forever() -> None:
    names = [",".join(["a"] * count) for count in range(1, 25)]  # the subsets of 24 numbers that have one sum
    with pytest.raises(InputError, match="not a table of results") as failure:
        read(",".join(["a"] * 100), space_of(names, 12))
    assert "may be several decisions" in failure.value.problems[0]


FORMULAS = ["=1+1", "+a", "-b", "@c", "\tdd", "\re", "'=f", "''-g", "'h", "-1.5", "+2e3", "'-1.5", "plain"]


def test_no_cell_is_a_formula_and_all_names_come_back(tmp_path: Path) -> None:
    spaces = {name: {"_type": "layer_choice", "_value": FORMULAS} for name in ("=key", "'=key", "@", "-")}
    space = SearchSpace.from_json(spaces)
    with StudyStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        values = [float(place) for place in range(-1, len(FORMULAS) - 1)]
        study = make(store, "s", values, space=space)
        trials = store.trials(study)
    text = results_csv(trials, space)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    cells = [cell for row in rows for cell in row]
    begun = {cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))}
    assert {"-1.5", "+2e3", "-1.0"} <= begun
    assert all(isinstance(float(cell), float) for cell in begun)
    assert rows[0] == ["id", "''=key", "'-", "'=key", "'@", "reward", "accuracy", "loss", "parameters"]
    results = read_csv(text, space, "results.csv")
    assert [one["parameter"] for one in results] == [trial.architecture.parameters() for trial in trials]
    assert [one["value"] for one in results] == values
