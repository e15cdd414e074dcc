"""A consistent copy of a study database in a file, made while studies run, and checked before it gets its name."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from pathlib import Path

from nnas_core.errors import EnvironmentFailure, InputError, UsageError
from nnas_core.files import environment_failure, sync_folder
from nnas_core.study.storage.database import parse_url, without_password
from nnas_core.study.storage.temporary import temporary_beside

__all__ = ["back_up"]

_MARKS = ("application_id", "user_version")


def back_up(url: str, target: str, *, overwrite: bool = False) -> int:
    """Copies the whole database of ``url``, all its studies, by SQLite's own means.

    Args:
        url: of a database that ``StudyStore.open`` has accepted.
        target: the file to make.
        overwrite: replace a file of that name.

    Returns:
        The size of the copy in bytes.

    Raises:
        UsageError: not SQLite, or there is such a file.
        InputError: the database is damaged.
        EnvironmentFailure: the copy cannot be written.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise UsageError(
            "only SQLite files are backed up here",
            where=without_password(url),
            hint="of a PostgreSQL database make a copy by pg_dump",
        )
    source, place = Path(parsed.database), Path(target)
    if place.exists() and not overwrite:
        raise _exists(place)
    if place.exists() and place.samefile(source):
        raise UsageError("this is the database itself", where=target, hint="choose another name for the copy")
    try:
        with temporary_beside(place) as temporary:
            _copy(source, temporary, place)
            size = temporary.stat().st_size
            _publish(temporary, place, overwrite)
        sync_folder(place.parent)
    except OSError as error:
        raise environment_failure(error, target, "create") from error
    return size


def _exists(place: Path) -> UsageError:
    return UsageError("exists already", where=str(place), hint="choose another name, or give `force` to replace it")


def _copy(source: Path, temporary: Path, place: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(_uri(source, "ro"), uri=True)) as original,
            contextlib.closing(sqlite3.connect(_uri(temporary, "rw"), uri=True)) as copy,
        ):
            copy.execute("PRAGMA synchronous=FULL")
            original.backup(copy)  # in one step: one state of the database, whoever writes meanwhile
            found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok" or _marks(copy) != _marks(original):
                raise _damaged(source, found)
    except sqlite3.OperationalError as error:
        raise EnvironmentFailure(
            f"cannot copy {source}: {error}", where=str(place), hint="check the disk and its free space"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(source, str(error)) from error


def _damaged(source: Path, what: str) -> InputError:
    return InputError(
        f"the study database is damaged ({what}); no copy was made",
        where=str(source),
        hint="restore an older copy of it",
    )


def _marks(connection: sqlite3.Connection) -> list[int]:
    return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _MARKS]


def _uri(path: Path, mode: str) -> str:
    return f"file:{urllib.parse.quote(str(path))}?mode={mode}"


def _publish(temporary: Path, place: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, place)
        return
    try:
        os.link(temporary, place)  # never over a file that came meanwhile
    except FileExistsError as error:
        raise _exists(place) from error
    except OSError as error:  # a file system without hard links
        if place.exists():
            raise _exists(place) from error
        os.replace(temporary, place)
