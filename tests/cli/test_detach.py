"""``nnas tune --detach``: the study goes on, and what is wrong is still said where the command was typed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from nnas_core import schema
from tests.cli_support import Cli, ForkServer, wait_until

TUNE = ("tune", "model.py", "--train-epochs", 1, "--tuner", "random", "--study", "s")


def state(nnas: Cli) -> str:
    """Of the study."""
    return str(nnas.ok("study", "show", "s", "--json").json["state"])


@pytest.fixture
def begun(forks: ForkServer, small_model: Path) -> dict[str, object]:
    """A study of all 18 architectures that was begun in the background, as the command told it."""
    result = forks.run(small_model.parent, *TUNE, "--trials", 18, "--detach", "--json")
    assert (result.code, result.err) == (0, "")
    answer: dict[str, object] = json.loads(result.out)
    return answer


def test_the_study_is_finished_in_the_background(nnas: Cli, begun: dict[str, object]) -> None:
    assert (schema.kind_of(begun), schema.problems("tune-detach-report", begun)) == ("tune-detach-report", [])
    assert begun["study"] == "s"
    wait_until(lambda: state(nnas) == "finished")
    assert len(nnas.ok("study", "trials", "s", "--json").json["trials"]) == 18
    log = Path(str(begun["log"]))
    wait_until(lambda: log.read_text().endswith("}\n"))
    assert json.loads(log.read_text())["finished"] == 18


def test_it_is_no_child_of_the_terminal(nnas: Cli, forks: ForkServer, small_model: Path) -> None:
    folder = small_model.parent
    slow = (folder / "model.py").read_text().replace("data(60, 1)", "data(6000, 1)")
    (folder / "model.py").write_text(slow)
    process = forks.start(folder, *TUNE, "--trials", 18, "--detach", "--json")
    result = process.wait()
    background = int(json.loads(result.out)["process"])
    try:
        assert os.getsid(background) == background != os.getsid(0)
        assert nnas.ok("study", "stop", "s").code == 0
        wait_until(lambda: state(nnas) == "interrupted")
    finally:
        with suppress(ProcessLookupError):
            os.kill(background, signal.SIGKILL)


def test_it_says_how_to_follow_and_stop_it(forks: ForkServer, small_model: Path) -> None:
    result = forks.run(small_model.parent, *TUNE, "--trials", 1, "--detach")
    assert (result.code, result.out) == (0, "")
    first, follow, stop = result.err.splitlines()
    assert first.startswith("study 's' runs in the background, process ")
    assert first.endswith("; its output goes to runs/studies/s/tune.log")
    assert follow == "follow it by `nnas study top s`, or `tail -f runs/studies/s/tune.log`"
    assert stop == "stop it by `nnas study stop s`"


def test_what_is_wrong_is_said_at_once(forks: ForkServer, nnas: Cli, small_model: Path) -> None:
    nnas.ok(*TUNE, "--trials", 1)
    result = forks.run(small_model.parent, *TUNE, "--trials", 2, "--detach")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: ")
    assert "--resume" in result.err
