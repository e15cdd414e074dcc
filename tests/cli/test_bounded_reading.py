"""Files that say little and mean much, or are wrong in thousands of places: refused within a second, in a few lines."""

from __future__ import annotations

import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli_support import Cli, Result

CHECKPOINT = "run/checkpoint.pt"
BRACKETS = "[" * 100_000
COMMANDS = {
    "validate": ("validate", "bad.pt"),
    "export": ("export", "bad.pt"),
    "evaluate": ("evaluate", "model.py", "--checkpoint", "bad.pt", "--architecture", "run/architecture.json"),
    "tune": ("tune", "model.py", "--checkpoint", "bad.pt", "--tuner", "random", "--trials", "1"),
    "retrain": ("retrain", "model.py", "--checkpoint", "bad.pt", "--architecture", "run/architecture.json"),
}


@pytest.fixture(autouse=True)
def run(nnas: Cli, small_run: Path) -> Iterator[None]:
    """A finished search; and the whole test takes seconds, of which a machine that is busy may need more."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 20


def bad_checkpoint(change: Callable[[dict[str, Any]], object]) -> None:
    """``bad.pt``: a checkpoint that was changed and saved again."""
    content = torch.load(CHECKPOINT, weights_only=True)
    change(content)
    torch.save(content, "bad.pt")


def shared(levels: int = 40) -> object:
    """A list of 2^40 entries."""
    found: object = [1]
    for _ in range(levels):
        found = [found, found]
    return found


def deep(levels: int = 150) -> object:
    """A list in a list in a list."""
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


def circle() -> object:
    """A list in itself."""
    found: list[object] = []
    found.append(found)
    return found


def in_state(value: object) -> Callable[[dict[str, Any]], object]:
    """A change that puts ``value`` into the state."""
    return lambda content: content["state"].update(bomb=value)


def in_header(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """A change that puts ``value`` into the header."""
    return lambda content: content["header"].update({name: value})


def is_refused(result: Result, message: str) -> None:
    """It must end with 3, or 1 of ``validate``, and one short report."""
    assert result.code in (1, 3), result.err
    assert message in result.err + result.out, result.err + result.out
    assert len(result.err) < 8000
    assert (result.err + result.out).replace("\n", "").isprintable()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_of_lists_that_share_their_parts_is_refused(nnas: Cli, command: str) -> None:
    bad_checkpoint(in_state(shared()))
    assert Path("bad.pt").stat().st_size < 100_000
    result = nnas(*COMMANDS[command])
    is_refused(result, "is made of parts that are many times in it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_header("space", shared()), "is made of parts that are many times in it"),
        (in_header("architecture", {"op": shared()}), "is made of parts that are many times in it"),
        (in_state(deep()), "is nested too deeply"),
        (in_state(circle()), "is nested too deeply"),
        (in_state(dict.fromkeys(range(10_000), "x" * 100_000)), "are many times in it"),
        (in_state(10**5000), "holds more than tensors and plain data"),
        (in_state(bytearray(5)), "holds more than tensors and plain data: refused, nothing in it was run"),
        (in_header("model", b"x"), "its header is no JSON (Object of type bytes is not JSON serializable)"),
        (in_header("metrics", {"loss": float("nan")}), "header: not JSON: NaN is not a number that JSON knows"),
        (in_header("model", "\ud800"), "is half a character"),
        (in_header("seed", "x" * 100_000), "..."),
    ],
)
def test_a_checkpoint_that_cannot_be_walked_through_or_printed_is_refused(
    nnas: Cli, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    bad_checkpoint(change)
    for command in ("validate", "export"):
        is_refused(nnas(*COMMANDS[command]), message)


class Made:
    """Is made of a function and arguments when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.made_of = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.made_of


def test_a_number_in_a_checkpoint_takes_no_memory(nnas: Cli) -> None:
    bad_checkpoint(in_state(Made(bytearray, 1 << 30)))
    tracemalloc.start()
    try:
        is_refused(nnas(*COMMANDS["validate"]), "holds more than tensors and plain data: refused")
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_tensors_have_no_more_elements_than_are_stored(nnas: Cli) -> None:
    bad_checkpoint(in_state(Made(torch.Tensor, 1 << 28)))
    is_refused(nnas(*COMMANDS["validate"]), "is damaged: its tensors claim more elements than are stored")


