"""``nnas study list``, ``show``, ``trials`` and ``top``: what they say of studies, and of none."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnas_core.study.storage.store import StudyStore
from tests.cli.terminals import Terminal
from tests.cli_support import Cli, ForkServer, wait_until
from tests.study.known_studies import SPACE, make

URL = "sqlite:///nnas.db"

VERBS = ("show", "trials", "top", "stop", "export")


@pytest.fixture
def store(nnas: Cli) -> Iterator[StudyStore]:
    """The default storage, with one study, ``first``."""
    with StudyStore.open(URL) as opened:
        make(opened)
        yield opened


def rows(text: str) -> list[list[str]]:
    """The cells of a table, its first line the columns."""
    lines = [line for line in text.splitlines() if "─" not in line]
    return [re.split(r" {2,}", line.strip()) for line in lines]


# ---- which study


def test_a_missing_storage_is_not_made(nnas: Cli) -> None:
    result = nnas("study", "list")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nnas.db: no such file\nhint: check the path of --storage\n"
    assert not Path("nnas.db").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_of_another_kind_is_refused(nnas: Cli, verb: str) -> None:
    Path("text.db").write_text("no database at all, but long enough to be one" * 100)
    result = nnas("study", verb, "--storage", "sqlite:///text.db")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: text.db: not a study database\nhint: choose another file for --storage\n"


@pytest.mark.parametrize("verb", VERBS)
def test_a_study_that_does_not_exist_is_an_error_that_lists_those_that_do(
    nnas: Cli, store: StudyStore, verb: str
) -> None:
    result = nnas("study", verb, "third")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nnas.db: no study is named 'third'\nhint: there are first\n"


def test_a_unique_beginning_of_the_name_is_enough(nnas: Cli, store: StudyStore) -> None:
    make(store, "second")
    assert nnas.ok("study", "show", "fi") == nnas.ok("study", "show", "first")


def test_an_ambiguous_beginning_lists_the_candidates(nnas: Cli, store: StudyStore) -> None:
    make(store, "fifth")
    result = nnas("study", "show", "fi")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: nnas.db: several studies begin with 'fi'\n  first\n  fifth\nhint: give more of the name\n"
    )


def test_a_whole_name_wins_over_a_longer_one(nnas: Cli, store: StudyStore) -> None:
    make(store, "first-again", ())
    assert nnas.ok("study", "show", "first", "--json").json["name"] == "first"


def test_without_a_name_the_only_study_is_meant(nnas: Cli, store: StudyStore) -> None:
    assert nnas.ok("study", "trials") == nnas.ok("study", "trials", "first")


def test_without_a_name_several_studies_are_listed(nnas: Cli, store: StudyStore) -> None:
    make(store, "second")
    result = nnas("study", "trials")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: nnas.db: there are several studies\n  first\n  second\nhint: name one of them\n"
    )


def test_without_a_name_top_takes_the_only_one_that_runs(nnas: Cli, store: StudyStore) -> None:
    with store.acquire(make(store, "second")):
        assert nnas.ok("study", "top", "--json").json["name"] == "second"
        with store.acquire(store.study("first")):
            result = nnas("study", "top")
    assert (result.code, result.out) == (2, "")
    assert "several studies are running\n  first\n  second\n" in result.err


def test_a_storage_without_studies_has_nothing_to_show(nnas: Cli) -> None:
    StudyStore.open(URL).close()
    result = nnas("study", "show")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nnas.db: there are no studies yet\nhint: `nnas tune` makes one\n"


# ---- list


def test_list_has_a_line_a_study(nnas: Cli, store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    make(store, "small", (0.25, 0.125), state="interrupted", optimize_mode="minimize")
    result = nnas.ok("study", "list")
    created = [study.created[:16].replace("T", " ") for study in store.studies()]
    assert result.err == ""
    assert rows(result.out) == [
        ["name", "state", "tuner", "finished", "failed", "running", "waiting", "best", "created"],
        ["first", "finished", "random", "4", "1", "0", "0", "0.75", created[0]],
        ["small", "interrupted", "random", "2", "0", "0", "0", "0.125", created[1]],
    ]


def test_list_of_no_studies_says_so_beside_the_answer(nnas: Cli) -> None:
    StudyStore.open(URL).close()
    result = nnas("study", "list")
    assert (result.code, result.out, result.err) == (0, "", "there are no studies yet\n")
    assert nnas.ok("study", "list", "--json").json["studies"] == []


def test_a_study_shows_as_running_while_its_owner_lives_and_as_interrupted_after(nnas: Cli, store: StudyStore) -> None:
    session = store.acquire(store.study("first"))
    session.trials.start(store.study("first").settings.space.at(7))
    shown = nnas.ok("study", "list", "--json").json["studies"][0]
    assert (shown["state"], shown["counts"]["running"], shown["counts"]["waiting"]) == ("running", 1, 0)
    from nnas_core.study.storage import leases

    leases.release(session.lease)  # as if the process had died: nothing is written
    shown = nnas.ok("study", "list", "--json").json["studies"][0]
    assert (shown["state"], shown["counts"]["running"], shown["counts"]["waiting"]) == ("interrupted", 0, 1)
    assert store.study("first").state == "running"  # reading repairs nothing


def test_list_writes_a_file(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "list", "-o", "list.json")
    assert (result.code, result.out, result.err) == (0, "", "wrote list.json\n")
    assert json.loads(Path("list.json").read_text()) == nnas.ok("study", "list", "--json").json


# ---- show


def test_show_tells_settings_and_progress(nnas: Cli, store: StudyStore) -> None:
    result = nnas.ok("study", "show", "first")
    study = store.study("first")
    assert result.err == ""
    assert result.out == (
        "study         first\n"
        "state         finished\n"
        f"created       {study.created} by nnas {study.version}\n"
        "tuner         random\n"
        "seed          0\n"
        "mode          maximize\n"
        "space         3 keys, 12 architectures\n"
        "epochs        1\n"
        "limits        4 trials, any time, 1 at once\n"
        "finished      4 (1 failed, 0 stopped early)\n"
        "running       0, 0 waiting\n"
        "best          0.75 (trial 1)\n"
        "architecture  act=relu link=a,b op=pool\n"
    )


def test_show_as_json_has_the_study_document_and_the_best_trial(nnas: Cli, store: StudyStore) -> None:
    study = store.study("first")
    document = nnas.ok("study", "show", "--json").json
    assert document["settings"] == study.to_json()
    assert document["best"] == store.trial(study, 1).to_json()
    assert document["counts"] == {
        "waiting": 0,
        "running": 0,
        "succeeded": 3,
        "infeasible": 0,
        "failed": 1,
        "stopped": 0,
        "finished": 4,
    }
    assert document["limits"] == {"trials": 4, "duration_s": None, "concurrency": 1}
    assert (document["owner"], document["stop_requested"], document["seconds_left"]) == (None, False, None)


def test_a_running_study_tells_how_long_it_still_takes(nnas: Cli, store: StudyStore) -> None:
    study = store.study("first")
    with store.acquire(study) as session:
        session.set_limits({"trials": 10, "duration_s": None, "concurrency": 3})
        # four trials of 1, 2, 3 and 4 seconds; six are left, three at once
        assert nnas.ok("study", "show", "--json").json["seconds_left"] == 6 * 2.5 / 3
        assert "\nleft          about 5 s\n" in nnas.ok("study", "show").out
        assert re.search(r"^state         running \(process \d+ on .+ since .+\)$", nnas.ok("study", "show").out, re.M)


# ---- trials


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ((), [0, 1, 2, 3]),
        (("--sort", "value"), [1, 0, 3, 2]),
        (("--sort", "seconds"), [3, 2, 1, 0]),
        (("--head", 2), [1, 0]),
        (("--head", 9), [1, 0, 3]),
        (("--tail", 2), [0, 3]),
        (("--sort", "seconds", "--head", 2), [3, 2]),
        (("--sort", "number", "--tail", 1), [3]),
        (("--state", "failed"), [2]),
        (("--state", "failed", "--state", "succeeded"), [0, 1, 2, 3]),
    ],
)
def test_trials_are_ordered_and_chosen(
    nnas: Cli, store: StudyStore, options: tuple[object, ...], numbers: list[int]
) -> None:
    found = nnas.ok("study", "trials", *options, "--json").json
    study = store.study("first")
    assert found["trials"] == [store.trial(study, number).to_json() for number in numbers]
    assert [row[0] for row in rows(nnas.ok("study", "trials", *options).out)[1:]] == [str(one) for one in numbers]


def test_the_smallest_values_are_the_head_where_the_study_minimizes(nnas: Cli, store: StudyStore) -> None:
    make(store, "small", (0.5, 0.25, 0.75), optimize_mode="minimize")
    assert [row[0] for row in rows(nnas.ok("study", "trials", "small", "--head", 2).out)[1:]] == ["1", "0"]
    assert [row[0] for row in rows(nnas.ok("study", "trials", "small", "--tail", 2).out)[1:]] == ["0", "2"]


def test_trials_say_why_one_failed(nnas: Cli, store: StudyStore) -> None:
    result = nnas.ok("study", "trials")
    assert result.err == "seconds: left out (--json has all)\n"
    assert rows(result.out) == [
        ["trial", "state", "value", "parameters", "architecture", "error"],
        ["0", "succeeded", "0.5", "10", "act=relu link=a,b op=conv"],
        ["1", "succeeded", "0.75", "10", "act=relu link=a,b op=pool"],
        ["2", "failed", "-", "-", "act=relu link=a,c op=conv", "out of memory"],
        ["3", "succeeded", "0.25", "10", "act=relu link=a,c op=pool"],
    ]


def test_no_trials_are_said_beside_the_answer(nnas: Cli, store: StudyStore) -> None:
    make(store, "empty", ())
    for options, said in (
        ((), "no trials"),
        (("--head", 3), "no such trials"),
        (("--state", "failed"), "no such trials"),
    ):
        result = nnas("study", "trials", "empty", *options)
        assert (result.code, result.out, result.err) == (0, "", f"study 'empty' has {said}\n")


def test_head_and_tail_exclude_each_other(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "trials", "--head", 1, "--tail", 1)
    assert (result.code, result.out) == (2, "")
    assert result.err == "nnas: error: --head and --tail cannot be given together\n"


def test_options_of_the_group_and_of_one_command_come_from_tables_of_their_own(nnas: Cli) -> None:
    with StudyStore.open("sqlite:///other.db") as opened:
        make(opened)
    table = '[study]\nstorage = "sqlite:///other.db"\n\n[study.trials]\nhead = 1\n\n[list]\noutput = "no.json"\n'
    Path("mine.toml").write_text(table)
    assert [row[0] for row in rows(nnas.ok("study", "trials", "--config", "mine.toml").out)[1:]] == ["1"]
    assert rows(nnas.ok("study", "list", "--config", "mine.toml").out)[1][0] == "first"
    Path("mine.toml").write_text("[study.trials]\nhaed = 1\n")
    result = nnas("study", "trials", "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: mine.toml: [study.trials]: no option is named 'haed'\nhint: did you mean 'head'?\n"
    )


# ---- top


def test_top_is_one_snapshot_where_nobody_watches(nnas: Cli, store: StudyStore) -> None:
    result = nnas.ok("study", "top")
    line, _, table = result.out.partition("\n\n")
    assert line == "first: finished; 4/4 finished, 1 failed, 0 running, 0 waiting, best 0.75 (trial\n1)"
    assert rows(table) == [
        ["trial", "state", "value", "seconds", "parameters", "architecture, or why it failed"],
        ["3", "succeeded", "0.25", "4.00", "10", "act=relu link=a,c op=pool"],
        ["2", "failed", "-", "3.00", "-", "out of memory"],
        ["1", "succeeded", "0.75", "2.00", "10", "act=relu link=a,b op=pool"],
        ["0", "succeeded", "0.5", "1.00", "10", "act=relu link=a,b op=conv"],
    ]
    assert result.err == ""
    assert nnas.ok("study", "top", "--once") == result


def test_top_has_what_runs_first_and_then_the_newest(nnas: Cli, store: StudyStore) -> None:
    study = make(store, "busy", (None, 0.5, 0.25))
    with store.acquire(study) as session:
        running = session.trials.start(SPACE.at(7)).number
        session.trials.succeed(session.trials.start(SPACE.at(6)), 0.125, {}, {}, 1.0)
        shown = nnas.ok("study", "top", "busy").out.partition("\n\n")[2]
        numbers = [trial["number"] for trial in nnas.ok("study", "top", "busy", "--json").json["trials"]]
    assert [row[:2] for row in rows(shown)[1:3]] == [[str(running), "running"], [str(running + 1), "succeeded"]]
    assert numbers == [running, running + 1, *range(running - 1, -1, -1)]


def test_top_follows_a_study_until_it_ends(
    forks: ForkServer, store: StudyStore, tmp_path: Path, terminal: Terminal
) -> None:
    session = store.acquire(store.study("first"))
    process = forks.start(
        tmp_path, "study", "top", "--interval", 0.1, stdout=terminal.path, stderr=terminal.path, env={"TERM": "xterm"}
    )
    wait_until(lambda: b"first: running" in terminal._content, process)
    session.release("finished")
    assert process.wait().code == 0
    assert "first: finished; 4/4 finished" in terminal.text()


def test_ctrl_c_ends_top_and_not_the_study(
    forks: ForkServer, store: StudyStore, tmp_path: Path, terminal: Terminal
) -> None:
    study = store.study("first")
    with store.acquire(study):
        process = forks.start(
            tmp_path, "study", "top", stdout=terminal.path, stderr=terminal.path, env={"TERM": "xterm"}
        )
        wait_until(lambda: b"first: running" in terminal._content, process)
        process.signal(signal.SIGINT)
        assert process.wait().code == 130
        assert store.in_use_by(study) is not None
    assert "nnas: error: study 'first' is no longer shown, and goes on\r\nhint: `nnas study stop first` ends it" in (
        terminal.text()
    )


# ---- no seed


@pytest.mark.parametrize(
    "command",
    [("study", verb) for verb in ("list", "show", "trials", "top", "export")]
    + [("study", "backup", "-o", "copy.db", "--force"), ("list", "tuners")],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_seed_that_is_just_around_does_nothing_to_a_command_that_only_reads(
    nnas: Cli, store: StudyStore, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    expected = nnas.ok(*command)
    monkeypatch.setenv("NNAS_SEED", "3")
    Path("pyproject.toml").write_text("[tool.nnas]\nseed = 4\n")
    Path("mine.toml").write_text("seed = 6\n")
    assert nnas.ok(*command) == expected
    assert nnas.ok(*command, "--config", "mine.toml") == expected


def test_a_seed_of_its_own_is_no_option_of_a_command_that_only_reads(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "list", "--seed", 1)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: no such option '--seed'")
    Path("mine.toml").write_text("[study.list]\nseed = 1\n")
    result = nnas("study", "list", "--config", "mine.toml")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: mine.toml: [study.list]: no option is named 'seed'\n")
