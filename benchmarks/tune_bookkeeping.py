"""Row 8: what a trial of `tune` costs besides its evaluation: the tuner, the store, the checks.

The store is on a file system in memory, so that no disk's fsync is measured, and the evaluation returns at once.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Line, duration

from nnas_core import Architecture, SearchSpace
from nnas_core.execution.engine import TrialResult
from nnas_core.plugins import registry
from nnas_core.space.choice import Choice
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.opening import create_study, create_tuner
from nnas_core.study.storage.records import StudySettings, TrialRecord
from nnas_core.study.storage.store import StudyStore

FINISHED = 500
MEASURED = 100

MEMORY = Path("/dev/shm")


def layers(keys: int) -> SearchSpace:
    """So many LayerChoices of four candidates."""
    return SearchSpace(Choice(f"layer{key:04}", "layer_choice", ("a", "b", "c", "d"), 1) for key in range(keys))


def trial_times(keys: int, seed: int, finished: int) -> list[float]:
    """The CPU time at the end of each trial of a study with the evolution tuner: ``finished`` and ``MEASURED`` more."""
    settings = StudySettings("benchmark", layers(keys), "evolution", seed=seed)
    tuner = create_tuner(
        registry.find("tuners", "evolution"), {}, name="evolution", seed=seed, optimize_mode="maximize"
    )
    values = itertools.cycle([0.5, 0.25, 0.75, 0.125, 0.875])
    ends: list[float] = []

    def evaluate(architecture: Architecture) -> TrialResult:
        return TrialResult(next(values), {"accuracy": 0.5, "loss": 1.0}, {"seconds": 0.0})

    def ended(trial: TrialRecord) -> None:
        ends.append(time.process_time())

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, StudyStore.open(f"sqlite:///{folder}/study.db") as store:
        study = create_study(store, settings)
        run_study(store, study, tuner, evaluate, RunSettings(Limits(finished + MEASURED), on_trial=ended))
    return ends


def row_8(rounds: int) -> Iterator[Line]:
    """Milliseconds a trial when 500 are finished already; one study a round."""
    for keys, target in ((20, 2.0), (1000, 10.0)):
        values, all_trials = [], []
        for number in range(max(3, rounds // 3)):
            ends = trial_times(keys, number, FINISHED)
            values.append(1000 * (ends[-1] - ends[FINISHED - 1]) / MEASURED)
            all_trials.append((ends[FINISHED - 1] - ends[0]) / (FINISHED - 1))
        note = f"mean of the first {FINISHED} trials {duration(min(all_trials))}"
        yield Line(8, f"bookkeeping of a trial of tune, {keys:,} keys", "ms", target, values, note=note)
