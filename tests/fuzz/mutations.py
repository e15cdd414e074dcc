"""Changes to files and values as damage, mistakes and malice make them; each is drawn from a generator."""

from __future__ import annotations

import json
import random
from typing import Any

import torch

__all__ = ["HOSTILE_TEXTS", "changed_bytes", "changed_checkpoint", "changed_json", "changed_lines"]

LONG = "9" * 5000

TOKENS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-0.0", "1e30", "1" + "0" * 30, LONG, "-1", "0", "0.5", "true", "null"),
    *(
        '""',
        "[]",
        "{}",
        '"nan"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\u001b[2J"',
        '"\\u202e\\u009b31m"',
        '"=1+1"',
        '"../../x"',
    ),
    *("[" * 5000 + "]" * 5000, '{"a":' * 200 + "1" + "}" * 200, json.dumps("x" * 20_000), json.dumps([0] * 3000)),
    *('{"_type": "choice", "_value": [1]}', "[true, 0.5]", '"é"', "[[], {}]", "-9223372036854775809"),
)
"""Values as JSON has them, or nearly."""

HOSTILE_TEXTS = (
    *("nan", "NaN", "inf", "-inf", "1e30", "-1e30", "1e999", "-0.0", "-1", "0", "1.5", "", " ", "1" + "0" * 30, LONG),
    *("-" + LONG, "0." + LONG, LONG + "h", LONG + "s", "cuda:" + LONG, "cuda:99999", "a=" + "[" * 5000 + "]" * 5000),
    *("a=NaN", "a=1e999", f"a={LONG}", 'a="\\ud800"', "width=" + LONG, "width=1e30", "width=-1", "width=null", "a"),
    *("\udcff", "a=\udcff", "\udcff.json", "sqlite:///\udcff.db", "\x1b]0;x\x07", "a\u202eb", "x" * 5000, "../../../x"),
    *("none", "auto", "true", "space.json", "no.json", "/dev/null", "/", ".", "run", "\u0661", "0x10", "1_000", "=1+1"),
)
"""Values of options that a shell can give."""

_LINES = (
    b"\x00",
    b"\xff\xfe",
    b"\x1b[31m",
    b"'",
    b'"',
    b",",
    b"{",
    b"[",
    b"]" * 50,
    b"[" * 100_000,
    b"\r",
    b"\n\n",
    b"=",
)


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Returns ``content`` with a bit flipped, cut off, or with a part doubled, left out or replaced."""
    place, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    kind = rng.randrange(6)
    if kind == 0 and content:
        raw = bytearray(content)
        raw[min(place, len(raw) - 1)] ^= 1 << rng.randrange(8)
        return bytes(raw)
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + content[end:]
    if kind == 3:
        return content[:end] + content[place:end] + content[end:]
    if kind == 4:
        return content[:place] + rng.choice(_LINES) + content[place:]
    return content[:place] + bytes(rng.randrange(256) for _ in range(min(20, end - place))) + content[end:]


def changed_lines(content: bytes, rng: random.Random) -> bytes:
    """Returns text with a word, a number or a cell replaced, or a line left out, doubled or moved."""
    lines = content.split(b"\n")
    kind, place = rng.randrange(5), rng.randrange(len(lines))
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    else:
        separator = rng.choice((b",", b"=", b" ", b":"))
        cells = lines[place].split(separator)
        cells[rng.randrange(len(cells))] = rng.choice((*TOKENS, *HOSTILE_TEXTS)).encode("utf-8", "surrogateescape")
        lines[place] = separator.join(cells)
    return b"\n".join(lines)


_HOLE = "\u2021hole\u2021"


def changed_json(content: bytes, rng: random.Random) -> bytes:
    """Returns a JSON document with an entry replaced, renamed, left out, doubled or given another one's value."""
    document = json.loads(content)
    places = list(_places(document))
    if not places:
        return rng.choice(TOKENS).encode()
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    token = rng.choice(TOKENS)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[_HOLE] = holder.pop(key)
        token = token if token.startswith('"') and rng.randrange(4) else json.dumps(rng.choice(list(holder)))
    elif kind == 2:
        other, there = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[there]))
    elif kind == 3 and isinstance(holder, dict):
        holder[_HOLE] = holder[key]
        token = json.dumps(key)  # the name stands twice
    else:
        holder[key] = _HOLE
    text = json.dumps(document, ensure_ascii=False)
    return text.replace(json.dumps(_HOLE, ensure_ascii=False), token).encode("utf-8", "surrogatepass")


def _places(document: Any) -> Any:
    """Yields each list or dictionary in a document with each of its keys."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, key
        if isinstance(value, (dict, list)) and value:
            yield from _places(value)


def _shared() -> object:
    """Returns a list of 2^40 entries in 40 small ones."""
    found: object = [1]
    for _ in range(40):
        found = [found, found]
    return found


def _deep() -> object:
    found: object = 1
    for _ in range(150):
        found = [found]
    return found


def _circle() -> object:
    found: list[object] = []
    found.append(found)
    return found


def changed_checkpoint(content: Any, rng: random.Random) -> Any:
    """Returns what a checkpoint holds, with one entry replaced, left out, renamed, or given another one's value."""
    places = list(_places(content))
    holder, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, there = rng.choice(places)
        holder[key] = other[there]
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice(("x", "", "\ud800", 3, None, 1.5, b"x", "\x1b[2J"))] = holder.pop(key)
    else:
        holder[key] = rng.choice(_VALUES)()
    return content


_VALUES = (
    *(lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 10**30, lambda: 10**5000, lambda: float("nan")),
    *(
        lambda: float("inf"),
        lambda: -0.0,
        lambda: 1.5,
        lambda: "",
        lambda: "x" * 100_000,
        lambda: "\ud800",
        lambda: b"x",
    ),
    *(list, dict, tuple, _shared, _deep, _circle, lambda: [0] * 1000, lambda: {1: 2, "a": 3}, lambda: [None]),
    *(lambda: torch.zeros(0), lambda: torch.full((3,), float("nan")), lambda: torch.zeros(2, 3, 4, dtype=torch.int64)),
    *(lambda: torch.zeros(()), lambda: torch.zeros(1).expand(2**40), lambda: torch.eye(3).to_sparse()),
    *(lambda: torch.zeros(5056, dtype=torch.uint8), lambda: torch.zeros(4, dtype=torch.complex64), bytearray),
)
