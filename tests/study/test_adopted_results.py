"""Results that programs had written when their coordinator was killed: the next one takes them, each once."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

import pytest

from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.study.coordinator import run_study
from nnas_core.study.opening import create_tuner
from nnas_core.study.storage.records import StudyRecord, StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.study.storage.trial_writer import Evaluator
from nnas_core.tuners.grid import GridTuner
from tests.study.known_studies import SPACE
from tests.study.study_programs import run_settings

PROGRAM = """\
import os
with open("measured", "a") as stream: stream.write("x")
with open(os.environ["NNAS_RESULT"], "w") as stream: stream.write("0.25")
"""


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(StudySettings("study", SPACE, "grid"))


def left(store: StudyStore, study: StudyRecord, folder: Path, result: str | None, place: int = 0) -> Path:
    """A first trial whose coordinator died: what is stored, and the files."""
    session = store.acquire(study)
    architecture = study.settings.space.at(0)
    trial = session.trials.start(architecture, by=Evaluator("there", str(folder.absolute())))
    session.trials.intermediate(trial, 0, 0.5)
    files = folder / "0-1"
    files.mkdir(parents=True)
    (files / "parameters.json").write_text(json.dumps(study.settings.space.at(place).parameters()))
    (files / "intermediate.jsonl").write_text('{"value": 0.5}\n{"value": 0.625}\n')
    if result is not None:
        (files / "result.json").write_text(result)
    session.release("interrupted")  # the trial waits for its second attempt, as after a death
    return files


def go_on(store: StudyStore, study: StudyRecord, folder: Path, trials: int = 2, program: str = PROGRAM) -> None:
    folder.mkdir(exist_ok=True)
    engine = CommandEngine(
        [sys.executable, "-I", "-S", "-c", program], LocalSettings(folder, grace_s=0.2, work_in=folder)
    )
    tuner = create_tuner(GridTuner, {}, name="grid", seed=0, optimize_mode="maximize")
    run_study(store, study, tuner, engine, run_settings(trials=trials))


def test_a_result_that_is_whole_is_taken(store: StudyStore, study: StudyRecord, tmp_path: Path) -> None:
    left(store, study, tmp_path / "trials", '{"value": 0.75, "metrics": {"loss": 2}, "trial": 0, "attempt": 1}')
    go_on(store, study, tmp_path / "trials")
    first, second = store.trials(study)
    assert (first.state, first.value, first.attempt, dict(first.metrics)) == ("succeeded", 0.75, 1, {"loss": 2.0})
    assert first.seconds is not None
    assert 0 <= first.seconds < 60
    assert (second.value, second.attempt) == (0.25, 1)
    assert (tmp_path / "trials" / "measured").read_text() == "x"
    assert store.intermediates(study) == {0: [0.5, 0.625]}
    go_on(store, study, tmp_path / "trials", 3)
    assert [trial.value for trial in store.trials(study)] == [0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    "result", [None, "", '{"value": 0.7', '{"value": NaN}', '{"value": 1, "attempt": 2}', '{"value": 1, "trial": 3}']
)
def test_what_is_no_result_of_that_attempt_is_not(
    store: StudyStore, study: StudyRecord, tmp_path: Path, result: str | None
) -> None:
    left(store, study, tmp_path / "trials", result)
    go_on(store, study, tmp_path / "trials")
    assert [(trial.value, trial.attempt) for trial in store.trials(study)] == [(0.25, 2), (0.25, 1)]
    assert (tmp_path / "trials" / "measured").read_text() == "xx"


def test_the_result_of_an_older_study_is_not(store: StudyStore, study: StudyRecord, tmp_path: Path) -> None:
    files = left(store, study, tmp_path / "trials", "0.75")
    before = datetime.fromisoformat(store.trials(study)[0].started or "").timestamp() - 1
    os.utime(files / "result.json", (before, before))
    go_on(store, study, tmp_path / "trials", 1)
    assert store.trials(study)[0].value == 0.25


def test_the_result_of_another_architecture_is_not(store: StudyStore, study: StudyRecord, tmp_path: Path) -> None:
    left(store, study, tmp_path / "trials", "0.75", place=1)
    go_on(store, study, tmp_path / "trials", 1)
    assert store.trials(study)[0].value == 0.25


def test_the_result_in_another_folder_is_not(store: StudyStore, study: StudyRecord, tmp_path: Path) -> None:
    left(store, study, tmp_path / "trials", "0.75")
    (tmp_path / "others").mkdir()
    go_on(store, study, tmp_path / "others", 1)
    assert store.trials(study)[0].value == 0.25


def test_a_trial_that_is_tried_again_does_not_get_its_old_result(
    store: StudyStore, study: StudyRecord, tmp_path: Path
) -> None:
    folder = tmp_path / "trials"
    left(store, study, folder, None)
    with store.acquire(study) as session:
        waiting = session.waiting()
        assert waiting is not None
        trial = session.trials.restart(waiting.trial, Evaluator("there", str(folder.absolute())))
        session.trials.stop(trial, 0.5, 1.0, "ended by `nnas study kill`")
    files = folder / "0-2"
    files.mkdir()
    (files / "parameters.json").write_text(json.dumps(study.settings.space.at(0).parameters()))
    (files / "result.json").write_text("0.75")  # after it was ended
    store.retry(study, [0])
    go_on(store, study, folder, 1)
    assert [(trial.value, trial.attempt) for trial in store.trials(study)] == [(0.25, 3)]


@pytest.mark.kill
def test_coordinators_that_are_killed_between_result_and_commit_cost_no_measurement(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "trials"
    with StudyStore.open(url) as store:
        store.create_study(StudySettings("study", SPACE, "grid"))
    deaths = 5
    for _ in range(deaths):
        if (pid := os.fork()) == 0:
            try:
                os.environ["COORDINATOR"] = str(os.getpid())
                kill = "os.kill(int(os.environ['COORDINATOR']), 9)"
                with StudyStore.open(url) as store:
                    go_on(store, store.study("study"), folder, deaths, PROGRAM + kill)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with StudyStore.open(url) as store:
        go_on(store, store.study("study"), folder, deaths)
        trials = store.trials(store.study("study"))
    assert [(trial.state, trial.value, trial.attempt) for trial in trials] == [("succeeded", 0.25, 1)] * deaths
    assert (folder / "measured").read_text() == "x" * deaths
