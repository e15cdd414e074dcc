"""``nnas study`` and a database with a row that nobody of ours wrote: it is named, the rest is shown, exit code 3."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.viewing.studies import view_study
from tests.cli_support import Cli, Result
from tests.study.known_studies import make

NAMED = "study 'first', trial 1: value: 'abc', expected a finite number or NULL"

ERROR = f"""\
nnas: error: nnas.db: the study database is damaged: rows are not as they were written
  {NAMED}
hint: restore a copy of it; what is sound `nnas study export` writes, for a study in another file
"""


def spoil(statement: str, *values: object) -> None:
    """Write to the default storage."""
    with closing(sqlite3.connect("nnas.db")) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture
def damaged(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The default storage has two studies; a trial of the first has a text for a value. Tables have room."""
    monkeypatch.setenv("COLUMNS", "200")
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store)
        make(store, "second")
    spoil("UPDATE trials SET value = 'abc' WHERE number = 1 AND study_id = 1")
    return nnas


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("list",), lambda out: "first" in out and "second" in out and "0.75" in out),
        (("show", "first"), lambda out: " 3 (1 failed, 0 stopped early)\n" in out and " 0.5 (trial 0)\n" in out),
        (("trials", "first"), lambda out: [line.split()[0] for line in out.splitlines()[2:]] == ["0", "2", "3"]),
        (("top", "first"), lambda out: out.startswith("first: finished; 3/4 finished, 1 failed")),
        (("export", "first"), lambda out: [one["id"] for one in json.loads(out)] == ["0", "3"]),
        (("export", "first", "--format", "csv", "--best", "1"), lambda out: ",0.5," in out and "0.75" not in out),
    ],
)
def test_a_damaged_row_is_named_and_the_rest_is_shown(
    damaged: Cli, arguments: tuple[str, ...], shown: Callable[[str], bool]
) -> None:
    result = damaged("study", *arguments)
    assert (result.code, result.err) == (3, ERROR)
    assert shown(result.out), result.out


VERBS = [("list",), ("show", "first"), ("trials", "first"), ("top", "first")]


@pytest.mark.parametrize("verb", [*VERBS, ("export", "first"), ("export", "first", "--as-architecture")])
def test_a_document_is_whole_or_refused(damaged: Cli, verb: tuple[str, ...]) -> None:
    result = damaged("study", *verb, "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["problems"] == [NAMED]


@pytest.mark.parametrize("verb", VERBS)
def test_a_document_that_is_refused_leaves_the_old_file(damaged: Cli, verb: tuple[str, ...]) -> None:
    Path("old.json").write_text("old")
    assert damaged("study", *verb, "-o", "old.json") == Result(3, "", ERROR)
    assert Path("old.json").read_text() == "old"


def test_a_view_shows_what_is_sound_and_is_refused_as_a_document(damaged: Cli) -> None:
    view = ("view", "--study", "first", "--storage", "sqlite:///nnas.db")
    shown = damaged(*view)
    assert (shown.code, shown.err) == (3, ERROR)
    assert f"{NAMED}: left out" in shown.out
    page = damaged(*view, "--html", "page.html")
    assert (page.code, page.out, page.err) == (3, "", f"wrote page.html\n{ERROR}")
    assert "left out" in Path("page.html").read_text()
    document = damaged(*view, "--html", "other.html", "--json")
    assert (document.code, document.out) == (3, "")
    assert json.loads(document.err)["error"]["problems"] == [NAMED]
    assert not Path("other.html").exists()
    assert damaged("view", "--study", "second", "--json").code == 0
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        view = view_study(store, store.study("first"), (), Damage(store.where))
    assert f"{NAMED}: left out" in view.notes
    assert view.trials is not None
    assert view.trials.count == 3


def test_what_is_sound_is_exported_to_a_file(damaged: Cli) -> None:
    assert damaged("study", "export", "first", "-o", "rest.json") == Result(3, "", f"wrote rest.json\n{ERROR}")
    assert [one["id"] for one in json.loads(Path("rest.json").read_text())] == ["0", "3"]


@pytest.mark.parametrize("verb", ["show second", "trials second", "export second", "log first 0"])
def test_other_rows_are_read_as_ever(damaged: Cli, verb: str) -> None:
    result = damaged("study", *verb.split())
    assert "damaged" not in result.err
    assert result.code == 0 or "has no log" in result.err


@pytest.mark.parametrize("verb", [("log", "first", "1"), ("kill", "first", "1"), ("retry", "first")])
def test_what_needs_the_row_refuses_it(damaged: Cli, verb: tuple[str, ...]) -> None:
    assert damaged("study", *verb) == Result(3, "", ERROR)


def test_a_study_with_such_a_row_is_not_gone_on_with(damaged: Cli) -> None:
    Path("space.json").write_text(json.dumps({"act": {"_type": "layer_choice", "_value": ["relu", "tanh"]}}))
    command = ("tune", "space.json", "--trial-command", "true", "--study", "third", "--tuner", "random")
    damaged(*command, "--trials", "1")
    spoil("UPDATE trials SET started = 'yesterday' WHERE study_id = 3")
    result = damaged(*command, "--trials", "2", "--resume")
    assert (result.code, result.out) == (3, "")
    assert "  study 'third', trial 0: started: 'yesterday', expected a time or NULL\n" in result.err


def test_a_damaged_row_of_a_study_does_not_keep_another_from_going_on(damaged: Cli) -> None:
    Path("space.json").write_text(json.dumps({"act": {"_type": "layer_choice", "_value": ["relu", "tanh"]}}))
    report = "import os; open(os.environ['NNAS_RESULT'], 'w').write('1')"
    command = ("tune", "space.json", "--trial-command", f'{sys.executable} -I -S -c "{report}"', "--study", "third")
    assert damaged(*command, "--tuner", "grid", "--trials", "1").code == 0
    spoil("UPDATE studies SET tuner_args = ? WHERE name = 'first'", b"\xff\x00")
    assert damaged(*command, "--tuner", "grid", "--trials", "2", "--resume").code == 0


def test_a_damaged_row_of_a_study_hides_no_other_study(damaged: Cli) -> None:
    spoil("UPDATE studies SET tuner_args = ? WHERE name = 'first'", b"\xff\x00")
    result = damaged("study", "list")
    assert result.code == 3
    assert result.err.splitlines()[1] == (
        "  study 'first': tuner_args: 2 bytes, which is no JSON, expected a JSON object"
    )
    assert "second" in result.out
    assert "first" not in result.out
    assert damaged("study", "trials", "second").code == 0
    assert damaged("study", "trials", "first").code == 3
