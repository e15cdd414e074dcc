"""Estimates against the truth: the numbers of the table, and the files that hold them.

judged.csv             of each space: one row a mutator and seed
measured.json          means and deviations, what `nnas list mutators` prints
docs/algorithms.md     the same as tables
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rows import Row, read
from scipy.stats import kendalltau
from spaces import ROOT, SEEDS, SPACES, Space

MEASURED = ROOT / "nnas_core" / "mutators" / "measured.json"
DOCUMENT = ROOT / "docs" / "algorithms.md"
REGION = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end of measured -->)", re.DOTALL)

DRAWS = 1000

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
"""What is averaged over seeds: of what the algorithm proposes, of what the search hands out, of the best estimate."""

COLUMNS = ("mutator", "seed", "arguments", "proposed", "derived", "best", "tried", *QUANTITIES)


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
    def of(cls, space: Space) -> Truth:
        """Read the truth of a space, which must be complete."""
        rows = sorted(read(space.folder / "truth.csv"), key=lambda row: int(row["number"]))
        if [int(row["number"]) for row in rows] != list(range(space.size)):
            raise SystemExit(
                f"the truth of {space.name} is not complete ({len(rows)} of {space.size}); finish truth.py"
            )

        def each(name: str) -> np.ndarray:
            return np.array([[float(row[f"{name}_{seed}"]) for seed in SEEDS] for row in rows])

        tests = each("test")
        # rounded, because equal means of three must be equal, and the table has six digits
        return cls(tests.mean(axis=1).round(5), each("valid"), tests, each("seconds"))

    def rank(self, number: int) -> int:
        """1 for the best of all; equal ones have the same."""
        return 1 + int((self.test > self.test[number]).sum())


def judge(estimated: Row, truth: Truth) -> dict[str, Any]:
    """One row of judged.csv."""
    estimates = np.array([int(count) for count in estimated["estimates"].split()])
    proposed, best = int(estimated["proposed"]), int(estimates.argmax())
    values = {
        "mutator": estimated["mutator"],
        "seed": estimated["seed"],
        "arguments": estimated["arguments"],
        "proposed": proposed,
        "derived": estimated["derived"],
        "best": best,
        "tried": estimated["tried"],
        "kendall_tau": round(float(kendalltau(estimates, truth.test).statistic), 4),
        "proposed_rank": truth.rank(proposed),
        "proposed_accuracy": round(float(truth.test[proposed]), 4),
        "rank": "",
        "accuracy": "",
        "best_rank": truth.rank(best),
        "best_accuracy": round(float(truth.test[best]), 4),
        "seconds": float(estimated["seconds"]),
        "derive_seconds": "",
    }
    if estimated["derived"]:  # older rows lack it, see judge.py
        derived = int(estimated["derived"])
        values["rank"], values["accuracy"] = truth.rank(derived), round(float(truth.test[derived]), 4)
        values["derive_seconds"] = float(estimated["derive_seconds"])
    return {name: values[name] for name in COLUMNS}


def summary(judged: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means and standard deviations (of a sample) over the seeds, by mutator; the best ranking first."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted({row["mutator"] for row in judged}):
        own = [row for row in judged if row["mutator"] == name]
        searches = sum(row["derived"] != "" for row in own)
        entry: dict[str, float] = {"seeds": len(own), "searches": searches}
        for quantity in QUANTITIES:
            values = [float(row[quantity]) for row in own if row[quantity] != ""]
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
        seeds = rng.integers(len(SEEDS), size=len(order))
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
    for seed in range(len(SEEDS)):
        others = np.delete(truth.tests, seed, axis=1).mean(axis=1).round(5)
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


def write() -> str:
    """Write all files of all spaces; returns the tables."""
    documents = {space.name: measured(space) for space in SPACES.values()}
    MEASURED.write_text(json.dumps({"spaces": documents}, indent=2) + "\n", encoding="utf-8")
    tables = {name: table(document) for name, document in documents.items()}
    text = DOCUMENT.read_text(encoding="utf-8")
    if sorted(found[1] for found in REGION.findall(text)) != sorted(tables):
        raise SystemExit(f"{DOCUMENT} has no place for the tables of {', '.join(tables)}")
    text = REGION.sub(lambda region: f"{region[1]}{tables[region[2]]}{region[3]}", text)
    DOCUMENT.write_text(text, encoding="utf-8")
    return "\n".join(tables.values())


def measured(space: Space) -> dict[str, Any]:
    """The part of measured.json about one space; writes its judged.csv."""
    truth = Truth.of(space)
    judged = [judge(row, truth) for row in read(space.folder / "estimates.csv")]
    judged.sort(key=lambda row: (row["mutator"], int(row["seed"])))
    with (space.folder / "judged.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(judged)
    budget = statistics.median(float(row["seconds"]) + float(row["derive_seconds"] or 0) for row in judged)
    header = json.loads((space.folder / "truth.json").read_text(encoding="utf-8"))
    baselines = {
        "random choice": random_choice(truth),
        "random search": random_search(truth, budget),
        "trained alone once": trained_once(truth),
    }
    return {
        "title": space.title,
        "fingerprint": header["configuration"]["space"],
        "best_accuracy": round(float(truth.test.max()), 4),
        "baselines": {
            name: {key: round(value, 4) for key, value in values.items()} for name, values in baselines.items()
        },
        "mutators": {name: {"architectures": len(truth.test), **entry} for name, entry in summary(judged).items()},
    }


def table(document: dict[str, Any]) -> str:
    """A table of docs/algorithms.md: mutators by the true accuracy of what a search hands out, then the baselines."""
    head = [
        "",
        "Kendall tau",
        "algorithm: rank",
        "accuracy",
        "search: rank",
        "accuracy",
        "best estimate: rank",
        "s",
    ]
    entries = sorted(document["mutators"].items(), key=lambda item: -item[1]["accuracy"])
    shown = ("kendall_tau", "proposed_rank", "proposed_accuracy", "rank", "accuracy", "best_rank", "seconds")
    rows = [head]
    rows += [[f"`{name}`", *(cell(entry, quantity) for quantity in shown)] for name, entry in entries]
    for name, entry in document["baselines"].items():
        tau, rank, accuracy, seconds = (cell(entry, one) for one in ("kendall_tau", "rank", "accuracy", "seconds"))
        rows.append([label(name, entry), tau, "", "", rank, accuracy, "", seconds])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def label(name: str, entry: dict[str, float]) -> str:
    """A baseline, and how many architectures it trained."""
    return f"{name}, {entry['trained']:.1f} trained" if "trained" in entry else name


def cell(entry: dict[str, float], quantity: str) -> str:
    """Mean and deviation, as text."""
    if quantity not in entry:
        return ""
    mean, deviation = entry[quantity], entry.get(f"{quantity}_std")
    if quantity in ("rank", "accuracy") and entry.get("searches") == 1:
        deviation = None  # one search has no spread
    digits = 2 if quantity == "kendall_tau" else 3 if "accuracy" in quantity else 0 if "rank" in quantity else 1
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
