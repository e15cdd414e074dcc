"""Run every one-shot algorithm on a space that truth.py trained, and compare what it says with the truth.

    python benchmarks/groundtruth/judge.py digits                 all mutators, seeds 0 to 2, to its estimates.csv
    python benchmarks/groundtruth/judge.py digits darts gdas      some of them
    python benchmarks/groundtruth/judge.py digits --redo darts    its rows are made anew
    python benchmarks/groundtruth/judge.py --write                judged.csv, measured.json and docs/algorithms.md

One process, one thread. It can be stopped at any moment and goes on where it was. What is measured how:
docs/algorithms.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import verdict
from rows import Table, versions
from spaces import SPACES, Space

from nnas_cli.seeding import seed_globals
from nnas_core.errors import NnasError
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins import registry
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.weights import load_weights
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.model import build_model
from nnas_core.training.settings import DataSettings, from_options
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback
from nnas_core.workflows.search import search
from nnas_core.workflows.settings import SearchSettings

SEEDS = (0, 1, 2)

COLUMNS = [
    "mutator",
    "seed",
    "arguments",
    "seconds",
    "derive_seconds",
    "tried",
    "proposed",
    "derived",
    "estimates",
]
"""Of estimates.csv. ``proposed`` is what the algorithm says, ``derived`` what the search hands out."""

TEN_TIMES = {"learning_rate": 3e-3}
"""The rate of the papers' Adam for architectures, times ten: a search here has 500 steps, theirs ten thousand."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "cdarts": TEN_TIMES,
    "darts": TEN_TIMES,
    "drnas": TEN_TIMES,
    # As many samples of the controller as fit in the time of the others; its rate times ten, too.
    "enas": {"learning_rate": 3.5e-3, "mutator_steps": 25, "aggregate": 5},
    "gdas": TEN_TIMES,
    # Candidates here are built for all channels.
    "pcdarts": {**TEN_TIMES, "k": 1},
    # Three candidates, then two; the depth cannot grow.
    "pdarts": {**TEN_TIMES, "drop": [1, 1], "skip_dropout": [0.0, 0.4]},
    "proxyless": {"learning_rate": 1e-2},
    "snas": TEN_TIMES,
}
"""`--mutator-arg` of those that cannot do with their defaults in a search that short, or need a file."""


def arguments_of(name: str, space: SearchSpace) -> dict[str, Any]:
    """The `--mutator-arg` of a mutator in a space."""
    if name == "fbnet":  # Equal latencies: accuracy alone counts here. Its rate is 0.01 already.
        layers = [choice for choice in space if choice.kind == "layer_choice"]
        return {"latency_table": {choice.key: dict.fromkeys(choice.candidates, 1.0) for choice in layers}}
    return ARGUMENTS.get(name, {})


class Clock(Callback):
    """The CPU seconds of this process when the last epoch ended: what comes then is the derivation."""

    trained = 0.0

    def on_epoch_end(self, epoch: int) -> None:
        self.trained = time.process_time()


