"""What tests of studies share: a store, and processes that are gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nnas_core.study.coordinator import run_study
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.postgres_server import NoServer, Server, running
from tests.study.program_fork_server import Forked, Forks

ROOT = Path(__file__).parents[2]

Spawn = Callable[..., "subprocess.Popen[str]"]

Fork = Callable[..., Forked]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the store of the test is."""
    return f"sqlite:///{tmp_path}/nnas.db"


@pytest.fixture
def store(url: str) -> Iterator[StudyStore]:
    """An open store without studies."""
    with StudyStore.open(url) as opened:
        yield opened


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start ``tests.study.study_programs``; whatever still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object, through: Sequence[str] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*through, sys.executable, "-m", "tests.study.study_programs", *map(str, arguments)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The history of a study of ``study_programs.LONGEST`` trials; those of a shorter one are its first."""
    with StudyStore.open(f"sqlite:///{tmp_path_factory.mktemp('undisturbed')}/nnas.db") as store:
        study = store.create_study(study_programs.settings())
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=study_programs.LONGEST),
        )
        return study_programs.history(store)


@pytest.fixture(scope="session")
def _forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def fork(_forks: Forks, tmp_path: Path) -> Iterator[Fork]:
    """As ``spawn``, many times as fast."""
    processes: list[Forked] = []

    def start(*arguments: object, mark: str = "") -> Forked:
        processes.append(_forks.start(tmp_path, *arguments, mark=mark))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Server]:
    """The PostgreSQL server of the whole test run; without one, the tests that need it fail and say why."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    try:
        with running(shared / "postgresql") as server:
            yield server
    except NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def schema(postgres_server: Server) -> Iterator[str]:
    """A schema of PostgreSQL without tables."""
    with postgres_server.schema() as name:
        yield name


@pytest.fixture
def postgres_url(postgres_server: Server, schema: str) -> str:
    """Where a store of the test in PostgreSQL is."""
    return postgres_server.url(schema)
