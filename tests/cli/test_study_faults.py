"""What a study survives and what ends it, as the command says it: one line, an exit code, nothing lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nnas_core import __version__
from nnas_core.study.storage import sqlite, tables
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, ForkServer

ROOT = Path(__file__).parents[2]
SPACE = {key: {"_type": "layer_choice", "_value": ["a", "b", "c"]} for key in ("x", "y", "z")}
PROGRAM = """
import json, os
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
value = sum((one["_idx"] + 1) * 5 ** place for place, one in enumerate(map(parameters.get, "xyz")))
with open(os.environ["NNAS_RESULT"] + "~", "w") as stream:
    json.dump({"value": value}, stream)
os.replace(os.environ["NNAS_RESULT"] + "~", os.environ["NNAS_RESULT"])
"""
TUNE = ("tune", "space.json", "--trial-command", f"'{sys.executable}' -I -S program.py", "--tuner", "random")
TUNE = (*TUNE, "--study", "study", "--trial-log-dir", "trials")
LOST = "nothing that was finished is lost"


@pytest.fixture
def folder(nnas: Cli, tmp_path: Path) -> Path:
    """The current folder, with a space of 27 architectures, and a program that evaluates them."""
    Path("space.json").write_text(json.dumps(SPACE))
    Path("program.py").write_text(PROGRAM)
    return tmp_path


def states(study: str = "study") -> list[str]:
    """Of the trials."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return [trial.state for trial in store.trials(store.study(study))]


def test_a_file_that_cannot_grow_ends_the_study_and_keeps_what_is_finished(
    forks: ForkServer, nnas: Cli, folder: Path
) -> None:
    nnas.ok(*TUNE, "--trials", 3)
    limit = Path("nnas.db").stat().st_size
    result = forks.run(folder, *TUNE, "--trials", 27, "--resume", file_limit=limit)
    assert (result.code, result.out) == (6, "")
    assert result.err.splitlines()[-2:] == [
        f"nnas: error: nnas.db: the disk does not read or write (disk I/O error); {LOST}",
        "hint: check the disk and its free space and run the command again with --resume",
    ]
    finished = [line for line in result.err.splitlines() if line.startswith("trial ")]
    assert states().count("succeeded") == 3 + len(finished)
    nnas.ok(*TUNE, "--trials", 27, "--resume", "--concurrency", 4)
    assert states() == ["succeeded"] * 27


@pytest.mark.parametrize(
    ("redirected", "code", "err"),
    [
        pytest.param(
            ">/dev/full",
            6,
            (
                "nnas: error: standard output: cannot write: no space left on the device\n"
                "hint: free some space and run the command again\n"
            ),
            id="full",
        ),
        pytest.param(">&-", 0, "", id="closed"),
        pytest.param("<&- >&- 2>&-", 0, "", id="all closed"),
        pytest.param("", 141, "", id="nobody reads"),
    ],
)
def test_an_answer_that_cannot_be_written_costs_the_answer_alone(
    nnas: Cli, folder: Path, redirected: str, code: int, err: str
) -> None:
    command = [sys.executable, "-m", "nnas_cli", *TUNE, "--trials", "4", "-q"]
    read, write = os.pipe()
    os.close(read)  # as in `| true`
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (code, err)
    assert states() == ["succeeded"] * 4


def test_a_folder_that_may_not_be_written_is_named_before_a_trial(nnas: Cli, folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o555)
    command = [sys.executable, "-m", "nnas_cli", *TUNE, "--storage", "sqlite:///closed/nnas.db"]
    # root may write everywhere, unless it gives that up
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*unprivileged, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (6, "")
    assert ended.stderr.startswith("nnas: error: closed/nnas.db: cannot create: permission denied\nhint: ")
    assert not Path("trials").exists()


