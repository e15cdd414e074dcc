"""Shared by the commands of ``nnas study``: which study, where, and how it looks on one line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click

from nnas_cli.architectures import in_words, shorter
from nnas_cli.trial_numbers import number_columns
from nnas_core.errors import UsageError

if TYPE_CHECKING:
    from nnas_cli.output import Output
    from nnas_cli.tables import Table
    from nnas_core.space.architecture import Architecture
    from nnas_core.study.administration import StudyStatus
    from nnas_core.study.storage.records import StudyRecord, TrialRecord
    from nnas_core.study.storage.rows import Damage
    from nnas_core.study.storage.store import StudyStore

__all__ = [
    "STORAGE",
    "answer",
    "best_of",
    "first_line",
    "limits_in_words",
    "metrics_in_words",
    "newest_table",
    "number",
    "of_a_study",
    "of_a_trial",
    "of_trials",
    "opened",
    "part_of",
    "span",
    "storage",
    "the_rest",
    "trial_table",
]

STORAGE = "sqlite:///nnas.db"
"""The storage of studies, if nothing else is said."""

_MOST_DIGITS = 9
"""Digits of the number of a trial."""

_BEST = 5
"""Trials that a table tells apart, if it has no room for whole architectures."""

F = TypeVar("F", bound=Callable[..., object])


def storage(function: F) -> F:
    """The ``--storage`` option."""
    return click.option("--storage", default=STORAGE, show_default=True, metavar="URL", help="Look for studies here.")(
        function
    )


def of_a_study(*, running: bool = False) -> Callable[[F], F]:
    """The STUDY argument and ``--storage``; the function gets an open ``store`` and the ``study`` instead.

    Args:
        running: without STUDY, the one that somebody works on is meant.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(study: str | None, storage: str, **values: object) -> object:
            with opened(storage) as store:
                return function(store=store, study=store.find(study, running=running), **values)

        return click.argument("study", metavar="STUDY", required=False)(storage(wrapped))  # type: ignore[return-value]

    return decorate


def of_a_trial(function: F) -> F:
    """The arguments ``[STUDY] N`` and ``--storage``; the function gets ``store``, ``study`` and ``number``."""

    @functools.wraps(function)
    def wrapped(words: tuple[str, ...], storage: str, **values: object) -> object:
        *name, number = words
        if len(name) > 1 or not _is_number(number):
            raise UsageError(f"{' '.join(words)[:200]}: no number of a trial", hint="give [STUDY] N, as in 7 or NAME 7")
        with opened(storage) as store:
            study = store.find(name[0] if name else None, running=True)
            return function(store=store, study=study, number=int(number), **values)

    return _with_words("[STUDY] N", required=True)(wrapped)  # type: ignore[return-value]


def of_trials(function: F) -> F:
    """The arguments ``[STUDY] [N]...`` and ``--storage``; the function gets ``store``, ``study`` and ``numbers``."""

    @functools.wraps(function)
    def wrapped(words: tuple[str, ...], storage: str, **values: object) -> object:
        from nnas_core.study.storage.rows import Damage  # late: as below

        with opened(storage) as store:
            named = bool(words) and (
                not words[0].isdecimal() or words[0] in {one.name for one in store.studies(Damage(store.where))}
            )
            numbers = words[named:]
            wrong = [word for word in numbers if not _is_number(word)]
            if wrong:
                raise UsageError(
                    f"{wrong[0][:200]!r} is no number of a trial", hint="give [STUDY] [N]..., as in NAME 3 7"
                )
            study = store.find(words[0] if named else None)
            return function(store=store, study=study, numbers=tuple(map(int, numbers)), **values)

    return _with_words("[STUDY] [N]...", required=False)(wrapped)  # type: ignore[return-value]


def _is_number(word: str) -> bool:
    """Return true for what may be the number of a trial; databases count no further."""
    return word.isdecimal() and len(word) <= _MOST_DIGITS


def _with_words(metavar: str, *, required: bool) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        return click.argument("words", metavar=metavar, nargs=-1, required=required)(storage(function))

    return decorate


@contextmanager
def opened(url: str) -> Iterator[StudyStore]:
    """The store at ``url``, which must be there."""
    from nnas_core.study.storage.store import StudyStore  # late: help needs no SQLAlchemy

    with StudyStore.open(url, create=False, go_on=None) as store:
        yield store


@contextmanager
def the_rest(store: StudyStore, out: Output, output: str = "-") -> Iterator[Damage | None]:
    """What is sound is shown, and then the rows are named that are not; a document is whole, or it is refused.

    Args:
        store: is read in the block.
        out: asks for a document, perhaps.
        output: so does the name of a file, which stays as it is then.
    """
    from nnas_core.study.storage.rows import Damage  # late: as above

    damage = Damage(store.where)
    yield None if out.as_json or output != "-" else damage
    damage.refuse()


