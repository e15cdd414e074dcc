"""Checkpoints hold tensors and plain data, are written whole or not at all, and never run code when they are read."""

from __future__ import annotations

import errno
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from nnas_core import schema
from nnas_core.errors import InputError, NnasError
from nnas_core.files import atomic_writer, environment_failure, parse_json
from nnas_core.runs.digests import Digests
from nnas_core.training.settings import Split

__all__ = [
    "FORMAT",
    "Checkpoint",
    "CheckpointHeader",
    "Progress",
    "RunFacts",
    "check_header",
    "read_checkpoint",
    "read_plain",
    "taking_state",
    "write_checkpoint",
]

FORMAT = "nnas.checkpoint/1"


class _Facts(TypedDict):
    command: str
    model: str
    seed: int


class RunFacts(_Facts, total=False):
    """Facts that stay the same in all checkpoints of a run: command, model, seed.

    Attributes:
        model_arg: the arguments of the model; absent: none.
        mutator, mutator_arg: of a search; the arguments are absent where an older nnas wrote it.
        split: decides which samples a search holds out.
        digests: of code and data as they were when this process began; absent where an older nnas wrote it.
    """

    model_arg: dict[str, object]
    mutator: str
    mutator_arg: dict[str, object]
    split: Split
    digests: Digests


class Progress(TypedDict):
    """The progress of a training; ``batch`` counts within the epoch, ``step`` in all."""

    epoch: int
    epochs: int
    batch: int
    step: int


class _Header(RunFacts):
    format: str
    nnas: str
    torch: str
    threads: int
    progress: Progress
    metrics: dict[str, float]


class CheckpointHeader(_Header, total=False):
    """Plain data of the schema ``checkpoint-header``.

    Attributes:
        space, fingerprint: of a supernet.
        architecture: the final one so far, as masks.
    """

    space: dict[str, object]
    fingerprint: str
    architecture: dict[str, object]


class Checkpoint(TypedDict):
    """A whole checkpoint: its header, and the state of the training as ``Trainer.state_dict`` gives it."""

    header: CheckpointHeader
    state: dict[str, Any]


_PLAIN = (str, int, float, bool, type(None), bytes)

_REFUSED = "holds more than tensors and plain data: refused, nothing in it was run"
_TAKE_OURS = "take a checkpoint that nnas wrote"

_ALLOCATES = b"\nbytearray\n"
"""The one thing that torch makes of a pickle, and that no checkpoint has, whose size is but a number in it."""

# What zipfile and torch.load were seen to raise for files with flipped bits.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def write_checkpoint(
    path: str | Path, header: Mapping[str, object], parts: Mapping[str, object], keep: Path | None = None
) -> None:
    """Write a checkpoint beside ``path`` and rename it: the path always holds a complete one.

    Args:
        path: where.
        header: plain data of the schema ``checkpoint-header``, without its format.
        parts: name -> nested dictionaries, lists and tuples of tensors and plain data.
        keep: gets the one that ``path`` held before.

    Raises:
        TypeError: something in it could not be read again safely.
        EnvironmentFailure: the disk refused; the previous file is untouched.
    """
    content = {"header": {"format": FORMAT, **header}, **parts}
    _require_plain(content, "checkpoint")
    with atomic_writer(path, keep) as stream:
        torch.save(content, stream)


def _require_plain(value: object, path: str) -> None:
    """Fail when saving, not when loading in a week; a numpy number in a metric is the usual one."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if type(key) not in _PLAIN:
                raise TypeError(f"{path} has the key {key!r} of type {type(key).__name__}, which is not plain data")
            _require_plain(entry, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        for index, entry in enumerate(value):
            _require_plain(entry, f"{path}[{index}]")
    elif type(value) not in _PLAIN and not isinstance(value, Tensor):
        raise TypeError(f"{path} is a {type(value).__name__}; a checkpoint holds tensors and plain data only")


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, trusting nothing in it.

    Returns:
        The parts by name, and the ``header``, which has passed its schema.

    Raises:
        InputError: no such file, not one of ours, truncated, damaged (checksums are compared), of a newer format, or
            holding anything but dense tensors and plain data.
    """
    content = read_plain(path)
    check_header(content, str(path))
    return cast("Checkpoint", content)


def check_header(content: dict[object, object], where: str) -> None:
    """Refuse what is no checkpoint by its header, which becomes plain JSON.

    Raises:
        InputError: it has none, or one of another format, or one that breaks its schema.
    """
    header = content.get("header")
    if not isinstance(header, dict) or not isinstance(header.get("format"), str):
        raise InputError("is not a checkpoint of nnas (it has no header)", where=where)
    if header["format"] != FORMAT:
        raise InputError(
            f"has the format {header['format']!r}, this nnas reads {FORMAT!r}",
            where=where,
            hint="use the version of nnas that wrote it",
        )
    content["header"] = _plain_header(header, where)
    schema.check("checkpoint-header", content["header"], where)


def read_plain(path: str | Path) -> dict[object, object]:
    """Read a dictionary of dense tensors and plain data onto the CPU, trusting nothing in it.

    Raises:
        InputError: no such file, no archive of torch, truncated, damaged (checksums are compared), or holding anything
            else.
    """
    where = str(path)
    _check_archive(where)
    try:
        with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            content = torch.load(where, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_REFUSED, where=where, hint=_TAKE_OURS) from error
    except _DAMAGED as error:
        raise InputError(
            f"is not a checkpoint of nnas, or it is damaged ({type(error).__name__})", where=where
        ) from error
    if not isinstance(content, dict):
        raise InputError("is not a checkpoint of nnas (it holds no dictionary)", where=where)
    _check_content(content, where)
    return content