def damaged(content: bytes) -> bytes:
    """Everything behind the first page is zero."""
    return content[:4096] + bytes(len(content) - 4096)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda content: b"", "not a study database: the file is empty", id="empty"),
        pytest.param(lambda content: b"trial,value\n" * 99, "not a study database", id="text"),
        pytest.param(lambda content: content[: len(content) // 2], "the study database is damaged (", id="truncated"),
        pytest.param(damaged, "the study database is damaged (", id="zeroed pages"),
        pytest.param(
            lambda content: content[:60] + (999).to_bytes(4, "big") + content[64:],
            f"made by a newer nnas: its tables are of version 999, this is nnas {__version__} which knows ",
            id="newer",
        ),
    ],
)
@pytest.mark.parametrize("command", [(*TUNE, "--resume"), ("study", "list"), ("study", "show", "study")])
def test_a_file_that_is_no_sound_study_is_refused_and_left_as_it_is(
    nnas: Cli, folder: Path, command: tuple[object, ...], spoil: Callable[[bytes], bytes], message: str
) -> None:
    with StudyStore.open("sqlite:///nnas.db"):
        pass
    Path("nnas.db").write_bytes(spoil(Path("nnas.db").read_bytes()))
    before = Path("nnas.db").read_bytes()
    result = nnas(*command)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"nnas: error: nnas.db: {message}")
    assert result.err.count("\n") == 2
    assert "\nhint: " in result.err
    assert Path("nnas.db").read_bytes() == before


def dump(path: str) -> list[str]:
    """A database in SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_a_study_of_an_older_version_is_migrated_and_kept_beside(nnas: Cli, folder: Path) -> None:
    old = (ROOT / "tests" / "study" / "old_databases" / "v1.db").read_bytes()
    Path("nnas.db").write_bytes(old)
    before = dump("nnas.db")
    result = nnas.ok("study", "list", "--json")
    assert result.err == ""  # with --json it is for errors
    assert dump("nnas.db.version1") == before
    assert result.json["studies"][0]["name"] == "study"
    Path("nnas.db").write_bytes(old)
    assert nnas.ok("study", "list").err == (
        f"nnas: warning: nnas.db was made by an older nnas: its tables went from version 1 to {tables.VERSION}; "
        "the file as it was is kept as nnas.db.version1\n"
        "created: left out (--json has all)\n"
    )


def test_a_network_file_system_is_warned_of(nnas: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "network_filesystem", lambda path: "nfs4")  # no test machine has one
    result = nnas.ok(*TUNE, "--trials", 1)
    assert result.err.startswith(
        "nnas: warning: nnas.db is on a network file system (nfs4): two machines at once, or a lost connection, can "
        "damage the study; a local disk is safe\n"
    )


@pytest.mark.parametrize(
    ("command", "how"),
    [
        pytest.param((*TUNE, "--trials", 2, "--resume"), " with --resume", id="tune"),
        pytest.param((*TUNE, "--trials", 2, "--join"), " with --join", id="one of many"),
        pytest.param(("study", "delete", "study", "--yes"), "", id="study"),
    ],
)
def test_a_database_that_another_program_locks_is_an_error_that_names_it(
    nnas: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...], how: str
) -> None:
    nnas.ok(*TUNE, "--trials", 1)
    opened = StudyStore.open.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        StudyStore, "open", classmethod(lambda kind, url, **how: opened(kind, url, **{**how, "busy_timeout_s": 0.1}))
    )
    with closing(sqlite3.connect("nnas.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = nnas(*command)
    assert (result.code, result.out) == (6, "")
    assert result.err == (
        f"nnas: error: nnas.db: locked for 0.1 s by process {os.getpid()}\n"
        f"hint: wait until it has ended, then run the command again{how}\n"
    )
    nnas.ok(*command)


def test_a_study_goes_on_with_other_workers_but_with_no_other_setting(nnas: Cli, folder: Path) -> None:
    nnas.ok(*TUNE, "--trials", 2)
    result = nnas(*TUNE, "--trials", 4, "--resume", "--seed", 1, "--optimize-mode", "minimize")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: nnas.db: study 'study' was made with other settings\n"
        "  seed: 0 before, 1 now\n"
        '  optimize_mode: "maximize" before, "minimize" now\n'
        "hint: use the old ones, or start another study by --study NAME\n"
    )
    nnas.ok(
        *TUNE, "--trials", 4, "--resume", "--concurrency", 2, "--trial-timeout", "1h", "--trial-log-dir", "elsewhere"
    )
    assert states() == ["succeeded"] * 4
