"""``nnas study log``, ``kill`` and ``retry``, and what ``nnas tune`` does with trials that failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nnas_core.study import coordinator
from nnas_core.study.storage.store import StudyStore
from tests.cli.trial_programs import errors, program, stored, tune, write_files
from tests.cli_support import Cli, wait_until

URL = "sqlite:///nnas.db"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_files(tmp_path)


@contextmanager
def meanwhile(deed: Callable[[], Any]) -> Iterator[list[Any]]:
    """Something that happens in another thread; its result."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(deed()))
    thread.start()
    yield found
    thread.join(60)


def when_running(number: int, deed: Callable[[StudyStore], Any], ready: str | None = None) -> Any:
    """What is done when a trial of the only study runs, and the file ``ready`` is there."""

    def runs() -> bool:
        if not Path("nnas.db").exists() or (ready is not None and not Path(ready).exists()):
            return False
        with StudyStore.open(URL) as store:
            return any(
                trial.number == number and trial.state == "running"
                for study in store.studies()
                for trial in store.trials(study)
            )

    wait_until(runs)
    with StudyStore.open(URL) as store:
        return deed(store)


# ---- log


def test_the_log_of_a_trial_is_what_its_program_printed(nnas: Cli) -> None:
    program("print('trial', trial, attempt, 'é', flush=True)\nif trial == 1 and attempt == 1: os.kill(os.getpid(), 9)")
    tune(nnas, trials=2)
    assert nnas.ok("study", "log", 0).out == "trial 0 1 é\n"
    assert nnas.ok("study", "log", "space", 1).out == "trial 1 2 é\n"
    assert nnas.ok("study", "log", "space-grid", 1, "--attempt", 1).out == "trial 1 1 é\n"
    assert nnas.ok("study", "log", 1, "--json").json == {
        "format": "nnas.study-log-report/1",
        "study": "space-grid",
        "trial": 1,
        "attempt": 2,
        "file": str(Path("runs/studies/space-grid/trials/1-2/log.txt").absolute()),
        "text": "trial 1 2 é\n",
    }
    nnas.ok("study", "log", 0, "-o", "copy")
    assert Path("copy").read_text() == "trial 0 1 é\n"


def test_the_log_is_found_where_the_trial_ran_and_from_anywhere(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    program("print('here')")
    tune(nnas, "--trial-log-dir", "elsewhere", trials=1)
    folder = Path("nnas.db").absolute()
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    assert nnas.ok("study", "log", 0, "--storage", f"sqlite:///{folder}").out == "here\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("x",), 2, "x: no number of a trial\nhint: give [STUDY] N, as in 7 or NAME 7\n"),
        (("a", "b", "1"), 2, "a b 1: no number of a trial\nhint: give [STUDY] N, as in 7 or NAME 7\n"),
        (("7",), 3, "nnas.db: study 'space-grid' has no trial 7\n"),
        (("999999999",), 3, "nnas.db: study 'space-grid' has no trial 999999999\n"),
        (("9" * 30,), 2, f"{'9' * 30}: no number of a trial\nhint: give [STUDY] N, as in 7 or NAME 7\n"),
        (("9" * 4000,), 2, f"{'9' * 200}: no number of a trial\nhint: give [STUDY] N, as in 7 or NAME 7\n"),
        (("other", "0"), 3, "nnas.db: no study is named 'other'\nhint: there are space-grid\n"),
        (("", "0"), 2, "the name of the study is empty\nhint: give it, or leave it out\n"),
    ],
)
@pytest.mark.parametrize("command", ["log", "kill"])
def test_a_trial_that_is_not_there_is_refused(
    nnas: Cli, command: str, words: tuple[str, ...], code: int, message: str
) -> None:
    tune(nnas, trials=1)
    result = nnas("study", command, *words)
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")


def test_a_log_that_is_not_there_is_told(nnas: Cli) -> None:
    tune(nnas, trials=1)
    log = Path("runs/studies/space-grid/trials/0-1/log.txt").absolute()
    result = nnas("study", "log", 0, "--attempt", 2)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"nnas: error: trial 0 has no log of attempt 2 in {log.parents[1]}\n"
        "hint: it may be on the machine that ran it, or be deleted\n"
    )
    result = nnas("study", "log", 0, "--attempt", "9" * 9)
    assert (result.code, result.out) == (3, "")
    assert "has no log of attempt 999" in result.err
    log.unlink()
    (log.parents[1] / "worker-0.log").touch()
    result = nnas("study", "log", 0)
    assert result.err.endswith(f"hint: its worker has: see {log.parents[1]}/worker-*.log\n")


