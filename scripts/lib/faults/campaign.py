"""A sample of faults, each tried on the tests that execute its line, the fastest first."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.lib.faults.executed import Executed
from scripts.lib.faults.operators import Fault, faults_of
from scripts.lib.faults.trying import Outcome, Tree

__all__ = ["Tried", "sample", "tried", "tried_on", "unsure"]

# Seconds of tests that a fault gets: those of its own room, then those of all others.
_OWN_S, _OTHERS_S = 60.0, 180.0

# A fault hangs if its tests take this many times as long as they did, and the start of pytest.
_PATIENCE, _START_S = 5.0, 40.0

# The defaults of arguments stand in the documentation, which is made from them.
_PAGES = "tests/docs/test_pages.py::test_the_generated_parts_are_up_to_date"

# What a file of tests takes that was not measured.
_FILE_S = 20.0


@dataclass(frozen=True)
class Tried:
    """What became of a fault.

    Attributes:
        file: that has it.
        fault: itself.
        verdict: ``found``, ``hung`` (which is found as well), ``survived``, or ``not executed`` by any test.
        test: the one that found it.
        seconds: that finding took.
    """

    file: str
    fault: Fault
    verdict: str
    test: str
    seconds: float

    @property
    def survives(self) -> bool:
        """No test notices."""
        return self.verdict in {"survived", "not executed"}

    def to_line(self) -> str:
        """Returns a line of the file of results."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Tried:
        """Reads a line of the file of results."""
        fields = json.loads(line)
        return cls(**{**fields, "fault": Fault(**fields["fault"])})


def sample(root: Path, targets: Iterable[str], count: int, seed: int) -> list[tuple[str, Fault]]:
    """Draws faults evenly over folders or files below ``root``, one a line; the same seed draws the same.

    All lines that can have a fault are equally likely, and so are the faults of a line.
    """
    targets = list(targets)
    drawn = []
    for place, target in enumerate(targets):
        path = root / target
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        by_line: dict[tuple[str, int], list[Fault]] = {}
        for file in files:
            name = str(file.relative_to(root))
            for fault in faults_of(file.read_text("utf-8")):
                by_line.setdefault((name, fault.line), []).append(fault)
        source = random.Random(f"{seed} {target}")
        wanted = count // len(targets) + (place < count % len(targets))
        for name, line in source.sample(sorted(by_line), min(wanted, len(by_line))):
            drawn.append((name, source.choice(by_line[name, line])))
    return drawn


def tried_on(executed: Executed, root: Path, file: str, line: int) -> Iterator[list[str]]:
    """Yields the tests that a fault is tried on: those of its own room, then others; the fastest first.

    What runs when its module is imported, defaults and attributes of classes, is tried on tests that execute another
    line of the file, on whether the pages still say so, and on tests that execute none of it but ask every module.
    Where nothing was measured, it is the files of tests in the room that name the module, or all.
    """
    room = f"tests/{file.split('/')[1]}/"
    at_import = not executed.tests_of(file, line)
    tests = executed.tests_of_file(file) if at_import else executed.tests_of(file, line)
    if not tests:
        if named := _naming(root, room, Path(file).stem.strip("_")):
            yield named
        return
    if at_import and (root / _PAGES.partition("::")[0]).exists():
        yield [_PAGES]

    def by_time(test: str) -> tuple[float, str]:
        return executed.seconds[test], test

    own = _within(sorted((test for test in tests if test.startswith(room)), key=by_time), executed, _OWN_S)
    others = set(executed.seconds) if at_import else tests
    yield from (group for group in (own, _within(sorted(others - set(own), key=by_time), executed, _OTHERS_S)) if group)


def _naming(root: Path, room: str, module: str) -> list[str]:
    files = sorted((root / room).rglob("test_*.py"), key=lambda file: (module not in file.stem, file.name))
    named = [file for file in files if re.search(rf"\b_?{module}\b", file.read_text("utf-8")) or module in file.stem]
    return [str(file.relative_to(root)) for file in named or files]


def _within(tests: list[str], executed: Executed, seconds: float) -> list[str]:
    """As many of the tests as take ``seconds`` together, at least one."""
    taken: list[str] = []
    for test in tests:
        seconds -= executed.seconds[test]
        if taken and seconds < 0:
            break
        taken.append(test)
    return taken


def tried(tree: Tree, executed: Executed, file: str, fault: Fault, first: Iterable[str] = ()) -> Tried:
    """Put a fault into the copied tree, and run tests until one notices.

    Args:
        tree: the copy.
        executed: what was measured.
        file: that gets the fault.
        fault: itself.
        first: tests, or files of tests, to run before those that were measured.
    """
    verdict, seconds = "not executed", 0.0
    first = list(first)
    groups = [first] if first else []
    groups += tried_on(executed, tree.path, file, fault.line)
    with tree.broken(file, fault.applied((tree.path / file).read_text("utf-8"))):
        for tests in groups:
            limit = _START_S + _PATIENCE * sum(executed.seconds.get(test, _FILE_S) for test in tests)
            outcome = tree.run(tests, limit)
            seconds += outcome.seconds
            if outcome.how != "passed":
                return Tried(file, fault, _verdict(outcome), outcome.test, round(seconds, 1))
            verdict = "survived"
    return Tried(file, fault, verdict, "", round(seconds, 1))


def _verdict(outcome: Outcome) -> str:
    return "hung" if outcome.how == "hung" else "found"


def unsure(tree: Tree, results: Iterable[Tried]) -> set[str]:
    """Returns the tests that found a fault and fail without it too."""
    tests = sorted({one.test for one in results if one.test})
    wrong: set[str] = set()
    while tests:
        outcome = tree.run(tests, 600.0)
        if outcome.how == "passed":
            break
        if outcome.test not in tests:
            raise SystemExit(f"mutate: error: the tests do not run without a fault; see {tree.path / '.log'}")
        wrong.add(outcome.test)
        tests.remove(outcome.test)
    return wrong
