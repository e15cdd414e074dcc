"""A PostgreSQL server that cannot be used says why, never shows a password, and loses nothing that was finished."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, InternalError

from nnas_core.errors import EnvironmentFailure, ExitCode, InputError, NnasError, UsageError
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage import postgresql, tables
from nnas_core.study.storage.database import HowToOpen
from nnas_core.study.storage.postgresql import LOCK, open_database
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.rows import change_study
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.postgres_server import Server

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def disconnect(server: Server) -> int:
    """The server ends the connections of every store in this process, as its shutdown does; how many."""
    with closing(server.connect(admin=True)) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE starts_with(application_name, %s)",
            [f"nnas process {os.getpid()} on "],
        ).fetchall()
    return sum(ended for (ended,) in found)


@contextmanager
def locked(server: Server, schema: str) -> Iterator[int]:
    """Another program holds the lock of writers; the server's process that has it."""
    with closing(server.connect(schema)) as connection:
        key = sql.SQL("({}::bigint << 32) + current_schema()::regnamespace::oid::bigint").format(sql.Literal(LOCK))
        connection.execute(sql.SQL("SELECT pg_advisory_lock({})").format(key))
        yield connection.info.backend_pid


# ---- connecting


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda url: url.set(password="wrong-word"),
            'the server refuses us: password authentication failed for user "tester"',
            id="wrong password",
        ),
        pytest.param(
            lambda url: url.set(database="missing"),
            'the server refuses us: database "missing" does not exist',
            id="no such database",
        ),
        pytest.param(
            lambda url: url.set(port=1), "cannot connect: .*port 1 failed: Connection refused", id="no server"
        ),
        pytest.param(
            lambda url: url.set(host="no-host.invalid"),
            "cannot connect: .*resolve host 'no-host.invalid'",
            id="no such host",
        ),
        pytest.param(
            lambda url: url.update_query_dict({"sslmode": "require"}),
            "cannot connect: .*server does not support SSL",
            id="no encryption",
        ),
    ],
)
def test_a_server_that_cannot_be_reached_is_a_failure_without_a_password(
    url: str, postgres_server: Server, change: Callable[[Any], Any], message: str
) -> None:
    changed = change(make_url(url))
    with pytest.raises(EnvironmentFailure, match=message) as caught:
        StudyStore.open(changed.render_as_string(hide_password=False))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint
    said = f"{caught.value} {caught.value.hint} {caught.value.where}"
    assert postgres_server.password not in said
    assert "wrong-word" not in said


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://me:word/db", "storage 'postgresql.psycopg:...' is not a database URL"),
        ("postgresql+psycopg:/me:word@host/db", "storage 'postgresql.psycopg:...' is not a database URL"),
        ("postgresql+psycopg://me:w@word@host/db", "has an @ that looks like the end of it"),
        ("postgresql+psycopg://me:word@host", "names no database"),
        ("postgresql+asyncpg://me:word@host/db", "are read by psycopg, not by asyncpg"),
        ("postgresql+psycopg://me:word@127.0.0.1:1/db?nonsense=word", 'has invalid connection option "nonsense"'),
        ("postgresql+psycopg://me:word@127.0.0.1:1/db?connect_timeout=x", "bad value for connect_timeout: 'x'"),
        ("postgresql+psycopg://me:word@127.0.0.1:1/db?sslmode=word", r'invalid sslmode value: "\*\*\*"'),
        ("postgresql+psycopg://127.0.0.1:1/db?password=word&sslmode=word", r'invalid sslmode value: "\*\*\*"'),
    ],
)
def test_a_url_that_cannot_work_is_a_usage_error_without_a_password(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        StudyStore.open(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match="studies in PostgreSQL need psycopg, which is not there") as caught:
        StudyStore.open(url)
    assert caught.value.hint == "pip install 'nnas[postgres]'"


# ---- what is in the database


def test_a_database_without_tables_is_not_filled_by_a_reader(url: str, postgres_server: Server, schema: str) -> None:
    with pytest.raises(InputError, match="there are no studies in this database"):
        StudyStore.open(url, create=False)
    with closing(postgres_server.connect(schema)) as connection:
        found = connection.execute("SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace")
        assert found.fetchall() == []


def test_tables_of_another_program_are_left_alone(url: str, postgres_server: Server, schema: str) -> None:
    with closing(postgres_server.connect(schema)) as connection:
        connection.execute("CREATE TABLE studies (study_id integer); CREATE TABLE trials (trial_id integer)")
        with pytest.raises(InputError, match="has tables of another program: studies, trials"):
            StudyStore.open(url)
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1")
        assert found.fetchall() == [("studies",), ("trials",)]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (tables.VERSION + 1, f"made by a newer nnas: its tables are of version {tables.VERSION + 1}"),
        (0, r"is damaged \(its tables are of version 0, which there never was\)"),
        (-1, r"is damaged \(its tables are of version -1, which there never was\)"),
    ],
)
def test_tables_of_another_version_are_refused(
    store: StudyStore, url: str, postgres_server: Server, schema: str, version: int, message: str
) -> None:
    with closing(postgres_server.connect(schema)) as connection:
        connection.execute("UPDATE nnas_version SET version = %s", [version])
    with pytest.raises(InputError, match=message) as caught:
        StudyStore.open(url)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DELETE FROM nnas_version", r"is damaged \(its table nnas_version has 0 rows\)"),
        ("DROP TABLE intermediates", r"is damaged \(there is no intermediates\)"),
    ],
)
def test_a_damaged_schema_is_refused(
    store: StudyStore, url: str, postgres_server: Server, schema: str, damage: str, message: str
) -> None:
    with closing(postgres_server.connect(schema)) as connection:
        connection.execute(damage)
    with pytest.raises(InputError, match=message):
        StudyStore.open(url)


