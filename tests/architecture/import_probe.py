"""Says what commands and imports load: each runs in a fork of this process, which has loaded no package of ours.

Started as a program, it preloads what may be loaded by all of them, torch not among it; that takes longer than most of
what is tested. Requests and answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

__all__ = ["PRELOADED"]

PRELOADED = ("click", "jsonschema", "numpy", "rich.console", "rich.progress", "rich.table", "sqlalchemy")


def serve() -> None:
    """Answer requests until standard input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_run_in(request["folder"], request["kind"], request["arguments"]))
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _run_in(folder: str, kind: str, arguments: list[str]) -> int:
    """Run in the folder; leave there what was said, and the names of all loaded modules."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    code = 1
    try:
        code = run(kind, arguments)
    finally:
        sys.stderr.flush()
        Path("loaded.json").write_text(json.dumps(sorted(sys.modules)))
    return code


def run(kind: str, arguments: list[str]) -> int:
    """Run one command, or import one module."""
    if kind == "import":
        importlib.import_module(arguments[0])
        return 0
    from nnas_cli.main import entry

    return entry(arguments)


if __name__ == "__main__":
    serve()
