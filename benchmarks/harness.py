"""How everything here is measured: both sides in one process, in turns, by CPU time.

In a round every side has several short turns, which alternate, and their order rotates from round to round. Garbage is
collected before a round and not during it. The quickest turn of a side stands for the round, because what others do on
the machine only ever adds time; the ratio of a round is that of its two quickest turns, and the median of the rounds is
reported, with their quartiles as the spread.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Turn = Callable[[], object]

SHORTEST_TURN = 0.02
"""Seconds that a turn lasts at least: the step is repeated as often as that takes."""

TURNS = 7
"""Turns that a side has in a round."""


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        row: its number in docs/benchmarks.md, from 1.
        what: what is compared.
        unit: ``"x"`` for a ratio, ``"ms"`` for a time.
        target: the limit.
        values: one a round.
        at_least: whether the target is a lower limit.
        note: absolute times, for orientation.
    """

    row: int
    what: str
    unit: str
    target: float
    values: Sequence[float]
    at_least: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The first and the third quartile of the rounds."""
        if len(self.values) < 2:
            return self.value, self.value
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def reached(self) -> bool:
        """Whether the median is within the target."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_json(self) -> dict[str, object]:
        """Everything, with the value of every round."""
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "target": self.target,
            "at_least": self.at_least,
            "value": self.value,
            "quartiles": list(self.spread),
            "reached": self.reached,
            "rounds": list(self.values),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Line:
        """What ``to_json`` made."""
        names = ("row", "what", "unit", "target", "at_least", "note")
        return cls(values=document["rounds"], **{name: document[name] for name in names})


def compare(
    sides: Callable[[int], Mapping[str, Turn]],
    rounds: int,
    *,
    turns: int = TURNS,
    shortest: float = SHORTEST_TURN,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time the sides of a comparison.

    Args:
        sides: round -> one step of each side by name; called before the round, untimed.
        rounds: how many.
        turns: that each side has in a round.
        shortest: seconds a turn; 0 makes a turn of one step.
        clock: in seconds.

    Returns:
        Seconds a step for each side, one a round.
    """
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):
        steps = sides(number)
        with _no_garbage():
            repeats = {name: _repeats(step, shortest, clock) for name, step in steps.items()}
            times: dict[str, list[float]] = {name: [] for name in steps}
            for _ in range(turns):
                for name in _rotated(list(steps), number):
                    times[name].append(_timed(steps[name], repeats[name], clock))
        for name in steps:
            seconds.setdefault(name, []).append(min(times[name]))
    return seconds


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def _repeats(step: Turn, shortest: float, clock: Callable[[], float]) -> int:
    """How many steps make a turn; finding that out warms the side up."""
    repeats = 1
    while (seconds := _timed(step, repeats, clock)) * repeats < shortest:
        repeats = max(2 * repeats, math.ceil(shortest / seconds))
    return repeats


def _timed(step: Turn, repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        step()
    return (clock() - start) / repeats


def ratios(seconds: Mapping[str, Sequence[float]], ours: str, base: str) -> list[float]:
    """``ours / base``, round by round."""
    return [mine / theirs for mine, theirs in zip(seconds[ours], seconds[base], strict=True)]


def shown(seconds: Mapping[str, Sequence[float]]) -> str:
    """The median of each side in a readable unit: ``nnas 1.31 ms, plain 1.25 ms``."""
    return ", ".join(f"{name} {duration(statistics.median(times))}" for name, times in seconds.items())


def duration(seconds: float) -> str:
    """Three significant digits in s, ms or us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


# ---- processes


def run_process(arguments: Sequence[str]) -> None:
    """Run a command to its end in an empty folder, with one thread; its output is thrown away.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def children_time() -> float:
    """CPU seconds of all processes that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