def test_a_table_that_is_lost_while_a_study_is_open_is_damage(
    store: StudyStore, study: StudyRecord, postgres_server: Server, schema: str
) -> None:
    with closing(postgres_server.connect(schema)) as connection:
        connection.execute("DROP TABLE trials")
    with pytest.raises(InputError, match=r'is damaged \(relation "trials" does not exist\)'):
        store.trials(study)


def test_a_search_path_without_any_schema_is_refused(postgres_server: Server) -> None:
    with pytest.raises(InputError, match="the database has no schema to keep studies in"):
        StudyStore.open(postgres_server.url("not_there"))


def test_a_schema_that_we_may_not_write_to_is_refused(postgres_server: Server) -> None:
    with closing(postgres_server.connect(admin=True, database="tests")) as admin:
        admin.execute("CREATE SCHEMA closed")
        admin.execute("GRANT USAGE ON SCHEMA closed TO tester")
        try:
            with pytest.raises(EnvironmentFailure, match="cannot use it: permission denied for schema closed"):
                StudyStore.open(postgres_server.url("closed"))
        finally:
            admin.execute("DROP SCHEMA closed")


def test_a_database_that_cannot_hold_every_character_is_refused(postgres_server: Server) -> None:
    with closing(postgres_server.connect(admin=True)) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(InputError, match="has the encoding LATIN1, studies need UTF8"):
            StudyStore.open(postgres_server.url("public", database="latin"))
    finally:
        with closing(postgres_server.connect(admin=True)) as connection:
            connection.execute("DROP DATABASE latin WITH (FORCE)")


def test_a_read_only_database_is_read_and_not_written(store: StudyStore, study: StudyRecord, url: str) -> None:
    with StudyStore.open(url + "%20-cdefault_transaction_read_only%3Don") as reader:
        assert reader.study("study") == study
        with pytest.raises(EnvironmentFailure, match="cannot write: the database is read-only for us"):
            reader.acquire(study)


# ---- other writers


def test_a_lock_that_stays_is_a_failure_that_names_its_holder(
    store: StudyStore, url: str, postgres_server: Server, schema: str
) -> None:
    with StudyStore.open(url, busy_timeout_s=0.2) as other, locked(postgres_server, schema) as pid:
        with pytest.raises(EnvironmentFailure, match=f"locked for 0.2 s by process {pid} of the server") as caught:
            other.create_study(study_programs.settings())
        assert other.studies() == []  # readers do not wait
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "wait until it has ended, then run the command again with `resume`"
    store.create_study(study_programs.settings())


