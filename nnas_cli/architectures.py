"""Architectures on one line: ``stem=conv3x3 skip=node1,node2``, and where that is too long, what tells them apart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnas_cli.tables import Shorter
    from nnas_core.space.architecture import Architecture

__all__ = ["in_words", "shorter"]

_Words = Mapping[str, Sequence[str]]
"""What is chosen at each key."""


def in_words(architecture: Architecture) -> str:
    """``stem=conv3x3 skip=node1,node2``."""
    return _line(_words(architecture))


def shorter(architectures: Sequence[Architecture | None], best: Sequence[Architecture]) -> Shorter:
    """The shorter form of a column of architectures.

    Args:
        architectures: those of the column, of one search space; None is shown as ``-``.
        best: those that are worth to be told apart; the keys in which they differ come first, and of others none where
            they do.
    """
    from nnas_cli.tables import Shorter, cut  # late: help needs none

    words = [None if one is None else _words(one) for one in architectures]
    every = [one for one in words if one is not None]
    telling = _differing([_words(one) for one in best])
    keys = telling or _differing(every) or list(every[0] if every else ())

    def cells(width: int) -> list[str]:
        short = _Short(every)
        lines = [None if one is None else short.parts(one, keys) for one in words]
        shown = max(1, min((_fitting(line, width) for line in lines if line), default=1))
        return ["-" if line is None else cut(" ".join(line[:shown]), width) for line in lines]

    return Shorter(cells, "keys in which the best differ" if telling else "the first keys")


def _fitting(parts: Iterable[str], width: int) -> int:
    """The number of parts that fit into a width, with spaces between them."""
    ends = itertools.accumulate(len(part) + 1 for part in parts)
    return sum(1 for _ in itertools.takewhile(lambda end: end - 1 <= width, ends))


def _words(architecture: Architecture) -> dict[str, list[str]]:
    if not architecture.is_hard:
        return {key: [f"{weight:.2g}" for weight in mask] for key, mask in architecture.masks().items()}
    return {
        key: [str(name) for name in (names if isinstance(names, list) else [names])]
        for key, names in architecture.names().items()
    }


def _line(words: _Words) -> str:
    return " ".join(f"{key}={','.join(names) or '-'}" for key, names in words.items())


def _differing(found: Sequence[_Words]) -> list[str]:
    """The keys in which not all are the same."""
    first = found[0] if found else {}
    return [key for key in first if any(other.get(key) != first[key] for other in found)]


class _Short:
    """Keys and names without what all of them have in common at their beginning and end."""

    def __init__(self, found: Sequence[_Words]) -> None:
        self._keys = _without_common({key for words in found for key in words})
        self._names = _without_common({name for words in found for names in words.values() for name in names})

    def parts(self, words: _Words, keys: Iterable[str]) -> list[str]:
        """``key=name`` for those of the keys that there are."""
        return [
            f"{self._keys[key]}={','.join(self._names[name] for name in words[key]) or '-'}"
            for key in keys
            if key in words
        ]


def _without_common(names: Iterable[str]) -> dict[str, str]:
    """Name -> what tells it from the others: ``encoder.block7.attention`` -> ``block7``."""
    split = {name: re.findall(r"[^._/:-]+|[._/:-]+", name) for name in names}
    if len(split) < 2:
        return {name: name for name in split}
    start = _common(list(split.values()))
    end = _common([parts[start:][::-1] for parts in split.values()])
    short = {name: "".join(parts[start : len(parts) - end]).strip("._/:-") for name, parts in split.items()}
    return short if all(short.values()) and len(set(short.values())) == len(short) else {name: name for name in split}


def _common(found: Sequence[Sequence[str]]) -> int:
    """The number of parts that all begin with."""
    count = 0
    for parts in zip(*found, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
