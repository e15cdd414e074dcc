"""Every access to a study database is a transaction here, and every failure of it one of our errors.

What a kind of database does in its own way stands in a file of its own (``sqlite.py``, ``postgresql.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from nnas_core.errors import NnasError, UsageError

__all__ = ["AGAIN", "SAFE", "URLS", "Database", "engine_options", "parse_url", "without_password"]

URLS = "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
"""The forms of ``--storage``, for hints."""

SAFE = "nothing that was finished is lost"
AGAIN = "run the command again with --resume"
"""What errors of a store say, whichever it is."""


def _clock_of_this_machine(_connection: Connection) -> datetime:
    return datetime.now(timezone.utc)


class Database:
    """Transactions on one database.

    Args:
        engine: connected; its transactions with the execution option ``writes`` must lock out other writers.
        where: what errors name, without any password.
        translate: the NnasError that a failure of the database means, None for a bug of ours.
        clock: the time by which leases end, the same for all who use the database.
    """

    def __init__(
        self,
        engine: Engine,
        where: str,
        translate: Callable[[DBAPIError], NnasError | None],
        clock: Callable[[Connection], datetime] = _clock_of_this_machine,
    ) -> None:
        self.where = where
        self.now = clock
        self._translate = translate
        self._reader = engine
        self._writer = engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is the only writer from its start; all of it is stored or nothing."""
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
        """Give the connections back."""
        self._reader.dispose()


def parse_url(url: str) -> URL:
    """A database URL in its parts.

    Raises:
        UsageError: it is none; the message does not repeat what may hold a password.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        shown = url if ":" not in url or url.startswith("sqlite:") else f"{url.partition(':')[0]}:..."
        raise UsageError(f"storage {shown!r} is not a database URL", hint=f"give {URLS}") from error


def without_password(url: str) -> str:
    """``url`` for people and files: a password in it is ``***``.

    Raises:
        UsageError: as for ``parse_url``.
    """
    parsed = parse_url(url)
    hidden = parsed.update_query_dict({"password": "***"}) if "password" in parsed.query else parsed
    return url if hidden is parsed and parsed.password is None else hidden.render_as_string(hide_password=True)


def engine_options() -> dict[str, Any]:
    """What every engine needs: JSON columns in one compact form, no values of statements in errors."""
    return {"json_serializer": _compact, "hide_parameters": True}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
