"""Studies in a PostgreSQL database: everything that PostgreSQL does in its own way stands here, and nowhere else.

One schema of the database holds one store. Writers take turns by an advisory lock of that schema, held to the end of
the transaction: a server that loses the writer gives it free, and no table of ours is ever locked against readers.
"""

from __future__ import annotations

import os
import re
import socket
import time
import warnings
from datetime import datetime, timezone

import sqlalchemy
from sqlalchemy import URL, Column, Connection, Integer, MetaData, Table, create_engine, event, insert, select
from sqlalchemy.exc import DBAPIError

from nnas_core import __version__
from nnas_core.errors import EnvironmentFailure, InputError, NnasError, NnasWarning, UsageError
from nnas_core.study.storage import leases, tables
from nnas_core.study.storage.database import (
    PATIENCE_S,
    SAFE,
    ConnectionLost,
    Database,
    HowToOpen,
    Outcome,
    json_options,
)
from nnas_core.study.storage.migrations import migrate

__all__ = ["LOCK", "STUCK_S", "open_database"]

LOCK = int.from_bytes(b"nnas", "big")
"""The upper half of the key of the advisory lock; the lower half is the schema."""

STUCK_S = 30
"""A writer that says nothing to the server for so long, between two statements, loses its transaction and its lock."""

_marks = MetaData()
_version = Table("nnas_version", _marks, Column("version", Integer, nullable=False))


# without a name in the URL, tables that are ours are found as PostgreSQL finds any, and new ones go where it puts any
_PLACE = """
SELECT n.oid::bigint AS oid, quote_ident(n.nspname) AS name, current_setting('server_encoding') AS encoding
FROM pg_namespace n
WHERE n.oid = coalesce(
    (SELECT c.relnamespace FROM pg_class c WHERE c.oid = to_regclass('nnas_version')),
    to_regnamespace(quote_ident(current_schema()))::oid
)
"""

# a server that answers before the disk has it would lose results in a power cut
_SYNCHRONOUS = """
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'
"""

_LOCKED_BY = """
SELECT a.application_name, a.pid
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND d.datname = current_database()
  AND l.classid::bigint = {lock} AND l.objid::bigint = {schema}
"""

_ASK_AGAIN_S = 0.05

_CONNECTION_LOST = {"25P03", "57P01", "57P02", "57P03", "57P05"}  # and the class 08


def open_database(url: URL, how: HowToOpen) -> Database:
    """Connects to a database and makes sure that its schema is ours; one that is refused is not touched.

    Args:
        url: of PostgreSQL; its query may have any parameter of libpq, as ``options=-csearch_path=SCHEMA``.
        how: any number of processes may make the tables at once.

    Raises:
        UsageError: the URL is not complete, or psycopg is not installed.
        InputError: no tables, or those of another program or a newer nnas.
        EnvironmentFailure: the server cannot be reached, refuses us, cannot write, or is locked for too long.
    """
    server = _Server(url, how)
    database = Database(server.connector, server.where, server.translate, _server_time, _outcome)
    try:
        with database.read() as connection:
            server.pin(connection)
            found = server.version(connection)
        if found is None and not how.create:
            raise InputError("there are no studies in this database", where=server.where, hint="check `storage`")
        if found is None:
            with database.write() as connection:
                if server.version(connection) is None:  # or another process was quicker
                    _fill(connection)
        elif found < tables.VERSION:
            server.migrate(database)
        database.patience_s = PATIENCE_S  # it is there, and it may be restarted
    except BaseException:
        database.close()
        raise
    return database


def _fill(connection: Connection) -> None:
    tables.metadata.create_all(connection, checkfirst=False)
    _marks.create_all(connection, checkfirst=False)
    connection.execute(insert(_version).values(version=tables.VERSION))


def _server_time(connection: Connection) -> datetime:
    """Returns the time of the clock that all machines share."""
    seconds = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())::float8").scalar_one()
    return datetime.fromtimestamp(seconds, timezone.utc)


def _outcome(connection: Connection) -> Outcome | None:
    """Returns what says whether the transaction was stored that is about to be committed; None if it wrote nothing."""
    number = connection.exec_driver_sql("SELECT txid_current_if_assigned()").scalar()
    if number is None:
        return None

    def stored(another: Connection) -> bool:
        while True:
            status = another.exec_driver_sql(f"SELECT txid_status({int(number)})").scalar()
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(_ASK_AGAIN_S)

    return stored


