"""What the demo searches is better than chance, or it does not pass: its own commands, with one of its seeds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_support import Cli

ROOT = Path(__file__).parents[2]


def commands(program: str, **variables: str) -> list[list[str]]:
    """The words of the lines of ``scripts/demo`` that run a program, with the shell's variables replaced."""
    text = (ROOT / "scripts" / "demo").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(rf"^ *run ({re.escape(program)} .*)$", text, re.MULTILINE)
    return [[re.sub(r"\$(\w+)", lambda found: variables[found[1]], word) for word in shlex.split(one)] for one in lines]


@pytest.mark.slow
def test_what_the_demo_finds_is_better_than_chance(nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "benchmarks/groundtruth/mnist1d/model.py"
    assert f"\nmodel={model}\n" in (ROOT / "scripts" / "demo").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    (search,) = commands("nnas search", model=model, out=str(tmp_path), seed="0")
    nnas.ok(*search[1:])
    (compare,) = commands("python", out=str(tmp_path))
    runs = [word for word in compare if word.startswith(str(tmp_path))]
    assert len(runs) == 3
    done = subprocess.run([sys.executable, *compare[1:-3], runs[0]], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "243" in done.stdout
