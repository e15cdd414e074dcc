"""Where a study was begun, and what was in the files that its settings name: a path alone says neither."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnas_core.errors import InputError
from nnas_core.machine import Machine

__all__ = ["Origin"]

_LARGEST = 16 * 2**20
"""Bytes of a file that is looked at; one that is larger is data, and no program."""

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")


@dataclass(frozen=True)
class Origin:
    """The place and the programs of a study.

    Attributes:
        folder: the current folder when it was begun, absolute; None: an older nnas did not say.
        files: digests of the files that settings name, by the words that name them.
        paths: files that settings hold by what is in them: parameter -> path.
        machine: where it was begun; None: an older nnas did not say.
        samples: sizes of the data sets of its model, by name, where they are known.
        split: which samples of its training set are held out: ``seed`` and ``valid_fraction``.
    """

    folder: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    machine: Machine | None = None
    samples: Mapping[str, int] = field(default_factory=dict)
    split: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[str | None], folder: Path) -> Origin:
        """Looks at the files that are named.

        Args:
            texts: command lines, or ``file.py:Name``; None names nothing.
            folder: that relative paths begin at.

        Raises:
            InputError: the name of the folder is no text, which a database could not keep.
        """
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            hint = "go to a folder with another name"
            raise InputError("the name of the current folder is no UTF-8", where=str(folder), hint=hint) from error
        files: dict[str, str] = {}
        for text in texts:
            for place, word in enumerate(_words(text or "")):
                digest = _digest(folder / _file_in(word), script=place == 0)
                if digest is not None:
                    files[word] = digest
        return cls(str(folder), files)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Origin:
        """Reads what ``to_json`` wrote."""
        return cls(
            document.get("folder"),
            document.get("files", {}),
            document.get("paths", {}),
            Machine.from_json(document.get("machine")),
            document.get("samples", {}),
            document.get("split", {}),
        )

    def to_json(self) -> dict[str, object]:
        """Returns the origin as a JSON object; what is not known is left out, but for the folder and the files."""
        known = {
            "paths": dict(self.paths),
            "machine": None if self.machine is None else self.machine.to_json(),
            "samples": dict(self.samples),
            "split": dict(self.split),
        }
        found = {name: value for name, value in known.items() if value}
        return {"folder": self.folder, "files": dict(self.files), **found}

    def means(self, text: str, now: Origin, text_now: str) -> bool:
        """Returns true if a text of this origin and one of another name the same program with the same arguments.

        Paths may differ where the contents are equal, and where it is the interpreter that has moved.
        """
        before, after = list(_words(text)), list(_words(text_now))
        if len(before) != len(after) or not before:
            return text == text_now
        if len(before) > 1 and _program(before[0]) == _program(after[0]):
            before, after = before[1:], after[1:]
        return all(
            old == new or (self._content(old) is not None and self._content(old) == now._content(new))
            for old, new in zip(before, after, strict=True)
        )

    def _content(self, word: str) -> tuple[str, str] | None:
        digest = self.files.get(word)
        return None if digest is None else (digest, word[len(_file_in(word)) :])

    def changed(self, now: Origin) -> list[str]:
        """Returns the files that both name and whose contents differ."""
        return sorted(word for word, digest in self.files.items() if now.files.get(word, digest) != digest)

    def is_as(self, now: Origin) -> bool:
        """Returns true if all files are there again, with equal contents."""
        return all(now.files.get(word) == digest for word, digest in self.files.items())


def _words(text: str) -> Iterator[str]:
    try:
        yield from shlex.split(text)
    except ValueError:  # an open quote
        yield text


def _file_in(word: str) -> str:
    """Returns the file in ``file.py:Name``, and else the word."""
    return word.partition(":")[0] if ".py:" in word else word


def _program(word: str) -> str:
    name = Path(word).name
    return "python" if _PYTHON.fullmatch(name) else name


def _digest(path: Path, script: bool) -> str | None:
    """Returns the digest of a file; None if there is none, or if it is large, or a program that is no script.

    Args:
        path: of the file.
        script: it is what is started, which may as well be an interpreter.
    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    if script and path.suffix != ".py" and not content.startswith(b"#!"):
        return None
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
