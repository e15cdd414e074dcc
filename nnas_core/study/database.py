"""Every access to a study database is a transaction here, and every failure of it one of our errors.

What a kind of database does in its own way stands in a file of its own (``sqlite.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from nnas_core.errors import NnasError

__all__ = ["Database", "engine_options"]


class Database:
    """Transactions on one database.

    Args:
        engine: connected; its transactions with the execution option ``writes`` must lock out other writers.
        where: what errors name, without any password.
        translate: the NnasError that a failure of the database means, None for a bug of ours.
    """

    def __init__(self, engine: Engine, where: str, translate: Callable[[DBAPIError], NnasError | None]) -> None:
        self.where = where
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


def engine_options() -> dict[str, Any]:
    """What every engine needs: JSON columns in one compact form, no values of statements in errors."""
    return {"json_serializer": _compact, "hide_parameters": True}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
