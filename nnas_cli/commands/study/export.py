"""``nnas study export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import Count
from nnas_core.errors import NoResultError, UsageError
from nnas_core.files import dump_json

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord, TrialRecord
    from nnas_core.study.storage.rows import Damage
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("export", cls=SectionedCommand)
@studies.of_a_study()
@click.option(
    "--format",
    type=click.Choice(["json", "csv"]),
    default="json",
    show_default=True,
    help="Write the results in this form, as nnictl does.",
)
@click.option("--best", type=Count(1), metavar="N", help="Write only the N best trials, the best first.")
@click.option("--pareto", is_flag=True, help="Write only the trials that no other beats in all objectives.")
@click.option(
    "--as-architecture", is_flag=True, help="Write the best architecture alone, or a list of the --best N, as masks."
)
@click.option("--optuna", metavar="URL", help="Write a study that Optuna's dashboard opens, as in sqlite:///optuna.db.")
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common_without_seed
def command(
    store: StudyStore,
    study: StudyRecord,
    format: str,
    best: int | None,
    pareto: bool,
    as_architecture: bool,
    optuna: str | None,
    output: str,
    out: Output,
) -> None:
    """Write results, or the best architectures.

    Trials without a result are left out, but not of what --optuna writes. In CSV there is a column for each key, then
    the reward and each metric. Exit code 5 if no trial has a result.

    \b
    Examples:
      nnas study export -o results.json
      nnas study export model-bayes --format csv --best 10
      nnas study export --best 1 --as-architecture -o best.json
      nnas study export --pareto -o front.json
      nnas study export --optuna sqlite:///optuna.db
    """
    if optuna is not None:
        options.refuse_idle(("format", "best", "pareto", "as_architecture", "output"), "--optuna")
        _to_optuna(store, study, optuna, out)
        return
    if as_architecture:
        options.refuse_idle(("format",), "--as-architecture")
        best = best or (None if pareto else 1)
    from nnas_core.study.csv_results import results_csv
    from nnas_core.study.exporting import results_json

    with studies.the_rest(store, out) as damage:
        if pareto:
            trials = _pareto(store, study, damage)[:best]
        elif best is None:
            trials = store.trials(study, state="succeeded", damage=damage)
        else:
            trials = store.top(study, best, damage)
        if not trials and damage:
            return
        if not trials:
            raise NoResultError(f"study {study.name!r} has no trial with a result", where=store.where)
        if as_architecture:
            masks = [trial.architecture.masks() for trial in trials]
            out.write(output, dump_json(masks[0] if best == 1 else masks))
        elif format == "csv":
            out.write(output, results_csv(trials, study.settings.space))
        else:
            out.write(output, dump_json(results_json(trials, store.intermediates(study, damage))))


def _pareto(store: StudyStore, study: StudyRecord, damage: Damage | None) -> list[TrialRecord]:
    from nnas_core.study.pareto import front_of

    if len(study.settings.objectives) < 2:
        raise UsageError(
            f"--pareto: study {study.name!r} has one objective", hint="leave it out, --best 1 is the best trial"
        )
    front = front_of(study.settings, store.trials(study, damage=damage))
    return [] if front is None else list(front.trials)


def _to_optuna(store: StudyStore, study: StudyRecord, url: str, out: Output) -> None:
    from nnas_core.study.exporting import write_optuna_study

    trials = store.trials(study)
    if not trials:
        raise NoResultError(f"study {study.name!r} has no trials", where=store.where)
    storage = click.get_current_context().params["storage"]
    written = write_optuna_study(url, study, trials, store.intermediates(study), storage=storage)
    if out.as_json:
        out.report("study-optuna-report", {"study": study.name, "trials": written})
    else:
        out.note(f"wrote {written} trials of study {study.name!r} for Optuna")
