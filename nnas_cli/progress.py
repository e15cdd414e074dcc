"""The progress of a training: a bar on a terminal, and one plain line an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nnas_cli.bars import bar
from nnas_cli.output import Output
from nnas_core.training.trainer import Callback

if TYPE_CHECKING:
    from rich.progress import Progress

    from nnas_core.runs.recording import Usage

__all__ = ["TrainingProgress", "described", "usage_rows"]


def described(metrics: dict[str, float]) -> str:
    """``accuracy 0.9312, loss 0.2514``; ``recall without a value`` for what no batch had one of."""
    return ", ".join(
        f"{name} {value:.4f}" if name == "loss" or not math.isnan(value) else f"{name} without a value"
        for name, value in metrics.items()
    )


def usage_rows(usage: Usage) -> list[list[str]]:
    """Rows of a table: throughput, time and memory of a run."""
    return [
        ["throughput", f"{usage.samples_per_second:.0f} samples/s"],
        ["time", f"{usage.seconds:.1f} s"],
        ["peak memory", f"{usage.peak_memory_mb:.0f} MiB"],
    ]


class TrainingProgress(Callback):
    """Follows a training; at the end of a ``with`` block the bar is gone.

    Args:
        out: where to.
        clock: seconds, for the rate at which a bar is drawn.
    """

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._bar: Progress | None = None
        self._drawn = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on_epoch_begin(self, epoch: int) -> None:
        if not self._out.shows_bars:
            return
        self._bar = bar(self._out)
        total = self.trainer.steps_of(epoch) or None
        self._bar.add_task(f"epoch {epoch + 1}/{self.trainer.epochs}", total=total)

    def on_batch_end(self, epoch: int) -> None:
        if self._bar is not None and self._clock() - self._drawn > 0.1:
            self._drawn = self._clock()
            self._bar.update(self._bar.task_ids[0], completed=self.trainer.batch, refresh=True)

    def on_epoch_end(self, epoch: int) -> None:
        self.close()
        record = self.trainer.history[-1]
        self._out.note(
            f"epoch {record.epoch}/{self.trainer.epochs}: train {described(record.train)}; "
            f"valid {described(record.valid)}; {record.samples_per_second:.0f} samples/s"
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
