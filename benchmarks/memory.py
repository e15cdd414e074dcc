"""Rows 14 and 16: peak memory of a step, in a process of its own.

A process builds a trainer, makes a warm-up step, asks the system to forget the peak so far (/proc/self/clear_refs), and
makes one more: the difference between the peak and what was resident before is what the step needed at most. glibc is
told to give freed blocks back at once, so that they count no more. Linux only.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import ROOT, Line, compare, ratios, shown

MALLOC = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def row_14(rounds: int) -> Iterator[Line]:
    """Memory and time of --recompute."""
    import oneshot
    from nets import Cells, batch_for

    from nnas_core.mutators.darts import DartsMutator

    few = min(rounds, 3)
    peaks = {name: [peak(name) for _ in range(few)] for name in ("darts-recompute", "darts-cells")}
    memory = [ours / base for ours, base in zip(*peaks.values(), strict=True)]
    yield Line(14, "peak memory of a DARTS search step with --recompute", "x", 0.25, memory, note=_megabytes(peaks))
    batch = batch_for(Cells)

    def step(recompute: bool) -> Callable[[], None]:
        trainer = oneshot.trainer_for(Cells, DartsMutator)
        if recompute:
            trainer.mutator.recompute()

        def both() -> None:
            trainer.architecture_step(batch, batch)
            trainer.weight_step(batch)

        return both

    turns = {"recompute": step(True), "without": step(False)}
    seconds = compare(lambda number: turns, rounds, turns=3)
    what = "time of a DARTS search step with --recompute"
    yield Line(14, what, "x", 1.4, ratios(seconds, "recompute", "without"), note=shown(seconds))


def row_16(rounds: int) -> Iterator[Line]:
    """Memory of algorithms of one path."""
    few = min(rounds, 3)
    base = [peak("darts") for _ in range(few)]
    for name in ("gdas", "proxyless"):
        own = [peak(name) for _ in range(few)]
        ratio = [one / other for one, other in zip(own, base, strict=True)]
        what = f"peak memory of a search step, 8 candidates, {name} against darts"
        yield Line(16, what, "x", 0.3, ratio, note=_megabytes({name: own, "darts": base}))


def _megabytes(peaks: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(values):.0f} MiB" for name, values in peaks.items())


def peak(name: str) -> float:
    """MiB that one step of ``name`` needs above what is resident before it."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), name],
        env={**os.environ, **MALLOC},
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the process for {name} ended with {done.returncode}:\n{done.stderr}")
    return float(json.loads(done.stdout))


def measured(name: str) -> float:
    """In the process of its own."""
    import oneshot
    import torch
    from nets import Cells, EightWide, batch_for

    from nnas_core.plugins import registry

    class Wide(Cells):
        """The cell network, with batches of 64."""

        example = ((64, 3, 32, 32), 10)

    torch.set_num_threads(1)
    algorithm, _, variant = name.partition("-")
    net = Wide if variant else EightWide
    options = {"warmup_epochs": 0} if algorithm == "proxyless" else {}
    cls = registry.find("mutators", algorithm)
    trainer = oneshot.trainer_for(net, lambda model: cls(model, torch.Generator().manual_seed(0), **options))
    if variant == "recompute":
        trainer.mutator.recompute()
    batch = batch_for(net)

    def step() -> None:
        trainer.architecture_step(batch, batch)
        trainer.weight_step(batch)

    step()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    found = re.search(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the system does not tell {field}")
    return int(found[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
