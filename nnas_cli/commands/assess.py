"""``nnas assess``."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.escapes import printable
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import DEVICE, Count, Number
from nnas_cli.spelling import with_options
from nnas_cli.trial_options import Running, where_trials_run
from nnas_core.errors import ExitCode, InputError, UsageError
from nnas_core.files import check_writable
from nnas_core.training.settings import SetupSettings
from nnas_core.workflows.settings import AssessSettings

if TYPE_CHECKING:
    from nnas_cli.signals import StopRequest
    from nnas_core.assessment.checklist import Checklist
    from nnas_core.assessment.report import Assessment
    from nnas_core.study.limits import RunSettings
    from nnas_core.study.storage.store import StudyStore
    from nnas_core.workflows.assess_studies import Means

__all__ = ["command"]

_MOST_ARCHITECTURES = 100_000


@click.command("assess", cls=SectionedCommand)
@click.argument("name", metavar="RUN|STUDY")
@click.option(
    "--random",
    type=Count(1, _MOST_ARCHITECTURES),
    metavar="N",
    help="Measure N random architectures.  [default: 100, or 20 where each is trained]",
)
@options.of_field(
    "--train", AssessSettings, Count(0, _MOST_ARCHITECTURES), "Train K of them alone; 0 trains none.", metavar="K"
)
@options.of_field("--seeds", AssessSettings, Count(1, 10_000), "Train them with so many seeds each.")
@click.option("--train-epochs", type=Count(1), help="Train each for so long.  [default: as long as the run or trials]")
@options.of_field(
    "--budget",
    AssessSettings,
    click.Choice(["epochs", "seconds"]),
    "Take these to count how many architectures the search could have trained.",
)
@click.option(
    "--fail-under",
    type=Number(0, 100),
    metavar="PERCENTILE",
    help="Return 1 if the part of the random ones that is worse than what was found is smaller.",
)
@click.option("--checkpoint", metavar="FILE", help="Take inherited weights from this supernet.  [default: the run's]")
@click.option("--model", metavar="MODEL", help="Take the model from here.  [default: where it was then]")
@options.latency_table
@options.of_field("--device", SetupSettings, DEVICE, "Run on auto, cpu, cuda or cuda:N.")
@where_trials_run
@click.option("--study", metavar="NAME", help="Give the study of the random ones this name.  [default: assess-NAME]")
@click.option("--storage", default=studies.STORAGE, show_default=True, metavar="URL", help="Keep studies here.")
@click.option("--resume", is_flag=True, help="Go on after any end, with every finished trial.")
@click.option(
    "--checklist", is_flag=True, help="Show the checklist for research, filled from what is stored; run nothing."
)
@click.option("--markdown", metavar="PATH", help="Write the report as Markdown; - is standard output.")
@click.option("--junit", metavar="PATH", help="Write the report as JUnit's XML; - is standard output.")
@options.with_output("Write the JSON report to PATH; - is standard output, as text unless --json.")
@options.part("settings", AssessSettings)
@options.part("running", Running)
@options.common
def command(
    name: str,
    settings: AssessSettings,
    running: Running,
    storage: str,
    resume: bool,
    checklist: bool,
    markdown: str | None,
    junit: str | None,
    output: str,
    out: Output,
) -> int:
    """Compare what was found with random architectures.

    RUN is the folder of a finished search or retraining, STUDY a study. Its architecture and N random ones of the same
    space, under the same constraints, are measured with the same inherited weights: its rank among them is an estimate.
    Then K of them are trained alone, in pairs with it. All are trials of studies, so that nothing finished is lost.
    With --checklist nothing runs: the checklist of Lindauer and Hutter (2020) is filled from what is stored.

    \b
    Examples:
      nnas assess runs/net-darts
      nnas assess runs/net-darts --random 200 --train 10 --seeds 5 --train-epochs 20 --resume
      nnas assess runs/net-darts --train 0 --fail-under 90 --junit assess.xml
      nnas assess net-bayes --markdown assess.md
      nnas assess runs/net-darts --checklist
    """
    _check_outputs(out, markdown, junit, output)
    if checklist:
        _write_checklist(_checklist(name, storage), markdown, output, out)
        return ExitCode.DONE
    running.check()
    if running.gpus:  # as for `nnas tune`: a worker sees one
        settings = replace(settings, device="cuda")
    report = _assessed(name, settings, running, storage, resume, out)
    _write(report, markdown, junit, output, out)
    return ExitCode.DONE if report.passed else ExitCode.CHECK_FAILED


def _check_outputs(out: Output, *paths: str | None) -> None:
    """Refuse what cannot be written, now and not after the last trial."""
    *others, output = paths
    if others.count("-") + (out.as_json and output == "-") > 1:
        raise UsageError("standard output can have one report", hint="give paths")
    files = [path for path in paths if path not in (None, "-")]
    if len({os.path.realpath(str(path)) for path in files}) < len(files):
        raise UsageError("several reports are to be written to one file", hint="give each a name of its own")
    for path in files:
        check_writable(str(path))


def _is_run(name: str, storage: str) -> bool:
    """Return true for a run folder, and false for what may be a study.

    Raises:
        InputError: it is neither.
    """
    if Path(name).is_dir():
        return True
    if Path(name).exists():
        raise InputError("is no run: a folder is needed", where=name, hint="see `nnas runs`")
    if storage == studies.STORAGE and not Path("nnas.db").exists():
        raise InputError("is neither a run folder nor a study", where=name, hint="see `nnas runs`, or give `storage`")
    return False


def _assessed(
    name: str, settings: AssessSettings, running: Running, storage: str, resume: bool, out: Output
) -> Assessment:
    """Measure what is missing, and compare."""
    is_run = _is_run(name, storage)
    out.announce(f"assessing {name}: loading what it is of")
    with without_collection():
        from nnas_cli.signals import StopRequest
        from nnas_core.study.storage.store import StudyStore
        from nnas_core.workflows.assess import assess
        from nnas_core.workflows.assessed import assessed_run, assessed_study

    stopping = StopRequest("run the command again with `resume` to go on")
    opened = StudyStore.open(storage, create=is_run and not resume, go_on="resume", late=True)
    with stopping as stop, opened as store:
        found = assessed_run(name, settings) if is_run else assessed_study(store, name, settings)
        _refuse_idle(found.measured, settings)
        means = _means(running, store, stop, out, found.measured == "command")
        return assess(settings, found, store, means, resume=resume)


def _refuse_idle(measured: str, settings: AssessSettings) -> None:
    """Refuse options that would do nothing for what is assessed."""
    if measured == "command":
        options.refuse_idle(("train", "seeds", "train_epochs", "model", "device"), "trials of a command")
        return
    options.refuse_idle(("linger",), "a model")
    if not settings.train:
        options.refuse_idle(("seeds", *(["train_epochs", "budget"] if measured == "inherited" else [])), "--train 0")


def _means(running: Running, store: StudyStore, stop: StopRequest, out: Output, is_command: bool) -> Means:
    """How trials run, and who is told."""
    from nnas_cli.bars import StudyProgress
    from nnas_cli.seeding import seed_globals
    from nnas_core.study.limits import Limits, RunSettings
    from nnas_core.workflows.assess_studies import Means

    def begin(study: str, trials: int) -> AbstractContextManager[RunSettings]:
        progress = StudyProgress(out, study, trials, studies.number if is_command else "{:.4f}".format)
        settings = RunSettings(limits=Limits(trials, concurrency=running.at_once), rules=running.rules)
        begun = partial(out.note, f"study {study}: {trials} architectures", fold=True)
        return progress.following(settings, stop, store, begun)

    needs_workers = is_command or running.needs_workers(None)
    return Means(
        begin,
        lambda study: running.local(study) if needs_workers else None,
        seed_globals,
        running.cluster,
    )


def _write(report: Assessment, markdown: str | None, junit: str | None, output: str, out: Output) -> None:
    from nnas_core.assessment import documents

    if markdown is not None:
        out.write(markdown, documents.markdown(report))
    if junit is not None:
        out.write(junit, documents.junit(report))
    if out.as_json or output != "-":
        out.report("assess-report", report.to_json(), output)
    elif "-" not in (markdown, junit):
        _show(report, out)


def _show(report: Assessment, out: Output) -> None:
    from nnas_cli.tables import folded
    from nnas_core.assessment.documents import OUTCOMES, heading, numbers

    out.answer(f"{printable(heading(report))}, against random ones\n\n")
    rows = [[one.name, OUTCOMES[one.outcome], one.text] for one in report.criteria]
    out.table(["criterion", "outcome", "what was measured"], rows, answer=True)
    out.answer("\n")
    out.table(
        [report.subject.metric or "value", report.subject.mode], [list(one) for one in numbers(report)], answer=True
    )
    out.answer(
        "".join(f"\n{printable(line)}" for note in report.notes for line in folded(f"- {note}", out.width())) + "\n"
    )


# ---- the checklist


def _checklist(name: str, storage: str) -> Checklist:
    """What is stored of a run or a study, item by item."""
    idle = {field.name for field in (*fields(AssessSettings), *fields(Running))} | {"resume", "junit"}
    options.refuse_idle(sorted(idle & set(click.get_current_context().params)), "--checklist")
    from nnas_core.workflows.run_checklist import run_checklist
    from nnas_core.workflows.study_checklist import study_checklist

    if not _is_run(name, storage):
        with studies.opened(storage) as store:
            return study_checklist(store, store.find(name))
    if storage == studies.STORAGE and not Path("nnas.db").exists():
        return run_checklist(name)
    with studies.opened(storage) as store:
        return run_checklist(name, store)


def _write_checklist(checklist: Checklist, markdown: str | None, output: str, out: Output) -> None:
    every = click.get_current_context().find_root().command  # items name options of other commands

    def spell(text: str) -> str:
        return with_options(text, every)

    if markdown is not None:
        out.write(markdown, checklist.markdown(spell))
    if out.as_json or output != "-":
        out.report("checklist-report", checklist.to_json(spell), output)
    elif markdown != "-":
        out.answer("".join(f"{printable(line)}\n" for line in checklist.lines(spell)))
