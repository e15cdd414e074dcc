"""A study on a Ray cluster in a process of its own, which tests may kill.

python -m tests.execution.ray_study URL FOLDER ADDRESS: eight trials, two at once; an empty address starts a cluster.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nnas_core.errors import InputError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import Limits, RunSettings
from nnas_core.study.opening import create_study
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.random import RandomTuner
from tests.execution.ray_engine_trials import SPACE, command


def main(url: str, folder: str, address: str) -> None:
    """Run or go on with the study; says how often it went on with what a dead process had left."""
    with StudyStore.open(url) as store:
        try:
            study = store.study("study")
        except InputError:
            study = create_study(store, StudySettings("study", SPACE, "random"))
        engine = RayEngine(
            CommandTrials(command(Path(folder))),
            SPACE,
            LocalSettings(Path(folder, "logs")),
            RaySettings(address=address or None, cpus=2),
        )
        tuner = RandomTuner(study.settings.seed, study.settings.optimize_mode)
        result = run_study(store, study, tuner, engine, RunSettings(Limits(8, concurrency=2)))
        print(result.finished, result.failed, result.recovered)


if __name__ == "__main__":
    main(*sys.argv[1:])