def _check_archive(where: str) -> None:
    try:
        with zipfile.ZipFile(where) as archive:
            size = Path(where).stat().st_size
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise InputError("is not a checkpoint of nnas (it is compressed)", where=where)
            if sum(entry.file_size for entry in entries) > size:
                raise InputError("is damaged: it claims to hold more than it does", where=where)
            if any(_ALLOCATES in archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")):
                raise InputError(_REFUSED, where=where, hint=_TAKE_OURS)
            broken = archive.testzip()  # torch writes checksums, but does not compare them
    except (zipfile.BadZipFile, *_DAMAGED) as error:
        raise InputError("is not a checkpoint of nnas, or it is truncated", where=where) from error
    except FileNotFoundError as error:
        raise InputError("no such file", where=where, hint="check the path") from error
    except IsADirectoryError as error:
        hint = f"did you mean {where.rstrip('/')}/checkpoint.pt?"
        has_one = (Path(where) / "checkpoint.pt").is_file()
        raise InputError(
            "is a directory, a checkpoint file is needed", where=where, hint=hint if has_one else None
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # it points to before its own beginning
            raise InputError("is damaged: its table of contents is wrong", where=where) from error
        raise environment_failure(error, where, "read") from error
    if broken is not None:
        raise InputError(f"is damaged: checksum mismatch in {broken}", where=where)


_DEEPEST = 100
"""Levels of lists and dictionaries, as in ``_json_text``: what reads and compares a state may call itself for each."""

_TEXT_A_BYTE = 100
"""Characters of texts that may come from a byte: names stand there once, and may be used by many."""


def _check_content(content: dict[object, object], where: str) -> None:
    """Refuse what is no tensor or plain data, and what is too much to walk through for the bytes that it is read from.

    Lists that share their parts can say in 50 bytes a thing of 2^40 entries; written one by one they take a byte each.
    """
    room, stored = _sizes(where)
    text = room * _TEXT_A_BYTE
    storages: dict[int, int] = {}
    waiting: list[tuple[object, _Place | None, int]] = [(content, None, 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if isinstance(value, (dict, list, tuple)):
            room -= len(value)
            if depth > _DEEPEST or room < 0:
                how = "nested too deeply" if depth > _DEEPEST else "made of parts that are many times in it"
                raise InputError(f"is damaged: {_named(place, 'it')} is {how}", where=where)
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(entry, (place, key), depth + 1) for key, entry in entries]
            text -= sum(len(key) for key in value if isinstance(key, str)) if isinstance(value, dict) else 0
        elif isinstance(value, Tensor):
            _require_dense(value, where, place)
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (str, bytes)):
            text -= len(value)
        elif type(value) not in _PLAIN:
            what = type(value).__name__
            raise InputError(f"holds more than tensors and plain data: {_named(place, 'it')} is a {what}", where=where)
        if text < 0:
            raise InputError(f"is damaged: texts at {_named(place, 'its top')} are many times in it", where=where)
    if sum(storages.values()) > stored:
        raise InputError("is damaged: its tensors claim more elements than are stored", where=where)


_MOST_SHOWN = 8
"""Keys of a place that a message has."""

_Place = tuple["_Place | None", object]
"""The place of an entry: that of what it is in, and its key there."""


def _named(place: _Place | None, top: str) -> str:
    parts: list[str] = []
    while place is not None:
        place, key = place
        parts.insert(0, f"[{key}]" if isinstance(key, int) else f".{key}")
    more = "..." if len(parts) > _MOST_SHOWN else ""
    return "".join(parts[:_MOST_SHOWN]).removeprefix(".") + more or top


def _sizes(where: str) -> tuple[int, int]:
    """The sizes of what says how tensors and plain data hang together, and of the numbers in the tensors."""
    with zipfile.ZipFile(where) as archive:
        sizes = [(entry.file_size, "/data/" in entry.filename) for entry in archive.infolist()]
    return sum(size for size, numbers in sizes if not numbers), sum(size for size, numbers in sizes if numbers)


def _require_dense(value: Tensor, where: str, place: _Place | None) -> None:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise InputError(f"the tensor {_named(place, '')} is not dense", where=where)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"the tensor {_named(place, '')} claims more elements than are stored", where=where)


def _plain_header(header: dict[str, object], where: str) -> dict[str, object]:
    """Returns a header as a JSON document has it.

    Raises:
        InputError: none can: bytes, numbers that are not finite, half characters.
    """
    try:
        text = json.dumps(header, allow_nan=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"is damaged: its header is no JSON ({error})", where=where) from error
    plain: dict[str, object] = parse_json(text.encode(), f"{where}: header")
    return plain


@contextmanager
def taking_state(where: str) -> Iterator[None]:
    """Inside, a state that is not what a trainer wrote is the file's fault: its checksums say nothing of that."""
    try:
        yield
    except NnasError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"its state cannot be taken: {type(error).__name__}: {reason[:200]}",
            where=where,
            hint="take a checkpoint that this run wrote",
        ) from error
