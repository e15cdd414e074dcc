"""Studies in an SQLite file: everything that SQLite does in its own way stands here, and nowhere else.

Rollback journal and ``synchronous=FULL``: what a transaction stored survives SIGKILL and power cuts. Not WAL,
which corrupts below SQLite 3.51.3.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from nnas_core import __version__
from nnas_core.errors import EnvironmentFailure, InputError, NnasError, NnasWarning
from nnas_core.files import environment_failure, sync_folder
from nnas_core.study.storage import leases, tables
from nnas_core.study.storage.database import SAFE, Database, HowToOpen, json_options
from nnas_core.study.storage.migrations import migrate
from nnas_core.study.storage.temporary import delete_leftovers, temporary_beside

__all__ = ["APPLICATION_ID", "is_to_be_made", "network_filesystem", "open_file"]

APPLICATION_ID = int.from_bytes(b"nnas", "big")

_NETWORK = {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}


def is_to_be_made(path: str) -> bool:
    """Returns true if there is no such file yet, after a check that it can be made.

    Raises:
        InputError, EnvironmentFailure: it cannot; the error is that of ``open_file``.
    """
    target = Path(path)
    if target.exists():
        return False
    with _creating(target), temporary_beside(target):
        pass
    return True


def open_file(path: str, how: HowToOpen) -> Database:
    """Opens a study database, after a check that it is one; a file that is refused is not touched.

    Args:
        path: the file.
        how: any number of processes may make it at once.

    Raises:
        InputError: no such file, or not a study database, or a damaged one.
        EnvironmentFailure: no such folder, no permission, no space, or locked for too long.
    """
    target = Path(path)
    kind = network_filesystem(target)
    if kind is not None:
        warnings.warn(
            f"{path} is on a network file system ({kind}): two machines at once, or a lost connection, "
            "can damage the study; a local disk is safe",
            NnasWarning,
            stacklevel=3,
        )
    if not target.exists():
        if not how.create:
            raise InputError("no such file", where=path, hint="check the path of `storage`")
        _create(target, how)
    delete_leftovers(target)
    _check(target, how)
    return Database(_connector(target, how), path, partial(_translate, target, how))


# ---- making


def _connector(path: Path, how: HowToOpen) -> sqlalchemy.Engine:
    def connect() -> sqlite3.Connection:
        # never a new file: one that was deleted meanwhile is an error, and no empty database
        uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=how.busy_timeout_s, check_same_thread=False)

    connector = create_engine(URL.create("sqlite", database=str(path)), creator=connect, **json_options())
    event.listen(connector, "connect", _prepare)
    event.listen(connector, "begin", _begin)
    return connector


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    # a text that is no UTF-8 is for us to name: the driver would fail, and say no row
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    for pragma in ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    # a transaction that starts by reading could not become a writer while another one waits for it
    statement = "BEGIN IMMEDIATE" if writes else "BEGIN"
    try:  # past SQLAlchemy, which would take several times as long for it as SQLite does
        connection.connection.cursor().execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error


def _create(target: Path, how: HowToOpen) -> None:
    """Makes the whole database under another name, then gives it its own: nobody ever sees half of one."""
    with _creating(target):
        with temporary_beside(target) as temporary:
            _fill(temporary, target, how)
            _publish(temporary, target)
        sync_folder(target.parent)


@contextlib.contextmanager
def _creating(target: Path) -> Iterator[None]:
    """Inside, a failure of the system is one to create ``target``."""
    journal = target.with_name(target.name + "-journal")
    if journal.exists() and not target.exists():
        raise InputError(
            f"the file is gone but its journal {journal.name} is there, which would spoil a new one",
            where=str(target),
            hint="put the file back, or delete the journal",
        )
    try:
        yield
    except OSError as error:
        raise environment_failure(error, target, "create") from error


def _fill(temporary: Path, target: Path, how: HowToOpen) -> None:
    connector = _connector(temporary, how)
    database = Database(connector, str(target), partial(_translate, target, how, file=temporary))
    try:
        with database.write() as connection:
            tables.metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version={tables.VERSION}")
    finally:
        database.close()


def _publish(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass  # another process was quicker; its database serves as well
    except OSError:  # a file system without hard links
        content = temporary.read_bytes()
        with contextlib.suppress(FileExistsError), open(target, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


# ---- checking


def _check(path: Path, how: HowToOpen) -> None:
    if path.is_dir():
        raise InputError("is a directory, a file is needed", where=str(path))
    try:
        size = path.stat().st_size
    except OSError as error:
        raise environment_failure(error, path, "read") from error
    if size == 0:
        raise InputError(
            "not a study database: the file is empty",
            where=str(path),
            hint="delete it, or choose another name",
        )
    try:
        application, version, problems = _probe(path, "ro", how)
    except sqlite3.DatabaseError as error:
        known = _known(str(error), path, how)
        if known is None:
            raise
        raise known from error
    if application != APPLICATION_ID:
        raise InputError(
            "not a study database: an SQLite file of another program",
            where=str(path),
            hint="choose another file for `storage`",
        )
    if version < 1:
        raise _damaged(path, f"its tables are of version {version}, which there never was")
    if version > tables.VERSION:
        raise InputError(
            f"made by a newer nnas: its tables are of version {version}, this is nnas {__version__} "
            f"which knows {tables.VERSION}",
            where=str(path),
            hint="install a newer nnas",
        )
    if problems:
        raise _damaged(path, problems)
    if version < tables.VERSION:
        _migrate(path, version, how)


def _migrate(path: Path, version: int, how: HowToOpen) -> None:
    """Brings the file to this version, all of it or nothing; a copy of the old one stays beside it."""
    copy = path.with_name(f"{path.name}.version{version}")
    database = Database(_connector(path, how), str(path), partial(_translate, path, how))
    try:
        with database.write() as connection:
            if connection.exec_driver_sql("PRAGMA user_version").scalar() != version:
                return  # another process was quicker
            _refuse_in_use(connection, path)
            _copy(path, copy)
            migrate(connection, version)
            connection.exec_driver_sql(f"PRAGMA user_version={tables.VERSION}")
    finally:
        database.close()
    warnings.warn(
        f"{path} was made by an older nnas: its tables went from version {version} to {tables.VERSION}; the file as it"
        f" was is kept as {copy.name}",
        NnasWarning,
        stacklevel=5,
    )


def _copy(path: Path, target: Path) -> None:
    """Copies a database that nobody writes to meanwhile; the copy is there whole or not at all."""
    try:
        with temporary_beside(target) as temporary:
            with (
                contextlib.closing(sqlite3.connect(path)) as connection,
                contextlib.closing(sqlite3.connect(temporary)) as copied,
            ):
                copied.execute("PRAGMA synchronous=FULL")
                connection.backup(copied)
            os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise environment_failure(error, target, "create") from error


def _refuse_in_use(connection: Connection, path: Path) -> None:
    """Leaves the file to an older nnas that still works on it."""
    for row in connection.exec_driver_sql("SELECT * FROM owners WHERE claim IS NOT NULL").mappings():
        lease = leases.lease_in(row, str(path), f"number {row['study_id']}")
        if lease is not None and leases.is_alive(lease):
            raise EnvironmentFailure(
                f"an older nnas works on it, {lease}", where=str(path), hint="wait until it has ended"
            )


def _probe(path: Path, mode: str, how: HowToOpen) -> tuple[int, int, str]:
    """Returns application, version and damage of the file, read without writing to it."""
    uri = f"file:{urllib.parse.quote(str(path))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=how.busy_timeout_s)) as connection:
        try:
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
        except sqlite3.OperationalError as error:
            if mode == "ro" and "readonly" in str(error):  # a crash left a journal, which only a writer can apply
                return _probe(path, "rw", how)
            raise
        if application != APPLICATION_ID or not 1 <= version <= tables.VERSION:
            return application, version, ""
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except UnicodeDecodeError:  # sqlite3 makes an exception of a message that names what is no text any more
            return application, version, "a name in it is no text"
        return application, version, "" if found == "ok" else found.splitlines()[-1]  # after the database's name


def network_filesystem(path: Path, mounts: str | None = None) -> str | None:
    """Returns the kind of network file system that ``path`` is on, or None for a local one.

    Args:
        path: need not exist.
        mounts: the text of ``/proc/self/mounts``; the system's own if None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:  # not Linux
            return None
    place = os.path.realpath(path)
    longest, kind = "", None
    for line in mounts.splitlines():
        folder, found = line.split()[1].replace("\\040", " "), line.split()[2]
        inside = place == folder or place.startswith(folder.rstrip("/") + "/")
        if inside and len(folder) >= len(longest):  # of two mounts on one folder the later one counts
            longest, kind = folder, found
    return kind if kind in _NETWORK else None


