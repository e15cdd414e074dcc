"""The comparison that ends the demo: what was found, beside chance, and an exit code that says whether it is better."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_on_meta

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "groundtruth"


def a_run(folder: Path, number: int, seconds: float) -> Path:
    """A run folder that found architecture ``number``."""
    space = SearchSpace.from_model(build_on_meta(str(FOLDER / "digits" / "model.py"))[0])
    folder.mkdir()
    (folder / "search_space.json").write_text(json.dumps(space.to_json()))
    (folder / "architecture.json").write_text(json.dumps(space.at(number).masks()))
    (folder / "events.jsonl").write_text(json.dumps({"event": "finished", "seconds": seconds}) + "\n")
    return folder


def compared(*runs: Path, alone: Path) -> subprocess.CompletedProcess[str]:
    """What the program says."""
    command = [sys.executable, str(FOLDER / "compare.py"), "digits", *map(str, runs), "--retrained", str(alone)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def truth() -> list[dict[str, str]]:
    """The rows of the table."""
    with (FOLDER / "digits" / "truth.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def exact(row: dict[str, str]) -> float:
    """The mean of the test accuracies."""
    return statistics.fmean(float(row[f"test_{seed}"]) for seed in range(3))


def test_two_seeds_beside_chance_and_random_search(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    order = sorted(range(81), key=lambda number: -exact(truth[number]))
    runs = [a_run(tmp_path / "a", order[2], 5.9), a_run(tmp_path / "b", order[7], 6.3)]
    done = compared(*runs, alone=a_run(tmp_path / "alone", 0, 3.0))
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line[:36].strip(): line[36:].split() for line in done.stdout.splitlines() if line}
    found = [100 * exact(truth[number]) for number in (order[2], order[7])]
    cells = lines["found by the search, 2 seeds"]
    assert cells[:3] == [f"{statistics.fmean(found):.1f}", "±", f"{statistics.stdev(found):.1f}"]
    everything = [100 * exact(row) for row in truth]
    assert lines["a random one, mean of all"][0] == f"{statistics.fmean(everything):.1f}"
    # two random ones: all pairs, with each seed of the training, the better one by validation
    chosen = [
        everything[max(pair, key=lambda number: float(truth[number][f"valid_{seed}"]))]
        for seed in range(3)
        for pair in itertools.combinations(range(81), 2)
    ]
    best = float(lines["best of 2 random ones, same time"][0])
    assert best == pytest.approx(statistics.fmean(chosen), abs=0.25)  # of equals by validation either may be taken
    assert lines["the first candidate everywhere"][0] == f"{everything[0]:.1f}"
    assert done.stdout.splitlines()[-1].startswith("What the searches found is ")


def test_what_is_no_better_than_chance_fails(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    worst = min(range(81), key=lambda number: exact(truth[number]))
    done = compared(a_run(tmp_path / "a", worst, 6.0), alone=a_run(tmp_path / "alone", 0, 3.0))
    assert (done.returncode, done.stderr) == (1, "The searches found nothing better than chance.\n")
    assert "points worse than a random network" in done.stdout