class _Server:
    """One schema of one database: how transactions begin there, and what its failures mean."""

    def __init__(self, url: URL, how: HowToOpen) -> None:
        _check_url(url)
        self.where = _place_of(url)
        self._secrets = [secret for secret in (url.password, *_values(url, "password")) if secret]
        self._how = how
        self._schema = 0
        self._read = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
        self._write = ""
        self.connector = _connector(url)
        event.listen(self.connector, "begin", self._begin)

    def _begin(self, connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql(self._write if writes else self._read)

    # ---- the schema

    def pin(self, connection: Connection) -> None:
        """Finds the schema, and lets every later transaction work in it and nowhere else."""
        place = connection.exec_driver_sql(_PLACE).first()
        if place is None:
            raise InputError(
                "the database has no schema to keep studies in: none of its search_path exists",
                where=self.where,
                hint="let its administrator create a schema for you, or choose another database",
            )
        if place.encoding != "UTF8":
            raise InputError(
                f"the database has the encoding {place.encoding}, studies need UTF8",
                where=self.where,
                hint="choose a database that was created with the encoding UTF8",
            )
        self._schema = place.oid
        inside = f"SET LOCAL search_path TO {place.name.replace('%', '%%')}, pg_temp"
        # a zero would wait for ever; the server knows 31 bits
        wait_ms = min(max(1, round(self._how.busy_timeout_s * 1000)), 2**31 - 1)
        self._read = f"{self._read}; {inside}"
        self._write = "; ".join(
            (
                # each statement sees what was stored before it, and after the lock nobody else stores
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
                inside,
                f"SET LOCAL lock_timeout = {wait_ms}",
                f"SET LOCAL idle_in_transaction_session_timeout = {round(STUCK_S * 1000)}",
                _SYNCHRONOUS,
                f"SELECT pg_advisory_xact_lock({(LOCK << 32) + self._schema})",
            )
        )

    def version(self, connection: Connection) -> int | None:
        """Returns the version of the tables in the schema; None if there are none, and none of another program."""
        ours = {*tables.metadata.tables, *_marks.tables}
        ours |= {str(index.name) for table in tables.metadata.tables.values() for index in table.indexes}
        rows = connection.exec_driver_sql(f"SELECT relname FROM pg_class WHERE relnamespace = {self._schema}")
        names = ours.intersection(rows.scalars())
        if not names:
            return None
        if _version.name not in names:
            raise InputError(
                f"the schema has tables of another program: {', '.join(sorted(names))}",
                where=self.where,
                hint="choose another database, or another schema by ?options=-csearch_path=NAME",
            )
        found = connection.execute(select(_version.c.version)).scalars().all()
        if len(found) != 1:
            raise self._damaged(f"its table {_version.name} has {len(found)} rows")
        if found[0] < 1:
            raise self._damaged(f"its tables are of version {found[0]}, which there never was")
        if found[0] > tables.VERSION:
            raise InputError(
                f"made by a newer nnas: its tables are of version {found[0]}, this is nnas {__version__} "
                f"which knows {tables.VERSION}",
                where=self.where,
                hint="install a newer nnas",
            )
        if found[0] == tables.VERSION and names != ours:
            raise self._damaged(f"there is no {', '.join(sorted(ours - names))}")
        return int(found[0])

    def migrate(self, database: Database) -> None:
        """Brings the tables to this version, all of them or none."""
        with database.write() as connection:
            found = self.version(connection)
            if found is None or found == tables.VERSION:
                return  # another process was quicker
            now = _server_time(connection)
            for row in connection.exec_driver_sql("SELECT * FROM owners WHERE claim IS NOT NULL").mappings():
                lease = leases.lease_in(row, self.where, f"number {row['study_id']}")
                if lease is not None and leases.is_alive(lease, now):
                    raise EnvironmentFailure(
                        f"an older nnas works on it, {lease}", where=self.where, hint="wait until it has ended"
                    )
            migrate(connection, found)
            connection.execute(_version.update().values(version=tables.VERSION))
        warnings.warn(
            f"{self.where} was made by an older nnas: its tables went from version {found} to {tables.VERSION}",
            NnasWarning,
            stacklevel=4,
        )

    # ---- failures

    def translate(self, error: DBAPIError) -> NnasError | None:
        """Returns what a failure means to the user; None if nothing of theirs, so a bug of ours."""
        state = getattr(error.orig, "sqlstate", None)
        text = self._text(error)
        if error.connection_invalidated or (state or "").startswith("08") or state in _CONNECTION_LOST:
            hint = f"check the server, then {self._how.again}"
            return self._failure(f"the connection to the server was lost ({text}); {SAFE}", hint, ConnectionLost)
        if error.statement is None and state is None:
            return self._unreachable(text)
        if state == "55P03":
            return self._failure(
                f"locked for {self._how.busy_timeout_s:g} s by {self._locked_by()}",
                f"wait until it has ended, then {self._how.again}",
            )
        return self._refusal(state or "", text)

    def _refusal(self, state: str, text: str) -> NnasError | None:
        if state == "53100":
            hint = f"free some space and {self._how.again}"
            return self._failure(f"no space left on the server ({text}); {SAFE}", hint)
        if state == "25006":
            return self._failure(
                "cannot write: the database is read-only for us",
                "name the primary server, or a role that may write",
            )
        if state == "42501":
            return self._failure(f"cannot use it: {text}", "let its owner grant it to your role")
        if state in {"42P01", "42703", "XX001", "XX002"}:
            return self._damaged(text)
        # out of resources or memory, in the operator's hands, broken disk, or chosen as the victim of a deadlock
        if state.startswith(("53", "57", "58", "40")):
            return self._failure(f"the server gave up ({text}); {SAFE}", self._how.again)
        return None

    def _unreachable(self, text: str) -> NnasError:
        if text.startswith(("invalid connection option", "invalid integer value", "bad value for", "invalid sslmode")):
            return UsageError(f"the URL of `storage` has {text}", where=self.where, hint="see the parameters of libpq")
        if "password" in text or "authentication" in text or "pg_hba.conf" in text or "role " in text:
            return self._failure(
                f"the server refuses us: {text}",
                "check user and password of `storage`; without a password there PGPASSWORD or ~/.pgpass has it",
            )
        if re.search(r'database ".*" does not exist', text):
            return self._failure(f"the server refuses us: {text}", "create it by createdb, or check `storage`")
        return self._failure(f"cannot connect: {text}", "check the server and `storage`", ConnectionLost)

    def _failure(
        self, message: str, hint: str, kind: type[EnvironmentFailure] = EnvironmentFailure
    ) -> EnvironmentFailure:
        return kind(message, where=self.where, hint=hint)

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"the study database is damaged ({what}); it was left as it is",
            where=self.where,
            hint="restore a copy of it, or start another study in another database",
        )

    def _text(self, error: DBAPIError) -> str:
        """Returns what server or driver say, in one line without the values of a row and without any password."""
        primary = getattr(getattr(error.orig, "diag", None), "message_primary", None)
        # libpq has a line for every address it tried, and the last one counts
        lines = [line.strip() for line in str(primary or error.orig).splitlines()]
        line = next((line for line in reversed(lines) if line and not line.startswith(("- host", "Is the"))), "")
        line = re.sub(r"^(.*?\b(FATAL|ERROR):\s*|connection (failed|is bad): )", "", line).rstrip(".")
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line

    def _locked_by(self) -> str:
        """Returns the process that locks the schema, as far as the server tells."""
        query = _LOCKED_BY.format(lock=LOCK, schema=self._schema)
        try:
            with self.connector.begin() as connection:
                row = connection.exec_driver_sql(query).first()
        except DBAPIError:  # the lock is the news
            return "another process"
        if row is None:  # it has ended just now, or holds a lock of another kind
            return "another process"
        name = row.application_name or ""
        return name.removeprefix("nnas ") if name.startswith("nnas process ") else f"process {row.pid} of the server"