class Searches:
    """Everything that the searches share.

    Args:
        settings: of the space.
        scratch: folder for their run folders.
    """

    def __init__(self, settings: Space, scratch: Path) -> None:
        self.settings = settings
        self.scratch = scratch
        model, user = build_model(str(settings.model))
        self.space = SearchSpace.from_model(model)
        self.task = Task(user)
        self.batches = build_batches(self.task, DataSettings(batch_size=settings.validation))

    def configuration(self) -> dict[str, Any]:
        """What decides the numbers, the arguments of the mutators apart: they stand in the rows."""
        truth = json.loads((self.settings.folder / "truth.json").read_text(encoding="utf-8"))["configuration"]
        return {
            "command": f"python benchmarks/groundtruth/judge.py {self.settings.name}",
            **self.options(),
            "evaluation_batch": self.settings.validation,
            "recalibrate": self.settings.recalibrate,
            **{name: truth[name] for name in ("space", "model", "data")},
            "versions": versions(self.settings.package),
        }

    def options(self) -> dict[str, Any]:
        """Of every search; the rest are defaults of `nnas search`."""
        one = self.settings
        return {"epochs": one.search_epochs, "batch_size": one.batch_size, "learning_rate": one.learning_rate}

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """Search with one mutator and one seed, and estimate all architectures with the weights that it leaves."""
        arguments = arguments_of(name, self.space)
        own = {
            "model": str(self.settings.model),
            "mutator": name,
            "mutator_arg": arguments,
            "seed": seed,
            "device": "cpu",
        }
        settings = from_options(SearchSettings, {**self.options(), **own})
        seed_globals(seed)  # as `nnas search` does
        with RunFolder.create(self.scratch / f"{name}-{seed}", force=True) as run:
            clock = Clock()
            started = time.process_time()
            report = search(settings, run, callbacks=[clock])
            ended = time.process_time()
            answers = self.estimates(run.checkpoint)
        derivation = report.derivation
        return {
            "mutator": name,
            "seed": seed,
            "arguments": json.dumps(arguments, sort_keys=True),
            "seconds": round(clock.trained - started, 2),
            "derive_seconds": round(ended - clock.trained, 2),
            "tried": 0 if derivation is None else derivation.tried,
            "proposed": self.number(report.proposed),
            "derived": self.number(report.architecture),
            "estimates": " ".join(map(str, answers)),
        }

    def number(self, architecture: Architecture) -> int:
        """Of an architecture in the space."""
        found = architecture.indices()
        return next(number for number in range(self.space.size) if self.space.at(number).indices() == found)

    def estimates(self, checkpoint: Path) -> list[int]:
        """Right answers on the validation data of every architecture, with inherited weights."""
        model, _ = build_model(str(self.settings.model))
        load_weights(model, checkpoint, self.space)
        inherited = InheritedWeights(
            Mutator(model), self.task, *self.batches, torch.device("cpu"), self.settings.recalibrate
        )
        accuracies = (inherited.evaluate(self.space.at(number)).metrics for number in range(self.space.size))
        return [round(metrics["accuracy"] * self.settings.validation) for metrics in accuracies]


def run(searches: Searches, names: list[str], seeds: list[int], redo: bool) -> bool:
    """Make the rows that are missing; false if a mutator failed."""
    table = Table(searches.settings.folder / "estimates.csv", COLUMNS, searches.configuration())
    good = True
    with table.opened() as rows:
        if redo:
            print(f"{table.remove(lambda row: row['mutator'] in names)} rows are made anew", flush=True)
            rows = []
        require_same_arguments(rows, names, searches.space)
        # rows from before searches measured what they hand out lack that: they are made anew
        finished = {(row["mutator"], int(row["seed"])) for row in rows if row["derived"]}
        for seed, name in itertools.product(seeds, names):  # a part of it has something of all
            if (name, seed) in finished:
                continue
            try:
                row = searches.row(name, seed)
            except NnasError as error:
                print(f"{name}, seed {seed}: {error}", flush=True)
                good = False
                continue
            table.remove(lambda old, row=row: (old["mutator"], old["seed"]) == (row["mutator"], str(row["seed"])))
            table.append(row)
            print(f"{name}, seed {seed}: {row['seconds']} s, derived {row['derived']}", flush=True)
    return good


def require_same_arguments(rows: list[dict[str, str]], names: list[str], space: SearchSpace) -> None:
    """Refuse to add seeds to rows that were made with other arguments."""
    for row in rows:
        arguments = arguments_of(row["mutator"], space)
        if row["mutator"] in names and json.loads(row["arguments"]) != json.loads(json.dumps(arguments)):
            sys.exit(f"{row['mutator']} was searched with {row['arguments']}; make it anew with --redo")


def main() -> int:
    """Run the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("space", nargs="?", choices=SPACES, help="whose tables to make")
    parser.add_argument("mutators", nargs="*", help="default: all that are registered")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: 0 1 2")
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
        print(verdict.write())
        return 0
    if options.space is None:
        parser.error(f"name a space: {', '.join(SPACES)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        searches = Searches(SPACES[options.space], options.scratch or Path(temporary))
        return 0 if run(searches, options.mutators or known, options.seeds, options.redo) else 1


if __name__ == "__main__":
    sys.exit(main())
