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
import sklearn.datasets  # noqa: F401  (its import draws random numbers, so not within a test)

from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_on_meta

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "groundtruth"
MEASURED = ROOT / "nnas_core" / "mutators" / "measured.json"
SIZES = {"mnist1d": 243, "digits": 81}
TESTED = {"mnist1d": 1000, "digits": 797}
QUANTITIES = (
    "kendall_tau",
    "proposed_rank",
    "proposed_accuracy",
    "rank",
    "accuracy",
    "best_rank",
    "best_accuracy",
    "seconds",
    "derive_seconds",
)
SHOWN = ("kendall_tau", "proposed_rank", "proposed_accuracy", "rank", "accuracy", "best_rank", "seconds")

each_space = pytest.mark.parametrize("name", SIZES)


@cache
def rows(name: str, table: str) -> list[dict[str, str]]:
    """The rows of a table of a space."""
    with (FOLDER / name / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def space(name: str) -> SearchSpace:
    """The space whose architectures were trained."""
    return SearchSpace.from_model(build_on_meta(str(FOLDER / name / "model.py"))[0])


def measured(name: str) -> dict[str, Any]:
    """What `nnas list mutators` prints about a space."""
    document: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))["spaces"][name]
    return document


def true_accuracies(name: str) -> list[float]:
    """Mean test accuracy by number; a rank compares sums of right answers, in which equal means are equal."""
    return [statistics.fmean(float(row[f"test_{seed}"]) for seed in range(3)) for row in rows(name, "truth")]


def right_answers(name: str) -> list[int]:
    """Of all three seeds on the test data."""
    count = TESTED[name]
    return [sum(round(float(row[f"test_{seed}"]) * count) for seed in range(3)) for row in rows(name, "truth")]


def tau_b(first: list[int], second: list[int]) -> float:
    """Kendall's tau-b by its definition, pair by pair."""
    agree, first_differs, second_differs = 0, 0, 0
    for (a, b), (c, d) in itertools.combinations(zip(first, second, strict=True), 2):
        agree += ((a > c) - (a < c)) * ((b > d) - (b < d))
        first_differs += a != c
        second_differs += b != d
    return agree / math.sqrt(first_differs * second_differs)


@each_space
def test_every_architecture_was_trained_alone_with_three_seeds(name: str) -> None:
    found = [(int(row["number"]), {key: row[key] for key in space(name).keys}) for row in rows(name, "truth")]
    numbers = range(SIZES[name])
    assert found == [
        (number, {key: str(chosen) for key, chosen in space(name).at(number).names().items()}) for number in numbers
    ]
    accuracies = [
        float(row[f"{part}_{seed}"]) for row in rows(name, "truth") for part in ("valid", "test") for seed in range(3)
    ]
    assert len(accuracies) == SIZES[name] * 6
    assert all(0 < accuracy < 1 for accuracy in accuracies)


@each_space
def test_the_networks_differ_by_more_than_a_training_does(name: str) -> None:
    noise = statistics.fmean(
        statistics.variance(float(row[f"test_{seed}"]) for seed in range(3)) for row in rows(name, "truth")
    )
    assert statistics.variance(true_accuracies(name)) > 4 * noise / 3
    assert statistics.fmean(true_accuracies(name)) < max(true_accuracies(name)) - 0.04


@each_space
def test_the_mean_of_an_architecture_is_that_of_its_seeds(name: str) -> None:
    assert [float(row["test"]) for row in rows(name, "truth")] == pytest.approx(true_accuracies(name), abs=1e-6)


@each_space
@pytest.mark.parametrize("table", ["truth", "estimates"])
def test_a_table_is_of_the_space_that_is_there(name: str, table: str) -> None:
    header = json.loads((FOLDER / name / f"{table}.json").read_text(encoding="utf-8"))
    assert header["configuration"]["space"] == space(name).fingerprint == measured(name)["fingerprint"]


@each_space
def test_the_truth_is_finished(name: str) -> None:
    header = json.loads((FOLDER / name / "truth.json").read_text(encoding="utf-8"))
    assert header["trainings"] == 3 * header["architectures"] == 3 * SIZES[name]
    spent = sum(float(row[f"seconds_{seed}"]) for row in rows(name, "truth") for seed in range(3))
    assert header["cpu_seconds"] == pytest.approx(spent, abs=1)


