"""Programs that tests of studies start as processes of their own, and may kill.

python -m tests.study.study_programs COMMAND URL [ARGUMENTS]
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from nnas_core.errors import EnvironmentFailure, InputError, Interrupted, NnasError
from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Engine, Evaluate, TrialFailed, TrialResult
from nnas_core.execution.pool import WorkerPool
from nnas_core.space.architecture import Architecture
from nnas_core.study.cooperation import run_shared
from nnas_core.study.coordinator import run_study
from nnas_core.study.limits import Limits, RunSettings, TrialRules
from nnas_core.study.opening import create_study, create_tuner, join_study
from nnas_core.study.storage.database import HowToOpen
from nnas_core.study.storage.postgresql import open_database
from nnas_core.study.storage.records import StudyRecord, StudySettings, TrialRecord
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.tables import studies
from nnas_core.tuners.base import Tuner
from nnas_core.tuners.evolution import EvolutionTuner
from nnas_core.tuners.random import RandomTuner
from tests.study.trial_objective import Log, evaluate, space_of_all_kinds

COMMAND_S = 0.1
"""How long commands take for a trial: enough to be met alive."""

LONGEST = 300
"""As many trials as studies have at most that are compared with the one of the fixture ``undisturbed``."""

TUNERS: dict[str, type[Tuner]] = {"evolution": EvolutionTuner, "random": RandomTuner}


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


def run_settings(
    trials: int | None = None, duration_s: float | None = None, concurrency: int = 1, **more: Any
) -> RunSettings:
    """How a process works on a study, in one call."""
    return RunSettings(Limits(trials, duration_s, concurrency), **more)


def history(store: StudyStore) -> list[tuple[Any, ...]]:
    """What must not depend on how often a study was interrupted."""
    return [
        (trial.number, trial.state, trial.architecture.canonical, trial.value, trial.error)
        for trial in store.trials(store.study("study"))
    ]


def run(url: str, log_path: str, trials: str, busy_timeout_s: str = "60") -> None:
    """Run or go on with a study, and log each evaluation and each finished trial."""
    log = Log(log_path)

    def slowly(architecture: Architecture) -> TrialResult:
        log.write("begin", architecture.canonical)
        time.sleep(0.004)
        return evaluate(architecture)

    _go_on(url, log, slowly, float(busy_timeout_s), trials=int(trials))


def run_workers(url: str, log_path: str, trials: str, kind: str, folder: str) -> None:
    """The same by two workers, or by two commands at once; in the end, log what the tuner would propose next."""
    settings = LocalSettings(Path(folder))
    if kind == "workers":
        engine: Engine = WorkerPool("tests.study.pool_worker", {"log": log_path}, settings)
    else:
        program = Path(__file__).with_name("trial_program.py")
        engine = CommandEngine([sys.executable, "-I", "-S", str(program), log_path, str(COMMAND_S)], settings)
    log = Log(log_path)
    for architecture in _go_on(url, log, engine, trials=int(trials), concurrency=2, rules=TrialRules(attempts=1000)):
        log.write("next", architecture.canonical)


def _acknowledge(log: Log, trial: TrialRecord) -> None:
    log.write("done", trial.number, trial.architecture.canonical, trial.value)


def _go_on(url: str, log: Log, engine: Engine | Evaluate, busy_timeout_s: float = 60, **how: Any) -> list[Architecture]:
    with StudyStore.open(url, busy_timeout_s=busy_timeout_s) as store:
        try:
            study = store.study("study")
        except InputError:
            study = create_study(store, settings())

        def again(trial: TrialRecord, why: str) -> None:
            log.write("again", trial.number, why)

        tuner = tuner_of(study)
        run_study(store, study, tuner, engine, run_settings(on_trial=partial(_acknowledge, log), on_retry=again, **how))
        return next_proposals(tuner, study)


def join(url: str, log_path: str, trials: str, trial_s: str = "0") -> None:
    """Run a study beside others, until a signal comes; log each evaluation and each trial that ended here."""
    log = Log(log_path)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))

    def slowly(architecture: Architecture) -> TrialResult:
        log.write("begin", architecture.canonical)
        end = time.monotonic() + float(trial_s)
        while time.monotonic() < end:
            if signals:
                raise Interrupted(signals[0], "interrupted")
            time.sleep(0.002)
        return evaluate(architecture)

    def acknowledge(trial: TrialRecord) -> None:
        log.write("done", trial.number, trial.architecture.canonical, trial.value)

    with StudyStore.open(url, busy_timeout_s=600) as store:
        study = join_study(store, settings())
        result = run_shared(
            store,
            study,
            tuner_of(study),
            slowly,
            run_settings(
                trials=int(trials),
                rules=TrialRules(attempts=1000),
                should_stop=lambda: signals[0] if signals else None,
                on_trial=acknowledge,
            ),
        )
    log.write("left", result.evaluated, result.others, result.reason)


def next_proposals(tuner: Tuner, study: StudyRecord) -> list[Architecture]:
    """What a tuner proposes next."""
    return [study.settings.space.parse(tuner.generate_parameters(10_000 + number)) for number in range(3)]


def hang(url: str, children: str = "0") -> None:
    """Own a study and evaluate for ever, perhaps with loader processes that outlive this one; says so when it does."""
    with StudyStore.open(url) as store:

        def never(architecture: Architecture) -> TrialResult:
            for _ in range(int(children)):
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
            print("evaluating", flush=True)
            signal.pause()
            raise TrialFailed("woken")

        study = store.study("study")
        run_study(store, study, tuner_of(study), never)


def create(url: str, name: str, gate: str = "", busy_timeout_s: str = "60") -> None:
    """Open the store and create a study, at the same moment as others that wait for the named pipe to be opened."""
    if gate:
        print("ready", flush=True)
        os.close(os.open(gate, os.O_RDONLY))
    with StudyStore.open(url, busy_timeout_s=float(busy_timeout_s)) as store:
        create_study(store, StudySettings(name, space_of_all_kinds(), "random"))


def limited(url: str, bytes_more: str) -> None:
    """Run a study while no file may grow by more than so many bytes, as on a full disk."""
    path = url.removeprefix("sqlite:///")
    with StudyStore.open(url) as store:
        study = store.study("study")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = Path(path).stat().st_size + int(bytes_more)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        run_study(
            store,
            study,
            tuner_of(study),
            evaluate,
            run_settings(on_trial=lambda trial: print(trial.number, flush=True)),
        )


def unprivileged(url: str) -> None:
    """Create a study without root's right to write where the mode forbids it."""
    if os.geteuid() == 0:
        version_3_of_this_process = (ctypes.c_uint32 * 2)(0x20080522, 0)
        no_capabilities = (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None).capset(version_3_of_this_process, no_capabilities):
            raise OSError("capset failed")
    with StudyStore.open(url) as store:
        create_study(store, settings())


