"""Was a search worth it? Look up what it found in the table of all architectures that were trained alone.

    python benchmarks/groundtruth/compare.py mnist1d runs/seed-0 runs/seed-1 runs/seed-2

Prints the accuracy of what the searches found beside that of chance, of random search with the same compute and of the
first candidate everywhere, and a sentence about it. What a search and a training cost is what the tables say: seconds
of one machine. Exits with 1 if what was found is not better than chance.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from rows import Row, read
from spaces import SEEDS, SPACES, Space, add_argument

from nnas_core import SearchSpace


@dataclass(frozen=True)
class Trained:
    """An architecture of the table.

    Attributes:
        test: accuracy on the test data, mean of its trainings.
        valid, tests: accuracy of each training on validation and test data.
        parameters: of the network.
    """

    test: float
    valid: list[float]
    tests: list[float]
    parameters: int

    @classmethod
    def of(cls, row: Row) -> Trained:
        """Read a row of truth.csv."""
        valid, tests = ([float(row[f"{part}_{seed}"]) for seed in SEEDS] for part in ("valid", "test"))
        return cls(round(statistics.fmean(tests), 5), valid, tests, int(row["parameters"]))


def rank(one: Trained, table: list[Trained]) -> int:
    """1 for the best of all; equal ones have the same."""
    return 1 + sum(other.test > one.test for other in table)


def random_search(table: list[Trained], count: int) -> tuple[float, float, float, float]:
    """Exact mean and deviation of the test accuracy, and means of rank and size, of the best of ``count`` random ones.

    They are trained once and the best by validation accuracy is taken, as a search by hand would do it.
    """
    chances: list[tuple[float, Trained]] = []
    for seed in range(len(SEEDS)):
        order = sorted(table, key=lambda one: one.valid[seed], reverse=True)
        draws = math.comb(len(order), count) * len(SEEDS)
        # the best of a draw is the one at `position` if all others of the draw come behind it
        chances += [
            (math.comb(len(order) - 1 - position, count - 1) / draws, one) for position, one in enumerate(order)
        ]
    mean = sum(chance * one.test for chance, one in chances)
    deviation = math.sqrt(sum(chance * (one.test - mean) ** 2 for chance, one in chances))
    ranks = sum(chance * rank(one, table) for chance, one in chances)
    return mean, deviation, ranks, sum(chance * one.parameters for chance, one in chances)


def cost(space: Space, run: Path) -> float:
    """CPU seconds of a search with the mutator of ``run``, estimates included, as estimates.csv says."""
    mutator = json.loads((run / "config.json").read_text(encoding="utf-8"))["search"]["mutator"]
    known = [row for row in read(space.folder / "estimates.csv") if row["mutator"] == mutator]
    if not known:
        raise SystemExit(f"no search with {mutator} was measured; there are those of judge.py")
    return statistics.fmean(float(row["seconds"]) + float(row["derive_seconds"] or 0) for row in known)


def shown(values: list[float], scale: float = 1.0, digits: int = 0) -> str:
    """Mean and deviation."""
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def verdict(found: float, chance: float, searched: float, default: float, count: int) -> str:
    """The result in a sentence."""

    def against(other: float) -> str:
        difference = 100 * (found - other)
        if abs(difference) < 0.05:
            return "as good as"
        return f"{abs(difference):.1f} points {'better' if difference > 0 else 'worse'} than"

    return (
        f"What the searches found is {against(chance)} a random network, {against(searched)} the best of {count} "
        f"random ones trained with the same compute, and {against(default)} the first candidate everywhere."
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_argument(parser)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of searches, one a seed")
    options = parser.parse_args()
    space = SPACES[options.space]
    rows = sorted(read(space.folder / "truth.csv"), key=lambda row: int(row["number"]))
    table = [Trained.of(row) for row in rows]

    found = [table[number_of(run)] for run in options.runs]
    alone = statistics.fmean(float(row[f"seconds_{seed}"]) for row in rows for seed in SEEDS)
    spent = statistics.fmean(cost(space, run) for run in options.runs)
    count = min(len(table), max(1, int(spent / alone)))
    mean, deviation, mean_rank, size = random_search(table, count)
    default = table[0]
    ranks = [rank(one, table) for one in table]
    chance = statistics.fmean(one.test for one in table)
    lines = [
        (
            f"found by the search, {len(found)} seeds",
            shown([one.test for one in found], 100, 1),
            shown([float(rank(one, table)) for one in found]),
            f"{statistics.fmean(one.parameters for one in found):,.0f}",
        ),
        (
            "a random one, mean of all",
            f"{100 * chance:.1f} ± {100 * statistics.pstdev(one.test for one in table):.1f}",
            f"{statistics.fmean(ranks):.0f}",
            f"{statistics.fmean(one.parameters for one in table):,.0f}",
        ),
        (
            f"best of {count} random ones, same compute",
            f"{100 * mean:.1f} ± {100 * deviation:.1f}",
            f"{mean_rank:.0f}",
            f"{size:,.0f}",
        ),
        (
            "the first candidate everywhere",
            shown(default.tests, 100, 1),
            f"{rank(default, table)}",
            f"{default.parameters:,}",
        ),
        ("the best of all", f"{100 * max(one.test for one in table):.1f}", "1", ""),
    ]
    head = ("network", "test accuracy, %", f"rank of {len(table)}", "parameters")
    for name, accuracy, place, parameters in (head, *lines):
        print(f"{name:<36}{accuracy:>18}{place:>14}{parameters:>12}")
    print()
    print(f"True ranks of what each seed found: {', '.join(str(rank(one, table)) for one in found)} of {len(table)}.")
    mean_found = statistics.fmean(one.test for one in found)
    print(verdict(mean_found, chance, mean, default.test, count))
    if mean_found <= chance:
        print("The searches found nothing better than chance.", file=sys.stderr)
        return 1
    return 0


def number_of(run: Path) -> int:
    """Which row of the table a run found."""
    space = SearchSpace.from_json(json.loads((run / "search_space.json").read_text(encoding="utf-8")))
    found = space.parse(json.loads((run / "architecture.json").read_text(encoding="utf-8"))).indices()
    return next(number for number in range(space.size) if space.at(number).indices() == found)


if __name__ == "__main__":
    sys.exit(main())