# ---- failures


def _translate(path: Path, how: HowToOpen, error: DBAPIError, *, file: Path | None = None) -> NnasError | None:
    return _known(str(error.orig), path, how, file=file)


def _known(text: str, path: Path, how: HowToOpen, *, file: Path | None = None) -> NnasError | None:
    """Returns what a message of SQLite means to the user; None if nothing of theirs, so a bug of ours.

    Args:
        text: the message.
        path: the database, for errors.
        how: it is opened.
        file: what is open, where that is not yet the database.
    """
    where = str(path)
    if not (file or path).exists():
        return EnvironmentFailure(
            "the file was deleted or moved away while it was in use",
            where=where,
            hint="put it back where it was; what it had is lost with it",
        )
    if "file is not a database" in text:
        return InputError("not a study database", where=where, hint="choose another file for `storage`")
    if any(part in text for part in ("malformed", "no such table", "no such column")):
        return _damaged(path, text)
    if "locked" in text:
        return EnvironmentFailure(
            f"locked for {how.busy_timeout_s:g} s by {_locked_by(path)}",
            where=where,
            hint=f"wait until it has ended, then {how.again}",
        )
    if "disk is full" in text:
        return EnvironmentFailure(
            f"no space left on the device; {SAFE}", where=where, hint=f"free some space and {how.again}"
        )
    if "disk I/O error" in text:
        return EnvironmentFailure(
            f"the disk does not read or write (disk I/O error); {SAFE}",
            where=where,
            hint=f"check the disk and its free space and {how.again}",
        )
    if "readonly" in text or "unable to open database file" in text:
        return EnvironmentFailure(
            "cannot write: permission denied for the file or its folder",
            where=where,
            hint="choose a place that you may write to",
        )
    return None


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"the study database is damaged ({what}); it was left as it is",
        where=str(path),
        hint="restore a copy of it, or start another study in another file",
    )


def _locked_by(path: Path) -> str:
    """Returns the process that locks the file, as far as the system tells."""
    with contextlib.suppress(OSError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "WRITE" in fields and fields[-3].rpartition(":")[2] == inode:
                return f"process {fields[-4]}"
    return "another process"