def answer(out: Output, output: str, kind: str, document: Mapping[str, object], text: str) -> None:
    """Answer with ``text``, or with the report of a kind where ``--json`` or a file asks for it."""
    if out.as_json or output != "-":
        out.report(kind, document, output)
    else:
        out.answer(text)


# ---- in words


def number(value: float | None) -> str:
    """A value in a table."""
    return "-" if value is None else f"{value:.6g}"


def span(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3.5 h``: about how long."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def limits_in_words(status: StudyStatus) -> str:
    """``100 trials, 2 h, 1 at once``."""
    trials, duration = status.limits["trials"], status.limits["duration_s"]
    concurrency = status.limits["concurrency"] or 1
    counted = "any number of trials" if trials is None else f"{trials} trials"
    return f"{counted}, {'any time' if duration is None else span(duration)}, {concurrency} at once"


def metrics_in_words(metrics: Mapping[str, float], measured_on: str | None) -> str:
    """``accuracy 0.9312``, and of test data that too; the loss only where there is nothing else."""
    told = {name: value for name, value in metrics.items() if name != "loss"} or metrics
    words = ", ".join(f"{name} {number(value)}" for name, value in told.items())
    return f"{measured_on} {words}" if words and measured_on == "test" else words or "-"


def part_of(done: int, wanted: int | None) -> str:
    """``3/20``."""
    return str(done) if wanted is None else f"{done}/{wanted}"


def trial_table(trials: Sequence[TrialRecord], study: StudyRecord) -> Table:
    """A line for each trial; in a small width, the keys in which the best of them differ.

    Why a trial failed stands there only where one did.
    """
    from nnas_cli.tables import Shorter, Table, cut  # late: as above

    errors = [first_line(trial.error or "") for trial in trials]
    named = any(errors)
    titles, numbers, missed = number_columns(trials, study.settings)
    rows = [
        [*_measured(trial), *own, in_words(trial.architecture), *([error] if named else [])]
        for trial, own, error in zip(trials, numbers, errors, strict=True)
    ]
    short = {
        "architecture": shorter([trial.architecture for trial in trials], best_of(trials, study)),
        "error": Shorter(lambda width: [cut(error, width) for error in errors], "its beginning"),
    }
    columns = [*_MEASURED, *titles, "architecture", *(["error"] if named else [])]
    return Table(columns, rows, short, ["seconds", *missed])


def newest_table(trials: Sequence[TrialRecord], study: StudyRecord, now: datetime) -> Table:
    """A line for each trial, where those that failed say why; of a running one, the time that it has run until now."""
    from nnas_cli.tables import Shorter, Table, cut  # late: as above

    failed = [first_line(trial.error or "") for trial in trials]
    titles, numbers, missed = number_columns(trials, study.settings)
    rows = [
        [*_measured(trial, now), *own, error or in_words(trial.architecture)]
        for trial, own, error in zip(trials, numbers, failed, strict=True)
    ]
    short = shorter(
        [None if error else trial.architecture for trial, error in zip(trials, failed, strict=True)],
        best_of(trials, study),
    )

    def cells(width: int) -> list[str]:
        return [cut(error, width) or cell for error, cell in zip(failed, short.cells(width), strict=True)]

    column = "architecture, or why it failed" if any(failed) else "architecture"
    return Table([*_MEASURED, *titles, column], rows, {column: Shorter(cells, short.how)}, ["seconds", *missed])


_MEASURED = ("trial", "state", "value", "seconds")


def _measured(trial: TrialRecord, now: datetime | None = None) -> list[str]:
    seconds = trial.seconds
    if now is not None and trial.state == "running" and trial.started is not None:
        seconds = max(0.0, (now - datetime.fromisoformat(trial.started)).total_seconds())
    state = trial.state if trial.feasible else "infeasible"
    return [str(trial.number), state, number(trial.value), "-" if seconds is None else f"{seconds:.2f}"]


def best_of(trials: Iterable[TrialRecord], study: StudyRecord) -> list[Architecture]:
    """The architectures of the best of the trials."""
    sign = -1 if study.settings.optimize_mode == "maximize" else 1
    good = [(sign * trial.value, trial.number, trial) for trial in trials if trial.value is not None and trial.feasible]
    return [trial.architecture for _, _, trial in sorted(good, key=lambda one: one[:2])[:_BEST]]


def first_line(text: str) -> str:
    """The first line of an error."""
    return text.split("\n")[0]
