"""Rows 6 and 7: CPU time of whole commands, user and system, against the least that Python needs for the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import Line, children_time, compare, ratios, run_process, shown

HERE = Path(__file__).resolve().parent
NNAS = str(Path(sys.executable).with_name("nnas"))

MODELS = {
    "single_path_imagenet": "ImageNet-size single-path supernet",
    "thousand_choices": "1,000 choices x 4 convolutions",
}


def _processes(sides: Mapping[str, Sequence[str]], rounds: int, turns: int) -> dict[str, list[float]]:
    turn_of = {name: lambda arguments=arguments: run_process(arguments) for name, arguments in sides.items()}
    return compare(lambda number: turn_of, rounds, turns=turns, shortest=0, clock=children_time)


def row_6(rounds: int) -> Iterator[Line]:
    """The help of the group."""
    sides = {"nnas --help": [NNAS, "--help"], "import click": [sys.executable, "-c", "import click"]}
    seconds = _processes(sides, rounds, turns=7)
    values = ratios(seconds, *sides)
    yield Line(6, "nnas --help against python -c 'import click'", "x", 2.0, values, note=shown(seconds))


def row_7(rounds: int) -> Iterator[Line]:
    """Search-space generation against building the model, all candidates, without nnas."""
    for name, what in MODELS.items():
        build = f"import sys; sys.path.insert(0, {str(HERE)!r}); import torch, nets; nets.{name}(nets.everything)"
        sides = {
            "nnas ss-gen": [NNAS, "ss-gen", f"{HERE / 'nets.py'}:{name}", "-o", "space.json"],
            "import torch and build": [sys.executable, "-c", build],
        }
        seconds = _processes(sides, max(3, rounds // 2), turns=2)
        values = ratios(seconds, *sides)
        yield Line(7, f"nnas ss-gen, {what}", "x", 1.10, values, note=shown(seconds))
