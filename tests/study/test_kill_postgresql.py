"""What is left in PostgreSQL when processes of a study die at the worst moment."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from nnas_core.study.storage.database import HowToOpen
from nnas_core.study.storage.postgresql import open_database
from nnas_core.study.storage.store import StudyStore
from tests.study import kill_campaigns, study_programs
from tests.study.conftest import Fork, Spawn
from tests.study.postgres_server import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.kill, pytest.mark.slow]

KILLS = 20
TRIALS = 150


def check_indexes(server: Server, schema: str) -> None:
    """As many indexes as there are keys, each found whole by the server."""
    with closing(server.connect(admin=True, database="tests")) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        checked = connection.execute(
            "SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE c.relnamespace = %s::regnamespace",
            [schema],
        ).fetchone()
    assert checked is not None
    assert checked[0] >= 7


def test_a_study_killed_20_times_is_the_study_that_was_never_killed(
    postgres_url: str,
    postgres_server: Server,
    schema: str,
    tmp_path: Path,
    fork: Fork,
    undisturbed: list[tuple[Any, ...]],
) -> None:
    log = tmp_path / "log"
    cut_short = kill_campaigns.kill_coordinators(fork, postgres_url, log, TRIALS, KILLS)
    assert cut_short >= KILLS - 4  # or the campaign was too small to hit anything
    check_indexes(postgres_server, schema)
    with StudyStore.open(postgres_url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        assert study_programs.history(store) == undisturbed[:TRIALS]


def test_a_study_whose_workers_are_killed_loses_no_trial_and_counts_none_twice(
    postgres_url: str, postgres_server: Server, schema: str, tmp_path: Path, fork: Fork
) -> None:
    log = tmp_path / "log"
    killed = kill_campaigns.kill_workers(fork, postgres_url, log, KILLS, "workers", tmp_path / "logs")
    assert sum(killed) == KILLS
    check_indexes(postgres_server, schema)
    with StudyStore.open(postgres_url) as store:
        kill_campaigns.check_log(store, log)
        kill_campaigns.check_results(store)
        assert kill_campaigns.check_proposals(store) == kill_campaigns.lines(log, "next")
        kill_campaigns.check_attempts(store, log, KILLS)


def test_the_lock_of_a_writer_killed_in_mid_write_is_free_and_its_write_is_not_there(
    postgres_url: str, spawn: Spawn
) -> None:
    with StudyStore.open(postgres_url, busy_timeout_s=10) as store:
        study = store.create_study(study_programs.settings())
        process = spawn("stay_in_write", postgres_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        database = open_database(make_url(postgres_url), HowToOpen(False, 0))
        with pytest.raises(Exception, match=f"locked for 0 s by process {process.pid} on "), database.write():
            pass
        database.close()
        process.kill()
        process.wait()
        with store.acquire(study) as session:  # waits no longer than the server needs to see it
            session.trials.start(study.settings.space.at(0))
        assert store.study("study").settings == study.settings
        assert [one.name for one in store.studies()] == ["study"]
