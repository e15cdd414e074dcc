"""How far a training or a study is: a bar on a terminal, else one plain line an epoch or trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nnas_cli.output import Output
from nnas_core.training import Callback

if TYPE_CHECKING:
    from rich.progress import Progress

    from nnas_core.study.records import TrialRecord

__all__ = ["StudyProgress", "TrainingProgress", "described"]


def described(metrics: dict[str, float]) -> str:
    """``accuracy 0.9312, loss 0.2514``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


class TrainingProgress(Callback):
    """Follows a training.

    Args:
        out: where to.
        clock: seconds, for the rate at which a bar is drawn.
    """

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._bar: Progress | None = None
        self._drawn = 0.0

    def on_epoch_begin(self, epoch: int) -> None:
        if not self._out.shows_bars:
            return
        self._bar = _bar(self._out)
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


class StudyProgress:
    """Follows a study: a bar on a terminal, else one line a trial.

    Args:
        out: where to.
        study: its name.
        trials: how many it shall have; None: no limit.
    """

    def __init__(self, out: Output, study: str, trials: int | None) -> None:
        self._out = out
        self._study = study
        self._trials = trials
        self._bar: Progress | None = None

    def started(self, finished: int, recovered: int) -> None:
        """Say what a resumed study has already."""
        if finished or recovered:
            self._out.note(f"study {self._study!r}: {finished} finished trials, {recovered} recovered")
        if self._out.shows_bars:
            self._bar = _bar(self._out)
            self._bar.add_task(f"study {self._study}", total=self._trials, completed=finished)

    def ended(self, trial: TrialRecord) -> None:
        """Tell the value of a trial."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
            self._bar.refresh()
            return
        value = f"failed: {trial.error}" if trial.value is None else f"{trial.value:.4f}"
        self._out.note(f"trial {trial.number}: {value} ({trial.seconds or 0:.2f} s)")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(out: Output) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=out.console(), transient=True, auto_refresh=False)
    bar.start()
    return bar
