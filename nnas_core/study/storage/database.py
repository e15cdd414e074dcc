"""Every access to a study database is a transaction here, and every failure of it one of our errors.

What a kind of database does in its own way stands in a file of its own (``sqlite.py``, ``postgresql.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypedDict

import sqlalchemy
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from nnas_core.errors import NnasError, UsageError

__all__ = ["SAFE", "URLS", "Database", "HowToOpen", "JsonOptions", "json_options", "parse_url", "without_password"]

URLS = "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
"""The forms of a database URL, for hints."""

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
    """

    create: bool = True
    busy_timeout_s: float = 60.0
    go_on: str | None = "resume"

    @property
    def again(self) -> str:
        """Holds what to do after an error, for hints."""
        return "run the command again" + ("" if self.go_on is None else f" with `{self.go_on}`")


def _clock_of_this_machine(_connection: Connection) -> datetime:
    return datetime.now(timezone.utc)


class Database:
    """Transactions on one database.

    Args:
        connector: connected; its transactions with the execution option ``writes`` must lock out other writers.
        where: what errors name, without any password.
        translate: the NnasError that a failure of the database means, None for a bug of ours.
        clock: the time by which leases end, the same for all who use the database.
    """

    def __init__(
        self,
        connector: sqlalchemy.Engine,
        where: str,
        translate: Callable[[DBAPIError], NnasError | None],
        clock: Callable[[Connection], datetime] = _clock_of_this_machine,
    ) -> None:
        self.where = where
        self.now = clock
        self._translate = translate
        self._reader = connector
        self._writer = connector.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begins a transaction that sees one state of the database and changes nothing."""
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begins a transaction that is the only writer from its start; all of it is stored or nothing."""
        with self._translated(), self._writer.begin() as connection:
            yield connection

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
