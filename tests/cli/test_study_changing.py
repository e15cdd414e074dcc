"""``nnas study stop``, ``update``, ``delete`` and ``backup``: what they do, and what they refuse."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nnas_core.execution.engine import TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study import limits
from nnas_core.study.coordinator import run_study
from nnas_core.study.opening import create_study
from nnas_core.study.storage import leases
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, ForkServer
from tests.study import study_programs
from tests.study.known_studies import make
from tests.study.test_exclusive_session import change_owner

URL = "sqlite:///nnas.db"


@pytest.fixture
def store(nnas: Cli) -> Iterator[StudyStore]:
    """The default storage, with one study, ``first``."""
    with StudyStore.open(URL) as opened:
        make(opened)
        yield opened


def asked(store: StudyStore) -> bool:
    """Whether the study was asked to stop."""
    return store.status(store.study("first")).stop_requested


# ---- stop


def test_stop_asks_the_owner(nnas: Cli, store: StudyStore) -> None:
    with store.acquire(store.study("first")) as session:
        assert not asked(store)
        result = nnas("study", "stop")
        assert (result.code, result.out, result.err) == (0, "study 'first' was asked to stop\n", "")
        assert asked(store)
        assert session.read_control().stop
        assert "\nasked         to stop\n" in nnas.ok("study", "show").out
        assert nnas.ok("study", "top").out.startswith("first: stopping; ")


def test_stop_says_that_nobody_was_heard_of(nnas: Cli, store: StudyStore) -> None:
    with store.acquire(store.study("first")):
        expires = (leases.now() + timedelta(seconds=30)).isoformat(timespec="milliseconds")
        change_owner(store, host="pod-a", expires=expires)
        result = nnas("study", "stop")
        assert result.out.startswith("study 'first' was asked to stop; its process was heard of 30 s ago, and given up")
        assert nnas.ok("study", "stop", "--json").json["silent"].startswith("heard of 30 s ago")
        assert "\nsilent        heard of 30 s ago, and given up at " in nnas.ok("study", "show").out
        change_owner(store, expires="2020-01-01T00:00:00+00:00")
        result = nnas("study", "stop")
        assert (result.code, result.out) == (1, "study 'first' is not running: it is interrupted\n")


def test_stop_of_a_study_that_does_not_run_says_no(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "stop", "first")
    assert (result.code, result.out, result.err) == (1, "study 'first' is not running: it is finished\n", "")
    result = nnas("study", "stop", "first", "--json")
    assert (result.code, result.json["asked"], result.json["state"]) == (1, False, "finished")
    with store.acquire(store.study("first")):
        assert not asked(store)


def test_stop_can_wait_for_the_end(nnas: Cli, store: StudyStore) -> None:
    ready = threading.Event()

    def run() -> None:
        with StudyStore.open(URL) as mine, mine.acquire(mine.study("first")) as session:
            ready.set()
            while not session.read_control().stop:
                pass
            session.release("interrupted")

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    result = nnas("study", "stop", "--wait")
    thread.join(30)
    assert (result.code, result.out, result.err) == (0, "study 'first' has stopped\n", "")
    assert store.study("first").state == "interrupted"


def test_a_study_that_runs_ends_where_it_is_stopped_and_begins_again(
    nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.0)
    calls: list[Architecture] = []

    def evaluate(architecture: Architecture) -> TrialResult:
        calls.append(architecture)
        if len(calls) == 3:
            nnas.ok("study", "stop")
        return study_programs.evaluate(architecture)

    with StudyStore.open(URL) as store:
        study = create_study(store, study_programs.settings("random"))
        result = run_study(store, study, study_programs.tuner_of(study), evaluate)
        assert (result.reason, result.finished) == ("stopped", 3)
        assert store.study("study").state == "interrupted"
        assert (
            run_study(
                store,
                study,
                study_programs.tuner_of(study),
                study_programs.evaluate,
                study_programs.run_settings(trials=5),
            ).reason
            == "trials"
        )


# ---- update


@pytest.mark.parametrize(
    ("options", "limits", "said"),
    [
        (("--trials", 9), {"trials": 9, "duration_s": None, "concurrency": 1}, "9 trials, any time, 1 at once"),
        (("--duration", "3h"), {"trials": 4, "duration_s": 10800.0, "concurrency": 1}, "4 trials, 3.0 h, 1 at once"),
        (
            ("--trials", "none", "--duration", 90, "--concurrency", 2),
            {"trials": None, "duration_s": 90.0, "concurrency": 2},
            "any number of trials, 90 s, 2 at once",
        ),
    ],
)
def test_update_changes_what_is_given(
    nnas: Cli, store: StudyStore, options: tuple[Any, ...], limits: dict[str, Any], said: str
) -> None:
    with store.acquire(store.study("first")) as session:
        result = nnas("study", "update", *options)
        assert (result.code, result.out, result.err) == (0, f"study 'first': {said}\n", "")
        assert session.read_control().limits == limits
        assert nnas.ok("study", "update", *options, "--json").json == {
            "format": "nnas.study-update-report/1",
            "study": "first",
            "state": "running",
            "limits": limits,
        }


def test_a_study_that_runs_heeds_an_update(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.0)

    def evaluate(architecture: Architecture) -> TrialResult:
        nnas.ok("study", "update", "--trials", 4)
        return study_programs.evaluate(architecture)

    with StudyStore.open(URL) as store:
        study = create_study(store, study_programs.settings("random"))
        result = run_study(
            store, study, study_programs.tuner_of(study), evaluate, study_programs.run_settings(trials=50)
        )
    assert (result.reason, result.finished) == ("trials", 4)


def test_update_of_a_study_that_does_not_run_says_no(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "update", "--trials", 9)
    assert (result.code, result.out, result.err) == (1, "study 'first' is not running: it is finished\n", "")
    assert store.status(store.study("first")).limits["trials"] == 4


def test_update_needs_something_to_change(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "update")
    assert (result.code, result.out) == (2, "")
    assert result.err == ("nnas: error: there is nothing to change\nhint: give --trials, --duration or --concurrency\n")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--trials", 0, "invalid value for '--trials': 0 is not in the range x>=1"),
        ("--trials", "many", "invalid value for '--trials': 'many' is not a valid integer range"),
        ("--duration", "soon", "invalid value for '--duration': 'soon' is no duration; give 90s, 30m, 2h or 1d"),
        ("--concurrency", "none", "invalid value for '--concurrency': 'none' is not a valid integer range"),
    ],
)
def test_update_refuses_what_is_no_limit(nnas: Cli, store: StudyStore, option: str, value: object, said: str) -> None:
    result = nnas("study", "update", option, value)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: {said}\nhint: see `nnas study update --help`\n"


# ---- delete


def test_delete_needs_yes(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "delete", "first")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: nnas.db: study 'first' and its 4 finished trials would be lost\n"
        "hint: give --yes if you mean it; `nnas study backup` makes a copy before\n"
    )
    assert len(store.trials(store.study("first"))) == 4


def test_delete_takes_one_study_and_leaves_the_others(nnas: Cli, store: StudyStore) -> None:
    kept = make(store, "second", intermediate=True)
    trials, reported = store.trials(kept), store.intermediates(kept)
    make(store, "third", intermediate=True)
    for name in ("first", "third"):
        result = nnas("study", "delete", name, "--yes")
        assert (result.code, result.out, result.err) == (0, f"deleted study {name!r} and its 4 finished trials\n", "")
    assert [study.name for study in store.studies()] == ["second"]
    assert (store.trials(kept), store.intermediates(kept)) == (trials, reported)
    with sqlite3.connect("nnas.db") as connection:
        for table in ("trials", "intermediates", "owners", "repeats"):
            ids = connection.execute(f"SELECT DISTINCT study_id FROM {table}").fetchall()
            assert ids in ([], [(kept.id,)])
    make(store, "first")  # the name is free again


def test_a_study_that_runs_is_not_deleted(nnas: Cli, store: StudyStore) -> None:
    study = store.study("first")
    with store.acquire(study):
        result = nnas("study", "delete", "--yes")
        assert (result.code, result.out) == (6, "")
        error, hint = result.err.splitlines()
        assert error.startswith(
            f"nnas: error: nnas.db: study 'first' is in use by {store.in_use_by(study)}, heard of 0 s ago, and given up"
        )
        assert hint == "hint: wait until it has ended, or end it by `nnas study stop first`"
    assert len(store.trials(study)) == 4


# ---- backup


def test_backup_copies_all_studies_also_while_one_runs(nnas: Cli, store: StudyStore) -> None:
    make(store, "second")
    with store.acquire(store.study("first")):
        result = nnas("study", "backup", "-o", "copy.db")
    assert (result.code, result.out, result.err) == (0, "", "wrote copy.db (2 studies)\n")
    with StudyStore.open("sqlite:///copy.db", create=False) as copy:
        for study in copy.studies():
            assert copy.trials(study) == store.trials(store.study(study.name))
    assert sorted(path.name for path in Path().iterdir()) == ["copy.db", "nnas.db"]


def test_backup_as_json_tells_what_was_written(nnas: Cli, store: StudyStore) -> None:
    document = nnas.ok("study", "backup", "-o", "copy.db", "--json").json
    facts = {"file": "copy.db", "studies": 1, "bytes": Path("copy.db").stat().st_size}
    assert document == {"format": "nnas.study-backup-report/1", **facts}


def test_backup_replaces_a_file_only_by_force(nnas: Cli, store: StudyStore) -> None:
    Path("copy.db").write_text("precious")
    result = nnas("study", "backup", "-o", "copy.db")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: copy.db: exists already\nhint: choose another name, or give --force to replace it\n"
    )
    assert Path("copy.db").read_text() == "precious"
    nnas.ok("study", "backup", "-o", "copy.db", "--force")
    with StudyStore.open("sqlite:///copy.db", create=False) as copy:
        assert [study.name for study in copy.studies()] == ["first"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--output is missing\nhint: give it, or a --config that has it\n"),
        (("-o", "-"), "-o is a file here, not standard output\n"),
        (
            ("-o", "nnas.db", "--force"),
            "nnas.db: this is the database itself\nhint: choose another name for the copy\n",
        ),
    ],
)
def test_backup_needs_another_file(nnas: Cli, store: StudyStore, options: tuple[str, ...], message: str) -> None:
    before = Path("nnas.db").read_bytes()
    result = nnas("study", "backup", *options)
    assert (result.code, result.out, result.err) == (2, "", f"nnas: error: {message}")
    assert Path("nnas.db").read_bytes() == before


def test_backup_into_no_folder_is_the_environments_fault(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "backup", "-o", "none/copy.db")
    assert (result.code, result.out) == (6, "")
    assert result.err == (
        "nnas: error: none/copy.db: cannot create: no such directory\nhint: create the directory first\n"
    )


def test_backup_on_a_full_disk_leaves_nothing(nnas: Cli, store: StudyStore, forks: ForkServer, tmp_path: Path) -> None:
    result = forks.run(tmp_path, "study", "backup", "-o", "copy.db", file_limit=20_000)
    assert (result.code, result.out) == (6, "")
    assert result.err.startswith("nnas: error: copy.db: cannot copy nnas.db: ")
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "." or "copy" in path.name] == ["nnas.db"]
