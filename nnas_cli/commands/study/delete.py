"""``nnas study delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_core.errors import UsageError

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("delete", cls=SectionedCommand)
@studies.of_a_study()
@click.option("--yes", is_flag=True, help="Confirm that it shall be deleted.")
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, yes: bool, output: str, out: Output) -> None:
    """Delete a study and its trials.

    For good, and only with --yes; a study that somebody runs is refused.

    \b
    Examples:
      nnas study delete model-bayes --yes
    """
    finished = store.status(study).finished
    if not yes:
        raise UsageError(
            f"study {study.name!r} and its {finished} finished trials would be lost",
            where=store.where,
            hint="give --yes if you mean it; `nnas study backup` makes a copy before",
        )
    store.delete_study(study)
    document = {"study": study.name, "finished": finished}
    text = f"deleted study {study.name!r} and its {finished} finished trials\n"
    studies.answer(out, output, "study-delete-report", document, text)
