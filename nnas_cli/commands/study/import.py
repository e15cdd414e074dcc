"""``nnas study import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE
from nnas_core.files import read_bytes, source_name

if TYPE_CHECKING:
    from nnas_core.study.storage.records import StudyRecord
    from nnas_core.study.storage.store import StudyStore

__all__ = ["command"]


@click.command("import", cls=SectionedCommand)
@click.argument("file", type=FILE, metavar="FILE")
@studies.of_a_study()
@options.with_output("Write the answer as JSON to PATH; - is standard output.")
@options.common_without_seed
def command(store: StudyStore, study: StudyRecord, file: str, output: str, out: Output) -> None:
    """Add results of elsewhere, for the tuner to learn from.

    FILE is what `nnas study export` wrote, as JSON or CSV, or nnictl, a list of objects with parameter and value, or
    the output of `nnas study trials --json`. Its architectures must fit the search space; those that the study has are
    left out. The others count as finished trials. Nobody may be running the study.

    \b
    Examples:
      nnas study import results.json
      nnas study trials small --json | nnas study import - large
    """
    from nnas_core.study.importing import read_file

    results, without = read_file(read_bytes(file), study.settings.space, source_name(file))
    done = store.import_results(study, results)
    document = {"study": study.name, "imported": done.imported, "known": done.known, "without_value": without}
    text = f"imported {done.imported} trials into study {study.name!r}"
    parts = [f"{done.known} known"] if done.known else []
    parts += [f"{without} without a value"] if without else []
    text += f"; left out {', '.join(parts)}" if parts else ""
    studies.answer(out, output, "study-import-report", document, text + "\n")
