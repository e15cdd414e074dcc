"""Estimates against the truth: the numbers of the table, and the files that hold them.

judged.csv             one row a mutator and seed
measured.json          means and deviations, what `nnas list mutators` prints
docs/algorithms.md     the same as a table
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rows import HERE, ROOT, Row, read
from scipy.stats import kendalltau

TRUTH = HERE / "truth.csv"
JUDGED = HERE / "judged.csv"
MEASURED = ROOT / "nnas_core" / "mutators" / "measured.json"
DOCUMENT = ROOT / "docs" / "algorithms.md"
REGION = re.compile(r"(<!-- measured -->\n).*?(<!-- end of measured -->)", re.DOTALL)

SPACE = "243 networks on MNIST-1D (benchmarks/groundtruth)"
TRUTH_SEEDS = (0, 1, 2)
DRAWS = 1000

QUANTITIES = ("kendall_tau", "rank", "accuracy", "best_rank", "best_accuracy", "seconds")
"""What is averaged over seeds; ``best`` is the architecture with the best estimate."""

COLUMNS = ("mutator", "seed", "arguments", "derived", "best", *QUANTITIES)


@dataclass(frozen=True)
class Truth:
    """What every architecture reaches alone, by number.

    Attributes:
        test: mean accuracy on the test data over the seeds ``[A]``.
        valid, tests, seconds: of each training ``[A, S]``.
    """

    test: np.ndarray
    valid: np.ndarray
    tests: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Truth:
        """Read the rows of truth.csv, which must be complete."""
        rows = sorted(rows, key=lambda row: int(row["number"]))
        if [int(row["number"]) for row in rows] != list(range(243)):
            raise SystemExit(f"{TRUTH} is not complete ({len(rows)} of 243); finish truth.py first")

        def each(name: str) -> np.ndarray:
            return np.array([[float(row[f"{name}_{seed}"]) for seed in TRUTH_SEEDS] for row in rows])

        tests = each("test")
        # rounded, because equal means of three must be equal
        return cls(tests.mean(axis=1).round(9), each("valid"), tests, each("seconds"))

    def rank(self, number: int) -> int:
        """1 for the best of all; equal ones have the same."""
        return 1 + int((self.test > self.test[number]).sum())


def judge(estimated: Row, truth: Truth) -> dict[str, Any]:
    """One row of judged.csv."""
    estimates = np.array([int(count) for count in estimated["estimates"].split()])
    derived, best = int(estimated["derived"]), int(estimates.argmax())
    values = {
        "mutator": estimated["mutator"],
        "seed": estimated["seed"],
        "arguments": estimated["arguments"],
        "derived": derived,
        "best": best,
        "kendall_tau": round(float(kendalltau(estimates, truth.test).statistic), 4),
        "rank": truth.rank(derived),
        "accuracy": round(float(truth.test[derived]), 4),
        "best_rank": truth.rank(best),
        "best_accuracy": round(float(truth.test[best]), 4),
        "seconds": float(estimated["seconds"]),
    }
    return {name: values[name] for name in COLUMNS}


def summary(judged: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means and standard deviations (of a sample) over the seeds, by mutator; the best ranking first."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted({row["mutator"] for row in judged}):
        own = [row for row in judged if row["mutator"] == name]
        entry: dict[str, float] = {"seeds": len(own)}
        for quantity in QUANTITIES:
            values = [float(row[quantity]) for row in own]
            entry[quantity] = round(statistics.fmean(values), 4)
            entry[f"{quantity}_std"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
        found[name] = entry
    return found


# ---- what chance and plain training reach


def random_choice(truth: Truth) -> dict[str, float]:
    """An architecture drawn uniformly: exact mean and deviation over all."""
    ranks = [truth.rank(number) for number in range(len(truth.test))]
    return {
        "rank": statistics.fmean(ranks),
        "rank_std": statistics.pstdev(ranks),
        "accuracy": float(truth.test.mean()),
        "accuracy_std": float(truth.test.std()),
    }


def random_search(truth: Truth, budget: float) -> dict[str, float]:
    """As many random architectures trained alone as fit in ``budget`` seconds, the best by validation accuracy.

    Each is trained once, with a random one of the table's seeds; at least one is.
    """
    rng = np.random.default_rng(0)
    chosen, trained = [], []
    for _ in range(DRAWS):
        order = rng.permutation(len(truth.test))
        seeds = rng.integers(len(TRUTH_SEEDS), size=len(order))
        count = max(1, int((truth.seconds[order, seeds].cumsum() <= budget).sum()))
        chosen.append(int(order[truth.valid[order, seeds][:count].argmax()]))
        trained.append(count)
    ranks, accuracies = [truth.rank(number) for number in chosen], truth.test[chosen]
    return {
        "trained": statistics.fmean(trained),
        "rank": statistics.fmean(ranks),
        "rank_std": statistics.stdev(ranks),
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std(ddof=1)),
        "seconds": budget,
    }


def trained_once(truth: Truth) -> dict[str, float]:
    """All architectures trained alone once: validation accuracy of one seed against the truth of the others."""
    taus, ranks, accuracies = [], [], []
    for seed in range(len(TRUTH_SEEDS)):
        others = np.delete(truth.tests, seed, axis=1).mean(axis=1).round(9)
        best = int(truth.valid[:, seed].argmax())
        taus.append(float(kendalltau(truth.valid[:, seed], others).statistic))
        ranks.append(1 + int((others > others[best]).sum()))
        accuracies.append(float(others[best]))
    named = {"kendall_tau": taus, "rank": ranks, "accuracy": accuracies, "seconds": truth.seconds.sum(axis=0).tolist()}
    return {
        key: value
        for name, values in named.items()
        for key, value in ((name, statistics.fmean(values)), (f"{name}_std", statistics.stdev(values)))
    }


# ---- the files


def write(estimates: Path) -> str:
    """Write all three files; returns the table."""
    truth = Truth.of(read(TRUTH))
    judged = [judge(row, truth) for row in read(estimates)]
    judged.sort(key=lambda row: (row["mutator"], int(row["seed"])))
    with JUDGED.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(judged)
    document = measured(judged, truth)
    MEASURED.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    content = table(document)
    text = DOCUMENT.read_text(encoding="utf-8")
    replaced, found = REGION.subn(lambda region: f"{region[1]}{content}{region[2]}", text)
    if not found:
        raise SystemExit(f"{DOCUMENT} has no place for the table")
    DOCUMENT.write_text(replaced, encoding="utf-8")
    return content


def measured(judged: Sequence[dict[str, Any]], truth: Truth) -> dict[str, Any]:
    """The document of measured.json."""
    mutators = summary(judged)
    budget = statistics.median(float(row["seconds"]) for row in judged)
    header = json.loads(TRUTH.with_suffix(".json").read_text(encoding="utf-8"))
    baselines = {
        "random choice": random_choice(truth),
        "random search": random_search(truth, budget),
        "trained alone once": trained_once(truth),
    }
    return {
        "space": SPACE,
        "fingerprint": header["configuration"]["space"],
        "architectures": len(truth.test),
        "best_accuracy": round(float(truth.test.max()), 4),
        "baselines": {
            name: {key: round(value, 4) for key, value in values.items()} for name, values in baselines.items()
        },
        "mutators": mutators,
    }


def table(document: dict[str, Any]) -> str:
    """The table of docs/algorithms.md: mutators by the true accuracy of what a search derives, then the baselines."""
    head = ["", "Kendall tau", "derived: rank", "derived: accuracy", "best estimate: rank", "accuracy", "search, s"]
    entries = sorted(document["mutators"].items(), key=lambda item: -item[1]["accuracy"])
    baselines = document["baselines"]
    rows = [head]
    rows += [[f"`{name}`", *(cell(entry, quantity) for quantity in QUANTITIES)] for name, entry in entries]
    rows += [
        [
            label(name, entry),
            cell(entry, "kendall_tau"),
            cell(entry, "rank"),
            cell(entry, "accuracy"),
            "",
            "",
            cell(entry, "seconds"),
        ]
        for name, entry in baselines.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    shown = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown) + "\n"


def label(name: str, entry: dict[str, float]) -> str:
    """A baseline, and how many architectures it trained."""
    return f"{name}, {entry['trained']:.1f} trained" if "trained" in entry else name


def cell(entry: dict[str, float], quantity: str) -> str:
    """Mean and deviation, as text."""
    if quantity not in entry:
        return ""
    mean, deviation = entry[quantity], entry.get(f"{quantity}_std")
    digits = {"kendall_tau": 2, "accuracy": 3, "best_accuracy": 3}.get(quantity, 0 if "rank" in quantity else 1)
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
