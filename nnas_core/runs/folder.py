"""A run folder holds everything of one training: configuration, events, newest checkpoint, results.

config.json             every option as it was resolved; a new run may begin with it
events.jsonl            one object a line, append-only
checkpoint.pt           the newest; complete at every moment, and there as soon as config.json is
checkpoint.previous.pt  the one before, for the case that the newest is damaged or lost
search_space.json       of the model, if it has one
architecture.json       the final architecture so far
seed-N/                 the run folder of a further seed, of a training of one architecture
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from nnas_core.errors import EnvironmentFailure, InputError, UsageError
from nnas_core.files import (
    append_json_line,
    environment_failure,
    prepare_folder,
    read_json,
    read_json_lines,
    sync_folder,
    write_json,
)

__all__ = ["RunFolder", "is_locked"]


class RunFolder:
    """A folder that one process works in at a time.

    Use ``RunFolder.create`` or ``RunFolder.resume``; both lock it until ``close``.

    Attributes:
        path: of the folder.
        has_begun: true if the run in it can be resumed; until then, an older run may still be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: TextIO | None = None
        self._resumed = False
        self.has_begun = False
        self._made = False  # by us, and nothing is in it but the lock

    @classmethod
    def create(cls, path: str | Path, *, force: bool = False) -> RunFolder:
        """Start in a new or empty folder; with ``force`` an old run in it stays until ``begin``.

        Raises:
            UsageError: it holds something and ``force`` is false.
            EnvironmentFailure: it cannot be written, or another process works in it.
        """
        is_new = not Path(path).exists()
        run = cls(prepare_folder(path))
        run._made = is_new
        if (run.path / _LOCK).exists():
            run._acquire()  # first: a run that is going on is worth another message than one that ended
        if not force and any(not _is_leftover(entry.name) for entry in run.path.iterdir()):
            run.close()
            raise UsageError(
                "the folder is not empty",
                where=str(path),
                hint="go on with `resume`, start over with `force`, or choose another `output`",
            )
        if run._lock is None:
            run._acquire()
        return run

    @classmethod
    def resume(cls, path: str | Path, command: str, options: Mapping[str, object]) -> RunFolder:
        """Go on in the folder of an interrupted or finished run.

        Args:
            path: the folder.
            command: the one that made it.
            options: the options given now; those that the run's configuration has must be equal.

        Raises:
            InputError: no run of that command, or one without a checkpoint, or options that differ (each is named).
            EnvironmentFailure: another process works in it.
        """
        run = cls(Path(path))
        if not any((run.path / name).is_file() for name in ("config.json", _CONFIGURED)):
            raise InputError(f"holds no run of `nnas {command}`", where=str(path), hint="check the path")
        prepare_folder(path)
        run._acquire()
        with run.closed_on_error():
            run._refuse_other(command, options)
        run._resumed = run.has_begun = True
        return run

    def _refuse_other(self, command: str, options: Mapping[str, object]) -> None:
        """Refuse to go on with another command or other options, or without a checkpoint."""
        before = self.configuration(command)
        different = [
            f"{name}: {before[name]!r} before, {value!r} now"
            for name, value in sorted(options.items())
            if name in before and before[name] != (list(value) if isinstance(value, tuple) else value)
        ]
        if different:
            raise InputError(
                "the run was started with other options",
                where=str(self.path),
                problems=different,
                hint="leave them out to resume, or start a new run",
            )
        if not self.checkpoint.exists():
            previous = self.previous_checkpoint
            hint = "put it back, or start over with `force`"
            if previous.exists():
                hint = f"rename {previous}, which is the checkpoint before it"
            raise InputError("there is no such file, the run cannot go on", where=str(self.checkpoint), hint=hint)

    @classmethod
    def epochs_of(cls, path: str | Path, command: str) -> object:
        """Returns how many epochs the run in a folder was to have; None if there is no run of that command."""
        run = cls(Path(path))
        return run.configuration(command).get("epochs") if (run.path / "config.json").is_file() else None

    def reconfigure(self, command: str, **options: object) -> None:
        """Write in ``config.json`` what a run that goes on has otherwise than before."""
        before = self.configuration(command)
        if before != {**before, **options}:
            self.write("config.json", {command: {**before, **options}})

    @property
    def goes_on(self) -> bool:
        """Returns true if the run began before, and there is a checkpoint to go on from."""
        return self._resumed

    @contextlib.contextmanager
    def beginning(self, configuration: Mapping[str, object]) -> Iterator[Path]:
        """Let a new run take the place of an older one; from then on it can be resumed.

        The block writes the first checkpoint to the path that it gets. Only when that is done, and all else that can
        fail, the first file of the older run goes.

        Raises:
            EnvironmentFailure: the folder cannot be written; the older run is untouched, or once its first file has
                gone, whoever works in the folder next lets the new one take its place.
        """
        first, configured = self.path / _FIRST, self.path / _CONFIGURED
        try:
            yield first
            write_json(configured, configuration)
        except BaseException:
            for path in (first, configured):
                path.unlink(missing_ok=True)
            raise
        self._made = False
        self._take_place()
        self.has_begun = True

    def _take_place(self) -> None:
        """Let the files of the run that begins replace those of an older one; after a kill it is gone on with."""
        first = self.path / _FIRST
        try:
            if first.exists():
                for name in _FILES:
                    (self.path / name).unlink(missing_ok=True)
                self._remove_seeds()
                os.replace(first, self.checkpoint)
            os.replace(self.path / _CONFIGURED, self.path / "config.json")
            sync_folder(self.path)
        except OSError as error:
            raise environment_failure(error, error.filename or self.path, "begin the run") from error

    def _remove_seeds(self) -> None:
        """Take away what an older run has trained with further seeds; files of others stay."""
        for folder in self.path.glob("seed-*"):
            if folder.is_symlink() or not _SEED.fullmatch(folder.name) or is_locked(folder):
                continue
            if not any((folder / name).is_file() for name in _FILES):
                continue
            for name in (*_FILES, _LOCK):
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody put a file into it
                folder.rmdir()

    def configuration(self, command: str) -> dict[str, object]:
        """The options that the run was started with."""
        document = read_json(self.path / "config.json")
        options = document.get(command) if isinstance(document, dict) else None
        if not isinstance(options, dict):
            raise InputError(f"is no configuration of `nnas {command}`", where=str(self.path / "config.json"))
        return options

    @property
    def checkpoint(self) -> Path:
        """The file of the newest checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def previous_checkpoint(self) -> Path:
        """The file of the checkpoint before it."""
        return self.path / "checkpoint.previous.pt"

    def fall_back(self) -> None:
        """Let the checkpoint before the newest be the newest."""
        os.replace(self.previous_checkpoint, self.checkpoint)
        sync_folder(self.path)

    def write(self, name: str, document: object) -> None:
        """Replace a JSON file of the folder."""
        write_json(self.path / name, document)

    def log(self, event: str, **values: object) -> None:
        """Append to ``events.jsonl``; ``time`` is seconds since 1970."""
        append_json_line(self.path / "events.jsonl", {"event": event, "time": time.time(), **values})

    def events(self) -> list[dict[str, object]]:
        """The events so far; a torn line is left out."""
        file = self.path / "events.jsonl"
        return read_json_lines(file) if file.exists() else []

    # ---- one process at a time

    def _acquire(self) -> None:
        # lockf, not flock: a loader process that outlives a killed run must not keep the lock
        try:
            lock = open(self.path / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115  (held until close)
        except OSError as error:
            raise environment_failure(error, self.path) from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(lock)
            lock.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise environment_failure(error, self.path) from error
            raise EnvironmentFailure(
                f"in use by {holder}", where=str(self.path), hint="wait for it, or choose another `output`"
            ) from error
        lock.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        lock.write(json.dumps({"pid": os.getpid(), "since": started}))
        lock.flush()
        self._lock = lock
        if (self.path / _CONFIGURED).exists() and not (self.path / "config.json").exists():
            self._take_place()
        for entry in list(self.path.iterdir()):
            if entry.name != _LOCK and _is_leftover(entry.name):
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others work in the folder; one that was made for a run that never began is taken away."""
        if self._lock is not None:
            if self._made:
                with contextlib.suppress(OSError):  # somebody put a file into it: it stays
                    (self.path / _LOCK).unlink()
                    self.path.rmdir()
            self._lock.close()
            self._lock = None

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the folder if the block fails; else it stays locked."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_LOCK = ".lock"
_SEED = re.compile("seed-[0-9]+")
_FIRST, _CONFIGURED = "checkpoint.pt.first", "config.json.first"
_FILES = (
    "config.json",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "events.jsonl",
    "search_space.json",
    "architecture.json",
    "weights.pt",
)


def is_locked(folder: Path) -> bool:
    """Returns true if another process works in a run folder; asking changes nothing, and keeps nobody out."""
    try:
        with open(folder / _LOCK, "rb") as lock:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # the struct flock of Linux
            answer: int = struct.unpack("hhqqi", fcntl.fcntl(lock, fcntl.F_GETLK, asked))[0]
    except OSError:  # there is no lock, or the file system knows none
        return False
    return answer != fcntl.F_UNLCK


def _is_leftover(name: str) -> bool:
    """The lock, or what a process that was killed while it wrote left."""
    return name in (_LOCK, _FIRST, _CONFIGURED) or (
        name.endswith(".tmp") and name.startswith(tuple(f".{file}." for file in _FILES))
    )


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    try:
        content = json.loads(lock.read())
        return f"process {content['pid']} since {content['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
