"""The progress bar of all commands, and how far a study is; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnas_cli.output import Output, printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from nnas_core.study.storage.records import TrialRecord

__all__ = ["StudyProgress", "bar"]


def bar(out: Output) -> Progress:
    """A bar that was started; it is drawn when it is refreshed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    made = Progress(*columns, console=out.console(), transient=True, auto_refresh=False)
    made.start()
    return made


class StudyProgress:
    """Follows a study: a bar on a terminal, else one line a trial.

    Args:
        out: where to.
        study: its name.
        trials: how many it shall have; None: no limit.
        shown: how a value looks.
    """

    def __init__(self, out: Output, study: str, trials: int | None, shown: Callable[[float], str]) -> None:
        self._out = out
        self._study = study
        self._trials = trials
        self._shown = shown
        self._bar: Progress | None = None

    def started(self, finished: int, recovered: int) -> None:
        """Say what a resumed study has already."""
        if finished or recovered:
            self._out.note(f"study {self._study!r}: {finished} finished trials, {recovered} recovered")
        if self._out.shows_bars:
            self._bar = bar(self._out)
            self._bar.add_task(f"study {self._study}", total=self._trials, completed=finished)

    def ended(self, trial: TrialRecord) -> None:
        """Tell the value of a trial."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
            self._bar.refresh()
            return
        if trial.value is not None:
            result = self._shown(trial.value)
        elif trial.state == "stopped":
            last = trial.metrics.get("intermediate")
            result = "stopped early" if last is None else f"stopped early at {self._shown(last)}"
            result += f": {trial.error}" if trial.error else ""
        else:
            result = f"failed: {_first_line(trial.error or '')}"
        self._out.note(f"trial {trial.number}: {result} ({trial.seconds or 0:.2f} s)")

    def begun_again(self, trial: TrialRecord, why: str) -> None:
        """Tell why a trial is tried once more, also where a bar is."""
        line = f"trial {trial.number}: {_first_line(why)}; attempt {trial.attempt} begins"
        if self._bar is not None:
            self._bar.console.print(printable(line), markup=False, soft_wrap=True)
        else:
            self._out.note(line)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _first_line(text: str) -> str:
    return text.split("\n")[0]
