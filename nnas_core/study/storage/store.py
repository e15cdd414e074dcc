"""All studies of one database: created, found, listed, and given to those who work on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError

from nnas_core import __version__
from nnas_core.errors import InputError, UsageError
from nnas_core.study import administration, importing, retrying
from nnas_core.study.administration import StudyStatus
from nnas_core.study.importing import GivenResult, ImportResult
from nnas_core.study.storage import leases, tables
from nnas_core.study.storage.database import Database, HowToOpen
from nnas_core.study.storage.exclusive import ExclusiveSession, acquire
from nnas_core.study.storage.place import Place
from nnas_core.study.storage.records import (
    LimitsDocument,
    StudyRecord,
    StudySettings,
    TrialRecord,
    composed,
    study_of,
    trial_of,
)
from nnas_core.study.storage.rows import Damage, change, note_strays, noting, sound_row
from nnas_core.study.storage.shared import SharedSession
from nnas_core.study.storage.trial_writer import read_intermediates

__all__ = ["DEFAULT_STORAGE", "StudyStore"]

DEFAULT_STORAGE = "sqlite:///nnas.db"


_Record = TypeVar("_Record", StudyRecord, TrialRecord)


class StudyStore:
    """The studies of one database. Use ``StudyStore.open``; also a context manager that closes.

    Reading needs no lease and never waits long; writing goes through a session, see ``acquire`` and ``join``.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    @classmethod
    def open(
        cls,
        url: str = DEFAULT_STORAGE,
        *,
        create: bool = True,
        busy_timeout_s: float = 60.0,
        go_on: str | None = "resume",
        late: bool = False,
    ) -> StudyStore:
        """Connects to a database and makes sure that it is ours.

        Args:
            url: ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.
            create: make it if there is none.
            busy_timeout_s: how long to wait for other writers.
            go_on: the parameter that hints name to go on after an error, see ``HowToOpen``.
            late: make a file when it is first used, so that work which cannot begin leaves none behind.

        Raises:
            UsageError: not such a URL, or its driver is not installed.
            InputError: no such file, something else at that place, or a damaged or newer database.
            EnvironmentFailure: it cannot be reached or written.
        """
        return cls(Place(url, HowToOpen(create, busy_timeout_s, go_on, late)))

    @property
    def _database(self) -> Database:
        return self._place.database

    @property
    def where(self) -> str:
        """Holds the place, for messages."""
        return self._database.where

    @property
    def is_made(self) -> bool:
        """Holds false while a database that is made late is not there: nothing is in it."""
        return self._place.is_made

    def close(self) -> None:
        """Gives the connections back."""
        self._place.close()

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- studies

    def create_study(self, settings: StudySettings) -> StudyRecord:
        """Stores a new study without trials.

        Raises:
            UsageError: there is one of that name.
        """
        created = leases.now().isoformat(timespec="seconds")
        row = {
            "name": settings.name,
            "state": "created",
            "search_space": settings.space.to_json(),
            "fingerprint": settings.space.fingerprint,
            "tuner": settings.tuner,
            "tuner_args": settings.tuner_args,
            "seed": str(settings.seed),
            "optimize_mode": settings.optimize_mode,
            "config": settings.config,
            "created": created,
            "nnas_version": __version__,
            "origin": settings.origin.to_json(),
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(tables.studies).values(row))
                made = connection.execute(select(tables.studies).where(tables.studies.c.name == settings.name)).one()
                change(connection, tables.studies, made, {})  # its checksum is of its number too
        except IntegrityError as error:
            raise UsageError(
                f"a study named {settings.name!r} exists already",
                where=self.where,
                hint="go on with it by `resume`, or choose another `study` name",
            ) from error
        return StudyRecord(made.id, settings, "created", created, __version__)

    def study(self, name: str) -> StudyRecord:
        """Returns the study of that name.

        Raises:
            InputError: there is none, or its row is damaged.
        """
        rows = [row for row in self._study_rows() if row.name == composed(name)]
        if not rows:
            names = sorted(str(row.name) for row in self._study_rows())
            known = f"there are {', '.join(names[:10])}" + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"no study is named {name!r}", where=self.where, hint=known if names else "there are none yet"
            )
        return self._study_of(rows[0])

    def studies(self, damage: Damage | None = None) -> list[StudyRecord]:
        """Returns all studies, the oldest first.

        Args:
            damage: gets what is wrong with those whose row is damaged, which are left out; None: that is an error.

        Raises:
            InputError: the row of one is damaged, and ``damage`` is not given.
        """
        with noting(self.where, damage) as noted:
            found = _sound_ones(self._study_of, self._study_rows(), noted)
            with self._database.read() as connection:
                note_strays(connection, noted)
            return found

    def _study_rows(self) -> Sequence[Row[Any]]:
        with self._database.read() as connection:
            return connection.execute(select(tables.studies).order_by(tables.studies.c.id)).all()

    def find(self, prefix: str | None, *, running: bool = False) -> StudyRecord:
        """Returns the study that a person means.

        Args:
            prefix: the name, or enough of its beginning; None: the only study.
            running: without a prefix, one that somebody works on comes before all others.

        Raises:
            InputError: there is none, or its row is damaged.
            UsageError: several are meant; they are listed.
        """
        rows = self._study_rows()
        if prefix == "":  # as of a shell's variable that is not set: the only study may not be the one that is meant
            raise UsageError("the name of the study is empty", hint="give it, or leave it out")
        if prefix is None:
            studies = self.studies(Damage(self.where)) if running else []
            at_work = {study.id for study in studies if self.in_use_by(study)}
            candidates, hint = [row for row in rows if row.id in at_work] or rows, "name one of them"
            what = "several studies are running" if at_work else "there are several studies"
            if not rows:
                raise InputError("there are no studies yet", where=self.where, hint="`nnas tune` makes one")
        else:
            prefix = composed(prefix)
            candidates = [row for row in rows if row.name == prefix]
            candidates = candidates or [row for row in rows if str(row.name).startswith(prefix)]
            what, hint = f"several studies begin with {prefix!r}", "give more of the name"
            if not candidates:
                return self.study(prefix)  # which says what there is
        if len(candidates) > 1:
            more = len(candidates) - 10
            names = [str(row.name) for row in candidates[:10]] + ([f"and {more} more"] if more > 0 else [])
            raise UsageError(what, where=self.where, problems=names, hint=hint)
        return self._study_of(candidates[0])

    def _study_of(self, row: Row[Any]) -> StudyRecord:
        """Returns the study in a row.

        Raises:
            InputError: it is damaged.
        """
        damage = Damage(self.where)
        good = sound_row(tables.studies, [row], None, self.where)
        try:
            return study_of(good)
        except (InputError, UsageError) as error:
            damage.add(f"study {row.name!r}", error.problems or [error.message])
            damage.refuse()
            raise

    # ---- trials

    def trials(
        self, study: StudyRecord, *, state: str | None = None, damage: Damage | None = None
    ) -> list[TrialRecord]:
        """Returns all trials of a study, or those in one state, by number.

        Args:
            study: which.
            state: one of ``TRIAL_STATES``.
            damage: gets what is wrong with those whose row is damaged, which are left out; None: that is an error.

        Raises:
            InputError: the row of one is damaged or missing, and ``damage`` is not given.
        """
        with noting(self.where, damage) as noted:
            with self._database.read() as connection:
                rows = administration.read_trials(connection, study, noted)
                by = administration.known_holders(self._database, connection, study, noted)
            chosen = [row for row in rows if state is None or administration.true_state(row, by) == state]
            return _sound_ones(lambda row: trial_of(row, study, administration.true_state(row, by)), chosen, noted)

    def trial(self, study: StudyRecord, number: int) -> TrialRecord:
        """Returns one trial.

        Raises:
            InputError: the study has no such trial, or its row is damaged.
        """
        table = tables.trials
        query = select(table).where(table.c.study_id == study.id, table.c.number == number)
        with self._database.read() as connection:
            row = sound_row(table, connection.execute(query).all(), study.name, self.where)
            by = leases.holders(self._database, connection, study)
        if row is None:
            raise InputError(f"study {study.name!r} has no trial {number}", where=self.where)
        return trial_of(row, study, administration.true_state(row, by))

    def top(self, study: StudyRecord, count: int, damage: Damage | None = None) -> list[TrialRecord]:
        """Returns the best trials that succeeded, the best first; of equal ones the earlier.

        Args:
            study: which.
            count: how many at most.
            damage: as for ``trials``.

        Raises:
            InputError: as for ``trials``.
        """
        with noting(self.where, damage) as noted:
            with self._database.read() as connection:
                rows = administration.read_trials(connection, study, noted)
            chosen = administration.best_first(rows, study)[:count]
            return _sound_ones(lambda row: trial_of(row, study), chosen, noted)

    def best(self, study: StudyRecord) -> TrialRecord | None:
        """Returns the best trial by the study's ``optimize_mode``; None while none succeeded.

        Raises:
            InputError: the row of a trial is damaged.
        """
        found = self.top(study, 1)
        return found[0] if found else None

    def intermediates(self, study: StudyRecord, damage: Damage | None = None) -> dict[int, list[float]]:
        """Returns what the last attempt of each trial reported on its way, by the trial's number.

        Args:
            study: which.
            damage: as for ``trials``.

        Raises:
            InputError: as for ``trials``.
        """
        with noting(self.where, damage) as noted, self._database.read() as connection:
            return read_intermediates(connection, study, noted)

    # ---- from outside, see administration.py, importing.py and retrying.py

    def status(self, study: StudyRecord, damage: Damage | None = None) -> StudyStatus:
        """Returns how far a study is.

        Args:
            study: which.
            damage: as for ``trials``; those that are left out do not count.

        Raises:
            InputError: as for ``trials``, or the row of the study or its lease is damaged.
            EnvironmentFailure: it was deleted meanwhile.
        """
        with noting(self.where, damage) as noted:
            return administration.read_status(self._database, study, noted)

    def request_stop(self, study: StudyRecord) -> bool:
        """Asks who runs the study to end; false if nobody does."""
        return administration.request_stop(self._database, study)

    def request_kill(self, study: StudyRecord, number: int) -> str | None:
        """Asks the process that evaluates a trial to end it; returns the trial's state if it does not run.

        Raises:
            InputError: the study has no such trial.
        """
        return administration.request_kill(self._database, study, number)

    def retry(self, study: StudyRecord, numbers: Sequence[int] = ()) -> list[int]:
        """Lets trials that failed, all or some, wait for the next run; returns their numbers.

        Raises:
            InputError: one of them has not failed.
            EnvironmentFailure: somebody works on the study.
        """
        return retrying.retry_trials(self._database, study, numbers)

    def update_limits(self, study: StudyRecord, changes: Mapping[str, float | None]) -> LimitsDocument | None:
        """Changes ``trials``, ``duration_s`` or ``concurrency`` of a running study; see ``administration``.

        Returns:
            All limits as they are now, or None if nobody runs the study.

        Raises:
            UsageError: nothing to change, or a limit that is not positive.
        """
        return administration.update_limits(self._database, study, changes)

    def import_results(self, study: StudyRecord, results: list[GivenResult]) -> ImportResult:
        """Adds trials of elsewhere, which the tuner will learn from; all of them or none.

        Raises:
            EnvironmentFailure: somebody works on the study.
        """
        return importing.import_results(self._database, study, results)

    def delete_study(self, study: StudyRecord) -> None:
        """Deletes a study and its trials, for good.

        Raises:
            EnvironmentFailure: somebody works on it.
        """
        administration.delete_study(self._database, study)

    # ---- sessions

    def in_use_by(self, study: StudyRecord) -> str | None:
        """Returns who works on the study (``process P on HOST since T``, and how many others), or None."""
        return self.holders(study).who

    def holders(self, study: StudyRecord) -> leases.Holders:
        """Returns the processes that work on the study."""
        with self._database.read() as connection:
            return leases.holders(self._database, connection, study)

    def acquire(self, study: StudyRecord) -> ExclusiveSession:
        """Begins to work on a study alone; what a dead process left running waits again.

        Raises:
            EnvironmentFailure: another process works on it.
        """
        return acquire(self._database, study)

    def join(self, study: StudyRecord, term: timedelta = leases.TERM) -> SharedSession:
        """Begins to work on a study beside others, with the first transaction of the session."""
        return SharedSession(self._database, study, term)


def _sound_ones(made: Callable[[Row[Any]], _Record], rows: Sequence[Row[Any]], damage: Damage) -> list[_Record]:
    """Returns what is made of rows; those that it cannot be made of are named in ``damage``."""
    found = []
    for row in rows:
        try:
            found.append(made(row))
        except InputError as error:
            damage.add_error(error)
    return found
