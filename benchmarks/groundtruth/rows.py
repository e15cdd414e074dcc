"""CSV tables that grow row by row and survive a killed process; beside each a JSON file says what made it.

A row is on the disk when `append` returns. A last line without its end, which a killed process left, is cut off when
the table is opened again, and rows of another configuration are never mixed.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import nnas_core

Row = dict[str, str]


class Table:
    """One CSV file and its header.

    Args:
        path: of the CSV file; the header has the same name with ``.json``.
        columns: names of all columns.
        configuration: whatever decides the rows; plain data.
    """

    def __init__(self, path: Path, columns: Sequence[str], configuration: Mapping[str, Any]) -> None:
        self.path = path
        self.header = path.with_suffix(".json")
        self._columns = list(columns)
        self._configuration = json.loads(json.dumps(configuration))

    @contextlib.contextmanager
    def opened(self) -> Iterator[list[Row]]:
        """The finished rows; inside the block `append` adds more.

        Raises:
            SystemExit: the file was made with another configuration, or another process writes it.
        """
        if self.header.exists():
            before = json.loads(self.header.read_text(encoding="utf-8"))["configuration"]
            if before != self._configuration:
                names = sorted(set(before) | set(self._configuration))
                lines = [
                    f"  {name}: {before.get(name)!r} there, {self._configuration.get(name)!r} now"
                    for name in names
                    if before.get(name) != self._configuration.get(name)
                ]
                sys.exit("\n".join([f"{self.path} was made with another configuration:", *lines]))
        with self.path.open("a+b") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                sys.exit(f"{self.path} is being written by another process")
            stream.seek(0)
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            stream.truncate(whole)
            self._stream = stream
            if not whole:
                self._write(self._columns)
            rows = read(self.path)
            if rows and list(rows[0]) != self._columns:
                sys.exit(f"{self.path} has other columns")
            if not self.header.exists():
                self.describe({})
            yield rows

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a row, and wait until it is on the disk."""
        self._write([_cell(values[name]) for name in self._columns])

    def remove(self, unwanted: Callable[[Row], bool]) -> int:
        """Take rows out again; returns how many."""
        before = read(self.path)
        kept = [row for row in before if not unwanted(row)]
        if len(kept) < len(before):
            self._stream.truncate(0)  # it appends, so the next row is the first
            for cells in (self._columns, *([row[name] for name in self._columns] for row in kept)):
                self._write(cells)
        return len(before) - len(kept)

    def _write(self, cells: Sequence[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._stream.write(line.getvalue().encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def describe(self, results: Mapping[str, Any]) -> None:
        """Write the header: the configuration, the machine, and ``results``."""
        document = {"configuration": self._configuration, "machine": machine(), **results}
        temporary = self.header.with_name(self.header.name + ".tmp")
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.header)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[Row]:
    """All rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def versions(package: str) -> dict[str, str]:
    """What the numbers depend on besides the configuration; ``package`` has the data."""
    from importlib.metadata import version

    packages = {"torch": torch.__version__, package: version(package), "nnas": nnas_core.__version__}
    return {"python": platform.python_version(), **packages}


def machine() -> dict[str, Any]:
    """Where it was measured."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
        if "model name" in facts:
            name = f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"
            return {"cpu": name, "cores": os.cpu_count(), "system": platform.system()}
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
