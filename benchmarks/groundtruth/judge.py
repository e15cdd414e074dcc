"""Run every one-shot algorithm on the space of truth.csv, and compare what it says with the truth.

    python benchmarks/groundtruth/judge.py                     searches: all mutators, seeds 0 to 4, to estimates.csv
    python benchmarks/groundtruth/judge.py darts gdas          some of them
    python benchmarks/groundtruth/judge.py --redo darts        its rows are made anew
    python benchmarks/groundtruth/judge.py --write             judged.csv, measured.json and docs/algorithms.md

One process, one thread. It can be stopped at any moment and goes on where it was. What is measured how:
docs/algorithms.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import verdict
from rows import HERE, MODEL, Table, versions

from nnas_cli.seeding import seed_globals
from nnas_core.errors import NnasError
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins import registry
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.weights import load_weights
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.model import build_model
from nnas_core.training.settings import DataSettings, from_options
from nnas_core.training.task import Task
from nnas_core.workflows.search import search
from nnas_core.workflows.settings import SearchSettings

SEEDS = (0, 1, 2, 3, 4)

SETTINGS: dict[str, Any] = {"epochs": 20, "batch_size": 128, "learning_rate": 0.05}
"""Of every search; the rest are defaults of `nnas search`."""

TEN_TIMES = {"learning_rate": 3e-3}
"""The rate of the papers' Adam for architectures, times ten: a search here has 500 steps, theirs ten thousand."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "cdarts": TEN_TIMES,
    "darts": TEN_TIMES,
    "drnas": TEN_TIMES,
    # As many samples of the controller as fit in the time of the others; its rate times ten, too.
    "enas": {"learning_rate": 3.5e-3, "mutator_steps": 25, "aggregate": 5},
    # Equal latencies: accuracy alone counts here. Its rate is 0.01 already.
    "fbnet": {
        "latency_table": {f"layer{n}": {"conv3": 1.0, "dilated3": 1.0, "skip": 1.0} for n in range(1, 6)},
    },
    "gdas": TEN_TIMES,
    # Candidates here are built for all channels; the space has no InputChoice, so no edges to weight.
    "pcdarts": {**TEN_TIMES, "k": 1},
    # Three candidates, then two; the depth cannot grow.
    "pdarts": {**TEN_TIMES, "drop": [1, 1], "skip_dropout": [0.0, 0.4]},
    "proxyless": {"learning_rate": 1e-2},
    "snas": TEN_TIMES,
}
"""`--mutator-arg` of those that cannot do with their defaults in a search that short, or need a file."""

EVALUATION_BATCH = 800
"""The validation data are one batch."""

RECALIBRATE = 2
"""Batches of that size for BatchNorm: half of the training data."""

ESTIMATES = HERE / "estimates.csv"


class Searches:
    """Everything that the searches share.

    Args:
        scratch: folder for their run folders.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        model, user = build_model(str(MODEL))
        self.space = SearchSpace.from_model(model)
        self.task = Task(user)
        self.batches = build_batches(self.task, DataSettings(batch_size=EVALUATION_BATCH))

    def configuration(self) -> dict[str, Any]:
        """What decides the numbers, the arguments of the mutators apart: they stand in the rows."""
        truth = json.loads(verdict.TRUTH.with_suffix(".json").read_text(encoding="utf-8"))["configuration"]
        return {
            "command": "python benchmarks/groundtruth/judge.py",
            **SETTINGS,
            "evaluation_batch": EVALUATION_BATCH,
            "recalibrate": RECALIBRATE,
            **{name: truth[name] for name in ("space", "model", "data")},
            "versions": versions(),
        }

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """Search with one mutator and one seed, and estimate all architectures with the weights that it leaves."""
        arguments = ARGUMENTS.get(name, {})
        own = {"model": str(MODEL), "mutator": name, "mutator_arg": arguments, "seed": seed, "device": "cpu"}
        settings = from_options(SearchSettings, {**SETTINGS, **own})
        seed_globals(seed)  # as `nnas search` does
        with RunFolder.create(self.scratch / f"{name}-{seed}", force=True) as run:
            started = time.process_time()
            report = search(settings, run)
            seconds = time.process_time() - started
            answers = self.estimates(run.checkpoint)
        derived = report.architecture.indices()
        numbers = [index for index in range(self.space.size) if self.space.at(index).indices() == derived]
        return {
            "mutator": name,
            "seed": seed,
            "arguments": json.dumps(arguments, sort_keys=True),
            "seconds": round(seconds, 2),
            "derived": numbers[0],
            "estimates": " ".join(map(str, answers)),
        }

    def estimates(self, checkpoint: Path) -> list[int]:
        """Right answers on the validation data of every architecture, with inherited weights."""
        model, _ = build_model(str(MODEL))
        load_weights(model, checkpoint, self.space)
        inherited = InheritedWeights(
            Mutator(model), self.task, *self.batches, torch.device("cpu"), recalibrate=RECALIBRATE
        )
        accuracies = (inherited.evaluate(self.space.at(number)).metrics for number in range(self.space.size))
        return [round(metrics["accuracy"] * EVALUATION_BATCH) for metrics in accuracies]


def run(searches: Searches, names: list[str], seeds: list[int], redo: bool) -> bool:
    """Make the rows that are missing; false if a mutator failed."""
    columns = ["mutator", "seed", "arguments", "seconds", "derived", "estimates"]
    table = Table(ESTIMATES, columns, searches.configuration())
    good = True
    with table.opened() as rows:
        if redo:
            print(f"{table.remove(lambda row: row['mutator'] in names)} rows are made anew", flush=True)
            rows = []
        require_same_arguments(rows, names)
        finished = {(row["mutator"], int(row["seed"])) for row in rows}
        for name in names:
            for seed in seeds:
                if (name, seed) in finished:
                    continue
                try:
                    row = searches.row(name, seed)
                except NnasError as error:
                    print(f"{name}, seed {seed}: {error}", flush=True)
                    good = False
                    break
                table.append(row)
                print(f"{name}, seed {seed}: {row['seconds']} s, derived {row['derived']}", flush=True)
    return good


def require_same_arguments(rows: list[dict[str, str]], names: list[str]) -> None:
    """Refuse to add seeds to rows that were made with other arguments."""
    for row in rows:
        arguments: Mapping[str, Any] = ARGUMENTS.get(row["mutator"], {})
        if row["mutator"] in names and json.loads(row["arguments"]) != json.loads(json.dumps(arguments)):
            sys.exit(f"{row['mutator']} was searched with {row['arguments']}; make it anew with --redo")


def main() -> int:
    """Run the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mutators", nargs="*", help="default: all that are registered")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: 0 1 2 3 4")
    parser.add_argument("--redo", action="store_true", help="make the rows of the named mutators anew")
    parser.add_argument("--scratch", type=Path, help="folder for run folders; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="search nothing; write the table from what is there")
    options = parser.parse_args()
    known = list(registry.entries("mutators"))
    unknown = [name for name in options.mutators if name not in known]
    if unknown:
        parser.error(f"no mutator is named {unknown[0]}; there are {', '.join(known)}")
    if options.redo and not options.mutators:
        parser.error("--redo needs the names of mutators")
    if options.write:
        print(verdict.write(ESTIMATES))
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        searches = Searches(options.scratch or Path(temporary))
        return 0 if run(searches, options.mutators or known, options.seeds, options.redo) else 1


if __name__ == "__main__":
    sys.exit(main())
