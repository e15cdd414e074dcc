"""What others named or printed does not move or colour a terminal; files and pipes get it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.store import StudyStore
from tests.cli.terminals import Terminal
from tests.cli_support import Cli, ForkServer
from tests.study.known_studies import make

KEY = "\x1b]0;pwned\x07k\u009b31m\u202e"
NAMES = ["x\x1b[2J", "=1+1"]
SPACE = {KEY: {"_type": "layer_choice", "_value": NAMES}}
MOVES = "\x1b\x07\x7f\u009b\u202e\u2028\u2066"


@pytest.fixture(autouse=True)
def hostile(nnas: Cli) -> None:
    """``nnas.db`` with a study whose keys, candidates and metrics are hostile, and files of the same kind."""
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store, "s", (0.5, 1.5), space=SearchSpace.from_json(SPACE))
    Path("esc.json").write_text(json.dumps(SPACE))
    Path("wrong.json").write_text(json.dumps({KEY: "no\u009b31m\u202e"}))


COMMANDS = [
    ("study", "export", "--format", "csv"),
    ("study", "export"),
    ("study", "show"),
    ("study", "show", "--json"),
    ("study", "trials"),
    ("study", "trials", "--json"),
    ("study", "top", "--once"),
    ("validate", "wrong.json", "--space", "esc.json"),
    ("validate", "wrong.json", "--space", "esc.json", "--json"),
    ("tune", "esc.json", "--trial-command", "no\x1b[2J\u009b"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_gets_escapes(
    nnas: Cli, forks: ForkServer, terminal: Terminal, tmp_path: Path, command: tuple[str, ...]
) -> None:
    forks.run(tmp_path, *command, stdout=terminal.path, stderr=terminal.path, env={"NO_COLOR": "1"})
    text = terminal.text()
    assert not set(text) & set(MOVES)
    assert "\\u009b" in text or "\\x9b" in text


def test_files_and_pipes_get_names_as_they_are(nnas: Cli) -> None:
    table = nnas.ok("study", "export", "--format", "csv").out
    assert KEY in table
    assert json.loads(nnas.ok("study", "export").out)[0]["parameter"] == {KEY: {"_value": NAMES[0], "_idx": 0}}
    nnas.ok("study", "export", "--format", "csv", "-o", "t.csv")
    assert Path("t.csv").read_text() == table


def test_json_holds_no_character_that_moves_a_terminal(nnas: Cli) -> None:
    assert not set(nnas.ok("study", "export").out) & set(MOVES)
    assert not set(nnas("validate", "wrong.json", "--space", "esc.json", "--json").out) & set(MOVES)
