"""Programs that write a result and do not end, and those that end and have written none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nnas_core.execution.commands import CommandEngine, shell_word, split_command
from tests.execution.command_trials import WAIT, Make, engines, failed, values
from tests.execution.process_checks import ends, job
from tests.study.program_fork_server import until


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """An engine whose trials run a Python text; their files are in ``tmp_path/trials``."""
    yield from engines(tmp_path)


HANGS = "result(3)\nsay('written')\nwhile True: signal.pause()"


def test_a_result_counts_at_the_time_limit_of_a_program_that_hangs(make: Make) -> None:
    engine = make(HANGS)
    engine.submit(job(0, timeout_s=1.0))
    assert values(ends(engine, 1)) == {0: 3.0}


def test_a_result_counts_some_time_after_it_if_there_is_no_limit(make: Make) -> None:
    engine = make(HANGS, linger_s=0.2)
    engine.submit(job(0))
    assert values(ends(engine, 1)) == {0: 3.0}


def test_a_program_with_a_limit_of_its_own_may_go_on_after_its_result(make: Make, tmp_path: Path) -> None:
    engine = make("result(3)\nsay('written')\nwait_for('go')\nsay('saved')", linger_s=0.01)
    engine.submit(job(0, timeout_s=60.0))
    until(lambda: engine.poll(0.02) == [] and (tmp_path / "written").exists(), "it does not begin")
    for _ in range(3):
        assert engine.poll(0.02) == []
    (tmp_path / "go").touch()
    assert values(ends(engine, 1)) == {0: 3.0}
    assert (tmp_path / "saved").exists()


def test_a_result_that_is_not_whole_is_none_however_long_a_program_waits(make: Make) -> None:
    engine = make("open(env['result'], 'w').write('{\"value\": ')\nwhile True: signal.pause()", linger_s=0.0)
    engine.submit(job(0, timeout_s=0.7))
    assert failed(ends(engine, 1)[0])[2] == "timed out after 0.7 s"


def test_what_a_program_says_when_it_is_ended_takes_nothing_back(make: Make, tmp_path: Path) -> None:
    again = "signal.signal(15, lambda *_: (result(9), sys.exit()))\n"
    engine = make(again + HANGS, linger_s=0.2, grace_s=5)
    engine.submit(job(0))
    assert values(ends(engine, 1)) == {0: 3.0}


def test_a_result_that_comes_only_because_the_program_is_ended_does_not_count(make: Make, tmp_path: Path) -> None:
    engine = make("signal.signal(15, lambda *_: (result(9), sys.exit()))\nsay('ready')\n" + WAIT, grace_s=5)
    engine.submit(job(0))
    until(lambda: engine.poll(0.02) == [] and (tmp_path / "ready").exists(), "it does not begin")
    engine.cancel(0, 1, "not wanted")
    assert failed(ends(engine, 1)[0])[2] == "not wanted"


# ---- and those that say nothing


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("python a.py | tee log", "|"),
        ("a && b", "&&"),
        ("cd x; b", "cd"),
        ("python $HOME/a.py", "$HOME/a.py"),
        ("LR=1 python a.py", "LR=1"),
        ("python a.py 2>&1", "2>&1"),
        ("python a.py > out", ">"),
        ("sh -c 'python a.py | tee $LOG'", None),
        ("/bin/bash -c 'a && b'", None),
        ("python a.py --note 'a | b' a;b", None),
    ],
)
def test_a_word_that_only_a_shell_understands_is_found(command: str, word: str | None) -> None:
    assert shell_word(split_command(command)) == word


def test_a_program_that_ends_well_and_says_nothing_is_told_of_the_shell(make: Make) -> None:
    engine = make("pass")
    engine = CommandEngine(["true", "&&", "python", "a.py"], engine._settings)
    engine.submit(job(0))
    said = failed(ends(engine, 1)[0])[2]
    engine.close()
    assert said.startswith(
        "no result (exit 0): the program wrote no file NNAS_RESULT and did not call report_final; "
        "no shell ran it, which '&&' needs: sh -c '...'; its log is "
    )
