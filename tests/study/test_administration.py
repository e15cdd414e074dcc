"""What is done with studies from outside: refusals that commands do not reach, copies, and CSV."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure, InputError, UsageError
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.csv_results import results_csv
from nnas_core.study.exporting import write_optuna_study
from nnas_core.study.storage.backup import back_up
from nnas_core.study.storage.store import StudyStore
from tests.study.known_studies import make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "there is nothing to change"),
        ({"speed": 3}, "no limit is named 'speed'"),
        ({"concurrency": None}, "the concurrency must be a number"),
        ({"trials": 0}, "trials must be positive, not 0"),
        ({"duration_s": float("nan")}, "duration_s must be positive, not nan"),
    ],
)
def test_limits_that_are_none_are_refused(store: StudyStore, changes: dict[str, float], message: str) -> None:
    study = make(store)
    with store.acquire(study) as session:
        before = session.read_control()
        with pytest.raises(UsageError, match=message):
            store.update_limits(study, changes)
        assert session.read_control() == before


def test_a_study_that_was_deleted_has_no_status(store: StudyStore) -> None:
    study = make(store)
    store.delete_study(study)
    with pytest.raises(EnvironmentFailure, match="study 'first' was deleted meanwhile"):
        store.status(study)


def test_only_sqlite_is_backed_up_and_the_password_is_not_shown() -> None:
    with pytest.raises(UsageError, match="only SQLite files are backed up here") as caught:
        back_up("postgresql+psycopg://me:secret@host/db", "copy.db")
    assert "secret" not in str(caught.value)
    assert caught.value.hint == "of a PostgreSQL database make a copy by pg_dump"


def test_a_damaged_database_is_not_copied(store: StudyStore, url: str, tmp_path: Path) -> None:
    make(store, values=tuple(range(12)))
    store.close()
    file = Path(url.removeprefix("sqlite:///"))
    with sqlite3.connect(file) as connection:  # an index that does not agree with its table
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'value)', 'seconds)') WHERE name='trials_by_value'"
        )
    with pytest.raises(InputError, match=r"the study database is damaged \(.+\); no copy was made"):
        back_up(url, str(tmp_path / "copy.db"))
    assert not list(tmp_path.glob("*copy*"))


def test_the_columns_of_csv_have_distinct_names(store: StudyStore) -> None:
    keys = ("id", "reward", "accuracy")
    space = SearchSpace.from_json({key: {"_type": "layer_choice", "_value": ["a", "b"]} for key in keys})
    study = make(store, values=(0.5,), space=space)
    header = results_csv(store.trials(study), space).splitlines()[0]
    assert header == "id,accuracy,id_2,reward,reward_2,accuracy_2,loss,parameters"


def test_without_optuna_the_extra_is_named(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    study = make(store)
    with pytest.raises(UsageError, match="Optuna is not installed") as caught:
        write_optuna_study("sqlite:///x.db", study, store.trials(study), {}, storage="sqlite:///nnas.db")
    assert caught.value.hint == "pip install 'nnas[optuna]'"