def full_disk(url: str, ballast: str) -> None:
    """Run a study until its disk is full, then make room and go on; says what happened.

    ``ballast`` is a file to delete, or a number of bytes beyond which no file may grow until room is made.
    """
    said, done = "", list[int]()
    with StudyStore.open(url) as store:
        study = create_study(store, settings())
        if ballast.isdigit():
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(ballast), unlimited[1]))
        try:
            run_study(
                store, study, tuner_of(study), evaluate, run_settings(on_trial=lambda trial: done.append(trial.number))
            )
        except EnvironmentFailure as error:
            said = str(error)
        stored = [trial.number for trial in store.trials(study) if trial.finished is not None]
        if ballast.isdigit():
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        else:
            Path(ballast).unlink()
        run_study(store, study, tuner_of(study), evaluate, run_settings(trials=LONGEST))
        print(json.dumps({"said": said, "done": done, "stored": stored, "history": history(store)}))


def stay_in_write(url: str) -> None:
    """Write to the database and never end the transaction; says so when it is there."""
    database = open_database(make_url(url), HowToOpen(False, 1))
    with database.write() as connection:
        connection.execute(studies.update().values(name="half"))
        print("writing", flush=True)
        signal.pause()


def hold(url: str, seconds: str) -> None:
    """Lock out all writers for so long, as a program does that nnas knows nothing of; says when it begins."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        print("holding", flush=True)
        time.sleep(float(seconds))


def main(command: str, *arguments: str) -> int:
    """Run one of the programs; its error goes to stderr, its exit code is the error's."""
    programs: dict[str, Callable[..., None]] = {
        "create": create,
        "full_disk": full_disk,
        "hang": hang,
        "hold": hold,
        "join": join,
        "limited": limited,
        "run": run,
        "run_workers": run_workers,
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
