"""A store in PostgreSQL does what a store in a file does, and makes its tables once whoever asks for them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import make_url

from nnas_core.errors import EnvironmentFailure, ExitCode, InputError, NnasWarning, UsageError
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage import leases, tables
from nnas_core.study.storage.database import HowToOpen, without_password
from nnas_core.study.storage.postgresql import LOCK, open_database
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import kill_campaigns, study_programs
from tests.study.conftest import Fork
from tests.study.postgres_server import Server

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def rows(server: Server, schema: str, query: str) -> list[tuple[Any, ...]]:
    """What the server has, asked past the store."""
    with closing(server.connect(schema)) as connection:
        return list(connection.execute(query).fetchall())


def columns(server: Server, schema: str) -> set[tuple[Any, ...]]:
    """All columns of all tables."""
    query = f"""
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = '{schema}'
    """
    return {(*row[:4], str(row[4]).replace(schema, "")) for row in rows(server, schema, query)}


def change_owner(server: Server, schema: str, **values: Any) -> None:
    """Make the owner's row say something else."""
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in values.items()]
    with closing(server.connect(schema)) as connection:
        connection.execute(sql.SQL("UPDATE owners SET {}").format(sql.SQL(", ").join(pairs)))


# ---- the same as in a file


def test_a_study_has_the_history_of_the_one_in_a_file(store: StudyStore, study: StudyRecord, tmp_path: Path) -> None:
    for trials in (7, 40):  # the second goes on with the first
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=trials),
        )
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as other:
        whole = other.create_study(study_programs.settings())
        run_study(
            other,
            whole,
            study_programs.tuner_of(whole),
            study_programs.evaluate,
            study_programs.run_settings(trials=40),
        )
        assert study_programs.history(store) == study_programs.history(other)
        assert [trial.number for trial in store.top(study, 12)] == [trial.number for trial in other.top(whole, 12)]
        assert store.top(study, 1) == [store.best(study)]
        with store.acquire(study) as here, other.acquire(whole) as there:
            assert here.news(None) == there.news(None)


def test_everything_comes_back_as_it_was_stored(store: StudyStore) -> None:
    text = "täglich \N{SNOWMAN} \x00 \x1b 'quoted' %s :name \\ {}"
    made = store.create_study(
        study_programs.settings(config={"text": text, "list": [1, 0.1, None, True], "large": 2**60})
    )
    with store.acquire(made) as session:
        first = session.trials.start(made.settings.space.at(0))
        session.trials.succeed(first, 0.1 + 0.2, {"tiny": 5e-324, "huge": 1.7976931348623157e308}, {"x": -0.0}, 1e-9)
        session.trials.fail(session.trials.start(made.settings.space.at(1)), text, 2.0)
    assert store.study("study").settings == made.settings
    value, error = (store.trial(made, number) for number in (0, 1))
    assert (value.value, value.seconds) == (0.1 + 0.2, 1e-9)
    assert value.metrics == {"tiny": 5e-324, "huge": 1.7976931348623157e308}
    assert error.error == text.replace("\0", "\\0")


def test_a_seed_may_have_any_size(store: StudyStore) -> None:
    store.create_study(study_programs.settings(seed=2**100))
    assert store.study("study").settings.seed == 2**100


def test_a_name_is_taken_once(store: StudyStore, study: StudyRecord) -> None:
    with pytest.raises(UsageError, match="a study named 'study' exists already"):
        store.create_study(study_programs.settings())
    assert [one.name for one in store.studies()] == [study.name]


def test_an_unknown_study_is_refused_with_those_there_are(store: StudyStore, study: StudyRecord) -> None:
    with pytest.raises(InputError, match="no study is named 'other'") as caught:
        store.study("other")
    assert caught.value.hint == "there are study"


# ---- owners


