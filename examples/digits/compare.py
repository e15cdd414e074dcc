"""Was the search worth it? Give other architectures the same training, and print all results in one table.

    python examples/digits/compare.py --found best.json --found-report retrain-best.json --epochs 15 \\
        --out compare

Every architecture is retrained by ``nnas retrain`` with the same options: the same epochs, the same steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from model import DigitsNet

from nnas_core import Architecture, SearchSpace, extract

MODEL = Path(__file__).with_name("model.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--found", type=Path, required=True, help="the architecture that the search found")
    parser.add_argument("--found-report", type=Path, required=True, help="what `nnas retrain --json` said about it")
    parser.add_argument("--epochs", type=int, required=True, help="the epochs it was retrained for")
    parser.add_argument("--out", type=Path, required=True, help="folder for the other architectures and their runs")
    parser.add_argument("--random", type=int, default=5, help="number of random architectures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    space = SearchSpace.from_model(DigitsNet())
    rng = np.random.default_rng(0)
    found = space.parse(json.loads(arguments.found.read_text(encoding="utf-8")))
    others = {f"random-{number}": space.sample(rng) for number in range(1, arguments.random + 1)}
    others["smallest"] = smallest(space, rng)

    accuracies = {"found": test_accuracy(json.loads(arguments.found_report.read_text(encoding="utf-8")))}
    for name, architecture in others.items():
        accuracies[name] = test_accuracy(retrain(name, architecture, arguments.epochs, arguments.out))
    sizes = {name: parameters(architecture) for name, architecture in {"found": found, **others}.items()}

    print_table(accuracies, sizes)
    print(f"\nEach was trained from scratch for {arguments.epochs} epochs, with the same options.")
    print("The best random one is the best by test accuracy, which is known only afterwards.")


def print_table(accuracies: dict[str, float], sizes: dict[str, int]) -> None:
    """The architecture that was found, the random ones summed up, and the smallest."""
    names = [name for name in accuracies if name.startswith("random-")]
    best = max(names, key=accuracies.__getitem__)
    rows = [
        ("found by the search", sizes["found"], accuracies["found"]),
        (
            f"random, mean of {len(names)}",
            round(statistics.mean(sizes[name] for name in names)),
            statistics.mean(accuracies[name] for name in names),
        ),
        (f"random, best of {len(names)}", sizes[best], accuracies[best]),
        ("smallest in the space", sizes["smallest"], accuracies["smallest"]),
    ]
    print(f"\n{'architecture':<24}{'parameters':>12}{'test accuracy':>16}")
    for label, size, accuracy in rows:
        print(f"{label:<24}{size:>12,}{accuracy:>16.2%}")


def retrain(name: str, architecture: Architecture, epochs: int, folder: Path) -> dict[str, Any]:
    """The report of ``nnas retrain`` about one architecture."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(architecture.masks(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"retraining {name}", file=sys.stderr)
    command = [
        *(sys.executable, "-m", "nnas_cli", "retrain", str(MODEL), "--architecture", str(file)),
        *("--epochs", str(epochs), "--json", "-o", str(folder / name)),
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_accuracy(report: dict[str, Any]) -> float:
    return report["test"]["accuracy"]


def parameters(architecture: Architecture) -> int:
    """The number of weights of the plain model that an architecture amounts to."""
    return sum(weight.numel() for weight in extract(DigitsNet(), architecture).parameters())


def smallest(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """The architecture with the fewest parameters.

    They are a sum over the keys, so going to the smallest neighbour until none is smaller finds it.
    """
    architecture = space.sample(rng)
    while True:
        smaller = min(space.neighbours(architecture), key=parameters)
        if parameters(smaller) >= parameters(architecture):
            return architecture
        architecture = smaller


if __name__ == "__main__":
    main()
