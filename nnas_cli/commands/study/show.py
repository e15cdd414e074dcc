"""``nnas study show``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.escapes import printable
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.trial_numbers import front_lines
from nnas_core._listing import shortened
from nnas_core.space.sizes import size_in_words

if TYPE_CHECKING:
    from nnas_core.space.architecture import Architecture
    from nnas_core.study.administration import StudyStatus
    from nnas_core.study.pareto import Front
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]

_BEST = 5
"""Trials from which the best is told apart, if it has no room as a whole."""

_LINES = 4
"""Lines of the best architecture."""

_LEAST = 20
"""Columns of the values, however small the terminal is."""


@click.command("show", cls=SectionedCommand)
@studies.of_a_study()
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, output: str, out: Output) -> None:
    """Show what a study was made with, and how far it is.

    With --json also its whole search space.

    \b
    Examples:
      nnas study show
      nnas study show model-bayes --json
    """
    from nnas_core.study.pareto import front_of  # late: help needs none

    with studies.the_rest(store, out, output) as damage:
        status = store.status(study, damage)
        origin = status.study.settings.origin
        front = front_of(study.settings, store.trials(study, damage=damage)) if study.settings.objectives else None
        found = {} if front is None else front.to_json()
        document = {**status.to_json(), "origin": origin.to_json(), "settings": {**status.study.to_json()}, **found}
        best = [trial.architecture for trial in store.top(study, _BEST, damage)]
        studies.answer(out, output, "study-show-report", document, _text(status, best, out.width(), front))


def _text(status: StudyStatus, best: Sequence[Architecture], screen: int, front: Front | None) -> str:
    from nnas_cli.tables import folded  # late: help needs none

    made = status.study.settings
    counts = status.counts
    beyond = f", {status.infeasible} beyond the constraints" if made.constraints else ""
    lines = {
        "study": status.study.name,
        "state": status.study.state + (f" ({status.in_use_by})" if status.in_use_by else ""),
        **({"silent": status.silent} if status.silent else {}),
        **({"folder": made.origin.folder} if made.origin.folder else {}),
        "created": f"{status.study.created} by nnas {status.study.version}",
        "tuner": " ".join([made.tuner, *(f"{name}={_argument(one)}" for name, one in made.tuner_args.items())]),
        "seed": str(made.seed),
        "mode": made.optimize_mode,
        "space": f"{len(made.space)} keys, {size_in_words(made.space.size)} architectures",
        **{name.replace("_", " "): _value(one) for name, one in sorted(made.config.items())},
        "limits": studies.limits_in_words(status),
        "finished": f"{status.finished} ({counts['failed']} failed, {counts['stopped']} stopped early{beyond})",
        "running": f"{counts['running']}, {counts['waiting']} waiting",
    }
    if status.left_s is not None:
        lines["left"] = f"about {studies.span(status.left_s)}"
    if status.stop_requested:
        lines["asked"] = "to stop"
    if status.best is not None:
        lines["best"] = f"{studies.number(status.best.value)} (trial {status.best.number})"
        lines["architecture"] = ""
    width = max(map(len, lines)) + 2
    room = max(_LEAST, screen - width)
    if status.best is not None:
        lines["architecture"] = _architecture(status.best.architecture, best, room)
    text = ""
    if front is not None:
        lines.update({"Pareto set" + " " * place: line for place, line in enumerate(front_lines(front))})
    for name, one in lines.items():
        first, *more = folded(printable(one), room)
        text += f"{name:{width}}{first}\n" + "".join(f"{' ' * width}{line}\n" for line in more)
    return text


def _architecture(found: Architecture, best: Sequence[Architecture], room: int) -> str:
    """The architecture in a few lines; if it has more, those of its keys in which the best differ."""
    from nnas_cli.architectures import in_words, shorter

    text = in_words(found)
    if len(text) <= _LINES * room:
        return text
    short = shorter([found], best)
    return f"{short.cells(_LINES * room - len(short.how) - 20)[0]} ({short.how}; --json has all)"


def _argument(value: object) -> str:
    """An argument of the tuner; one that is a list of architectures has no end."""
    return shortened(json.dumps(value), 200)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
