"""``nnas study trials``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import Count
from nnas_core.errors import UsageError

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord, TrialRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("trials", cls=SectionedCommand)
@studies.of_a_study()
@click.option(
    "--sort",
    type=click.Choice(["number", "value", "seconds"]),
    default="number",
    show_default=True,
    help="Sort by this; value has the best first, seconds the longest.",
)
@click.option("--head", type=Count(1), metavar="N", help="Show only the N trials with the best values.")
@click.option("--tail", type=Count(1), metavar="N", help="Show only the N trials with the worst values.")
@click.option(
    "--state",
    type=click.Choice(["waiting", "running", "succeeded", "failed", "stopped"]),
    multiple=True,
    help="Show only trials in this state. Repeatable.",
)
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(
    store: StudyStore,
    study: StudyRecord,
    sort: str,
    head: int | None,
    tail: int | None,
    state: tuple[str, ...],
    output: str,
    out: Output,
) -> None:
    """List trials, all or the best or worst ones.

    --head and --tail go by value, as those of nnictl, so trials without one, or beyond the constraints, are left out;
    with another --sort they are the first and last of that order. Which values are better, the study knows. With --json
    the trials are complete.

    \b
    Examples:
      nnas study trials
      nnas study trials model-bayes --head 10
      nnas study trials --sort seconds --state failed
    """
    if head is not None and tail is not None:
        raise UsageError("--head and --tail cannot be given together")
    explicit = click.get_current_context().get_parameter_source("sort") is not click.core.ParameterSource.DEFAULT
    cut = head is not None or tail is not None
    with studies.the_rest(store, out, output) as damage:
        found = [trial for trial in store.trials(study, damage=damage) if not state or trial.state in state]
        found = _chosen(found, study, "value" if cut and not explicit else sort, head, tail)
        document = {"study": study.name, "trials": [trial.to_json() for trial in found]}
        if out.as_json or output != "-":
            out.report("study-trials-report", document, output)
        elif found:
            out.show(studies.trial_table(found, study), answer=True)
        elif not damage:
            out.note(f"study {study.name!r} has no " + ("such trials" if state or cut else "trials"))


def _chosen(
    found: list[TrialRecord], study: StudyRecord, sort: str, head: int | None, tail: int | None
) -> list[TrialRecord]:
    """Trials in the order that is asked for, all or the first or last of them."""
    if sort == "value" and (head is not None or tail is not None):
        found = [trial for trial in found if trial.value is not None and trial.feasible]
    best = -1 if study.settings.optimize_mode == "maximize" else 1
    found = sorted(found, key=lambda trial: _place(trial, sort, best))
    return found[:head] if head is not None else found[-tail:] if tail is not None else found


def _place(trial: TrialRecord, sort: str, best: int) -> tuple[float, ...]:
    if sort == "number":
        return (trial.number,)
    given = trial.seconds
    if sort == "value":
        given = trial.value if trial.feasible else None
    if given is None:
        return (True, 0.0, trial.number)
    return (False, given * (best if sort == "value" else -1), trial.number)
