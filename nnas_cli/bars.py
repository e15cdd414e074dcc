"""What a terminal shows of work that goes on: the newest state below, the lines that a pipe would get above it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from nnas_cli.escapes import printable
from nnas_cli.output import Output
from nnas_cli.studies import first_line, span

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from nnas_cli.signals import StopRequest
    from nnas_core.study.administration import StudyStatus
    from nnas_core.study.limits import RunSettings
    from nnas_core.study.storage.records import TrialRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["Pinned", "StudyProgress", "bar"]

_BAR = 24
"""Columns of a bar."""

_EVERY_S = 0.1
"""The time between two drawings of what changes all the time."""


class Pinned:
    """A few lines at the bottom of a terminal, until ``close``; notes of ``out`` go above them.

    It is drawn by whoever calls ``draw``: no thread does, which a fork could copy in the middle of a line.

    Args:
        out: where to.
        clock: seconds, for the rate of drawing.
    """

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._out = out
        self._clock = clock
        self._live: Live = Live(console=out.console(), transient=True, auto_refresh=False)
        self._live.start()
        self._drawn = -_EVERY_S
        out.above = self._above

    def draw(self, lines: Callable[[], list[Text]], *, now: bool = False) -> None:
        """Show lines, each cut to the width; not more often than the eye can see, unless ``now``."""
        from rich.text import Text

        if not now and self._clock() - self._drawn < _EVERY_S:
            return
        self._drawn = self._clock()
        found = lines()
        for line in found:
            line.truncate(max(1, self._live.console.width - 1), overflow="ellipsis")
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(found), refresh=True)

    def _above(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the lines away."""
        self._out.above = None
        self._live.stop()


def bar(done: float, total: float | None) -> Text:
    """A bar of which a part is done; one without a known end has no part."""
    from rich.text import Text

    part = 0 if not total else round(_BAR * min(1.0, done / total))
    return Text("━" * part, style="green") + Text("━" * (_BAR - part), style="bright_black")


class StudyProgress:
    """Follows a study: a line a trial, and on a terminal below them the best, the running ones, and a bar.

    Args:
        out: where to.
        study: its name.
        trials: how many it shall have; None: no limit.
        shown: how a value looks.
        clock: seconds.
    """

    def __init__(
        self,
        out: Output,
        study: str,
        trials: int | None,
        shown: Callable[[float], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._study = study
        self._trials = trials
        self._shown = shown
        self._clock = clock
        self._pinned: Pinned | None = None
        self._finished = self._failed = self._here = 0
        self._best: TrialRecord | None = None
        self._running: dict[int, float] = {}
        self._begun = clock()
        self._sign = 1

    @contextmanager
    def following(
        self, run: RunSettings, stop: StopRequest, store: StudyStore, begun: Callable[[], None] | None = None
    ) -> Iterator[RunSettings]:
        """While it is entered, a run of the study with the settings that it gives is followed.

        Args:
            run: how the study is worked on.
            stop: asked whether a signal came.
            store: that has the study, once the work has begun.
            begun: called then, before anything is told.
        """

        def on_start(finished: int, recovered: int) -> None:
            if begun is not None:
                begun()
            self.started(finished, recovered, store.status(store.study(self._study)))

        def should_stop() -> int | None:
            self.look()
            return stop()

        try:
            yield replace(
                run,
                should_stop=should_stop,
                at_once=stop.at_once,
                on_start=on_start,
                on_begin=self.begun,
                on_trial=self.ended,
                on_retry=self.begun_again,
            )
        finally:
            self.close()

    def started(self, finished: int, recovered: int, status: StudyStatus) -> None:
        """Say what a resumed study has already.

        Args:
            finished, recovered: how many trials.
            status: of the study.
        """
        if finished or recovered:
            self._out.note(f"study {self._study!r}: {finished} finished trials, {recovered} recovered", fold=True)
        self._finished, self._failed, self._best = finished, status.counts["failed"], status.best
        self._sign = 1 if status.study.settings.optimize_mode == "maximize" else -1
        self._begun = self._clock()
        if self._out.shows_bars:
            self._pinned = Pinned(self._out, self._clock)
            self._draw(now=True)

    def begun(self, trial: TrialRecord) -> None:
        """Note that a trial runs."""
        self._running[trial.number] = self._clock()
        self._draw(now=True)

    def ended(self, trial: TrialRecord) -> None:
        """Tell the value of a trial, or why it has none."""
        self._running.pop(trial.number, None)
        self._finished, self._here = self._finished + 1, self._here + 1
        if trial.value is not None:
            result = self._shown(trial.value) + ("" if trial.feasible else ", beyond the constraints")
            best = None if self._best is None else self._best.value
            if trial.feasible and (best is None or self._sign * (trial.value - best) > 0):
                self._best = trial
        elif trial.state == "stopped":
            last = trial.metrics.get("intermediate")
            result = "stopped early" if last is None else f"stopped early at {self._shown(last)}"
            result += f": {trial.error}" if trial.error else ""
        else:
            self._failed += 1
            result = f"failed: {first_line(trial.error or '')}"
        self._out.note(f"trial {trial.number}: {result} ({trial.seconds or 0:.2f} s)", fold=True)
        self._draw(now=True)

    def begun_again(self, trial: TrialRecord, why: str) -> None:
        """Tell why a trial is tried once more."""
        self._running[trial.number] = self._clock()
        self._out.note(f"trial {trial.number}: {first_line(why)}; attempt {trial.attempt} begins", fold=True)
        self._draw(now=True)

    def look(self) -> None:
        """Draw what time has changed."""
        self._draw(now=False)

    def _draw(self, *, now: bool) -> None:
        if self._pinned is not None:
            self._pinned.draw(self._lines, now=now)

    def _lines(self) -> list[Text]:
        from rich.text import Text

        of = f"{self._finished}/{self._trials}" if self._trials else f"{self._finished}"
        failed = f", {self._failed} failed" if self._failed else ""
        left = self._left_s()
        time_left = "" if left is None else f", about {span(left)} left"
        head = Text(f"study {printable(self._study)}  ", style="bold") + bar(self._finished, self._trials)
        lines = [head + Text(f"  {of} trials{failed}{time_left}")]
        if self._best is not None and self._best.value is not None:
            lines.append(Text(f"best {self._shown(self._best.value)} (trial {self._best.number})"))
        if self._running:
            at = self._clock()
            runs = ", ".join(f"trial {number} ({span(at - since)})" for number, since in sorted(self._running.items()))
            lines.append(Text(f"running: {runs}"))
        return lines

    def _left_s(self) -> float | None:
        """About how long the trials take that are left, at the rate of those that ended here."""
        if not self._here or self._trials is None:
            return None
        return (self._clock() - self._begun) / self._here * max(0, self._trials - self._finished)

    def close(self) -> None:
        """Take the lines below away."""
        if self._pinned is not None:
            self._pinned.close()
            self._pinned = None
