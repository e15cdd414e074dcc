"""Files that become a database once they are whole; those of processes that were killed meanwhile are deleted.

A lock of the kernel says whether the process lives that makes one: it is given free however that process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["delete_leftovers", "temporary_beside"]


@contextlib.contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Makes an empty file in the folder of ``target``, which is deleted at the end unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    delete_leftovers(target)
    path, descriptor = _locked(target)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(target: Path) -> tuple[Path, int]:
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: nobody deletes there either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(path, descriptor):
            return path, descriptor
        os.close(descriptor)  # it was deleted before it was locked


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def delete_leftovers(target: Path) -> None:
    """Deletes what killed processes have left that made ``target``; what cannot be deleted stays."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp(-journal)?")
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            if (found := pattern.fullmatch(name)) is None:
                continue
            path = target.with_name(name)
            with contextlib.suppress(OSError):
                if found[1] is None:
                    _delete(path)
                elif not path.with_name(name.removesuffix("-journal")).exists():
                    path.unlink()


def _delete(path: Path) -> None:
    """Deletes a file, and its journal, if nobody has locked it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    finally:
        os.close(descriptor)
