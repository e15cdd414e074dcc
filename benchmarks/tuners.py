"""Compare the tuners on objectives whose optimum is known, with trials that fail and with interactions.

    python benchmarks/tuners.py                                 all objectives, three tuners
    python benchmarks/tuners.py --tuners bayes,tpe              other tuners
    python benchmarks/tuners.py --objectives additive,nk        some objectives
    python benchmarks/tuners.py --instances 10 --first 100      fewer instances, and others
    python benchmarks/tuners.py --write-docs                    put the table into docs/benchmarks.md

Every instance has weights of its own, drawn from its number, and a study of its own, whose seed is the number too. What
counts is the value of the best architecture whose trial succeeded, 0 where none did, without the noise that it was
measured with. The exit code is 1 if a target of `bayes` is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from harness import ROOT
from numpy.typing import NDArray

import nnas_core
from nnas_core import SearchSpace, Tuner
from nnas_core.plugins import registry
from nnas_core.study.opening import create_tuner

DOCUMENT = ROOT / "docs" / "benchmarks.md"
REGION = re.compile(r"(<!-- tuners -->\n).*?(<!-- end of tuners -->)", re.DOTALL)

COMPARED = ("bayes", "local-search", "random")

_Floats = NDArray[np.float64]

_ROUNDING = 1e-9
"""Of sums of weights in another order."""


@dataclass(frozen=True)
class Instance:
    """One function to search.

    Attributes:
        sizes: candidates at each key.
        values: ``[n, keys]`` indices -> ``[n]``, larger is better, without noise.
        feasible: ``[n, keys]`` indices -> ``[n]``: which architectures can succeed at all.
        noise: standard deviation of what is measured.
        failing: share of the trials that fail whatever they try.
        best: the highest value of all; None where it is not known.
    """

    sizes: Sequence[int]
    values: Callable[[NDArray[np.int64]], _Floats]
    feasible: Callable[[NDArray[np.int64]], NDArray[np.bool_]] = lambda rows: np.ones(len(rows), dtype=bool)
    noise: float = 0.0
    failing: float = 0.0
    best: float | None = None

    @property
    def space(self) -> SearchSpace:
        """A layer choice a key."""
        return SearchSpace.from_json(
            {
                f"key{key:04}": {"_type": "layer_choice", "_value": [f"op{index}" for index in range(size)]}
                for key, size in enumerate(self.sizes)
            }
        )


@dataclass(frozen=True)
class Objective:
    """A family of instances, and what is promised for them.

    Attributes:
        what: in words.
        make: an instance, from its number.
        trials: after how many of them the best one counts; the most last.
        targets: the least mean of `bayes` after so many trials.
        short: how far the mean of `bayes` may be below that of the highest values, after so many trials.
        above: the tuner whose mean `bayes` must exceed.
        seconds: of CPU time that a study of `bayes` takes at most.
        most: instances at most, where one takes long.
    """

    what: str
    make: Callable[[int], Instance]
    trials: tuple[int, ...]
    targets: Mapping[int, float] = field(default_factory=dict)
    short: Mapping[int, float] = field(default_factory=dict)
    above: str = ""
    seconds: float = 0.0
    most: int = 10**9


def additive(seed: int, keys: int = 8, candidates: int = 5) -> Instance:
    """A normal weight for each candidate of each key; values have mean 0 and variance 1 over the space."""
    weights = np.random.default_rng([seed, keys, candidates]).normal(size=(keys, candidates)) / np.sqrt(keys)
    return Instance(
        [candidates] * keys,
        lambda rows: weights[np.arange(keys), rows].sum(axis=1),
        best=float(weights.max(axis=1).sum()),
    )


def failing(seed: int, share: float = 0.3) -> Instance:
    """As ``additive``, and trials fail at random."""
    return dataclasses.replace(additive(seed), failing=share)


def infeasible(seed: int, share: float, likeness: float) -> Instance:
    """As ``additive``, and what costs more than a limit cannot succeed.

    Args:
        seed: number of the instance.
        share: of the architectures cost more.
        likeness: correlation of the weights' part in values and in costs: what is good costs more.
    """
    found = additive(seed)
    rng = np.random.default_rng([seed, 1])
    own = rng.normal(size=(8, 5)) / np.sqrt(8)

    def cost(rows: NDArray[np.int64]) -> _Floats:
        return likeness * found.values(rows) + np.sqrt(1 - likeness**2) * own[np.arange(8), rows].sum(axis=1)

    limit = np.quantile(cost(rng.integers(5, size=(20_000, 8))), 1 - share)
    return dataclasses.replace(found, feasible=lambda rows: cost(rows) <= limit, best=None)


def forbidden(seed: int, share: float) -> Instance:
    """As ``additive``, and pairs of candidates at two keys cannot be together, so many that a share cannot succeed."""
    rng = np.random.default_rng([seed, 2])
    pairs = list(itertools.combinations(range(8), 2))
    sample, left = rng.integers(5, size=(20_000, 8)), np.ones(20_000, dtype=bool)
    banned: list[tuple[int, int, int, int]] = []
    while left.mean() > 1 - share:
        one, other = pairs[int(rng.integers(len(pairs)))]
        banned.append((one, other, int(rng.integers(5)), int(rng.integers(5))))
        left &= ~_has(sample, banned[-1])
    return dataclasses.replace(
        additive(seed), feasible=lambda rows: ~np.any([_has(rows, pair) for pair in banned], axis=0), best=None
    )


def _has(rows: NDArray[np.int64], pair: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    one, other, first, second = pair
    return (rows[:, one] == first) & (rows[:, other] == second)


def nk(seed: int, keys: int = 10, candidates: int = 4, others: int = 3, nearest: bool = False) -> Instance:
    """An NK landscape: what a key adds depends on the decisions there and at K others.

    Args:
        seed: number of the instance.
        keys: N.
        candidates: of each key.
        others: K.
        nearest: the keys that follow, in a circle, instead of random ones.
    """
    rng = np.random.default_rng([seed, keys, candidates, others])
    table = rng.normal(size=(keys, candidates ** (others + 1))) / np.sqrt(keys)
    if nearest:
        parts = [[(key + step) % keys for step in range(others + 1)] for key in range(keys)]
    else:
        parts = [
            [key, *rng.choice([one for one in range(keys) if one != key], others, replace=False).tolist()]
            for key in range(keys)
        ]
    powers = candidates ** np.arange(others + 1)
    return Instance(
        [candidates] * keys,
        lambda rows: sum((table[key, rows[:, part] @ powers] for key, part in enumerate(parts)), np.zeros(len(rows))),
    )


def noisy(seed: int) -> Instance:
    """As ``nk`` with pairs only, measured with half of the deviation that the values have."""
    return dataclasses.replace(nk(seed, others=1), noise=0.5)


OBJECTIVES: dict[str, Objective] = {
    "additive": Objective("8 keys of 5, each adds", additive, (50, 100), short={100: 0.0}),
    "failing": Objective(
        "8 keys of 5, each adds; 30 % of the trials fail at random", failing, (50, 100), short={50: 0.27, 100: 0.07}
    ),
    "infeasible90": Objective(
        "8 keys of 5; 90 % cost too much, and what is good costs more",
        lambda seed: infeasible(seed, 0.9, 0.65),
        (50, 100),
        above="local-search",
    ),
    "infeasible70": Objective("the same, 70 %", lambda seed: infeasible(seed, 0.7, 0.65), (50,), above="local-search"),
    "unlike90": Objective(
        "90 % cost too much, whatever is good", lambda seed: infeasible(seed, 0.9, 0.0), (50, 100), above="local-search"
    ),
    "forbidden70": Objective(
        "70 % have pairs of candidates that cannot be together",
        lambda seed: forbidden(seed, 0.7),
        (50, 100),
        above="local-search",
    ),
    "nk": Objective("NK landscape, 10 keys of 4, K = 3", nk, (50, 100), {50: 3.2, 100: 3.7}),
    "nk1": Objective("12 keys of 3, K = 1", lambda seed: nk(seed, 12, 3, 1), (50, 100), above="local-search"),
    "nk2near": Objective(
        "8 keys of 3, K = 2, the next ones", lambda seed: nk(seed, 8, 3, 2, True), (50, 100), above="local-search"
    ),
    "noisy": Objective("10 keys of 4, K = 1, noise of deviation 0.5", noisy, (50, 100), above="local-search"),
    "wide": Objective("1,000 keys of 4, each adds", lambda seed: additive(seed, 1000, 4), (100,), seconds=10.0, most=3),
}
"""By name."""


# ---- studies


@dataclass(frozen=True)
class Study:
    """The best value after each trial, 0 where none succeeded; and what the tuner took, in seconds of CPU time."""

    best: Sequence[float]
    seconds: float


def run(name: str, instance: Instance, trials: int, seed: int, arguments: Mapping[str, object] | None = None) -> Study:
    """Runs a study as nnas does: propose, evaluate, tell."""
    kind: type[Tuner] = registry.find("tuners", name)
    tuner = create_tuner(kind, dict(arguments or {}), name=name, seed=seed, optimize_mode="maximize")
    tuner.update_search_space(instance.space.to_json())
    rng = np.random.default_rng([seed, 3])
    best: list[float] = []
    begin = time.process_time()
    for number in range(trials):
        parameters = tuner.generate_parameters(number)
        row = np.array([[entry["_idx"] for entry in parameters.values()]])
        value, shifted = float(instance.values(row)[0]), instance.noise * float(rng.normal())
        succeeded = bool(instance.feasible(row)[0]) and float(rng.random()) >= instance.failing
        if succeeded:
            tuner.receive_trial_result(number, parameters, value + shifted)
        tuner.trial_end(number, succeeded)
        before = best[-1] if best else -np.inf
        best.append(max(before, value) if succeeded else before)
    return Study([value if np.isfinite(value) else 0.0 for value in best], time.process_time() - begin)


@dataclass(frozen=True)
class Result:
    """What a tuner reached on an objective.

    Attributes:
        name: of the objective.
        tuner: its name.
        best: ``[instances, trials]``.
        seconds: of CPU time, a study each.
        optimum: the mean of the highest values; not a number where one is not known.
    """

    name: str
    tuner: str
    best: _Floats
    seconds: Sequence[float]
    optimum: float

    def mean(self, trials: int) -> float:
        """After so many trials."""
        return float(self.best[:, trials - 1].mean())

    def shown(self, trials: int) -> str:
        """Mean and standard error."""
        values = self.best[:, trials - 1]
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        return f"{values.mean():.2f} ± {error:.2f}"


def measure(name: str, tuner: str, instances: range) -> Result:
    """Runs a study on each instance, fewer where they take long."""
    objective = OBJECTIVES[name]
    made = [objective.make(seed) for seed in instances[: objective.most]]
    studies = [run(tuner, one, objective.trials[-1], seed) for one, seed in zip(made, instances, strict=False)]
    optimum = statistics.fmean(math.nan if one.best is None else one.best for one in made)
    return Result(name, tuner, np.array([one.best for one in studies]), [one.seconds for one in studies], optimum)


def missed(results: Sequence[Result]) -> Iterator[str]:
    """The targets of ``bayes`` that are missed, each in words."""
    found = {(one.name, one.tuner): one for one in results}
    for (name, tuner), result in found.items():
        objective = OBJECTIVES[name]
        if tuner != "bayes":
            continue
        for trials, least in objective.targets.items():
            if result.mean(trials) < least:
                yield f"{name}: {result.mean(trials):.3f} after {trials} trials, not {least}"
        for trials, most in objective.short.items():
            if result.mean(trials) < result.optimum - most - _ROUNDING:
                yield f"{name}: {result.mean(trials):.3f} after {trials} trials, not {result.optimum:.3f} - {most}"
        if objective.seconds and statistics.median(result.seconds) > objective.seconds:
            yield f"{name}: {statistics.median(result.seconds):.1f} s, not {objective.seconds}"
        other = found.get((name, objective.above))
        trials = objective.trials[-1]
        if other and result.mean(trials) <= other.mean(trials):
            yield f"{name}: {result.mean(trials):.3f} after {trials} trials, not above {objective.above}"


def markdown(results: Sequence[Result]) -> str:
    """A row an objective, a column a tuner."""
    tuners = list(dict.fromkeys(one.tuner for one in results))
    lines = ["| objective | trials | " + " | ".join(f"`{one}`" for one in tuners) + " | target | s a study |"]
    lines.append("|---|---|" + "---|" * (len(tuners) + 2))
    for name in dict.fromkeys(one.name for one in results):
        objective = OBJECTIVES[name]
        mine = {one.tuner: one for one in results if one.name == name}
        for trials in objective.trials:
            target = f">= {objective.targets[trials]}" if trials in objective.targets else ""
            if trials in objective.short:
                optimum = next(iter(mine.values())).optimum
                target = f"optimum {optimum:.2f}, less {objective.short[trials]}"
            if trials == objective.trials[-1]:
                target = target or (f"above `{objective.above}`" if objective.above else "")
                target += f"<= {objective.seconds:g} s" if objective.seconds else ""
            seconds = f"{statistics.median(mine['bayes'].seconds):.1f}" if "bayes" in mine else ""
            cells = [mine[one].shown(trials) if one in mine else "" for one in tuners]
            lines.append(
                "| " + " | ".join([f"`{name}`: {objective.what}", str(trials), *cells, target, seconds]) + " |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuners", default=",".join(COMPARED), metavar="A,B", help="as `nnas list tuners` has them")
    parser.add_argument("--objectives", default=",".join(OBJECTIVES), metavar="A,B", help=", ".join(OBJECTIVES))
    parser.add_argument("--instances", type=int, default=30, help="of each objective")
    parser.add_argument("--first", type=int, default=0, help="number of the first instance")
    parser.add_argument("--write-docs", action="store_true", help=f"replace the table of {DOCUMENT.name}")
    options = parser.parse_args()
    unknown = set(options.objectives.split(",")) - OBJECTIVES.keys()
    if unknown:
        parser.error(f"no objective {', '.join(sorted(unknown))}")
    instances = range(options.first, options.first + options.instances)
    begin = time.process_time()
    results = []
    for name in options.objectives.split(","):
        for tuner in options.tuners.split(","):
            results.append(measure(name, tuner, instances))
            shown = ", ".join(f"{trials}: {results[-1].shown(trials)}" for trials in OBJECTIVES[name].trials)
            print(f"{name}, {tuner}: {shown}; {statistics.median(results[-1].seconds):.2f} s a study", flush=True)
    text = markdown(results)
    head = (
        f"{datetime.date.today()}, nnas {nnas_core.__version__}, Python {platform.python_version()}, "
        f"{platform.processor() or platform.machine()};\n{len(instances)} instances from {options.first} on, "
        f"{time.process_time() - begin:.0f} s of CPU time.\n\n"
    )
    print(f"\n{head}{text}")
    if options.write_docs:
        page = DOCUMENT.read_text(encoding="utf-8")
        page, found = REGION.subn(lambda region: f"{region[1]}{head}{text}{region[2]}", page)
        if not found:
            raise RuntimeError(f"{DOCUMENT} has no place for the table")
        DOCUMENT.write_text(page, encoding="utf-8")
    wrong = list(missed(results))
    print("\n".join(f"missed: {line}" for line in wrong) or "no target is missed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
