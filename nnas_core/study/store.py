"""All studies of one database: created, found, listed, and given to one owner at a time."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from sqlalchemy import Row, insert, make_url, select
from sqlalchemy.exc import ArgumentError, IntegrityError

from nnas_core import __version__
from nnas_core.architecture import Architecture
from nnas_core.errors import InputError, UsageError
from nnas_core.space import SearchSpace
from nnas_core.study import owner, sqlite, tables
from nnas_core.study.database import Database
from nnas_core.study.owned import OwnedStudy, acquire
from nnas_core.study.records import StudyRecord, StudySettings, TrialRecord

__all__ = ["DEFAULT_STORAGE", "StudyStore"]

DEFAULT_STORAGE = "sqlite:///nnas.db"


class StudyStore:
    """The studies of one database. Use ``StudyStore.open``; also a context manager that closes.

    Reading needs no ownership and never waits long; writing goes through ``acquire``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str = DEFAULT_STORAGE, *, create: bool = True, busy_timeout_s: float = 60.0) -> StudyStore:
        """Connect to a database and make sure that it is ours.

        Args:
            url: ``sqlite:///PATH``.
            create: make it if there is none.
            busy_timeout_s: how long to wait for other writers.

        Raises:
            UsageError: not such a URL.
            InputError: no such file, something else at that place, or a damaged or newer database.
            EnvironmentFailure: it cannot be reached or written.
        """
        return cls(sqlite.open_file(_file_of(url), create=create, busy_timeout_s=busy_timeout_s))

    @property
    def where(self) -> str:
        """The place, for messages."""
        return self._database.where

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- studies

    def create_study(self, settings: StudySettings) -> StudyRecord:
        """Store a new study without trials.

        Raises:
            UsageError: there is one of that name.
        """
        created = owner.now().isoformat(timespec="seconds")
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
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(tables.studies).values(row))
                number = connection.execute(
                    select(tables.studies.c.id).where(tables.studies.c.name == settings.name)
                ).scalar_one()
        except IntegrityError as error:
            raise UsageError(
                f"a study named {settings.name!r} exists already",
                where=self.where,
                hint="go on with it by --resume, or choose another --study name",
            ) from error
        return StudyRecord(number, settings, "created", created, __version__)

    def study(self, name: str) -> StudyRecord:
        """The study of that name.

        Raises:
            InputError: there is none, or its row is damaged.
        """
        with self._database.read() as connection:
            row = connection.execute(select(tables.studies).where(tables.studies.c.name == name)).first()
            names = [] if row else sorted(connection.execute(select(tables.studies.c.name)).scalars())
        if row is None:
            known = f"there are {', '.join(names[:10])}" + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"no study is named {name!r}", where=self.where, hint=known if names else "there are none yet"
            )
        return self._study_of(row)

    def studies(self) -> list[StudyRecord]:
        """All studies, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.studies).order_by(tables.studies.c.id)).all()
        return [self._study_of(row) for row in rows]

    def _study_of(self, row: Row[Any]) -> StudyRecord:
        space = SearchSpace.from_json(row.search_space, f"{self.where}: study {row.name!r}")
        if space.fingerprint != row.fingerprint:
            raise InputError("its search space was changed", where=f"{self.where}: study {row.name!r}")
        settings = StudySettings(
            name=row.name,
            space=space,
            tuner=row.tuner,
            tuner_args=row.tuner_args,
            seed=int(row.seed),
            optimize_mode=row.optimize_mode,
            config=row.config,
        )
        return StudyRecord(row.id, settings, row.state, row.created, row.nnas_version)

    # ---- trials

    def trials(self, study: StudyRecord, *, state: str | None = None) -> list[TrialRecord]:
        """All trials of a study, or those in one state, by number."""
        table = tables.trials
        query = select(table).where(table.c.study_id == study.id).order_by(table.c.number)
        if state is not None:
            query = query.where(table.c.state == state)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [_trial_of(row, study) for row in rows]

    def trial(self, study: StudyRecord, number: int) -> TrialRecord:
        """One trial.

        Raises:
            InputError: the study has no such trial.
        """
        table = tables.trials
        query = select(table).where(table.c.study_id == study.id, table.c.number == number)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise InputError(f"study {study.name!r} has no trial {number}", where=self.where)
        return _trial_of(row, study)

    def top(self, study: StudyRecord, count: int) -> list[TrialRecord]:
        """The best trials that succeeded, the best first; of equal ones the earlier."""
        table = tables.trials
        better = table.c.value.desc() if study.settings.optimize_mode == "maximize" else table.c.value.asc()
        query = (
            select(table)
            .where(table.c.study_id == study.id, table.c.state == "succeeded")
            .order_by(better, table.c.number)
            .limit(count)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [_trial_of(row, study) for row in rows]

    def best(self, study: StudyRecord) -> TrialRecord | None:
        """The best trial by the study's ``optimize_mode``; None while none succeeded."""
        found = self.top(study, 1)
        return found[0] if found else None

    def owner(self, study: StudyRecord) -> str | None:
        """Who works on the study (``process P on HOST since T``), or None."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.owners).where(tables.owners.c.study_id == study.id)).first()
        claim = None if row is None else owner.claim_of(row)
        return str(claim) if claim is not None and owner.is_alive(claim) else None

    def acquire(self, study: StudyRecord) -> OwnedStudy:
        """Become the owner of a study; what a dead owner left running waits again.

        Raises:
            EnvironmentFailure: another process owns it.
        """
        return acquire(self._database, study)


def _file_of(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError(
            f"storage {url!r} is not a database URL",
            hint="for a file give sqlite:///PATH, as in sqlite:///nnas.db",
        ) from error
    if parsed.get_backend_name() != "sqlite":
        raise UsageError(
            f"studies cannot be stored in {parsed.get_backend_name()!r} by this version",
            hint="give sqlite:///PATH",
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise UsageError(
            f"storage {url!r} does not name a file", hint="give sqlite:///PATH with nothing after the path"
        )
    return parsed.database


def _trial_of(row: Row[Any], study: StudyRecord) -> TrialRecord:
    return TrialRecord(
        number=row.number,
        state=row.state,
        attempt=row.attempt,
        architecture=Architecture.from_canonical(row.architecture, study.settings.space.choices),
        value=row.value,
        metrics=row.metrics,
        cost=row.cost,
        error=row.error,
        seconds=row.seconds,
        started=row.started,
        finished=row.finished,
    )
