"""Train every architecture of a space alone, three times, and write what it reaches into its truth.csv.

    python benchmarks/groundtruth/truth.py mnist1d
    python benchmarks/groundtruth/truth.py digits

One process, one thread, half an hour for the first on an idle core, and minutes for the second. It can be stopped at
any moment and goes on where it was. A training is what `nnas retrain` does with the same options, without its run
folder:

    nnas retrain benchmarks/groundtruth/mnist1d/model.py --architecture FILE --epochs 12 --batch-size 128 \\
        --learning-rate 0.05 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rows import Table, read, versions
from spaces import SEEDS, SPACES, Space, add_argument
from torch import Tensor, nn

from nnas_core.mutables.extraction import extract
from nnas_core.random_state import torch_generator
from nnas_core.randomness import derive_seed
from nnas_core.runs.weights import weights_digest
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_model
from nnas_core.training.settings import OptimizerSettings
from nnas_core.training.task import Task

CLIP_GRAD = 5.0


class Trainings:
    """Everything that the trainings of all architectures share."""

    def __init__(self, settings: Space) -> None:
        self.settings = settings
        supernet, user = fresh_supernet(settings, 0)
        self.space = SearchSpace.from_model(supernet)
        self.optimizer = OptimizerSettings(learning_rate=settings.learning_rate)
        self.task = Task(user, self.optimizer)
        self.train, self.valid, self.test = (
            self.task.call(f"{name}_dataset").tensors for name in ("train", "valid", "test")
        )

    def configuration(self) -> dict[str, Any]:
        """What decides the numbers."""
        data = hashlib.sha256()
        for tensor in (*self.train, *self.valid, *self.test):
            data.update(tensor.numpy().tobytes())
        return {
            "command": f"python benchmarks/groundtruth/truth.py {self.settings.name}",
            "seeds": list(SEEDS),
            "epochs": self.settings.epochs,
            "batch_size": self.settings.batch_size,
            "optimizer": vars(self.optimizer),
            "clip_grad": CLIP_GRAD,
            "space": self.space.fingerprint,
            "model": weights_digest(fresh_supernet(self.settings, 0)[0]),
            "data": f"sha256:{data.hexdigest()[:16]}",
            "versions": versions(self.settings.package),
        }

    def alone(self, architecture: Architecture, seed: int) -> tuple[nn.Module, float]:
        """Train one architecture as a plain model.

        Returns:
            The model, and the CPU seconds that its training took.
        """
        model = extract(fresh_supernet(self.settings, seed)[0], architecture)
        started = time.process_time()
        weights = list(model.parameters())
        optimizer = self.task.build_optimizer(weights)
        epochs, batch_size = self.settings.epochs, self.settings.batch_size
        signals, labels = self.train
        scheduler = self.task.build_scheduler(optimizer, epochs * -(-len(labels) // batch_size))
        for epoch in range(epochs):
            # the order that the batches of nnas have
            order = torch.randperm(len(labels), generator=torch_generator(seed, "train", "order", epoch))
            for batch in order.split(batch_size):
                optimizer.zero_grad()
                self.task.loss(model(signals[batch]), labels[batch]).backward()
                nn.utils.clip_grad_norm_(weights, CLIP_GRAD)
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
        return model.eval(), time.process_time() - started


def fresh_supernet(settings: Space, seed: int) -> tuple[nn.Module, Any]:
    """The supernet with the weights of ``seed``, and its module."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derive_seed(seed, "torch"))  # as the command does
        return build_model(str(settings.model))


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """The fraction of right answers on all of ``data``."""
    return (model(data[0]).argmax(dim=1) == data[1]).float().mean().item()


def columns(space: SearchSpace) -> list[str]:
    """The columns of truth.csv."""
    measured = [f"{name}_{seed}" for name in ("valid", "test", "seconds") for seed in SEEDS]
    return ["number", *space.keys, "parameters", "valid", "test", *measured]


def row_of(trainings: Trainings, number: int) -> dict[str, Any]:
    """Train architecture ``number`` with every seed."""
    architecture = trainings.space.at(number)
    row: dict[str, Any] = {"number": number, **architecture.names()}
    for seed in SEEDS:
        model, seconds = trainings.alone(architecture, seed)
        row["parameters"] = sum(weight.numel() for weight in model.parameters())
        row[f"valid_{seed}"] = accuracy(model, trainings.valid)
        row[f"test_{seed}"] = accuracy(model, trainings.test)
        row[f"seconds_{seed}"] = round(seconds, 3)
    for name in ("valid", "test"):
        row[name] = statistics.fmean(row[f"{name}_{seed}"] for seed in SEEDS)
    return row


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_argument(parser)
    parser.add_argument("-o", "--output", type=Path, help="CSV file; default: truth.csv of the space")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = SPACES[options.space]
    trainings = Trainings(settings)
    table = Table(options.output or settings.folder / "truth.csv", columns(trainings.space), trainings.configuration())
    with table.opened() as rows:
        finished = {int(row["number"]) for row in rows}
        size = trainings.space.size
        print(f"{len(finished)} of {size} architectures are there", flush=True)
        if len(finished) < size:
            trainings.alone(trainings.space.at(0), SEEDS[0])  # torch makes its kernels at first use
        for number in range(size):
            if number in finished:
                continue
            row = row_of(trainings, number)
            table.append(row)
            names = " ".join(str(row[key]) for key in trainings.space.keys)
            print(f"{number + 1}/{size} {names}: valid {row['valid']:.4f}, test {row['test']:.4f}", flush=True)
        everything = read(table.path)
        seconds = sum(float(row[f"seconds_{seed}"]) for row in everything for seed in SEEDS)
        table.describe(
            {"architectures": len(everything), "trainings": len(everything) * len(SEEDS), "cpu_seconds": round(seconds)}
        )
    print(f"{seconds:.0f} s of CPU time in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
