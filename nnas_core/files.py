"""Files are written whole or not at all, and read with errors that name the file, the line and the remedy."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import numbers
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from nnas_core import json_text
from nnas_core.errors import EnvironmentFailure, InputError

__all__ = [
    "append_json_line",
    "atomic_writer",
    "check_writable",
    "dump_json",
    "environment_failure",
    "finite",
    "finite_only",
    "not_finite",
    "parse_json",
    "prepare_folder",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "source_name",
    "sync_folder",
    "write_json",
]

_REASONS = {
    errno.ENOSPC: ("no space left on the device", "free some space and run the command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the command again"),
    errno.EFBIG: (
        "the file would be larger than is allowed here",
        "raise the limit (ulimit -f), or choose another place",
    ),
    errno.EACCES: ("permission denied", "choose a place that you may write to"),
    errno.EPERM: ("operation not permitted", "choose a place that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a place that you may write to"),
    errno.EISDIR: ("it is a directory", "give the name of a file"),
    errno.ENOTDIR: ("a part of the path is not a directory", "check the path"),
    errno.ENOENT: ("no such directory", "create the directory first"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EEXIST: ("a file of that name is in the way", "choose another name"),
}


def environment_failure(error: OSError, path: str | Path, action: str = "write") -> EnvironmentFailure:
    """Translates an ``OSError`` into one line: what could not be done, to which file, why."""
    code = error.errno or 0
    reason, hint = _REASONS.get(code, (error.strerror or str(error), "check the disk and the path"))
    return EnvironmentFailure(f"cannot {action}: {reason}", where=str(path), hint=hint)


# ---- writing


@contextlib.contextmanager
def atomic_writer(path: str | Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file beside ``path`` that replaces it only if the block succeeds.

    The data is fsynced before the rename and the folder after it: after a kill or a power cut the path
    holds the old content or the new one. The mode of an existing file is kept.

    Args:
        path: the file.
        keep: a name in the same folder for the file that is replaced; None: it is gone.

    Raises:
        EnvironmentFailure: the file cannot be written; what was there before is untouched.
    """
    target = Path(path)
    if _is_special(target):  # a device or a pipe holds nothing that could be replaced, and must not be itself
        try:
            with open(target, "wb") as special:
                yield special
        except OSError as error:
            raise environment_failure(error, path) from error
        return
    if target.is_symlink():
        target = Path(os.path.realpath(target))  # replace what the link points to, not the link
    temporary: str | None = None
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        with _OpenTemporary(descriptor) as stream:
            os.fchmod(stream.fileno(), _mode_for(target))
            try:
                yield stream
            except RuntimeError as error:
                # torch.save reports a full disk as a RuntimeError of its zip writer
                if stream.failure is not None:
                    raise stream.failure from error
                raise
            stream.flush()
            os.fsync(stream.fileno())
        if keep is not None:
            _keep(target, keep)
        os.replace(temporary, target)
        temporary = None
        sync_folder(target.parent)
    except OSError as error:
        raise environment_failure(error, path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _keep(target: Path, name: Path) -> None:
    """Gives a file that is about to be replaced a second name, or where there are no hard links, a copy."""
    second = name.with_name(f".{name.name}.link.tmp")
    try:
        second.unlink(missing_ok=True)
        os.link(target, second)
        os.replace(second, name)
        second.unlink(missing_ok=True)  # a rename between two names of one file leaves both
    except FileNotFoundError:  # the first of all
        return
    except OSError:
        shutil.copyfile(target, second)
        os.replace(second, name)


def check_writable(path: str | Path) -> None:
    """Proves that ``atomic_writer`` can replace ``path``, before hours of work go into its content.

    Raises:
        EnvironmentFailure: it cannot; the message is the writer's.
    """
    target = Path(os.path.realpath(path))
    if _is_special(target):
        return
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise environment_failure(error, path) from error


class _OpenTemporary(io.BufferedWriter):
    """A binary file that remembers the ``OSError`` a writer in between may have hidden."""

    failure: OSError | None = None

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "w"), buffer_size=1 << 20)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _is_special(path: Path) -> bool:
    """Returns true if it is neither a file nor a folder: ``/dev/null``, ``/dev/stdout``, a named pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _mode_for(target: Path) -> int:
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def sync_folder(folder: Path) -> None:
    """Makes a rename or a new name in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def dump_json(document: object) -> str:
    """Returns the one JSON form that nnas writes: sorted keys, two-space indent, no NaN, a final newline.

    What would move or colour a terminal that shows it is written as an escape.
    """
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _MOVES_A_TERMINAL.sub(lambda one: f"\\u{ord(one[0]):04x}", text)


