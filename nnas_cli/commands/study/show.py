"""``nnas study show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.output import Output, printable
from nnas_core.space.sizes import size_in_words

if TYPE_CHECKING:
    from nnas_core.study.administration import StudyStatus
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("show")
@studies.of_a_study()
@options.with_output("File to write as JSON; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, output: str, out: Output) -> None:
    """Show what a study was made with, and how far it is.

    With --json also its whole search space.

    \b
    Examples:
      nnas study show
      nnas study show model-bayes --json
    """
    with studies.the_rest(store, out, output) as damage:
        status = store.status(study, damage)
        origin = status.study.settings.origin
        document = {**status.to_json(), "origin": origin.to_json(), "settings": {**status.study.to_json()}}
        studies.answer(out, output, "study-show-report", document, _text(status))


def _text(status: StudyStatus) -> str:
    made = status.study.settings
    counts = status.counts
    lines = {
        "study": status.study.name,
        "state": status.study.state + (f" ({status.in_use_by})" if status.in_use_by else ""),
        **({"silent": status.silent} if status.silent else {}),
        **({"folder": made.origin.folder} if made.origin.folder else {}),
        "created": f"{status.study.created} by nnas {status.study.version}",
        "tuner": " ".join([made.tuner, *(f"{name}={json.dumps(one)}" for name, one in made.tuner_args.items())]),
        "seed": str(made.seed),
        "mode": made.optimize_mode,
        "space": f"{len(made.space)} keys, {size_in_words(made.space.size)} architectures",
        **{name.replace("_", " "): _value(one) for name, one in sorted(made.config.items())},
        "limits": studies.limits_in_words(status),
        "finished": f"{status.finished} ({counts['failed']} failed, {counts['stopped']} stopped early)",
        "running": f"{counts['running']}, {counts['waiting']} waiting",
    }
    if status.left_s is not None:
        lines["left"] = f"about {studies.span(status.left_s)}"
    if status.stop_requested:
        lines["asked"] = "to stop"
    if status.best is not None:
        lines["best"] = f"{studies.number(status.best.value)} (trial {status.best.number})"
        lines["architecture"] = studies.in_words(status.best.architecture)
    width = max(map(len, lines))
    return "".join(f"{name:{width}}  {printable(one)}\n" for name, one in lines.items())


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
