"""Where studies are kept, from its URL to the open database."""

from __future__ import annotations

from sqlalchemy import URL

from nnas_core.errors import UsageError
from nnas_core.study.storage import postgresql, sqlite
from nnas_core.study.storage.database import URLS, Database, HowToOpen, parse_url

__all__ = ["Place"]


class Place:
    """The place of a database, which is opened once.

    Where it is to be made late, that it can be is seen at once nevertheless.

    Args:
        url: see ``StudyStore.open``.
        how: to open it.

    Raises:
        UsageError, InputError, EnvironmentFailure: see ``StudyStore.open``.
    """

    def __init__(self, url: str, how: HowToOpen) -> None:
        self._url = _checked(url)
        self._how = how
        self._database: Database | None = None
        file = self._file
        if not (how.late and how.create) or file is None or not sqlite.is_to_be_made(file):
            self._database = self._opened()

    @property
    def _file(self) -> str | None:
        return self._url.database if self._url.get_backend_name() == "sqlite" else None

    @property
    def is_made(self) -> bool:
        """Holds false while a database that is made late is not there."""
        return self._database is not None

    @property
    def database(self) -> Database:
        """The open database."""
        if self._database is None:
            self._database = self._opened()
        return self._database

    def _opened(self) -> Database:
        file = self._file
        return postgresql.open_database(self._url, self._how) if file is None else sqlite.open_file(file, self._how)

    def close(self) -> None:
        """Gives the connections back."""
        if self._database is not None:
            self._database.close()


def _checked(url: str) -> URL:
    parsed = parse_url(url)
    kind = parsed.get_backend_name()
    if kind not in ("postgresql", "sqlite"):
        raise UsageError(f"studies cannot be stored in {kind!r}", hint=f"give {URLS}")
    if kind == "sqlite" and (not parsed.database or parsed.database == ":memory:" or parsed.query):
        raise UsageError(
            f"storage {url!r} does not name a file", hint="give sqlite:///PATH with nothing after the path"
        )
    return parsed
