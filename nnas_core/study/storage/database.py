"""Every access to a study database is a transaction here, and every failure of it one of our errors.

What a kind of database does in its own way stands in a file of its own (``sqlite.py``, ``postgresql.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypedDict, TypeVar

import sqlalchemy
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from nnas_core.errors import EnvironmentFailure, NnasError, UsageError

__all__ = [
    "PATIENCE_S",
    "SAFE",
    "URLS",
    "ConnectionLost",
    "Database",
    "HowToOpen",
    "JsonOptions",
    "Outcome",
    "json_options",
    "parse_url",
    "without_password",
]

URLS = "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
"""The forms of a database URL, for hints."""

PATIENCE_S = 60.0
"""How long a server may be away that could be reached before."""

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 0.5

_Result = TypeVar("_Result")

SAFE = "nothing that was finished is lost"
"""Errors of a store say so, whichever it is."""


@dataclass(frozen=True)
class HowToOpen:
    """Says how a database is opened, and what its errors advise.

    Attributes:
        create: make it if there is none.
        busy_timeout_s: how long to wait for other writers.
        go_on: the parameter by which the command at hand goes on after an error, ``"resume"`` or ``"join"``; None: it
            is simply run again.
        late: make it when it is first used, so that work which cannot begin leaves none behind.
    """

    create: bool = True
    busy_timeout_s: float = 60.0
    go_on: str | None = "resume"
    late: bool = False

    @property
    def again(self) -> str:
        """Holds what to do after an error, for hints."""
        return "run the command again" + ("" if self.go_on is None else f" with `{self.go_on}`")


def _clock_of_this_machine(_connection: Connection) -> datetime:
    return datetime.now(timezone.utc)


class ConnectionLost(EnvironmentFailure):
    """The server cannot be reached, or not any more; a retry may help."""


Outcome = Callable[[Connection], bool]
"""Says by another connection whether a transaction was stored."""


def _no_outcome(_connection: Connection) -> Outcome | None:
    return None


class Database:
    """Transactions on one database.

    Args:
        connector: connected; its transactions with the execution option ``writes`` must lock out other writers.
        where: what errors name, without any password.
        translate: the NnasError that a failure of the database means, None for a bug of ours.
        clock: the time by which leases end, the same for all who use the database.
        outcome: called before a commit; returns what says by another connection whether it was stored, where the
            answer may be lost on its way.

    Attributes:
        patience_s: how long a transaction waits to begin for a server that cannot be reached.
        waiting: called several times a second meanwhile; may raise.
    """

    def __init__(
        self,
        connector: sqlalchemy.Engine,
        where: str,
        translate: Callable[[DBAPIError], NnasError | None],
        clock: Callable[[Connection], datetime] = _clock_of_this_machine,
        outcome: Callable[[Connection], Outcome | None] = _no_outcome,
    ) -> None:
        self.where = where
        self.patience_s = 0.0
        self.waiting: Callable[[], None] = lambda: None
        self._outcome = outcome
        self.now = clock
        self._translate = translate
        self._reader = connector
        self._writer = connector.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begins a transaction that sees one state of the database and changes nothing.

        Raises:
            ConnectionLost: the server cannot be reached, for longer than ``patience_s`` if it could be before.
        """
        with self._translated(), self._begun(self._reader, self.patience_s) as connection:
            yield connection
            self._commit(connection)

    @contextmanager
    def write(self, *, patient: bool = True) -> Iterator[Connection]:
        """Begins a transaction that is the only writer from its start; all of it is stored or nothing.

        Args:
            patient: wait for a server that cannot be reached, as ``read`` does.

        Raises:
            ConnectionLost: as for ``read``, or in the middle; then nothing is stored.
        """
        with self._translated(), self._begun(self._writer, self.patience_s if patient else 0.0) as connection:
            yield connection
            self._commit(connection)

    def repeated(self, work: Callable[[], _Result]) -> _Result:
        """Returns what ``work`` returns, which is one transaction; begins it again where the connection was lost in it.

        Raises:
            ConnectionLost: for longer than ``patience_s``.
        """
        end = time.monotonic() + self.patience_s
        while True:
            try:
                return work()
            except ConnectionLost:
                if time.monotonic() >= end:
                    raise
            self.waiting()
            time.sleep(_FIRST_PAUSE_S)

    @contextmanager
    def _begun(self, engine: sqlalchemy.Engine, patience_s: float) -> Iterator[Connection]:
        """Begins a transaction as soon as the server can be reached: one that is restarted costs nothing."""
        end, pause = time.monotonic() + patience_s, _FIRST_PAUSE_S
        while True:
            try:
                connection = engine.connect()
                try:
                    connection.begin()
                except BaseException:
                    connection.close()
                    raise
                break
            except DBAPIError as error:
                if time.monotonic() + pause > end or not self._is_lost(error):
                    raise
            self.waiting()
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
        with connection:  # whose end without a commit is a rollback
            yield connection

    def _is_lost(self, error: DBAPIError) -> bool:
        return isinstance(self._translate(error), ConnectionLost)

    def _commit(self, connection: Connection) -> None:
        """Commits; where the answer was lost, the server is asked what became of it."""
        outcome = self._outcome(connection)
        try:
            connection.commit()
        except DBAPIError as error:
            if outcome is None or not self._is_lost(error):
                raise
            with self._begun(self._reader, self.patience_s) as another:
                if not outcome(another):
                    raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            known = self._translate(error)
            if known is None:
                raise
            raise known from error

    def close(self) -> None:
        """Gives the connections back."""
        self._reader.dispose()


def parse_url(url: str) -> URL:
    """Returns a database URL in its parts.

    Raises:
        UsageError: it is none; the message does not repeat what may hold a password.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        shown = url if ":" not in url or url.startswith("sqlite:") else f"{url.partition(':')[0]}:..."
        raise UsageError(f"storage {shown!r} is not a database URL", hint=f"give {URLS}") from error


def without_password(url: str) -> str:
    """Returns ``url`` for people and files: a password in it is ``***``.

    Raises:
        UsageError: as for ``parse_url``.
    """
    parsed = parse_url(url)
    hidden = parsed.update_query_dict({"password": "***"}) if "password" in parsed.query else parsed
    return url if hidden is parsed and parsed.password is None else hidden.render_as_string(hide_password=True)


class JsonOptions(TypedDict):
    """Options of ``create_engine`` that all databases have."""

    json_serializer: Callable[[object], str]
    hide_parameters: bool


def json_options() -> JsonOptions:
    """Returns options for ``create_engine``: JSON columns in one compact form, no values of statements in errors."""
    return {"json_serializer": _compact, "hide_parameters": True}


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
