"""Rows 19 to 24: studies whose trials cost nothing, and studies in several processes.

Stores are on a file system in memory, so that no disk's fsync is measured. What happens in several processes is timed
by the clock on the wall, the rest by CPU time.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna
from harness import ROOT, Line, Turn, compare, ratios, run_process, shown
from startup import NNAS
from tune_bookkeeping import MEMORY, layers, trial_times

from nnas_core import Architecture, Tuner
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Engine, Evaluate, TrialResult
from nnas_core.execution.factory import engine_of
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.plugins import registry
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.opening import create_study, create_tuner
from nnas_core.study.storage.records import StudySettings, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.settings import ModelReference, TrainingSettings
from nnas_core.workflows.settings import AlgorithmSettings, TuneSettings
from nnas_core.workflows.tune import tune

KEYS = 20

OURS, THEIRS = 200, 20
"""Trials a turn of row 19: so many that either side takes a part of a second."""

FINISHED = 2000
"""Trials that a study of row 20 has before it is timed."""

PROPOSALS = 50
"""A turn of row 22."""

MODEL = ROOT / "examples" / "digits" / "model.py"

TRIALS = 40
"""A study of row 23."""


class Ends(list[float]):
    """When each trial was stored, by the clock on the wall."""

    def __call__(self, trial: TrialRecord) -> None:
        self.append(time.monotonic())


def at_once(architecture: Architecture) -> TrialResult:
    """An evaluation that costs nothing."""
    return TrialResult(0.5, {"accuracy": 0.5})


def tuner_of(name: str) -> Tuner:
    """A fresh tuner."""
    return create_tuner(registry.find("tuners", name), {}, name=name, seed=0, optimize_mode="maximize")


def no_ops(store: StudyStore, name: str, engine: Engine | Evaluate, trials: int, concurrency: int = 1) -> Ends:
    """Run a new study of random architectures."""
    ends = Ends()
    study = create_study(store, StudySettings(name, layers(KEYS), "random"))
    run_study(
        store, study, tuner_of("random"), engine, RunSettings(Limits(trials, concurrency=concurrency), on_trial=ends)
    )
    return ends


@contextlib.contextmanager
def store_in_memory() -> Iterator[tuple[StudyStore, Path]]:
    """An empty store, and the folder that it is in."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, StudyStore.open(f"sqlite:///{name}/nnas.db") as store:
        yield store, Path(name)


def suggested(trial: optuna.Trial) -> float:
    """What users of Optuna write for the same space and evaluation."""
    for key in range(KEYS):
        trial.suggest_categorical(f"layer{key:04}", ("a", "b", "c", "d"))
    return 0.5


