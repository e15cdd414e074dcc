"""``nnas study top``."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.escapes import printable
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import Number
from nnas_core.errors import Interrupted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nnas_core.study.administration import StudyStatus
    from nnas_core.study.storage.records import StudyRecord, TrialRecord
    from nnas_core.study.storage.rows import Damage
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]

_SHOWN = 15


@click.command("top", cls=SectionedCommand)
@studies.of_a_study(running=True)
@click.option(
    "--interval",
    type=Number(0.1),
    default=3.0,
    show_default=True,
    metavar="S",
    help="Look again after S seconds.",
)
@click.option("--once", is_flag=True, help="Show it once, also on a terminal.")
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(
    store: StudyStore,
    study: StudyRecord,
    interval: float,
    once: bool,
    output: str,
    out: Output,
) -> None:
    """Follow a study while it runs.

    On a terminal the running and the newest trials are shown, one line each, until the study ends or Ctrl-C, which
    does nothing to the study. Elsewhere they are shown once.

    \b
    Examples:
      nnas study top
      nnas study top model-bayes --interval 10
      nnas study top --once
    """
    if out.shows_bars and not once and output == "-":
        _follow(store, study, interval, out)
    with studies.the_rest(store, out, output) as damage:
        status, trials = store.status(study, damage), _newest(store, study, damage)
        if out.as_json or output != "-":
            document = {**status.to_json(), "trials": [trial.to_json() for trial in trials]}
            out.report("study-top-report", document, output)
            return
        out.answer("".join(f"{line}\n" for line in _above(status, out.width())))
        if trials:
            out.answer("\n")
            out.show(studies.newest_table(trials, study, datetime.now(timezone.utc)), answer=True)


def _newest(store: StudyStore, study: StudyRecord, damage: Damage | None, most: int = _SHOWN) -> list[TrialRecord]:
    """The trials that run, and then the others, the newest first."""
    found = store.trials(study, damage=damage)[::-1]
    return sorted(found, key=lambda trial: trial.state != "running")[:most]


def _line(status: StudyStatus) -> str:
    counts = status.counts
    wanted = status.limits["trials"]
    parts = [f"{status.finished}/{wanted} finished" if wanted else f"{status.finished} finished"]
    parts += [f"{counts[state]} {state}" for state in ("failed", "running", "waiting")]
    if status.best is not None:
        parts.append(f"best {studies.number(status.best.value)} (trial {status.best.number})")
    if status.left_s is not None:
        parts.append(f"about {studies.span(status.left_s)} left")
    state = "stopping" if status.stop_requested else status.study.state
    return f"{status.study.name}: {state}; {', '.join(parts)}"


def _above(status: StudyStatus, width: int) -> list[str]:
    """How far the study is, in lines of a width."""
    from nnas_cli.tables import folded  # late: help needs none

    return list(folded(printable(_line(status)), width))


def _follow(store: StudyStore, study: StudyRecord, interval: float, out: Output) -> None:
    """Show the study until it ends."""
    from rich.live import Live

    from nnas_cli.signals import StopRequest
    from nnas_core.study.storage.rows import Damage

    with StopRequest() as stop, Live(console=out.console(), transient=True, auto_refresh=False) as live:
        # what is damaged is said at the end, by whoever called
        while (status := store.status(study, Damage(store.where))).in_use_by is not None:
            trials = _newest(store, study, Damage(store.where), live.console.height)
            live.update(_screen(status, trials, live.console.width, live.console.height), refresh=True)
            until = time.monotonic() + interval
            while time.monotonic() < until and stop() is None:
                time.sleep(0.05)  # a signal ends it early
            number = stop()
            if number is not None:
                raise Interrupted(
                    number,
                    f"study {study.name!r} is no longer shown, and goes on",
                    hint=f"`nnas study stop {study.name}` ends it",
                )


def _screen(status: StudyStatus, trials: list[TrialRecord], width: int, height: int) -> RenderableType:
    """As much as the screen has room for: the state of the study, and a line for each trial."""
    from rich.text import Text

    drawn = studies.newest_table(trials, status.study, datetime.now(timezone.utc)).drawn(width)
    above = [*_above(status, width), ""]
    lines = [*above, *drawn.head, *drawn.lines][: height - 1]  # the cursor has the last line
    bold = len(above) + len(drawn.head)
    screen = Text("\n", overflow="crop", no_wrap=True).join(
        Text(line, style="bold" if place < bold else "") for place, line in enumerate(lines)
    )
    return screen