@each_space
def test_what_was_judged_follows_from_the_estimates_and_the_truth(name: str) -> None:
    truth, answers = true_accuracies(name), right_answers(name)
    judged = {(row["mutator"], row["seed"]): row for row in rows(name, "judged")}
    estimated = {(row["mutator"], row["seed"]): row for row in rows(name, "estimates")}
    assert sorted(judged) == sorted(estimated)
    for which, row in judged.items():
        estimates = [int(count) for count in estimated[which]["estimates"].split()]
        assert float(row["kendall_tau"]) == pytest.approx(tau_b(estimates, answers), abs=1e-4), which
        best = max(range(SIZES[name]), key=estimates.__getitem__)
        proposed, derived = estimated[which]["proposed"], estimated[which]["derived"]
        numbers = {"proposed_": int(proposed), "best_": best, **({"": int(derived)} if derived else {})}
        for prefix, number in numbers.items():
            assert int(row[f"{prefix}rank"]) == 1 + sum(other > answers[number] for other in answers), which
            assert float(row[f"{prefix}accuracy"]) == pytest.approx(truth[number], abs=1e-4), which
        if row["tried"] == "0":
            assert proposed == derived, which
        assert (row["rank"] == "") == (derived == ""), which


def spread(values: list[float]) -> float:
    """The standard deviation of a sample; of one value none."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


@each_space
def test_what_is_measured_is_the_mean_and_deviation_over_the_seeds(name: str) -> None:
    seeds = {row["seed"] for row in rows(name, "judged")}
    assert len(seeds) >= 2
    searches = {row["seed"] for row in rows(name, "judged") if row["derived"]}
    assert searches
    for mutator, entry in measured(name)["mutators"].items():
        own = [row for row in rows(name, "judged") if row["mutator"] == mutator]
        assert sorted(row["seed"] for row in own) == sorted(seeds), mutator
        assert (entry["seeds"], entry["searches"]) == (len(seeds), len(searches))
        for quantity in QUANTITIES:
            values = [float(row[quantity]) for row in own if row[quantity]]
            assert entry[quantity] == pytest.approx(statistics.fmean(values), abs=1e-4), (mutator, quantity)
            assert entry[f"{quantity}_std"] == pytest.approx(spread(values), abs=1e-4), (mutator, quantity)


@each_space
def test_every_mutator_was_measured(name: str) -> None:
    names = {row["mutator"] for row in rows(name, "judged")}
    assert names == set(measured(name)["mutators"]) == set(registry.entries("mutators"))


@each_space
def test_choosing_at_random_reaches_the_mean_of_all(name: str) -> None:
    chance = measured(name)["baselines"]["random choice"]
    assert chance["accuracy"] == pytest.approx(statistics.fmean(true_accuracies(name)), abs=1e-4)
    assert measured(name)["best_accuracy"] == pytest.approx(max(true_accuracies(name)), abs=1e-4)


@each_space
def test_the_table_of_the_page_shows_what_is_measured(name: str) -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    region = re.search(rf"<!-- measured: {name} -->\n(.*?)<!-- end of measured -->", text, re.DOTALL)
    assert region is not None
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in region[1].splitlines() if line.startswith("| `")
    ]
    shown = {cells[0].strip("`"): [tuple(map(float, cell.split(" ± "))) for cell in cells[1:]] for cells in lines}
    assert set(shown) == set(measured(name)["mutators"])
    for mutator, entry in measured(name)["mutators"].items():
        for quantity, cell in zip(SHOWN, shown[mutator], strict=True):
            expected = (entry[quantity], entry[f"{quantity}_std"])[: len(cell)]
            assert len(cell) == 2 or (entry["searches"] == 1 and quantity in ("rank", "accuracy"))
            half = 0.51 if "rank" in quantity else {"seconds": 0.051, "kendall_tau": 0.0051}.get(quantity, 0.00051)
            assert cell == pytest.approx(expected, abs=half), (mutator, quantity)
