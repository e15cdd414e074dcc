"""Trials that are processes of a command: what they get, how their ends are told, and who has which GPU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.execution import commands
from nnas_core.execution.commands import (
    MOST_SLOTS,
    CommandEngine,
    LocalSettings,
    split_command,
    threads_for,
)
from nnas_core.execution.engine import Finished, Intermediate, Report, TrialResult
from tests.execution.command_trials import WAIT, Make, engines, failed, values
from tests.execution.process_checks import ends, job, lives, pid_in, until_gone
from tests.study.known_studies import SPACE
from tests.study.program_fork_server import until

PATIENCE_S = 60.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """An engine whose trials run a Python text; their files are in ``tmp_path/trials``."""
    yield from engines(tmp_path)


def test_a_trial_finds_its_parameters_and_its_place_in_the_environment(make: Make, tmp_path: Path) -> None:
    engine = make("shutil = __import__('shutil'); json.dump(env, open(env['trial_dir'] + '/env', 'w')); result(0.5)")
    engine.submit(job(3, 2))
    assert ends(engine, 1) == [Finished(3, 2, TrialResult(0.5), pytest.approx(PATIENCE_S / 2, abs=PATIENCE_S / 2))]
    folder = tmp_path / "trials" / "3-2"
    assert json.loads((folder / "parameters.json").read_text()) == SPACE.at(3).parameters()
    assert json.loads((folder / "env").read_text()) == {
        "trial": "3",
        "attempt": "2",
        "trial_dir": str(folder),
        "parameters": str(folder / "parameters.json"),
        "result": str(folder / "result.json"),
        "intermediate": str(folder / "intermediate.jsonl"),
    }
    assert sorted(path.name for path in folder.iterdir()) == ["env", "log.txt", "parameters.json", "result.json"]


def test_a_trial_works_in_another_folder_where_the_settings_say_so(make: Make, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    engine = make("open('here', 'w').close(); result(1)", work_in=tmp_path / "project")
    engine.submit(job(0))
    assert values(ends(engine, 1)) == {0: 1.0}
    assert (tmp_path / "project" / "here").exists()


def test_a_trial_works_where_we_do_with_a_log_of_its_own(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = make("print(os.getcwd()); print('x' * 10**6); result(1)", folder=Path("relative"), log_bytes=100)
    engine.submit(job(0))
    assert values(ends(engine, 1)) == {0: 1.0}
    log = (tmp_path / "relative" / "0-1" / "log.txt").read_text()
    assert log.startswith(f"{tmp_path}\nx")
    assert len(log) < 5000


def test_a_result_that_another_study_left_there_is_none(make: Make, tmp_path: Path) -> None:
    engine = make("if env['trial'] == '0': result(1)\nprint('nothing to say')")
    folder = tmp_path / "trials" / "1-1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"value": 9}')
    (folder / "intermediate.jsonl").write_text('{"value": 9}\n')
    engine.submit(job(1))
    heard: list[Report] = []
    said = failed(ends(engine, 1, heard.append)[0])[2]
    assert said == (
        "no result (exit 0): the program wrote no file NNAS_RESULT and did not call report_final; its log is "
        f"{folder}/log.txt"
    )
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("text", "message", "lost"),
    [
        ("print('one\\n\\x1b[1mlast words\\n'); sys.exit(3)", "no result (exit 3): [1mlast words", False),
        ("sys.exit(3)", "no result (exit 3)", False),
        ("raise ValueError('no')", "no result (exit 1): ValueError: no", False),
        ("os.kill(os.getpid(), 9)", "killed by signal 9 (out of memory?)", True),
        ("os.kill(os.getpid(), 11)", "killed by signal 11 (SIGSEGV)", True),
        ("os.mkfifo(env['result'])", "the result is not a file", False),
        ("result(float('nan'))", "metric is not a finite number: nan", False),
        ("result(1, trial=7)", "the result is that of trial 7", False),
    ],
)
def test_an_end_without_a_result_says_why(make: Make, text: str, message: str, lost: bool) -> None:
    engine = make(text)
    engine.submit(job(0))
    assert failed(ends(engine, 1)[0]) == (0, 1, message, lost)


@pytest.mark.parametrize("last", ["sys.exit(1)", "os.kill(os.getpid(), 11)"])
def test_a_result_counts_whatever_comes_after_it(make: Make, last: str) -> None:
    engine = make(f"result(2, metrics={{'a': 1}}, cost={{'b': 3}}); {last}")
    engine.submit(job(0))
    report = ends(engine, 1)[0]
    assert isinstance(report, Finished)
    assert report.result == TrialResult(2.0, {"a": 1.0}, {"b": 3.0})


def test_intermediate_values_come_in_order_and_all_before_the_end(make: Make) -> None:
    text = (
        "lines = [json.dumps({'value': place}) for place in range(40_000)]\n"
        "result(1)\n"
        "with open(env['intermediate'], 'w') as stream: stream.write('\\n'.join(lines) + '\\n0.5\\n')"
    )
    engine = make(text)
    engine.submit(job(4, 2))
    heard: list[Report] = []
    ends(engine, 1, heard.append)
    expected = [Intermediate(4, 2, place, float(place)) for place in range(40_000)]
    assert heard[:-1] == [*expected, Intermediate(4, 2, 40_000, 0.5)]


def test_an_intermediate_value_comes_while_its_trial_runs(make: Make, tmp_path: Path) -> None:
    engine = make("print(0.25, file=open(env['intermediate'], 'w')); wait_for('go'); result(1)")
    engine.submit(job(0))
    until(lambda: engine.poll(0.05) == [Intermediate(0, 1, 0, 0.25)], "nothing comes")
    (tmp_path / "go").touch()
    assert values(ends(engine, 1)) == {0: 1.0}


# ---- ends from outside


@pytest.mark.kill
def test_a_trial_that_takes_too_long_is_ended_with_its_children_and_costs_no_other(make: Make, tmp_path: Path) -> None:
    engine = make(
        "if env['trial'] == '0':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    say('child' if os.fork() == 0 else 'trial')\n"
        f"    {WAIT}\n"
        "wait_for('go'); result(1)"
    )
    engine.submit(job(0, timeout_s=1.5))
    engine.submit(job(1))
    assert failed(ends(engine, 1)[0]) == (0, 1, "timed out after 1.5 s", False)
    assert not any(lives(pid_in(tmp_path / name)) for name in ("child", "trial"))
    (tmp_path / "go").touch()
    assert values(ends(engine, 1)) == {1: 1.0}


@pytest.mark.kill
def test_the_end_of_a_deaf_trial_is_waited_for_without_looking_all_the_time(make: Make, tmp_path: Path) -> None:
    engine = make(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('trial')\n{WAIT}", grace_s=0.5)
    engine.submit(job(0, timeout_s=0.5))
    polls = []
    while not any(polls):
        polls.append(engine.poll(PATIENCE_S))
    assert len(polls) <= 3  # it has begun, its time is over, it has ended
    assert failed(polls[-1][0]) == (0, 1, "timed out after 0.5 s", False)


@pytest.mark.kill
def test_a_trial_is_cancelled_by_its_attempt_and_the_first_reason_counts(make: Make, tmp_path: Path) -> None:
    engine = make(f"signal.signal(15, lambda *_: (result(9), sys.exit()))\nsay('trial')\n{WAIT}", grace_s=PATIENCE_S)
    engine.submit(job(0, 2))
    pid = pid_in(tmp_path / "trial")
    engine.cancel(0, 1, "an attempt that was")
    engine.cancel(1, 1, "nobody")
    assert engine.poll(0) == []
    engine.cancel(0, 2, "not good enough")
    engine.cancel(0, 2, "again")
    assert failed(ends(engine, 1)[0]) == (0, 2, "not good enough", False)  # though it reported in its last moment
    assert not lives(pid)


@pytest.mark.kill
def test_an_end_that_is_seen_late_leaves_its_open_file_to_the_next_trial(make: Make, tmp_path: Path) -> None:
    engine = make(f"say('begun')\n{WAIT}")
    engine.submit(job(0))
    pid_in(tmp_path / "begun")
    engine.cancel(0, 1, "not good enough")
    engine._trials[0].process.wait(PATIENCE_S)  # so no poll sees its pipe
    assert [failed(report) for report in engine.poll(0)] == [(0, 1, "not good enough", False)]
    engine.submit(job(1))
    engine.cancel(1, 1, "nor is this")
    assert [failed(report) for report in ends(engine, 1)] == [(1, 1, "nor is this", False)]


@pytest.mark.kill
def test_an_engine_that_is_closed_leaves_nothing_and_says_nothing(make: Make, tmp_path: Path) -> None:
    engine = make(f"signal.signal(15, signal.SIG_IGN)\nsay('trial' + env['trial'])\n{WAIT}")
    for number in range(3):
        engine.submit(job(number))
    pids = [pid_in(tmp_path / f"trial{number}") for number in range(3)]
    engine.close()
    assert not any(lives(pid) for pid in pids)
    engine.close()


@pytest.mark.kill
def test_a_trial_whose_supervisor_is_killed_is_lost(make: Make, tmp_path: Path) -> None:
    engine = make(f"say('trial')\nos.kill(os.getppid(), 9)\n{WAIT}")
    engine.submit(job(0))
    assert failed(ends(engine, 1)[0]) == (0, 1, "killed by signal 9 (out of memory?)", True)
    until_gone(pid_in(tmp_path / "trial"))


# ---- GPUs


def test_each_trial_has_a_gpu_of_its_own_which_the_next_one_gets(make: Make, tmp_path: Path) -> None:
    text = (
        "say('gpu' + os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "wait_for('go' + env['trial'])\n"
        "if env['trial'] == '0': os.kill(os.getpid(), 9)\n"
        "result(1, metrics={'gpu': int(os.environ['CUDA_VISIBLE_DEVICES'])})"
    )
    engine = make(text, gpus=("5", "3"))
    assert engine.slots == 2

    def gpu_of_next(number: int) -> str:
        before = {path.name for path in tmp_path.glob("gpu*")}
        engine.submit(job(number))
        found: set[str] = set()
        until(lambda: found.update({path.name for path in tmp_path.glob("gpu*")} - before) or found, "no trial begins")
        return found.pop()

    assert [gpu_of_next(0), gpu_of_next(1)] == ["gpu5", "gpu3"]
    (tmp_path / "go0").touch()
    assert failed(ends(engine, 1)[0])[3]
    (tmp_path / "gpu5").unlink()
    assert gpu_of_next(2) == "gpu5"
    for number in (1, 2):
        (tmp_path / f"go{number}").touch()
    found = {report.number: report.result.metrics for report in ends(engine, 2) if isinstance(report, Finished)}
    assert found == {1: {"gpu": 3.0}, 2: {"gpu": 5.0}}


def test_without_gpus_as_many_trials_run_as_are_given(make: Make, tmp_path: Path) -> None:
    engine = make("say('trial' + env['trial'])\nfor name in ('trial0', 'trial1', 'trial2'): wait_for(name)\nresult(1)")
    assert engine.slots == MOST_SLOTS
    for number in range(3):
        engine.submit(job(number))
    assert values(ends(engine, 3)) == {0: 1.0, 1: 1.0, 2: 1.0}  # each waited for all others


# ---- what cannot be


def test_a_command_that_is_not_there_ends_the_study(tmp_path: Path) -> None:
    engine = CommandEngine(["no-such-program"], LocalSettings(tmp_path))
    engine.submit(job(0))
    with pytest.raises(EnvironmentFailure) as caught:
        ends(engine, 1)
    assert str(caught.value) == "the trial command cannot be started: no-such-program: No such file or directory"
    assert caught.value.hint == "give a program that this machine has"
    engine.close()


def test_files_that_cannot_be_written_are_told(make: Make, tmp_path: Path) -> None:
    engine = make("result(1)")
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "0-1").touch()
    with pytest.raises(EnvironmentFailure, match=r"0-1: cannot write: a file of that name is in the way"):
        engine.submit(job(0))
    (tmp_path / "trials" / "1-1" / "result.json").mkdir(parents=True)
    with pytest.raises(EnvironmentFailure, match=r"result\.json: cannot write"):
        engine.submit(job(1))


def test_a_supervisor_that_cannot_be_started_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = make("result(1)")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EnvironmentFailure, match="cannot start: no such directory"):
        engine.submit(job(0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python train.py", ["python", "train.py"]),
        ("'my program' \"a b\" c\\ d $HOME *", ["my program", "a b", "c d", "$HOME", "*"]),
        ("a ; b && c", ["a", ";", "b", "&&", "c"]),
    ],
)
def test_a_command_is_split_as_by_a_shell_that_expands_nothing(text: str, words: list[str]) -> None:
    assert split_command(text) == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^`trial_command` is empty$"),
        ("  ", r"^`trial_command` is empty$"),
        ("python 'x", r"^`trial_command` \"python 'x\": no closing quotation$"),
    ],
)
def test_a_command_without_words_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_command(text)


def test_threads_are_the_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [threads_for(concurrency) for concurrency in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(commands.os, "cpu_count", lambda: None)
    assert threads_for(2) == 1