def test_a_replaced_owner_stores_nothing_any_more(
    store: StudyStore, study: StudyRecord, postgres_server: Server, schema: str
) -> None:
    lost = store.acquire(study)
    trial = lost.trials.start(study.settings.space.at(0))
    with pytest.raises(EnvironmentFailure, match="'study' is in use by process"):
        store.acquire(study)
    change_owner(postgres_server, schema, claim="0" * 16)
    session = store.acquire(study)
    assert session.recovered == 1
    with pytest.raises(EnvironmentFailure, match="'study' was taken over by process"):
        lost.trials.succeed(trial, 1.0, {}, {}, 0.0)
    with pytest.raises(EnvironmentFailure, match="attempt 1 of trial 0 comes too late"):
        session.trials.succeed(trial, 1.0, {}, {}, 0.0)
    assert [one.value for one in store.trials(study)] == [None]
    session.release("interrupted")


def test_the_lease_of_an_owner_elsewhere_ends_by_the_clock_of_the_server(
    store: StudyStore,
    study: StudyRecord,
    postgres_server: Server,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = datetime.now(timezone.utc) + timedelta(days=3)
    monkeypatch.setattr(leases, "now", lambda: wrong)  # this machine's clock: its lease would be over, or never
    session = store.acquire(study)
    ((expires,),) = rows(postgres_server, schema, "SELECT expires FROM owners")
    left = datetime.fromisoformat(expires) - datetime.now(timezone.utc)
    assert timedelta(seconds=45) < left <= leases.TERM
    change_owner(postgres_server, schema, host="elsewhere")
    with pytest.raises(EnvironmentFailure, match="'study' is in use by process"):
        store.acquire(study)
    assert store.in_use_by(study) is not None
    change_owner(postgres_server, schema, expires="2020-01-01T00:00:00+00:00")
    assert store.in_use_by(study) is None
    session.renew()
    with pytest.raises(EnvironmentFailure, match="'study' is in use by process"):
        store.acquire(study)


# ---- transactions


def test_a_reader_sees_one_state_while_others_write(store: StudyStore, study: StudyRecord, url: str) -> None:
    reader = open_database(make_url(url), HowToOpen(False, 1))
    query = tables.studies.select()
    with reader.read() as connection:
        assert len(connection.execute(query).all()) == 1
        store.create_study(replace(study_programs.settings(), name="other"))  # does not wait for the reader
        assert len(connection.execute(query).all()) == 1
    with reader.read() as connection:
        assert len(connection.execute(query).all()) == 2
    reader.close()


def test_a_reader_cannot_write(url: str, store: StudyStore) -> None:
    database = open_database(make_url(url), HowToOpen(False, 1))
    with pytest.raises(EnvironmentFailure, match="cannot write: the database is read-only"), database.read() as reader:
        reader.execute(tables.studies.delete())
    database.close()


def test_a_transaction_that_fails_leaves_nothing(store: StudyStore, study: StudyRecord, url: str) -> None:
    database = open_database(make_url(url), HowToOpen(False, 1))

    def fail_after_a_write() -> None:
        with database.write() as connection:
            connection.execute(tables.studies.update().values(state="finished"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_a_write()
    database.close()
    assert store.study("study").state == "created"


def test_writers_of_another_schema_are_not_waited_for(postgres_server: Server, url: str, store: StudyStore) -> None:
    with postgres_server.schema() as other:
        there = open_database(make_url(postgres_server.url(other)), HowToOpen(True, 0))
        here = open_database(make_url(url), HowToOpen(False, 0))
        with there.write(), here.write():
            pass
        here.close()
        there.close()


def test_a_commit_waits_for_the_disk_even_where_that_is_switched_off(url: str, store: StudyStore) -> None:
    lazy = make_url(url + "%20-csynchronous_commit%3Doff")
    database = open_database(lazy, HowToOpen(False, 1))
    with database.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    database.close()


# ---- the schema


@pytest.mark.kill
def test_eight_processes_create_one_study_at_once_and_seven_are_told(
    url: str, fork: Fork, tmp_path: Path, postgres_server: Server, schema: str
) -> None:
    ends = sorted(kill_campaigns.create_at_once(fork, url, tmp_path, ["one"] * 8))
    where = f"postgresql://127.0.0.1:{postgres_server.port}/tests"
    assert ends == [("", 0)] + [(f"{where}: a study named 'one' exists already\n", ExitCode.USAGE)] * 7
    assert rows(postgres_server, schema, "SELECT version FROM nnas_version") == [(tables.VERSION,)]


def test_a_schema_with_a_name_that_needs_quotes_is_one_like_others(postgres_server: Server) -> None:
    name = 'Odd "name" 100%s'
    with closing(postgres_server.connect()) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    place = make_url(postgres_server.url("x"))
    quoted = '"' + name.replace('"', '""').replace(" ", "\\ ") + '"'
    place = place.update_query_dict({"options": f"-csearch_path={quoted}"})
    with StudyStore.open(place.render_as_string(hide_password=False)) as store:
        store.create_study(study_programs.settings())
    with closing(postgres_server.connect()) as connection:
        found = connection.execute(sql.SQL("SELECT name FROM {}.studies").format(sql.Identifier(name))).fetchall()
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
    assert found == [("study",)]


@pytest.fixture
def old(store: StudyStore, postgres_server: Server, schema: str) -> set[tuple[Any, ...]]:
    """The schema goes back to version 1; its columns before that."""
    new = columns(postgres_server, schema)
    store.create_study(study_programs.settings())
    with closing(postgres_server.connect(schema)) as connection:
        connection.execute("ALTER TABLE studies DROP COLUMN limits, DROP COLUMN stop_requested, DROP COLUMN origin")
        for name in ("worker", "lease_token", "losses", "log_folder", "kill_requested"):
            connection.execute(f"ALTER TABLE trials DROP COLUMN {name}")
        connection.execute("DROP TABLE intermediates, joiners, retries")
        for table in ("studies", "trials", "repeats"):
            connection.execute(sql.SQL("ALTER TABLE {} DROP COLUMN checksum").format(sql.Identifier(table)))
        connection.execute("UPDATE nnas_version SET version = 1")
    return new


def test_tables_of_an_older_version_are_brought_to_this_one(
    old: set[tuple[Any, ...]], url: str, postgres_server: Server, schema: str
) -> None:
    with (
        pytest.warns(NnasWarning, match=rf"tests was made by an older nnas: .* 1 to {tables.VERSION}$"),
        StudyStore.open(url) as store,
    ):
        run_study(
            store,
            study := store.study("study"),
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=3),
        )
    assert columns(postgres_server, schema) == old


@pytest.mark.usefixtures("old")
def test_tables_that_an_older_nnas_works_on_are_left_to_it(url: str, postgres_server: Server, schema: str) -> None:
    lease = leases.new_lease()
    with closing(postgres_server.connect(schema)) as connection:
        row = {"study_id": 1, "token": 1, **lease.row()}
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        values = sql.SQL(", ").join(map(sql.Literal, row.values()))
        connection.execute(sql.SQL("INSERT INTO owners ({}) VALUES ({})").format(names, values))
    with pytest.raises(EnvironmentFailure, match=r"an older nnas works on it, process \d+ on "):
        StudyStore.open(url)
    assert rows(postgres_server, schema, "SELECT version FROM nnas_version") == [(1,)]
    leases.release(lease)


# ---- passwords


def test_the_password_is_nowhere_in_the_store(store: StudyStore, postgres_server: Server, schema: str) -> None:
    study = store.create_study(study_programs.settings())
    run_study(
        store, study, study_programs.tuner_of(study), study_programs.evaluate, study_programs.run_settings(trials=3)
    )
    names = [*tables.metadata.tables, "nnas_version"]
    stored = [rows(postgres_server, schema, f"SELECT row_to_json(t)::text FROM {name} t") for name in names]
    assert "study" in json.dumps(stored)
    assert postgres_server.password not in json.dumps(stored)
    assert postgres_server.password not in store.where
    assert store.where == f"postgresql://127.0.0.1:{postgres_server.port}/tests"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql+psycopg://me@host/db", "postgresql+psycopg://me@host/db"),
        ("postgresql+psycopg://me:word@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg://host/db?password=word&user=me", "postgresql+psycopg://host/db?password=***&user=me"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url).replace("%2A", "*") == shown


def test_the_lock_is_marked_as_ours() -> None:
    assert LOCK.to_bytes(4, "big") == b"nnas"