def test_a_trial_of_this_process_has_no_log(nnas: Cli, small_model: Path) -> None:
    nnas.ok("tune", "model.py", "--train-epochs", 1, "--trials", 1)
    result = nnas("study", "log", 0)
    assert result.code == 3
    assert result.err.startswith("nnas: error: trial 0 has no log of its own\nhint: it was imported, or ")


# ---- kill


def test_a_trial_that_is_killed_counts_as_stopped_and_the_study_goes_on(nnas: Cli) -> None:
    program("if trial == 1: report(0.5); open('ready', 'w').close(); signal.pause()")
    with meanwhile(lambda: when_running(1, lambda store: store.request_kill(store.studies()[0], 1), "ready")) as asked:
        result = tune(nnas, trials=3)
    assert asked == [None]
    assert result.code == 0
    assert "trial 1: stopped early at 0.5: ended by `nnas study kill` (" in result.err
    trial = stored()[1]
    assert (trial.state, trial.value, trial.error) == ("stopped", None, "ended by `nnas study kill`")
    assert [one.state for one in stored()] == ["succeeded", "stopped", "succeeded"]


def test_a_trial_of_this_process_is_killed_between_its_batches(nnas: Cli, small_model: Path) -> None:
    def kill(store: StudyStore) -> str | None:
        return store.request_kill(store.studies()[0], 0)

    with meanwhile(lambda: when_running(0, kill)) as asked:
        result = nnas("tune", "model.py", "--train-epochs", 100_000, "--tuner", "grid", "--trials", 1)
    assert asked == [None]
    assert result.code == 5
    assert "trial 0: stopped early: ended by `nnas study kill` (" in result.err


def test_a_trial_that_does_not_run_cannot_be_killed(nnas: Cli) -> None:
    tune(nnas, trials=1)
    result = nnas("study", "kill", 0)
    assert (result.code, result.out) == (1, "trial 0 of study 'space-grid' does not run: it is succeeded\n")
    result = nnas("study", "kill", 0, "--json")
    assert result.json == {
        "format": "nnas.study-kill-report/1",
        "study": "space-grid",
        "trial": 0,
        "asked": False,
        "state": "succeeded",
    }


def test_kill_says_that_the_trial_will_end(nnas: Cli) -> None:
    tune(nnas, trials=1)
    with StudyStore.open(URL) as store:
        study = store.study("space-grid")
        with store.acquire(study) as session:
            trial = session.trials.start(study.settings.space.at(8))
            result = nnas("study", "kill", trial.number)
            assert (result.code, result.out) == (0, "trial 1 of study 'space-grid' will be ended\n")
            assert session.read_control().killed == {(1, 1)}
            session.trials.retry(trial)
            assert session.read_control().killed == set()  # another attempt is not meant


# ---- failures


BROKEN = "from missing import module"


def test_a_program_that_is_broken_ends_the_study_soon_and_is_tried_again_when_it_is_mended(nnas: Cli) -> None:
    program(BROKEN)
    result = tune(nnas, trials=9)
    assert (result.code, result.out) == (5, "")
    assert result.err.endswith(
        "nnas: error: study 'space-grid' ends: 3 trials failed alike, and none has succeeded\n"
        "  trial 0: no result (exit 1): ModuleNotFoundError: No module named 'missing'\n"
        "hint: mend the trials and go on with --resume; `nnas study retry space-grid` tries those again that failed; "
        "--max-failures allows for more\n"
    )
    program("")
    result = nnas("study", "retry")
    assert (result.code, result.out) == (0, "trials 0, 1, 2 of study 'space-grid': waiting for `nnas tune --resume`\n")
    assert tune(nnas, "--resume", trials=4).code == 0
    assert [(trial.state, trial.attempt) for trial in stored()] == [("succeeded", 2)] * 3 + [("succeeded", 1)]
    result = nnas("study", "retry", "--json")
    assert result.json["waiting"] == []
    assert nnas.ok("study", "retry").out == "study 'space-grid' has no trial that failed\n"


def test_resume_can_take_up_what_failed(nnas: Cli) -> None:
    program(BROKEN)
    tune(nnas, "--max-failures", 2)
    assert len(errors()) == 2
    program("")
    result = tune(nnas, "--resume", "--retry-failed", trials=3)
    assert result.code == 0
    assert "0 failed" in result.err
    assert [trial.state for trial in stored()] == ["succeeded"] * 3