def _connector(url: URL) -> sqlalchemy.Engine:
    defaults = {
        "application_name": f"nnas process {os.getpid()} on {socket.gethostname()}"[:63],
        "client_encoding": "utf8",
        "connect_timeout": "10",
        # a dead network is noticed within a minute, not within hours
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    arguments: dict[str, object] = {name: value for name, value in defaults.items() if name not in url.query}
    arguments["prepare_threshold"] = None  # poolers between us and the server do not know prepared statements
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,  # a trial may take hours, and a connection that long idle may be gone
            connect_args=arguments,
            **json_options(),
        )
    except ImportError as error:
        raise UsageError(
            f"studies in PostgreSQL need psycopg, which is not there: {error}",
            hint="pip install 'nnas[postgres]'",
        ) from error


def _check_url(url: URL) -> None:
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise UsageError(
            f"studies in PostgreSQL are read by psycopg, not by {url.get_driver_name()}",
            hint="give postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
        )
    if url.host is not None and "@" in url.host:  # the rest of it may be the end of a password: it is not shown
        raise UsageError(
            "the password in the URL of `storage` has an @ that looks like the end of it",
            hint="write %40 for @, %2F for / and %3A for : in user and password",
        )
    if not url.database and not _values(url, "dbname"):
        raise UsageError(
            "the URL of `storage` names no database",
            hint="give postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
        )


def _place_of(url: URL) -> str:
    """Returns what messages name: neither user nor password nor any parameter."""
    hosts = ",".join(_values(url, "host"))
    shown = URL.create("postgresql", host=url.host or hosts or None, port=url.port, database=url.database)
    return shown.render_as_string(hide_password=True)


def _values(url: URL, name: str) -> tuple[str, ...]:
    values = url.query.get(name, ())
    return (values,) if isinstance(values, str) else tuple(values)
