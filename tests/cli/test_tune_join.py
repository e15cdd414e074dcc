"""``nnas tune --join``: processes that share a study by the same command."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from nnas_core import schema
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, ForkServer, Result

SPACE = {
    "op": {"_type": "layer_choice", "_value": ["a", "b", "c"]},
    "n": {"_type": "layer_choice", "_value": ["1", "2", "3"]},
}

PROGRAM = """
import json, os, subprocess, sys
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
op, n = (parameters[key]["_idx"] for key in ("op", "n"))
{more}
with open(os.environ["NNAS_RESULT"] + ".part", "w") as file:
    file.write(json.dumps({{"value": 10 * op + n}}))
os.replace(file.name, os.environ["NNAS_RESULT"])
"""

BESIDE = """
if os.environ["NNAS_TRIAL"] == "3":
    with open("beside.out", "w") as out, open("beside.err", "w") as err:
        words = [*{words}, *{options}]
        code = subprocess.run(words, stdout=out, stderr=err, env={{**os.environ, "PYTHONPATH": {path!r}}}).returncode
    open("beside.code", "w").write(str(code))
"""

TUNE = ("tune", "space.json", "--trial-command", f"{sys.executable} -I -S trial.py", "--tuner", "grid", "--trials", "9")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "trial.py").write_text(PROGRAM.format(more=""))


def program(more: str) -> None:
    """What a trial does before its result."""
    Path("trial.py").write_text(PROGRAM.format(more=more))


def beside(nnas: Cli, *options: str) -> tuple[Result, str, str, str]:
    """While trial 3 runs, another process joins; the end of the first, and code and output of the other."""
    words = [sys.executable, "-m", "nnas_cli", *TUNE, "--join"]
    program(BESIDE.format(words=words, options=list(options), path=str(Path(__file__).parents[2])))
    result = nnas(*TUNE, "--join")
    return result, *(Path(f"beside.{name}").read_text() for name in ("code", "out", "err"))


def test_one_that_joins_a_new_study_begins_it_and_later_ones_go_on(nnas: Cli) -> None:
    first = nnas(*TUNE[:-1], "1", "--join")
    assert first.code == 0
    assert first.json == {"op": [True, False, False], "n": [True, False, False]}
    for evaluated in (8, 0):
        later = nnas(*TUNE, "--join")
        assert later.json == {"op": [False, False, True], "n": [False, False, True]}
        assert len(re.findall("^trial [0-9]+", later.err, re.MULTILINE)) == evaluated
        assert "9 trials, 0 failed; the number of trials is reached" in later.err


def test_another_one_takes_trials_and_leaves_the_end_to_the_first(nnas: Cli) -> None:
    result, code, out, err = beside(nnas)
    assert (code, out) == ("0", "")
    assert err.endswith(
        "5 trials of space-grid ended here; the number of trials is reached\n"
        "1 other process goes on, and the last one has the best architecture\n"
        "next: nnas study top space-grid\n"
    )
    assert result.json == {"op": [False, False, True], "n": [False, False, True]}
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        trials = store.trials(store.study("space-grid"))
    assert [trial.number for trial in trials] == list(range(9))
    assert sorted(trial.value or 0 for trial in trials) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_as_json_it_says_how_many_go_on(nnas: Cli) -> None:
    _, code, out, err = beside(nnas, "--json")
    assert (code, err) == ("0", "")
    assert schema.problems("tune-join-report", json.loads(out)) == []
    assert json.loads(out) == {
        "format": "nnas.tune-join-report/1",
        "study": "space-grid",
        "storage": "sqlite:///nnas.db",
        "reason": "trials",
        "evaluated": 5,
        "others": 1,
    }


def test_another_one_of_other_settings_is_refused(nnas: Cli) -> None:
    result, code, out, err = beside(nnas, "--optimize-mode", "minimize")
    assert (result.code, code, out) == (0, "3", "")
    assert "study 'space-grid' was made with other settings" in err
    assert 'optimize_mode: "maximize" before, "minimize" now' in err


def test_a_coordinator_is_refused_meanwhile(nnas: Cli) -> None:
    program(
        BESIDE.format(
            words=[sys.executable, "-m", "nnas_cli", *TUNE],
            options=["--resume"],
            path=str(Path(__file__).parents[2]),
        )
    )
    assert nnas(*TUNE, "--join").code == 0
    assert Path("beside.code").read_text() == "6"
    assert "study 'space-grid' is in use by process " in Path("beside.err").read_text()


@pytest.mark.parametrize("workers", [(), ("--concurrency", "2")])
def test_trials_of_a_model_are_those_of_one_process(nnas: Cli, small_model: Path, workers: tuple[str, ...]) -> None:
    training = ("tune", small_model.name, "--train-epochs", "1", "--tuner", "random", "--trials", "3")
    alone = nnas(*training, "--storage", "sqlite:///alone.db")
    joined = nnas(*training, "--join", *workers)
    assert (joined.code, joined.json) == (0, alone.json)
    values = []
    for url in ("sqlite:///alone.db", "sqlite:///nnas.db"):
        with StudyStore.open(url, create=False) as store:
            values.append([(one.number, one.value) for one in store.trials(store.study("model-random"))])
    assert values[0] == values[1]


def test_it_cannot_be_asked_for_with_resume(nnas: Cli) -> None:
    result = nnas(*TUNE, "--join", "--resume")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: --join goes on with a study that is there: --resume adds nothing\nhint: leave it out\n"
    )


def test_after_an_error_of_the_store_the_hint_names_the_option_that_goes_on(
    forks: ForkServer, nnas: Cli, tmp_path: Path
) -> None:
    nnas.ok(*TUNE[:-1], "3", "--join")
    result = forks.run(tmp_path, *TUNE, "--join", file_limit=20_000)
    assert (result.code, result.out) == (6, "")
    hint = "hint: check the disk and its free space and run the command again with --join"
    assert result.err.splitlines()[-1] == hint
    assert len(nnas.ok(*TUNE, "--join").json) == 2
