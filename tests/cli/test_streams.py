"""Standard output is the answer, standard error everything else; how much, in which colour, in which form."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from nnas_core import schema
from tests.cli_support import MODEL, Cli, ForkServer

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2)

CHATTY = 'import sys\nprint("imported")\n' + MODEL.replace(
    "        a = self.norm", '        print("forward")\n        a = self.norm'
)


@pytest.fixture
def run(small_run: Path) -> Path:
    """A finished search."""
    return small_run


def test_what_user_code_prints_is_no_answer(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(CHATTY)
    result = nnas("ss-gen", "model.py")
    assert result.code == 0
    assert set(result.json) == {"act", "link", "op"}
    assert "imported" in result.err
    result = nnas(*SEARCH, "-o", "run", "--json")
    assert result.code == 0
    assert set(result.json["architecture"]) == {"act", "link", "op"}
    assert "forward" in result.err


def test_each_epoch_is_one_plain_line_without_a_terminal(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "-o", "run")
    assert result.code == 0
    lines = result.err.splitlines()
    number = r"\d+\.\d{4}"
    for epoch, line in enumerate(lines[:2], start=1):
        pattern = rf"epoch {epoch}/2: train loss {number}, accuracy {number}; valid loss {number}, accuracy {number}; "
        assert re.fullmatch(pattern + r"\d+ samples/s", line)
    assert lines[2:] == ["next: nnas export run/checkpoint.pt, or nnas tune model.py --checkpoint run/checkpoint.pt"]


def test_the_answer_of_search_is_a_table_of_metric_throughput_time_and_memory(nnas: Cli, small_model: Path) -> None:
    out = nnas.ok(*SEARCH, "-o", "run").out
    assert re.search(r"^run +run$", out, re.MULTILINE)
    assert re.search(r"^validation \(sampled architectures\) +loss \d\.\d{4}, accuracy \d\.\d{4}$", out, re.MULTILINE)
    assert re.search(r"^throughput +\d+ samples/s$", out, re.MULTILINE)
    assert re.search(r"^time +\d+\.\d s$", out, re.MULTILINE)
    assert re.search(r"^peak memory +\d+ MiB$", out, re.MULTILINE)


@pytest.mark.parametrize("quiet", ["-q", "-qq", "--quiet"])
def test_quiet_silences_everything_but_the_answer(nnas: Cli, run: Path, quiet: str) -> None:
    loud = nnas("export", "run/checkpoint.pt", "-o", "a.json")
    still = nnas("export", "run/checkpoint.pt", "-o", "b.json", quiet)
    assert (loud.code, loud.out, loud.err) == (0, "", "wrote a.json\n")
    assert (still.code, still.out, still.err) == (0, "", "")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_quiet_does_not_silence_errors(nnas: Cli) -> None:
    result = nnas("export", "nothing.pt", "-q")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nothing.pt: no such file\nhint: check the path\n"


def test_quiet_and_verbose_cancel_out(nnas: Cli, run: Path) -> None:
    assert nnas("export", "run/checkpoint.pt", "-o", "a.json", "-qv").err == "wrote a.json\n"


@pytest.mark.parametrize("option", [(), ("-v",), ("-q",), ("--no-progress",), ("--color", "always")])
def test_the_answer_does_not_depend_on_how_much_is_said(nnas: Cli, run: Path, option: tuple[str, ...]) -> None:
    assert nnas.ok("export", "run/checkpoint.pt", *option).out == Path("run/architecture.json").read_text()


# ---- colour

ESCAPE = "\x1b["


def test_there_is_no_colour_without_a_terminal(nnas: Cli) -> None:
    assert ESCAPE not in nnas.ok("list", "tuners").out


def test_color_always_colours(nnas: Cli) -> None:
    assert ESCAPE in nnas.ok("list", "tuners", "--color", "always").out


def test_force_color_colours(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert ESCAPE in nnas.ok("list", "tuners").out


def test_no_color_wins_over_force_color(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE not in nnas.ok("list", "tuners").out


def test_an_empty_no_color_counts_as_none(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "")
    assert ESCAPE in nnas.ok("list", "tuners").out


def test_the_option_wins_over_the_environment(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE in nnas.ok("list", "tuners", "--color", "always").out
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert ESCAPE not in nnas.ok("list", "tuners", "--color", "never").out


# ---- --json


def test_json_of_search_is_one_document_and_nothing_else(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "-o", "run", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.out == json.dumps(result.json, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert result.json["architecture"] == json.loads(Path("run/architecture.json").read_text())
    assert (result.json["seed"], result.json["space_size"], result.json["epochs"]) == (0, 18, 2)


def failures() -> list[Any]:
    """Every kind of failure that a command line can have: exit code, kind, arguments."""
    return [
        pytest.param(2, "usage", ("search", "--bogus"), id="unknown option"),
        pytest.param(2, "usage", ("nothing",), id="unknown command"),
        pytest.param(2, "usage", ("export",), id="missing argument"),
        pytest.param(2, "usage", ("search", "model.py"), id="missing option"),
        pytest.param(3, "input", ("export", "nothing.pt"), id="no such file"),
        pytest.param(4, "user-code", ("ss-gen", "broken.py"), id="user code"),
        pytest.param(5, "no-result", (*SEARCH[:1], "nan.py", *SEARCH[2:]), id="diverged"),
        pytest.param(6, "environment", (*SEARCH, "-o", "model.py/run"), id="cannot write"),
    ]


@pytest.mark.parametrize(("code", "kind", "arguments"), failures())
def test_json_of_a_failure_is_one_error_object_on_standard_error(
    nnas: Cli, small_model: Path, code: int, kind: str, arguments: tuple[object, ...]
) -> None:
    Path("broken.py").write_text("raise ValueError('no')\n")
    Path("nan.py").write_text(MODEL.replace("return self.head", "return float('nan') * self.head"))
    result = nnas(*arguments, "--json")
    assert (result.code, result.out) == (code, "")
    assert schema.problems("error", json.loads(result.err)) == []
    assert (result.error["code"], result.error["kind"]) == (code, kind)
    assert result.error["message"]


def test_json_from_the_environment_counts_for_failures_too(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNAS_JSON", "1")
    result = nnas("export", "nothing.pt")
    assert (result.code, result.out) == (3, "")
    assert (result.error["where"], result.error["message"]) == ("nothing.pt", "no such file")


def test_json_carries_the_users_traceback_from_their_frame_on(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('no')\n")
    error = nnas("ss-gen", "broken.py", "--json").error
    assert error["message"] == "ValueError: no"
    assert error["traceback"] == (
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/broken.py", line 1, in <module>\n'
        "    raise ValueError('no')\n"
        "ValueError: no\n"
    )


def test_a_traceback_of_ours_is_shown_with_debug_only(nnas: Cli) -> None:
    assert "Traceback" not in nnas("export", "nothing.pt").err
    shown = nnas("export", "nothing.pt", "--debug").err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("nnas: error: nothing.pt: no such file\nhint: check the path\n")


# ---- real streams


def test_a_reader_that_goes_away_ends_the_command_with_141(forks: ForkServer, tmp_path: Path) -> None:
    # a named pipe whose reader leaves after the first byte, as `| head -1` does
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    model = "import torch.nn as nn\nfrom nnas_core import LayerChoice\n\n\ndef build_model():\n"
    model += "    return nn.ModuleList([LayerChoice([nn.ReLU(), nn.Tanh()]) for _ in range(2000)])\n"
    (tmp_path / "big.py").write_text(model)

    def read_one_byte() -> None:
        with open(fifo, "rb", buffering=0) as pipe:
            pipe.read(1)

    reader = threading.Thread(target=read_one_byte)
    reader.start()
    process = forks.start(tmp_path, "ss-gen", "big.py", stdout=fifo)
    reader.join(timeout=30)
    assert process.wait().code == 141
    assert process.err == ""


@pytest.mark.parametrize("arguments", [("list", "tuners"), ("info", "--json"), ("ss-gen", "model.py"), ("--help",)])
def test_a_full_standard_output_is_told_in_one_line(
    forks: ForkServer, small_model: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    process = forks.start(tmp_path, *arguments, stdout="/dev/full")
    assert process.wait().code == 6
    lines = process.err.splitlines()
    if "--json" in arguments:
        assert json.loads(process.err)["error"]["message"] == "cannot write: no space left on the device"
    else:
        assert lines == [
            "nnas: error: standard output: cannot write: no space left on the device",
            "hint: free some space and run the command again",
        ]
