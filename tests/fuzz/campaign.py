"""Runs attacks one after another in this process, and says what no command may answer to an attack.

By hand, in the root of the repository: ``python -m tests.fuzz.campaign KIND SEED FIRST COUNT``. A failure of a test
names the four; ``all`` is every kind.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from tests.cli_support import Cli, Result
from tests.fuzz.attacks import ATTACKS, PRECIOUS, prepare

__all__ = ["Campaign"]

LONGEST_S = 20
"""Seconds for one attack, most of which take hundredths; the machine may be busy."""

_MORE_MEMORY = 2 << 30
_LONGEST_REPORT = 70_000
_SPECIFIED = {0, 1, 2, 3, 4, 5, 6}


class _TooLong(BaseException):
    pass


class Campaign:
    """Attacks of one kind, in a folder of its own that ``prepare`` has filled.

    Args:
        kind: the name of one of ``ATTACKS``.
        seed: of all of them.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.codes: Counter[int] = Counter()
        self._kept = {entry.name for entry in Path().iterdir()}
        self._nnas = Cli()

    def run(self, first: int, count: int) -> list[str]:
        """Tries attacks, and returns a line for each answer that breaks a rule."""
        found = []
        with _limited_memory():
            for number in range(first, first + count):
                problem = self._try(number)
                if problem is not None:
                    found.append(f"{self.kind} {self.seed} {number} 1: {problem}")
        return found

    def _try(self, number: int) -> str | None:
        rng = random.Random(f"{self.kind} {self.seed} {number}")
        arguments = ATTACKS[self.kind](rng)
        if rng.randrange(4) == 0:
            arguments.append("--json")
        try:
            with _limited_time():
                result = self._nnas(*arguments)
            self.codes[result.code] += 1
            problem = _problem(result, arguments)
        except _TooLong:
            problem = f"still running after {LONGEST_S} s"
        except UnicodeDecodeError as error:
            problem = f"output that is no UTF-8: {error}"
        self._clean()
        return None if problem is None else f"{problem}\n    nnas {' '.join(ascii(one)[:120] for one in arguments)}"

    def _clean(self) -> None:
        for entry in Path().iterdir():
            if entry.name not in self._kept:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        Path("old.json").write_text(PRECIOUS)


def _problem(result: Result, arguments: list[str]) -> str | None:
    """Returns what is wrong with the answer to an attack."""
    if result.code not in _SPECIFIED:
        return f"exit code {result.code}: {_end(result)}"
    if "Traceback" in result.err and result.code != 4 and "--debug" not in arguments:
        return f"a traceback with exit code {result.code}: {_end(result)}"
    if result.code == 6 and "out of memory" in result.err:
        return f"memory: {_end(result)}"
    if result.code > 1:
        if result.out and not _shows_the_rest(result, arguments):
            return f"an answer beside exit code {result.code}: {result.out[:200]}"
        if Path("old.json").read_text() != PRECIOUS:
            return f"old.json was changed, exit code {result.code}"
        if "--json" in arguments and not json.loads(result.err)["error"]["message"]:
            return "an error without a message"
        if "--json" not in arguments and not any(line.startswith("nnas: error: ") for line in result.err.splitlines()):
            return f"no error line: {result.err[:300]}"
    if len(result.err) > _LONGEST_REPORT:
        return f"{len(result.err)} characters of errors"
    return None


def _shows_the_rest(result: Result, arguments: list[str]) -> bool:
    """Returns true if rows of a study are damaged: they are named, and the others shown."""
    return arguments[0] == "study" and result.code == 3


def _end(result: Result) -> str:
    """The last lines of a report: the place of the exception, and what it says."""
    text = json.loads(result.err)["error"].get("traceback", "") if result.err.startswith("{") else result.err
    return " | ".join(line.strip() for line in text.splitlines()[-8:])[:900]


@contextmanager
def _limited_memory() -> Iterator[None]:
    """While it is entered, this process can have 2 GiB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MORE_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _limited_time() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _by_hand(kind: str, seed: str, first: str, count: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(Cli())
        for one in ATTACKS if kind == "all" else (kind,):
            began = time.monotonic()
            campaign = Campaign(one, int(seed))
            for line in campaign.run(int(first), int(count)):
                print(line, flush=True)
            codes = ", ".join(f"{code}: {times}" for code, times in sorted(campaign.codes.items()))
            print(f"{one}: {codes} in {time.monotonic() - began:.1f} s", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    _by_hand(*sys.argv[1:])
