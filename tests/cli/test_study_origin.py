"""Where a study was begun and what its command names: what --resume makes of it when something has moved or changed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.origin import Origin
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from tests.cli.trial_programs import BEGIN, RESULT, stored, write_files
from tests.cli_support import Cli, Result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program in it, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_files(folder)
    monkeypatch.chdir(folder)
    return folder


def tune(nnas: Cli, folder: Path, *arguments: object, python: str = sys.executable, trials: int = 1) -> Result:
    """A study in a storage that is found from anywhere."""
    command = f"{python} -I -S trial.py"
    storage = f"sqlite:///{folder.parent}/nnas.db"
    given = ("tune", folder / "space.json", "--trial-command", command, "--study", "s", "--storage", storage)
    return nnas(*given, "--tuner", "grid", "--trials", trials, *arguments)


def test_a_study_that_is_resumed_from_elsewhere_runs_where_it_was_begun(
    nnas: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "trial.py").write_text(BEGIN + "open('here', 'a').write('x')\n" + RESULT)
    assert tune(nnas, project).code == 0
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "trial.py").write_text("another program")
    monkeypatch.chdir(elsewhere)
    result = tune(nnas, project, "--resume", trials=2)
    assert result.code == 0
    assert f"nnas: warning: trials run in {project}, where study 's' was begun\n" in result.err
    assert (project / "here").read_text() == "xx"
    assert not (elsewhere / "here").exists()
    shown = nnas.ok("study", "show", "--storage", f"sqlite:///{project.parent}/nnas.db", "--json").json
    assert shown["origin"]["folder"] == str(project)


def test_a_folder_whose_name_is_no_text_is_refused(nnas: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = project.rename(project.with_name(os.fsdecode(b"odd\xff")))
    monkeypatch.chdir(odd)
    result = nnas(
        "tune", "space.json", "--trial-command", f"{sys.executable} trial.py", "--tuner", "grid", "--trials", 1
    )
    assert (result.code, result.out) == (3, "")
    place = f"{odd.parent}/odd\\udcff"
    assert result.err == (
        f"nnas: error: {place}: the name of the current folder is no UTF-8\nhint: go to a folder with another name\n"
    )


def test_a_study_whose_folder_is_gone_goes_on_where_its_program_is(
    nnas: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune(nnas, project).code == 0
    moved = project.rename(project.with_name("moved"))
    monkeypatch.chdir(moved)
    assert tune(nnas, moved, "--resume", trials=2).code == 0
    (moved / "trial.py").write_text(BEGIN + "print('changed')" + RESULT)
    result = tune(nnas, moved, "--resume", trials=3)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"nnas: error: {project.parent}/nnas.db: study 's' was begun in {project}, which is not on this machine, and "
        "its program is not here\n  trial.py: not here, or with other contents\n"
        "hint: go to a folder with the program that the study was begun with, or start another --study\n"
    )


def test_a_program_that_has_changed_is_told_of(nnas: Cli, project: Path) -> None:
    assert tune(nnas, project).code == 0
    (project / "trial.py").write_text(BEGIN + "print('changed')" + RESULT)
    result = tune(nnas, project, "--resume", trials=2)
    assert result.code == 0
    assert result.err.startswith(
        "nnas: warning: trial.py has changed since study 's' was begun: its earlier trials ran what was there before\n"
    )
    assert "warning" not in tune(nnas, project, "--study", "other").err


def test_an_interpreter_may_move(nnas: Cli, project: Path) -> None:
    (project / "venv").mkdir()
    python = project / "venv" / "python3"
    python.symlink_to(sys.executable)
    assert tune(nnas, project).code == 0
    result = tune(nnas, project, "--resume", python=str(python), trials=2)
    assert result.code == 0
    assert "warning" not in result.err
    result = tune(nnas, project, "--resume", python="env python", trials=3)
    assert result.code == 3
    assert "trial_command: " in result.err


def test_a_model_that_has_changed_is_told_of(nnas: Cli, small_model: Path) -> None:
    command = ("tune", "model.py", "--train-epochs", 1, "--tuner", "grid")
    nnas.ok(*command, "--trials", 1)
    small_model.write_text(small_model.read_text() + "\n# changed\n")
    result = nnas(*command, "--trials", 2, "--resume")
    assert result.code == 0
    assert "nnas: warning: model.py has changed since study 'model-grid' was begun" in result.err


# ---- names


def test_an_empty_name_is_no_default(nnas: Cli, project: Path) -> None:
    result = tune(nnas, project, "--study", "")
    assert (result.code, result.out) == (2, "")
    assert result.err == "nnas: error: the name of the study is empty\nhint: give one, or leave out --study\n"
    tune(nnas, project)
    for verb in (("show",), ("delete", "--yes")):
        result = nnas("study", *verb, "", "--storage", f"sqlite:///{project.parent}/nnas.db")
        assert result.code == 2
        assert result.err == "nnas: error: the name of the study is empty\nhint: give it, or leave it out\n"


def test_a_name_may_be_of_any_script(nnas: Cli, project: Path) -> None:
    assert tune(nnas, project, "--study", "поиск-2").code == 0
    with StudyStore.open(f"sqlite:///{project.parent}/nnas.db") as store:
        assert store.study("поиск-2").name == "поиск-2"
    assert Path("runs/studies/поиск-2/trials/0-1/log.txt").exists()
    Path("модель.json").write_text(Path("space.json").read_text())
    result = nnas("tune", "модель.json", "--trial-command", f"{sys.executable} trial.py", "--trials", 1, "--json")
    assert result.json["study"] == "модель-bayes"
    assert len(stored("модель-bayes")) == 1


# ---- the comparison


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("python a.py", "/opt/venv/bin/python a.py", True),
        ("/usr/bin/python3 a.py", "python3.12 a.py", True),
        ("python a.py", "pypy a.py", False),
        ("python a.py", "python ./a.py", True),
        ("python a.py", "python b.py", False),
        ("python a.py", "python copy.py", True),
        ("python a.py", "python a.py --fast", False),
        ("python a.py --x 1", "python a.py --x 2", False),
        ("/a/bin/tool x", "/b/bin/tool x", True),
        ("/a/bin/tool", "/b/bin/tool", False),
        ("a.py", "copy.py", True),
        ("a.py:Net", "copy.py:Net", True),
        ("a.py:Net", "a.py:Other", False),
        ("bayes", "random", False),
        ("python 'a.py", "python 'a.py", True),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_texts_that_name_the_same_program_are_the_same(tmp_path: Path, before: str, now: str, same: bool) -> None:
    for name, text in {"a.py": "a", "copy.py": "a", "b.py": "b"}.items():
        (tmp_path / name).write_text(text)
    assert Origin.of([before], tmp_path).means(before, Origin.of([now], tmp_path), now) is same


def test_only_programs_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "binary").write_bytes(b"\x7fELF")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    with open(tmp_path / "data", "wb") as stream:
        stream.truncate(2**24 + 1)
    found = Origin.of(["./binary a.py data missing", None, "run", "x\0y"], tmp_path)
    assert sorted(found.files) == ["a.py", "run"]
    assert Origin.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert Origin.from_json({}) == Origin()


# ---- results as a table


SPACE: dict[str, Any] = {
    "op": {"_type": "layer_choice", "_value": ["a,b", "c"]},
    "skip": {"_type": "input_choice", "_value": {"candidates": ["x", "x,y", "y", ""], "n_chosen": None}},
    "link": {"_type": "input_choice", "_value": {"candidates": ["p", "q", "r"], "n_chosen": 2}},
    "id": {"_type": "layer_choice", "_value": ["0", "1"]},
    "twice": {"_type": "layer_choice", "_value": ["s", "s"]},
}

TABLE = """\
id,id_2,link,op,skip,twice,reward,accuracy,reward_2
0,1,"p,r","a,b","x,y,y",1,0.5,0.5,7.0
1,0,"p,q",c,x,0,0.25,,
2,0,"q,r",c,y,0,,1,
"""


@pytest.fixture
def empty(project: Path) -> Path:
    """A study of that space, without trials; where it is."""
    Path("space.json").write_text(json.dumps(SPACE))
    with StudyStore.open("sqlite:///nnas.db") as store:
        store.create_study(StudySettings("t", SearchSpace.from_json(SPACE), "random"))
    return project


def test_import_reads_the_table_that_export_wrote(nnas: Cli, empty: Path) -> None:
    Path("table.csv").write_text("\ufeff" + TABLE)
    result = nnas("study", "import", "table.csv")
    assert (result.code, result.out) == (0, "imported 2 trials into study 't'; left out 1 without a value\n")
    first, second = stored("t")
    assert first.architecture.indices() == {"id": (1,), "link": (0, 2), "op": (0,), "skip": (1, 2), "twice": (1,)}
    assert (first.value, first.metrics) == (0.5, {"accuracy": 0.5, "reward": 7.0})
    assert (second.value, second.metrics) == (0.25, {})
    written = nnas.ok("study", "export", "--format", "csv").out
    assert written == "".join(TABLE.splitlines(keepends=True)[:3])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("link,", "", "line 1: there is no column 'link'"),
        ("reward,", "rewards,", "line 1: there is no column 'reward'"),
        ('"p,r"', "p", "line 2: link: 'p' names no decision among 'p', 'q', 'r'"),
        ('"p,r"', '"r,p"', "line 2: link: 'r,p' names no decision among 'p', 'q', 'r'"),
        ('"x,y,y"', '"x,y"', "line 2: skip: 'x,y' may be several decisions, as names have commas; import JSON"),
        ("c,x,0,0.25,,", "c,x,0,high,,", "line 3: reward: 'high' is no number"),
        ("c,x,0,0.25,,", "c,x,0,0.25", "line 3: 7 cells under 9 columns"),
        ("c,x,0,0.25,,", "d,x,0,0.25,,", "line 3: op: 'd' names no decision among 'a,b', 'c'"),
    ],
)
def test_import_names_the_lines_of_a_table_that_do_not_fit(
    nnas: Cli, empty: Path, old: str, new: str, problem: str
) -> None:
    Path("table.csv").write_text(TABLE.replace(old, new, 1))
    result = nnas("study", "import", "table.csv")
    assert (result.code, result.out) == (3, "")
    assert f"\n  {problem}\n" in result.err
    assert result.err.startswith("nnas: error: table.csv: not a table of results of this study's search space\n")
    assert stored("t") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TABLE + '"', "line 5: unexpected end of data"),
        (TABLE + "x" * 200_000, "line 5: 1 cells under 9 columns"),
        ("id,\n", "line 1: there is no column 'id_2'"),
    ],
)
def test_a_table_that_is_damaged_is_refused(nnas: Cli, empty: Path, text: str, problem: str) -> None:
    Path("table.csv").write_text(text)
    result = nnas("study", "import", "table.csv")
    assert (result.code, result.out) == (3, "")
    assert f"\n  {problem}\n" in result.err


@pytest.mark.parametrize("text", ["x", '["' + "x" * 200_000 + '"]', "\xff", ""])
def test_what_is_no_table_is_read_as_json(nnas: Cli, empty: Path, text: str) -> None:
    Path("table").write_text(text, encoding="latin-1")
    result = nnas("study", "import", "table")
    assert (result.code, result.out) == (3, "")
    assert "table of results" not in result.err


def test_a_value_that_is_not_finite_is_null_in_what_is_exported_and_comes_back(nnas: Cli, project: Path) -> None:
    (project / "trial.py").write_text(BEGIN + "for value in (1, float('nan'), 2): report(value)\n" + RESULT)
    tune(nnas, project)
    url = f"sqlite:///{project.parent}/nnas.db"
    nnas.ok("study", "export", "--storage", url, "-o", "results.json")
    assert json.loads(Path("results.json").read_text())[0]["intermediate"] == [1.0, None, 2.0]
    with StudyStore.open(url) as store:
        store.create_study(replace(store.study("s").settings, name="again"))
        nnas.ok("study", "import", "results.json", "again", "--storage", url)
        assert store.intermediates(store.study("again")) == {0: [1.0, float("-inf"), 2.0]}