def test_some_of_them_can_be_retried_by_number(nnas: Cli) -> None:
    program("if trial in (0, 1): sys.exit(1)")
    tune(nnas, trials=3)
    assert nnas.ok("study", "retry", 1).out == "trial 1 of study 'space-grid': waiting for `nnas tune --resume`\n"
    assert nnas.ok("study", "retry", "space", "0").out.startswith("trial 0 of study")
    result = nnas("study", "retry", "9" * 4000)
    assert (result.code, result.out) == (2, "")
    assert "999' is no number of a trial\n" in result.err
    result = nnas("study", "retry", "space", 0, "x")
    assert (result.code, result.err) == (
        2,
        "nnas: error: 'x' is no number of a trial\nhint: give [STUDY] [N]..., as in NAME 3 7\n",
    )
    result = nnas("study", "retry", 2)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: nnas.db: not trials of study 'space-grid' that failed or were stopped\n"
        "  trial 2: it is succeeded\nhint: `nnas study trials space-grid` lists them\n"
    )


def test_as_many_may_fail_as_are_allowed(nnas: Cli) -> None:
    program(BROKEN)
    result = tune(nnas, "--max-failures", "none", trials=5)
    assert result.code == 5
    assert "all 5 finished trials of study 'space-grid' failed\n" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--retry-failed",), "--retry-failed does nothing without --resume"),
        (("--retry-failed", "--join"), "--retry-failed does nothing without --resume"),
        (("--wait",), "--wait does nothing without --resume or --join"),
    ],
)
def test_options_of_a_study_that_is_there_need_it(nnas: Cli, options: tuple[str, ...], message: str) -> None:
    result = tune(nnas, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"nnas: error: {message}\nhint: give ")


# ---- programs that cannot be started


@pytest.mark.parametrize(
    ("command", "program_said", "hint"),
    [
        ("pyhton train.py", "pyhton", "--trial-command takes a program and its arguments: python train.py"),
        (
            "pyhton train.py | tee log",
            "pyhton",
            "no shell runs the command, which '|' needs; --trial-command takes one as well: sh -c '...'",
        ),
        (
            "cd src && python train.py",
            "cd",
            "no shell runs the command, which 'cd' needs; --trial-command takes one as well: sh -c '...'",
        ),
        (
            "$PYTHON train.py",
            "$PYTHON",
            "no shell runs the command, which '$PYTHON' needs; --trial-command takes one as well: sh -c '...'",
        ),
        (
            "LR=1 python train.py",
            "LR=1",
            "no shell runs the command, which 'LR=1' needs; --trial-command takes one as well: sh -c '...'",
        ),
        ("./trial.py", "./trial.py", "--trial-command takes a program and its arguments: python train.py"),
    ],
)
def test_a_program_that_is_not_there_is_a_mistake_of_the_command_line(
    nnas: Cli, command: str, program_said: str, hint: str
) -> None:
    result = tune(nnas, command=command)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"nnas: error: {program_said}: no such program, or one that cannot be executed\nhint: {hint}\n"
    )
    assert not Path("nnas.db").exists() or not StudyStore.open(URL).studies()


def test_a_script_that_does_not_name_its_interpreter_is_a_mistake_of_the_command_line(nnas: Cli) -> None:
    Path("trial.py").chmod(0o755)
    result = tune(nnas, command="./trial.py")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: ./trial.py: the system cannot run this file: it is neither a program nor a script that begins "
        "with #!\nhint: begin --trial-command with its interpreter, as in python train.py\n"
    )


def test_resume_can_wait_for_the_study(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(nnas, trials=1)
    with StudyStore.open(URL) as store:
        session = store.acquire(store.study("space-grid"))
        result = tune(nnas, "--resume", trials=2)
        assert result.code == 6
        assert result.err.endswith("or give --wait to do so here, or choose another --study name\n")
        monkeypatch.setattr(coordinator, "wait_for", lambda *_: session.release("interrupted"))
        assert tune(nnas, "--resume", "--wait", trials=2).code == 0
    assert len(stored()) == 2


def test_a_result_counts_though_its_program_hangs(nnas: Cli) -> None:
    program("", result="\nwrite('{\"value\": 3}')\nsignal.pause()\n")
    result = tune(nnas, "--linger", "0.2s", trials=1)
    assert result.code == 0
    assert stored()[0].value == 3