def test_a_writer_of_ours_is_named_by_its_process(store: StudyStore, url: str) -> None:
    writer = open_database(make_url(url), HowToOpen(False, 1))
    refused = pytest.raises(EnvironmentFailure, match=f"locked for 0 s by process {os.getpid()} on ")
    with StudyStore.open(url, busy_timeout_s=0) as other, writer.write(), refused:
        other.create_study(study_programs.settings())
    writer.close()


# ---- in the middle of the work


def test_a_connection_lost_in_a_transaction_loses_the_transaction_alone(
    store: StudyStore, study: StudyRecord, url: str, postgres_server: Server
) -> None:
    database = open_database(make_url(url), HowToOpen(False, 1))

    def lose_it_after_a_write() -> None:
        with database.write() as connection:
            connection.execute(tables.studies.update().values(stop_requested=1))
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with closing(postgres_server.connect(admin=True)) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
            connection.execute(tables.studies.select())

    with pytest.raises(
        EnvironmentFailure, match=r"connection to the server was lost \(.*\); nothing that was"
    ) as caught:
        lose_it_after_a_write()
    assert "run the command again with `resume`" in (caught.value.hint or "")
    assert store.study("study").state == "created"
    with database.write() as connection:  # and the next one has a new connection
        change_study(connection, database.where, study, state="finished")
    database.close()
    assert store.study("study").state == "finished"


def test_a_writer_that_hangs_loses_its_turn_to_the_next_one(
    store: StudyStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "STUCK_S", 0.2)
    database = open_database(make_url(url), HowToOpen(False, 1))

    def hang_while_another_one_writes() -> None:
        with database.write() as connection:
            store.create_study(study_programs.settings())  # waits for its turn
            connection.execute(tables.studies.update().values(state="finished"))

    with pytest.raises(EnvironmentFailure, match="the connection to the server was lost"):
        hang_while_another_one_writes()
    database.close()
    assert store.study("study").state == "created"


def test_connections_lost_between_transactions_are_not_noticed(
    store: StudyStore, study: StudyRecord, postgres_server: Server
) -> None:
    lost: list[int] = []

    def evaluate(architecture: Any) -> Any:
        lost.append(disconnect(postgres_server))
        return study_programs.evaluate(architecture)

    result = run_study(store, study, study_programs.tuner_of(study), evaluate, study_programs.run_settings(trials=5))
    assert result.finished == 5
    assert min(lost) >= 1


def failure(kind: type[psycopg.Error], text: str, **options: Any) -> DBAPIError:
    """What SQLAlchemy makes of an error of the driver."""
    return InternalError("UPDATE trials SET value=1", None, kind(text), **options)


@pytest.mark.parametrize(
    ("kind", "said", "expected", "message"),
    [
        (errors.DiskFull, "could not extend file", EnvironmentFailure, "no space left on the server .could not extend"),
        (errors.OutOfMemory, "out of memory", EnvironmentFailure, "the server gave up .out of memory.; nothing that"),
        (errors.QueryCanceled, "statement timeout", EnvironmentFailure, "the server gave up .statement timeout"),
        (errors.IoError, "could not read block", EnvironmentFailure, "the server gave up .could not read block"),
        (errors.DeadlockDetected, "deadlock detected", EnvironmentFailure, "the server gave up .deadlock detected"),
        (errors.AdminShutdown, "terminating connection", EnvironmentFailure, "the connection to the server was lost"),
        (errors.IdleInTransactionSessionTimeout, "idle", EnvironmentFailure, "the connection to the server was lost"),
        (errors.DataCorrupted, "invalid page", InputError, "the study database is damaged .invalid page"),
    ],
)
def test_what_the_server_says_is_told_with_what_to_do(
    store: StudyStore, url: str, kind: type[psycopg.Error], said: str, expected: type[NnasError], message: str
) -> None:
    database = open_database(make_url(url), HowToOpen(False, 1))
    with pytest.raises(expected, match=message) as caught, database.write():
        raise failure(kind, said)
    database.close()
    assert caught.value.hint
    assert caught.value.where == store.where


def test_a_bug_of_ours_stays_one(store: StudyStore, url: str) -> None:
    database = open_database(make_url(url), HowToOpen(False, 1))
    with pytest.raises(DBAPIError, match="syntax error"), database.read() as connection:
        connection.exec_driver_sql("SELEC 1")
    database.close()