_MOVES_A_TERMINAL = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What JSON may have in its texts as it stands: more control characters, marks of direction, half characters."""


def write_json(path: str | Path, document: object) -> None:
    """Replaces ``path`` by ``document`` as JSON, atomically."""
    content = dump_json(document).encode()
    with atomic_writer(path) as stream:
        stream.write(content)


def append_json_line(path: str | Path, record: Mapping[str, object]) -> None:
    """Appends one object as one line; a torn line left by a crash is closed first so that it spoils no other."""
    line = json.dumps(dict(record), sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        with open(path, "ab+") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end and _last_byte(stream, end) != b"\n":
                line = b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise environment_failure(error, path) from error


def _last_byte(stream: BinaryIO, end: int) -> bytes:
    stream.seek(end - 1)
    return bytes(stream.read(1))


def prepare_folder(path: str | Path) -> Path:
    """Makes ``path`` a folder that can be written to, and proves it before hours of work go into it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise environment_failure(error, path) from error
    return folder


# ---- reading


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a file, or of standard input for ``-``."""
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        _refuse(error, path)


def _refuse(error: OSError, path: str | Path) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise InputError("no such file", where=str(path), hint="check the path") from error
    if isinstance(error, IsADirectoryError):
        raise InputError("is a directory, a file is needed", where=str(path)) from error
    if isinstance(error, PermissionError):
        raise environment_failure(error, path, "read") from error
    raise InputError(f"cannot read: {error.strerror}", where=str(path)) from error


def source_name(path: str | Path) -> str:
    """Names an input file in errors: by its path, or ``standard input`` for ``-``."""
    return "standard input" if str(path) == "-" else str(path)


def read_json(path: str | Path) -> Any:
    """Parses a JSON file (``-``: standard input).

    Raises:
        InputError: no such file, not UTF-8, or not JSON (with line and column); ``NaN`` is not JSON.
    """
    return parse_json(read_bytes(path), source_name(path))


def parse_json(content: bytes, where: str) -> Any:
    """Parses JSON from bytes; ``where`` names their source in errors.

    Raises:
        InputError: not UTF-8 or not JSON, or nothing that could be written again: a name twice in one object, numbers
            that are not finite or of thousands of digits, half a character, more than 100 levels.
    """
    try:
        return json_text.parsed(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where=where) from error
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}:{error.colno}"
        what = "is empty, JSON is needed" if not content.strip() else f"not JSON: {error.msg.lower()}"
        raise InputError(what, where=place) from error
    except json_text.NotOurs as error:
        raise InputError(str(error), where=where) from error


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Returns the objects of an append-only file; a torn line (a crash while it was written) is passed over."""
    records = []
    for line in read_bytes(path).split(b"\n"):
        try:
            record = parse_json(line, str(path))
        except InputError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


# ---- numbers that JSON can hold: it knows no NaN and no infinity, and neither ranks


def finite(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else None; truth values and texts are no numbers."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def finite_only(values: Mapping[str, object]) -> dict[str, float]:
    """Returns the entries that are finite numbers, as floats; what UTF-8 does not have in a name is escaped."""
    pairs = ((_encodable(name), finite(value)) for name, value in values.items())
    return {name: number for name, number in pairs if number is not None}


def _encodable(name: str) -> str:
    return str(name).encode("utf-8", "backslashreplace").decode()


def not_finite(value: object) -> str:
    """Returns the message about a metric that ``finite`` does not take."""
    text = str(value) if isinstance(value, float) else repr(value)
    return f"metric is not a finite number: {text[:80]}"
