"""Programs that tests of studies start as processes of their own, and may kill.

python -m tests.study.child COMMAND URL [ARGUMENTS]
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from nnas_core.architecture import Architecture
from nnas_core.errors import InputError, NnasError
from nnas_core.space import SearchSpace
from nnas_core.study.coordinator import run_study
from nnas_core.study.postgresql import open_database
from nnas_core.study.records import StudyRecord, StudySettings, TrialFailed, TrialRecord, TrialResult
from nnas_core.study.setup import create_study, create_tuner
from nnas_core.study.store import StudyStore
from nnas_core.study.tables import studies
from nnas_core.tuner import Tuner
from nnas_core.tuners.evolution import EvolutionTuner
from nnas_core.tuners.random import RandomTuner

TUNERS: dict[str, type[Tuner]] = {"evolution": EvolutionTuner, "random": RandomTuner}


def space_of_all_kinds() -> SearchSpace:
    """Every kind of choice; 3 * 1 * 8 * 1 * 4 * 6 = 576 architectures."""

    def inputs(count: int, n_chosen: int | None) -> dict[str, Any]:
        names = [f"node{index}" for index in range(count)]
        return {"_type": "input_choice", "_value": {"candidates": names, "n_chosen": n_chosen}}

    return SearchSpace.from_json(
        {
            "layer": {"_type": "layer_choice", "_value": ["conv", "pool", "skip"]},
            "only": {"_type": "layer_choice", "_value": ["conv"]},
            "any": inputs(3, None),
            "none": inputs(3, 0),
            "one": inputs(4, 1),
            "two": inputs(4, 2),
        }
    )


def additive(architecture: Architecture) -> float:
    """An objective with one optimum: every decision adds its own part, later candidates more."""
    return sum(
        (place + 1) * sum(index + 1 for index in decision)
        for place, decision in enumerate(architecture.indices().values())
    )


def evaluate(architecture: Architecture) -> TrialResult:
    """``additive``, and one architecture in ten fails."""
    value = additive(architecture)
    if value % 10 == 3:
        raise TrialFailed(f"{value} does not work")
    return TrialResult(value, {"value": value}, {"parts": len(architecture)})


def settings(tuner: str = "evolution", seed: int = 0, **changes: Any) -> StudySettings:
    """A study over ``space_of_all_kinds``."""
    args = {"population": 10, "sample": 3} if tuner == "evolution" else {}
    values = {"space": space_of_all_kinds(), "tuner_args": args, "seed": seed, "config": {"epochs": 1}}
    return StudySettings("study", tuner=tuner, **{**values, **changes})


def tuner_of(study: StudyRecord) -> Tuner:
    """A fresh tuner for ``study``."""
    made = study.settings
    return create_tuner(
        TUNERS[made.tuner],
        made.tuner_args,
        name=made.tuner,
        seed=made.seed,
        optimize_mode=made.optimize_mode,
    )


def history(store: StudyStore) -> list[tuple[Any, ...]]:
    """What must not depend on how often a study was interrupted."""
    return [
        (trial.number, trial.state, trial.architecture.canonical, trial.value, trial.error)
        for trial in store.trials(store.study("study"))
    ]


class Log:
    """Lines that are on disk when ``write`` returns; a torn line cannot come from one write."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def run(url: str, log_path: str, trials: str) -> None:
    """Run or go on with a study, and log each evaluation and each finished trial."""
    log = Log(log_path)
    with StudyStore.open(url) as store:
        try:
            study = store.study("study")
        except InputError:
            study = create_study(store, settings())

        def slowly(architecture: Architecture) -> TrialResult:
            log.write("begin", architecture.canonical)
            time.sleep(0.004)
            return evaluate(architecture)

        def acknowledge(trial: TrialRecord) -> None:
            log.write("done", trial.number, trial.architecture.canonical, trial.value)

        run_study(store, study, tuner_of(study), slowly, trials=int(trials), on_trial=acknowledge)


def hang(url: str) -> None:
    """Own a study and evaluate for ever; says so when it does."""
    with StudyStore.open(url) as store:

        def never(architecture: Architecture) -> TrialResult:
            print("evaluating", flush=True)
            signal.pause()
            raise TrialFailed("woken")

        study = store.study("study")
        run_study(store, study, tuner_of(study), never)


def create(url: str, name: str) -> None:
    """Open the store and create a study, at the same moment as others that were told to."""
    print("ready", flush=True)
    sys.stdin.readline()
    with StudyStore.open(url) as store:
        create_study(store, StudySettings(name, space_of_all_kinds(), "random"))


def limited(url: str, bytes_more: str) -> None:
    """Run a study while no file may grow by more than so many bytes, as on a full disk."""
    path = url.removeprefix("sqlite:///")
    with StudyStore.open(url) as store:
        study = store.study("study")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = Path(path).stat().st_size + int(bytes_more)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        run_study(store, study, tuner_of(study), evaluate, on_trial=lambda trial: print(trial.number, flush=True))


def unprivileged(url: str) -> None:
    """Create a study without root's right to write where the mode forbids it."""
    if os.geteuid() == 0:
        version_3_of_this_process = (ctypes.c_uint32 * 2)(0x20080522, 0)
        no_capabilities = (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None).capset(version_3_of_this_process, no_capabilities):
            raise OSError("capset failed")
    with StudyStore.open(url) as store:
        create_study(store, settings())


def stay_in_write(url: str) -> None:
    """Write to the database and never end the transaction; says so when it is there."""
    database = open_database(make_url(url), create=False, busy_timeout_s=1)
    with database.write() as connection:
        connection.execute(studies.update().values(name="half"))
        print("writing", flush=True)
        signal.pause()


def main(command: str, *arguments: str) -> int:
    """Run one of the programs; its error goes to stderr, its exit code is the error's."""
    programs: dict[str, Callable[..., None]] = {
        "create": create,
        "hang": hang,
        "limited": limited,
        "run": run,
        "stay_in_write": stay_in_write,
        "unprivileged": unprivileged,
    }
    try:
        programs[command](*arguments)
    except NnasError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
