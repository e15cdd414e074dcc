"""``nnas tune --engine ray``: the same answers as on this machine, and what of the options goes together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nnas_core.errors import ExitCode
from tests.cli_support import Cli, trials_of

pytestmark = pytest.mark.ray

SPACE = {key: {"_type": "layer_choice", "_value": ["a", "b", "c"]} for key in ("n", "op")}

PROGRAM = """
import json, os
parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
value = sum(parameters[key]["_idx"] / 3 for key in sorted(parameters))
json.dump({"value": value}, open(os.environ["NNAS_RESULT"], "w"))
"""

COMMAND = ("tune", "space.json", "--trial-command", f"{sys.executable} -I -S trial.py")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """A space, and a program that adds up the thirds of indices."""
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "trial.py").write_text(PROGRAM)


@pytest.mark.slow
def test_a_program_on_a_cluster_of_its_own_gives_what_it_gives_without(nnas: Cli) -> None:
    options = ("--tuner", "grid", "--trials", 9, "--concurrency", 2)
    here = nnas(*COMMAND, *options, "--study", "here")
    there = nnas(*COMMAND, *options, "--study", "there", "--engine", "ray")
    assert (here.code, there.code) == (0, 0)
    assert there.out == here.out
    assert trials_of("there") == trials_of("here")
    assert [trial[3] for trial in trials_of("there")][-1] == 2 / 3 + 2 / 3


def test_a_cluster_that_cannot_be_reached_leaves_no_study(nnas: Cli) -> None:
    result = nnas(*COMMAND, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert result.code == ExitCode.ENVIRONMENT
    assert result.out == ""
    assert result.err == (
        "nnas: error: cannot reach the Ray cluster at 127.0.0.1:1: [Errno 111] Connection refused\n"
        "hint: give HOST:PORT of its head node, or auto on a node of it\n"
    )
    assert not Path("nnas.db").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray-address", "auto"), "--ray-address does nothing without --engine ray"),
        (
            ("--engine", "ray", "--ray-address", "auto", "--gpus", "0"),
            "--gpus 0 names GPUs of this machine, and a cluster assigns its own",
        ),
        (("--engine", "ray", "--gpus", "any"), "--gpus any needs --ray-address"),
        (("--engine", "ray", "--gpus", "0,0"), "--gpus 0,0: with --engine ray, no two trials share a GPU"),
    ],
)
def test_options_of_a_cluster_that_do_not_go_together_are_refused(
    nnas: Cli, options: tuple[str, ...], message: str
) -> None:
    result = nnas(*COMMAND, *options)
    assert result.code == ExitCode.USAGE
    assert result.err.splitlines()[0] == f"nnas: error: {message}"