def test_a_tensor_does_not_go_on_after_its_end(nnas: Cli) -> None:
    with zipfile.ZipFile(CHECKPOINT) as good, zipfile.ZipFile("bad.pt", "w") as bad:
        largest = max((one for one in good.infolist() if "/data/" in one.filename), key=lambda one: one.file_size)
        for one in good.infolist():
            bad.writestr(one.filename, good.read(one)[: 4 if one is largest else None])
    for command in ("validate", "evaluate"):
        is_refused(nnas(*COMMANDS[command]), "damaged")


def test_a_key_of_thousands_of_parts_is_refused(nnas: Cli) -> None:
    key = ".".join(["a"] * 30_000)
    for text in (f"{key} = 1", f"[{key}]\nb = 1", f'x = {{ "b" . {key} = 1 }}'):
        Path("config.toml").write_text(text)
        result = nnas(*READERS["config.toml"])
        assert (result.code, result.err) == (3, "nnas: error: config.toml: no configuration: nested too deeply\n")


def test_what_is_shared_a_little_is_no_bomb(nnas: Cli) -> None:
    part = list(range(300))
    bad_checkpoint(in_state([part, part, part]))
    assert nnas(*COMMANDS["validate"]).code == 0


READERS: dict[str, tuple[str, ...]] = {
    "space.json": ("tune", "space.json", "--trial-command", "true", "--trials", "1"),
    "against.json": ("validate", "run/architecture.json", "--space", "against.json"),
    "architecture.json": ("export", CHECKPOINT, "--architecture", "architecture.json"),
    "latency.json": ("search", "model.py", "--mutator", "fbnet", "--latency-table", "latency.json", "-o", "new"),
    "config.json": ("search", "--config", "config.json", "-o", "new"),
    "config.toml": ("search", "--config", "config.toml", "-o", "new"),
    "any.json": ("validate", "any.json"),
    "events.jsonl": ("validate", "events.jsonl"),
}


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("text", [BRACKETS, '{"a":' * 30_000, "x = " + BRACKETS, BRACKETS + "\n\n"])
def test_a_line_of_brackets_is_refused_everywhere(nnas: Cli, file: str, text: str) -> None:
    Path(file).write_text(text)
    result = nnas(*READERS[file])
    if file == "events.jsonl" and not text.endswith("\n"):
        assert result.code == 0  # a torn last line
    else:
        assert result.code in (1, 3), result.err
    assert len(result.err + result.out) < 300


def many(entry: object, count: int = 40_000) -> dict[str, object]:
    """So many keys."""
    return {f"k{number}": entry for number in range(count)}


@pytest.mark.parametrize(
    ("file", "document"),
    [
        ("space.json", many({"_type": "layer_choice", "_value": []})),
        ("against.json", many({"_type": "input_choice", "_value": {"candidates": ["a"], "n_chosen": 2}}, 2000)),
        ("architecture.json", many("x")),
        ("latency.json", {"format": "nnas.latency-table/1", "unit": "ms", "latencies": many({"a": -1})}),
        ("latency.json", {"format": "nnas.latency-table/1", "unit": "ms", "latencies": many({"a": 1}, 5000)}),
        ("config.json", {"search": many(1)}),
        ("any.json", many([True, 0.5])),
        ("any.json", many({"_value": "a"})),
        ("any.json", [{"parameter": 3}] * 40_000),
    ],
)
def test_forty_thousand_problems_are_told_in_fifty_lines(nnas: Cli, file: str, document: object) -> None:
    Path(file).write_text(json.dumps(document))
    result = nnas(*READERS[file])
    assert result.code in (1, 3), result.err
    lines = (result.err + result.out).splitlines()
    assert len(lines) <= 53
    assert max(map(len, lines)) < 1100
    assert any(line.startswith("  ... and ") or "..." in line for line in lines) or file == "config.json"


def test_events_that_are_all_wrong_are_told_in_fifty_lines(nnas: Cli) -> None:
    Path("events.jsonl").write_text('{"event": "x"}\n' * 3000)
    result = nnas("validate", "events.jsonl")
    assert result.code == 1
    assert len(result.out.splitlines()) == 51


def test_half_a_character_is_refused_by_whoever_reads_it(nnas: Cli) -> None:
    Path("space.json").write_text('{"k\\ud800": {"_type": "layer_choice", "_value": ["a", "b"]}}')
    tuned, checked = nnas(*READERS["space.json"]), nnas("validate", "space.json")
    message = r"not a document of ours: \ud800 is half a character, which UTF-8 does not have"
    assert (tuned.code, tuned.err) == (3, f"nnas: error: space.json: {message}\n")
    assert (checked.code, checked.out) == (1, f"space.json: NOT VALID (unknown)\n  {message}\n")
