"""What tests of studies share: a store, and processes that are gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnas_core.study.store import StudyStore
from tests.study import postgres

ROOT = Path(__file__).parents[2]

Spawn = Callable[..., "subprocess.Popen[str]"]


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
    """Start ``tests.study.child``; whatever still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.study.child", *map(str, arguments)],
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
def postgres_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[postgres.Server]:
    """The PostgreSQL server of the whole test run; without one, the tests that need it fail and say why."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    try:
        with postgres.running(shared / "postgresql") as server:
            yield server
    except postgres.NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def schema(postgres_server: postgres.Server) -> Iterator[str]:
    """A schema of PostgreSQL without tables."""
    with postgres_server.schema() as name:
        yield name


@pytest.fixture
def postgres_url(postgres_server: postgres.Server, schema: str) -> str:
    """Where a store of the test in PostgreSQL is."""
    return postgres_server.url(schema)
