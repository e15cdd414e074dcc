"""Files of every older version are opened, brought up to date, and kept as they were."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure, NnasWarning
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage import tables
from nnas_core.study.storage.leases import new_lease
from nnas_core.study.storage.migrations import STEPS
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs

ZOO = Path(__file__).parent / "old_databases"

VERSIONS = sorted(int(file.stem[1:]) for file in ZOO.glob("v*.db"))


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Names, nullability and keys of the columns of all tables, in no order."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted((row[1], row[3], row[5]) for row in connection.execute(f"PRAGMA table_info({table})"))
            for table in sorted(names)
        }


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of an older version: 40 trials were asked for, and a kill -9 came in trial 30."""
    return shutil.copy(ZOO / f"v{request.param}.db", tmp_path / "nnas.db")


def test_there_is_a_file_and_a_step_for_every_older_version() -> None:
    assert VERSIONS == sorted(STEPS) == list(range(1, tables.VERSION))


def test_it_has_the_tables_of_a_new_file_afterwards(old: Path, tmp_path: Path) -> None:
    with pytest.warns(NnasWarning, match="was made by an older nnas"):
        StudyStore.open(f"sqlite:///{old}").close()
    StudyStore.open(f"sqlite:///{tmp_path}/new.db").close()
    assert columns(old) == columns(tmp_path / "new.db")


def test_the_file_as_it_was_stays_beside_it(old: Path) -> None:
    before = columns(old)
    with pytest.warns(NnasWarning, match=r"the file as it was is kept as nnas\.db\.version\d+$"):
        StudyStore.open(f"sqlite:///{old}").close()
    (copy,) = old.parent.glob("nnas.db.version*")
    assert columns(copy) == before
    StudyStore.open(f"sqlite:///{old}").close()  # and there is nothing to do, and to say, the next time


def test_a_study_goes_on_as_if_nothing_had_happened(old: Path, tmp_path: Path) -> None:
    with pytest.warns(NnasWarning, match="older nnas"):
        StudyStore.open(f"sqlite:///{old}").close()
    with StudyStore.open(f"sqlite:///{old}") as store:
        study = store.study("study")
        result = run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=40),
        )
        found = study_programs.history(store)
    assert result.recovered == 1
    with StudyStore.open(f"sqlite:///{tmp_path}/whole.db") as store:
        study = store.create_study(study_programs.settings())
        run_study(
            store,
            study,
            study_programs.tuner_of(study),
            study_programs.evaluate,
            study_programs.run_settings(trials=40),
        )
        assert found == study_programs.history(store)


def test_a_file_that_an_older_nnas_works_on_is_left_to_it(old: Path) -> None:
    claim = new_lease().row()
    with closing(sqlite3.connect(old)) as connection, connection:
        assignments = ", ".join(f"{name} = :{name}" for name in claim)
        connection.execute(f"UPDATE owners SET {assignments}", claim)
    before = old.read_bytes()
    message = rf"^{re.escape(str(old))}: an older nnas works on it, process \d+ on .* since "
    with pytest.raises(EnvironmentFailure, match=message):
        StudyStore.open(f"sqlite:///{old}")
    assert old.read_bytes() == before
    assert [file.name for file in old.parent.iterdir()] == ["nnas.db"]
