"""Measure everything that nnas promises about its speed, print a table and write JSON.

    python benchmarks/run.py                        all rows, about twenty-five minutes on an idle machine
    python benchmarks/run.py --rows 1,3-5           some of them
    python benchmarks/run.py --rounds 21            more rounds: less noise
    python benchmarks/run.py -o results.json        every round's value too
    python benchmarks/run.py --write-docs           put the table and the machine into docs/benchmarks.md

The exit code is 1 if a target is missed. What is measured how: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import controller
import evaluation
import harness
import memory
import oneshot
import reset
import single_path
import startup
import studies
import torch
import tune_bookkeeping
import viewing
from harness import Line

import nnas_core

ROWS: dict[int, Callable[[int], Iterator[Line]]] = {
    1: single_path.row_1,
    2: single_path.row_2,
    3: single_path.row_3,
    4: single_path.row_4,
    5: reset.row_5,
    6: startup.row_6,
    7: startup.row_7,
    8: tune_bookkeeping.row_8,
    9: evaluation.row_9,
    10: oneshot.row_10,
    11: oneshot.row_11,
    12: oneshot.row_12,
    13: oneshot.row_13,
    14: memory.row_14,
    15: oneshot.row_15,
    16: memory.row_16,
    17: oneshot.row_17,
    18: controller.row_18,
    19: studies.row_19,
    20: studies.row_20,
    21: studies.row_21,
    22: studies.row_22,
    23: studies.row_23,
    24: studies.row_24,
    25: single_path.row_25,
    26: viewing.row_26,
}

DOCUMENT = harness.ROOT / "docs" / "benchmarks.md"
REGION = re.compile(r"(<!-- measured -->\n).*?(<!-- end of measured -->)", re.DOTALL)

COLUMNS = ("row", "what", "measured", "target", "reached", "quartiles", "medians")


def main() -> int:
    """Run the command line."""
    options = parse()
    torch.set_num_threads(1)
    machine = describe_machine()
    print(sentence(machine), flush=True)
    started = time.monotonic()
    lines = []
    for row in options.rows:
        # a process each: the memory that one row leaves behind, in what order, would change the times of the next
        for line in ROWS[row](options.rounds) if len(options.rows) == 1 else in_process_of_its_own(row, options.rounds):
            lines.append(line)
            print(" | ".join(cells(line)), flush=True)
    print(f"{time.monotonic() - started:.0f} s, {options.rounds} rounds\n\n{table(lines)}")
    if options.output:
        document = {"machine": machine, "rounds": options.rounds, "lines": [line.to_json() for line in lines]}
        options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.write_docs:
        write_docs(f"{sentence(machine)}; {options.rounds} rounds.\n\n{table(lines)}")
    return 0 if all(line.reached for line in lines) else 1


def in_process_of_its_own(row: int, rounds: int) -> list[Line]:
    """The lines of one row.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lines.json"
        arguments = [sys.executable, __file__, f"--rows={row}", f"--rounds={rounds}", f"--output={output}"]
        done = subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in (0, 1):  # 1: a target is missed
            raise RuntimeError(f"row {row} ended with {done.returncode}")
        document = json.loads(output.read_text(encoding="utf-8"))
    return [Line.from_json(line) for line in document["lines"]]


def parse() -> argparse.Namespace:
    """The options."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=row_numbers, default=list(ROWS), help="as 1,3-5; default: all")
    parser.add_argument("--rounds", type=int, default=11, help="of each comparison (slow ones have fewer); default: 11")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument("--write-docs", action="store_true", help=f"replace the table of {DOCUMENT.name}")
    options = parser.parse_args()
    if options.write_docs and options.rows != list(ROWS):
        parser.error("--write-docs needs all rows")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def row_numbers(text: str) -> list[int]:
    """``"1,3-5"`` -> ``[1, 3, 4, 5]``."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    if not numbers <= set(ROWS):
        raise argparse.ArgumentTypeError(f"rows are {min(ROWS)} to {max(ROWS)}")
    return sorted(numbers)


# ---- the table


def cells(line: Line) -> list[str]:
    """One line of the table."""
    sign = ">=" if line.at_least else "<="
    low, high = line.spread
    return [
        str(line.row),
        line.what,
        f"{line.value:.3g} {line.unit}" if line.unit == "ms" else f"{line.value:.3f}",
        f"{sign} {line.target:g}" + (" ms" if line.unit == "ms" else ""),
        "yes" if line.reached else "**no**",
        f"{low:.3f} - {high:.3f}",
        line.note,
    ]


def table(lines: list[Line]) -> str:
    """The lines as a Markdown table that can be read as it is."""
    rows = [list(COLUMNS), *(cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    shown = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown) + "\n"


def write_docs(content: str) -> None:
    """Replace what was measured in docs/benchmarks.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    replaced, found = REGION.subn(lambda region: f"{region[1]}{content}{region[2]}", text)
    if not found:
        raise RuntimeError(f"{DOCUMENT} has no place for the table")
    DOCUMENT.write_text(replaced, encoding="utf-8")
    print(f"wrote {DOCUMENT}")


# ---- the machine


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": cpu_model(),
        "cores": harness.cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nnas": nnas_core.__version__,
        "date": datetime.date.today().isoformat(),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The machine in two lines."""
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread used;\n"
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, nnas {machine['nnas']}"
    )


def cpu_model() -> str:
    """The name of the processor, with family and model where the name alone says little."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    family = f"family {facts['cpu family']}, model {facts['model']}" if "cpu family" in facts else platform.machine()
    return f"{facts.get('model name', 'unknown processor')} ({family})"


if __name__ == "__main__":
    sys.exit(main())
