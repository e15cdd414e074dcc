"""scripts/mutate: what its operators make of a line, and that a fault is found, survives, or hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.faults.campaign import Tried, sample, tried_on
from scripts.lib.faults.executed import Executed
from scripts.lib.faults.operators import Fault, faults_of

ROOT = Path(__file__).parents[1]


def changes(line: str) -> set[str]:
    """What becomes of a line within a function."""
    source = f"def function():\n    for one in many:\n        {line}\n"
    return {fault.after.strip() for fault in faults_of(source) if fault.line == 3}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a + b", {"x = (a - b)"}),
        ("x = a * b", {"x = (a / b)"}),
        ("x = a < b", {"x = (a <= b)"}),
        ("x = a is b", {"x = (a is not b)"}),
        ("x = not a", {"x = (a)"}),
        ("x = -a", {"x = (a)"}),
        ("x = a and b", {"x = (a or b)", "x = (a)", "x = (b)"}),
        ("x = 3", {"x = 4", "x = 2"}),
        ("x = 0.5", {"x = 1.0"}),
        ("x = True", {"x = False"}),
        ("x += y", {"pass", "x -= y"}),
        ("do()", {"pass"}),
        ("x = f(a, b)", {"x = f(b, a)"}),
        ("x = f(a, b=c)", {"x = f(a)"}),
        ("x = a if b else c", {"x = a if not (b) else c"}),
        ("return a", {"return None"}),
        ("return a, b", {"return a"}),
        ("x = max(a)", {"x = min(a)"}),
        ("x = a.sum()", {"x = a.mean()"}),
        ("x = range(a)", {"x = range(a - 1)"}),
        ("x = a[b:]", {"x = a[b + 1:]"}),
        ("x = a.detach()", {"x = (a)"}),
        (
            "x = (a < 0).all()",
            {"x = ((a <= 0)).all()", "x = (a < 1).all()", "x = (a < (-1)).all()", "x = (a < 0).any()"},
        ),
        ("loss = f()", {"loss = -(f())"}),
        ("continue", {"break"}),
        ("break", {"continue"}),
        ('x = {"ä": a * b}', {'x = {"ä": (a / b)}'}),  # Python's syntax trees count bytes
    ],
)
def test_a_line_becomes(line: str, expected: set[str]) -> None:
    assert changes(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        '"""A text of 3 words."""',
        'raise ValueError(f"{a + 1} is not below {b}")',
        "x: Literal[1, 2]",
        "assert a > 0",
        'log.debug("at %d", a + 1)',
        "return None",
        "x = isinstance(a, b)",
        "x = f(a, a)",
    ],
)
def test_what_no_test_could_notice_stays(line: str) -> None:
    assert changes(line) == set()


def test_of_a_fault_one_line_changes() -> None:
    source = "def double(x):\n    return x * 2\n"
    fault = next(one for one in faults_of(source) if one.operator == "arithmetic")
    assert fault.applied(source) == "def double(x):\n    return (x / 2)\n"
    assert fault.diff("double.py", source).splitlines()[-3:] == [
        " def double(x):",
        "-    return x * 2",
        "+    return (x / 2)",
    ]


def test_a_sample_is_even_has_no_line_twice_and_repeats_itself(tmp_path: Path) -> None:
    for room, lines in (("one", 5), ("other", 50)):
        (tmp_path / room).mkdir()
        (tmp_path / room / "file.py").write_text("".join(f"x{n} = a + {n}\n" for n in range(lines)))
    drawn = sample(tmp_path, ["one", "other"], 9, seed=3)
    places = [(file, fault.line) for file, fault in drawn]
    assert [file for file, _ in places] == ["one/file.py"] * 5 + ["other/file.py"] * 4
    assert len(set(places)) == 9
    assert drawn == sample(tmp_path, ["one", "other"], 9, seed=3)
    assert drawn != sample(tmp_path, ["one", "other"], 9, seed=4)


def test_tests_of_the_room_come_first_and_fast_ones_before_slow_ones(tmp_path: Path) -> None:
    seconds = {"tests/runs/a::slow": 3.0, "tests/runs/a::fast": 1.0, "tests/cli/a::fastest": 0.1}
    executed = Executed(seconds, {"nnas_core/runs/file.py": {7: set(seconds)}})
    assert list(tried_on(executed, tmp_path, "nnas_core/runs/file.py", 7)) == [
        ["tests/runs/a::fast", "tests/runs/a::slow"],
        ["tests/cli/a::fastest"],
    ]


def test_a_result_is_read_as_it_was_written() -> None:
    result = Tried("file.py", Fault(3, "sign", "x = -1", "x = 1"), "survived", "", 1.5)
    assert Tried.from_line(result.to_line()) == result


def test_a_fault_is_found_survives_or_hangs(tmp_path: Path) -> None:
    """In a process of its own, on a tree of one function and one test."""
    files = {
        "nnas_core/toys/toy.py": (
            "def halvings(x):\n    count = 0\n    while x > 1:\n        x //= 2\n        count += 1\n    return count\n"
            "\n\nUNUSED = 1\n"
        ),
        "tests/toys/test_toy.py": (
            "from nnas_core.toys.toy import halvings\n\n\ndef test_eight():\n    assert halvings(8) == 3\n"
        ),
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    program = (
        "import sys; from pathlib import Path; from scripts.lib.faults import campaign, trying\n"
        "from scripts.lib.faults.executed import Executed; from scripts.lib.faults.operators import faults_of\n"
        "root, campaign._START_S, campaign._FILE_S, trying._LOADED_ONCE = Path(sys.argv[1]), 3.0, 0.2, ()\n"
        "tree, file = trying.Tree(root, root / 'copy'), 'nnas_core/toys/toy.py'\n"
        "for fault in faults_of((root / file).read_text()):\n"
        "    if fault.after.strip() in sys.argv[2:]:\n"
        "        tried = campaign.tried(tree, Executed(), file, fault)\n"
        "        print(fault.after.strip(), '->', tried.verdict, tried.test)\n"
        "print((root / 'copy' / file).read_text() == (root / file).read_text())\n"
    )
    faults = ["while (x >= 1):", "x //= 1", "UNUSED = 2"]
    command = [sys.executable, "-c", program, str(tmp_path), *faults]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "while (x >= 1): -> found tests/toys/test_toy.py::test_eight",
        "x //= 1 -> hung ",
        "UNUSED = 2 -> survived ",
        "True",
    ]
