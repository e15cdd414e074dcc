"""The committed ground truth belongs to its search space, and what is derived from it was derived from it.

Everything is computed here once more, by other means than benchmarks/groundtruth/verdict.py.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_on_meta

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "groundtruth"
MEASURED = ROOT / "nnas_core" / "mutators" / "measured.json"
QUANTITIES = ("kendall_tau", "rank", "accuracy", "best_rank", "best_accuracy", "seconds")


@cache
def rows(name: str) -> list[dict[str, str]]:
    """The rows of a table of the folder."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def space() -> SearchSpace:
    """The space whose architectures were trained."""
    return SearchSpace.from_model(build_on_meta(str(FOLDER / "model.py"))[0])


def measured() -> dict[str, Any]:
    """What `nnas list mutators` prints."""
    document: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return document


def true_accuracies() -> list[float]:
    """Mean test accuracy by number; a rank compares sums of right answers, in which equal means are equal."""
    return [statistics.fmean(float(row[f"test_{seed}"]) for seed in range(3)) for row in rows("truth.csv")]


def right_answers() -> list[int]:
    """Of all three seeds on the 1,000 test signals."""
    return [sum(round(float(row[f"test_{seed}"]) * 1000) for seed in range(3)) for row in rows("truth.csv")]


def tau_b(first: list[int], second: list[int]) -> float:
    """Kendall's tau-b by its definition, pair by pair."""
    agree, first_differs, second_differs = 0, 0, 0
    for (a, b), (c, d) in itertools.combinations(zip(first, second, strict=True), 2):
        agree += ((a > c) - (a < c)) * ((b > d) - (b < d))
        first_differs += a != c
        second_differs += b != d
    return agree / math.sqrt(first_differs * second_differs)


def test_every_architecture_was_trained_alone_with_three_seeds() -> None:
    found = [(int(row["number"]), {key: row[key] for key in space().keys}) for row in rows("truth.csv")]
    assert found == [(number, space().at(number).names()) for number in range(243)]
    accuracies = [
        float(row[f"{name}_{seed}"]) for row in rows("truth.csv") for name in ("valid", "test") for seed in range(3)
    ]
    assert len(accuracies) == 243 * 6
    assert all(0 < accuracy < 1 for accuracy in accuracies)


def test_the_mean_of_an_architecture_is_that_of_its_seeds() -> None:
    assert [float(row["test"]) for row in rows("truth.csv")] == pytest.approx(true_accuracies(), abs=1e-6)


@pytest.mark.parametrize("name", ["truth", "estimates"])
def test_a_table_is_of_the_space_that_is_there(name: str) -> None:
    header = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert header["configuration"]["space"] == space().fingerprint == measured()["fingerprint"]


def test_the_truth_is_finished() -> None:
    header = json.loads((FOLDER / "truth.json").read_text(encoding="utf-8"))
    assert header["trainings"] == 3 * header["architectures"] == 729
    spent = sum(float(row[f"seconds_{seed}"]) for row in rows("truth.csv") for seed in range(3))
    assert header["cpu_seconds"] == pytest.approx(spent, abs=1)


def test_what_was_judged_follows_from_the_estimates_and_the_truth() -> None:
    truth, answers = true_accuracies(), right_answers()
    judged = {(row["mutator"], row["seed"]): row for row in rows("judged.csv")}
    estimated = {(row["mutator"], row["seed"]): row for row in rows("estimates.csv")}
    assert sorted(judged) == sorted(estimated)
    for name, row in judged.items():
        estimates = [int(count) for count in estimated[name]["estimates"].split()]
        assert float(row["kendall_tau"]) == pytest.approx(tau_b(estimates, answers), abs=1e-4), name
        best = max(range(243), key=estimates.__getitem__)
        for number, prefix in ((int(estimated[name]["derived"]), ""), (best, "best_")):
            assert int(row[f"{prefix}rank"]) == 1 + sum(other > answers[number] for other in answers), name
            assert float(row[f"{prefix}accuracy"]) == pytest.approx(truth[number], abs=1e-4), name


def test_what_is_measured_is_the_mean_and_deviation_over_the_seeds() -> None:
    for name, entry in measured()["mutators"].items():
        own = [row for row in rows("judged.csv") if row["mutator"] == name]
        assert sorted(int(row["seed"]) for row in own) == list(range(5)), name
        assert entry["seeds"] == 5
        for quantity in QUANTITIES:
            values = [float(row[quantity]) for row in own]
            assert entry[quantity] == pytest.approx(statistics.fmean(values), abs=1e-4), (name, quantity)
            assert entry[f"{quantity}_std"] == pytest.approx(statistics.stdev(values), abs=1e-4), (name, quantity)


def test_what_is_measured_exists() -> None:
    names = {row["mutator"] for row in rows("judged.csv")}
    assert names == set(measured()["mutators"])
    assert names <= set(registry.entries("mutators"))


def test_choosing_at_random_reaches_the_mean_of_all() -> None:
    chance = measured()["baselines"]["random choice"]
    assert chance["accuracy"] == pytest.approx(statistics.fmean(true_accuracies()), abs=1e-4)
    assert measured()["best_accuracy"] == pytest.approx(max(true_accuracies()), abs=1e-4)


def test_the_table_of_the_page_shows_what_is_measured() -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    region = re.search(r"<!-- measured -->\n(.*?)<!-- end of measured -->", text, re.DOTALL)
    assert region is not None
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in region[1].splitlines() if line.startswith("| `")
    ]
    shown = {cells[0].strip("`"): [tuple(map(float, cell.split(" ± "))) for cell in cells[1:]] for cells in lines}
    assert set(shown) == set(measured()["mutators"])
    half_a_digit = {"rank": 0.51, "best_rank": 0.51, "seconds": 0.051, "kendall_tau": 0.0051}
    for name, entry in measured()["mutators"].items():
        for quantity, cell in zip(QUANTITIES, shown[name], strict=True):
            expected = (entry[quantity], entry[f"{quantity}_std"])
            assert cell == pytest.approx(expected, abs=half_a_digit.get(quantity, 0.00051)), (name, quantity)
