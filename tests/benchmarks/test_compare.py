"""The comparison that ends the demo: what was found, beside chance, and an exit code that says whether it is better."""

from __future__ import annotations

import csv
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.datasets  # noqa: F401  (its import draws random numbers, so not within a test)

from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_on_meta

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "groundtruth"


def a_run(folder: Path, number: int, mutator: str = "snas") -> Path:
    """A run folder that found architecture ``number``."""
    space = SearchSpace.from_model(build_on_meta(str(FOLDER / "digits" / "model.py"))[0])
    folder.mkdir()
    (folder / "search_space.json").write_text(json.dumps(space.to_json()))
    (folder / "architecture.json").write_text(json.dumps(space.at(number).masks()))
    (folder / "config.json").write_text(json.dumps({"search": {"mutator": mutator}}))
    return folder


def compared(*runs: Path) -> subprocess.CompletedProcess[str]:
    """What the program says."""
    command = [sys.executable, str(FOLDER / "compare.py"), "digits", *map(str, runs)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def truth() -> list[dict[str, str]]:
    """The rows of the table."""
    with (FOLDER / "digits" / "truth.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def searched() -> float:
    """CPU seconds of a search with snas."""
    with (FOLDER / "digits" / "estimates.csv").open(encoding="utf-8", newline="") as stream:
        own = [row for row in csv.DictReader(stream) if row["mutator"] == "snas"]
    return statistics.fmean(float(row["seconds"]) + float(row["derive_seconds"]) for row in own)


def exact(row: dict[str, str]) -> float:
    """The mean of the test accuracies."""
    return statistics.fmean(float(row[f"test_{seed}"]) for seed in range(3))


def test_two_seeds_beside_chance_and_random_search(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    order = sorted(range(81), key=lambda number: -exact(truth[number]))
    runs = [a_run(tmp_path / "a", order[2]), a_run(tmp_path / "b", order[7])]
    done = compared(*runs)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line[:36].strip(): line[36:].split() for line in done.stdout.splitlines() if line}
    found = [100 * exact(truth[number]) for number in (order[2], order[7])]
    cells = lines["found by the search, 2 seeds"]
    assert cells[:3] == [f"{statistics.fmean(found):.1f}", "±", f"{statistics.stdev(found):.1f}"]
    everything = [100 * exact(row) for row in truth]
    assert lines["a random one, mean of all"][0] == f"{statistics.fmean(everything):.1f}"
    alone = statistics.fmean(float(row[f"seconds_{seed}"]) for row in truth for seed in range(3))
    count = int(searched() / alone)
    # any `count` random ones, with each seed of the training, the best by validation
    rng = random.Random(0)
    chosen = []
    for _ in range(20_000):
        drawn, seed = rng.sample(range(81), count), rng.randrange(3)
        chosen.append(everything[max(drawn, key=lambda number: float(truth[number][f"valid_{seed}"]))])
    best = float(lines[f"best of {count} random ones, same compute"][0])
    assert best == pytest.approx(
        statistics.fmean(chosen), abs=0.2
    )  # draws, and of equals by validation either may be taken
    assert lines["the first candidate everywhere"][0] == f"{everything[0]:.1f}"
    assert done.stdout.splitlines()[-1].startswith("What the searches found is ")


def test_what_is_no_better_than_chance_fails(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    worst = min(range(81), key=lambda number: exact(truth[number]))
    done = compared(a_run(tmp_path / "a", worst))
    assert (done.returncode, done.stderr) == (1, "The searches found nothing better than chance.\n")
    assert "points worse than a random network" in done.stdout


def test_a_search_whose_cost_is_not_known_is_refused(tmp_path: Path) -> None:
    done = compared(a_run(tmp_path / "a", 0, "mine.py:Mine"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no search with mine.py:Mine was measured; there are those of judge.py\n"