def row_19(rounds: int) -> Iterator[Line]:
    """Trials that cost nothing, evaluated in the coordinator and by a worker process, against Optuna's own study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = (f"study{number}" for number in itertools.count())
    with store_in_memory() as (store, folder):

        def sides(number: int) -> Mapping[str, Turn]:
            storage = f"sqlite:///{folder}/optuna{number}.db"
            theirs = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
            return {
                "nnas": lambda: no_ops(store, next(names), at_once, OURS),
                "optuna": lambda: theirs.optimize(suggested, THEIRS),
            }

        turns = compare(sides, max(3, rounds // 2), turns=3, shortest=0, clock=time.monotonic)
        seconds = {
            "nnas": [one / OURS for one in turns["nnas"]],
            "optuna": [one / THEIRS for one in turns["optuna"]],
            "nnas with a worker process": [worker_seconds(store, next(names), folder) for _ in turns["nnas"]],
        }
    what = f"no-op trials, {KEYS} keys, SQLite in memory: how many times as many a second as Optuna's study"
    for ours, where in (("nnas", "in the process"), ("nnas with a worker process", "by a worker process")):
        values = ratios(seconds, "optuna", ours)
        yield Line(19, f"{what}, {where}", "x", 20, values, at_least=True, note=shown(seconds))


def worker_seconds(store: StudyStore, name: str, folder: Path) -> float:
    """Seconds a trial of one worker process that has begun to work."""
    workers = WorkerPool("idle_worker", {}, LocalSettings(folder / name))
    ends = no_ops(store, name, workers, 1 + OURS)
    return (ends[-1] - ends[0]) / OURS


def row_20(rounds: int) -> Iterator[Line]:
    """What the coordinator does for a trial when 2,000 are finished; one study a round."""
    for keys, target in ((KEYS, 1.0), (1000, 10.0)):
        values = []
        for number in range(max(3, rounds // 4)):
            ends = trial_times(keys, number, FINISHED)
            values.append(1000 * (ends[-1] - ends[FINISHED - 1]) / (len(ends) - FINISHED))
        yield Line(20, f"CPU time of the coordinator a trial, 2,000 finished, {keys:,} keys", "ms", target, values)


def row_21(rounds: int) -> Iterator[Line]:
    """An empty trial by a warm worker: proposed, sent, received, stored."""
    with store_in_memory() as (store, folder):
        values = [1000 * worker_seconds(store, f"study{number}", folder) for number in range(max(3, rounds))]
    yield Line(21, "empty trial by a warm worker process, from proposal to stored result, wall", "ms", 50, values)


def row_22(rounds: int) -> Iterator[Line]:
    """Proposals of tuners in memory: ask, tell."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def sides(number: int) -> Mapping[str, Turn]:
        tuner = tuner_of("evolution")
        tuner.update_search_space(layers(KEYS).to_json())
        theirs = optuna.create_study(sampler=optuna.samplers.NSGAIISampler(seed=number))
        numbers = itertools.count()
        values = itertools.cycle([0.5, 0.25, 0.75, 0.125, 0.875])

        def ours() -> None:
            for _ in range(PROPOSALS):
                number = next(numbers)
                tuner.receive_trial_result(number, tuner.generate_parameters(number), next(values))
                tuner.trial_end(number, True)

        def nsga2() -> None:
            for _ in range(PROPOSALS):
                trial = theirs.ask()
                suggested(trial)
                theirs.tell(trial, next(values))

        return {"nnas": ours, "optuna": nsga2}

    seconds = compare(sides, max(3, rounds), turns=3, shortest=0)
    seconds = {name: [one / PROPOSALS for one in times] for name, times in seconds.items()}
    what = f"proposals of evolution, {KEYS} keys: how many times as many a second as Optuna's NSGA-II in memory"
    yield Line(22, what, "x", 10, ratios(seconds, "optuna", "nnas"), at_least=True, note=shown(seconds))


def row_23(rounds: int) -> Iterator[Line]:
    """Trials with inherited weights by two worker processes of one thread, against one."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, StudyStore.open(f"sqlite:///{name}/nnas.db") as store:
        run_process([NNAS, "search", str(MODEL), "--mutator", "random", "--epochs", "1", "-q", "-o", f"{name}/run"])
        numbers = itertools.count()

        def seconds_of(workers: int) -> float:
            ends = Ends()
            study = f"study{next(numbers)}"
            settings = TuneSettings(
                training=TrainingSettings(model=ModelReference(str(MODEL))),
                study=study,
                algorithms=AlgorithmSettings(tuner="random"),
                checkpoint=f"{name}/run/checkpoint.pt",
            )
            local = LocalSettings(Path(name) / study)
            tune(settings, store, trials=TRIALS, concurrency=workers, local=local, on_trial=ends)
            warm = TRIALS // 4  # both workers have loaded the model by then
            return (ends[-1] - ends[warm]) / (TRIALS - 1 - warm)

        seconds: dict[str, list[float]] = {"one worker": [], "two workers": []}
        for _ in range(max(3, rounds // 2)):
            seconds["one worker"].append(seconds_of(1))
            seconds["two workers"].append(seconds_of(2))
    what = "trials with inherited weights, examples/digits: how many times as many a second by two workers as by one"
    yield Line(23, what, "x", 1.8, ratios(seconds, "one worker", "two workers"), at_least=True, note=shown(seconds))


SLEEPER = """
import json, os, time
time.sleep(1)
with open(os.environ["NNAS_RESULT"], "w") as file:
    json.dump({"value": 0.5}, file)
"""


def row_24(rounds: int) -> Iterator[Line]:
    """Trial commands of one second, two at once: on a Ray cluster of its own, against the local engine."""
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    names = (f"study{number}" for number in itertools.count())
    command = [sys.executable, "-I", "-S", "-c", SLEEPER]
    with store_in_memory() as (store, folder):
        for _ in range(min(3, rounds)):
            for name, cluster in (("local", None), ("ray", RaySettings(cpus=2))):
                local = LocalSettings(folder / "trials")
                engine = engine_of(CommandTrials(command), layers(KEYS), local, cluster)
                ends = no_ops(store, next(names), engine, 22, concurrency=2)
                # the cluster has started when the first two have ended
                seconds[name].append((ends[-1] - ends[1]) / 10)
    what = "trial commands of 1 s, two at once, on a Ray cluster of its own against the local engine"
    yield Line(24, what, "x", 1.05, ratios(seconds, "ray", "local"), note=shown(seconds))
