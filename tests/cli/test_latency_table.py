"""``nnas search --latency-table``: the file reaches the algorithm, and what is wrong with it is said at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnas_core.runs.checkpoint import read_checkpoint
from tests.cli_support import Cli

SEARCH = ("search", "model.py", "--epochs", 2, "--batch-size", 8, "-o", "run")
FBNET = (*SEARCH, "--mutator", "fbnet", "--latency-table", "table.json")

LATENCIES: dict[str, dict[str, float]] = {
    "op": {"linear": 2, "skip": 0.25, "deep": 4.5},
    "act": {"relu": 1.5, "tanh": 2.5},
}


def write(latencies: Any, **more: Any) -> None:
    """Write ``table.json``."""
    document = {"format": "nnas.latency-table/1", "unit": "us", "latencies": latencies, **more}
    Path("table.json").write_text(json.dumps(document))


def test_the_table_is_a_mutator_argument_and_is_kept(nnas: Cli, small_model: Path) -> None:
    write(LATENCIES)
    nnas.ok(*FBNET)
    assert json.loads(Path("run/config.json").read_text())["search"]["mutator_arg"] == {"latency_table": "table.json"}
    extra = read_checkpoint("run/checkpoint.pt")["state"]["mutator"]["_extra_state"]
    assert extra["latencies"] == {"op": [2, 0.25, 4.5], "act": [1.5, 2.5], "link": [0, 0, 0]}


def test_the_option_and_the_argument_are_the_same(nnas: Cli, small_model: Path) -> None:
    write(LATENCIES)
    nnas.ok(*FBNET)
    nnas.ok(*SEARCH[:-1], "other", "--mutator", "fbnet", "--mutator-arg", "latency_table=table.json")
    assert Path("run/config.json").read_bytes() == Path("other/config.json").read_bytes()
    assert Path("run/architecture.json").read_bytes() == Path("other/architecture.json").read_bytes()


def test_a_configuration_file_may_name_it(nnas: Cli, small_model: Path) -> None:
    write(LATENCIES)
    Path("options.toml").write_text('[search]\nlatency_table = "table.json"\nmutator = "fbnet"\n')
    nnas.ok(*SEARCH, "--config", "options.toml")
    assert json.loads(Path("run/config.json").read_text())["search"]["mutator_arg"] == {"latency_table": "table.json"}


def test_an_algorithm_without_latencies_refuses_it(nnas: Cli, small_model: Path) -> None:
    write(LATENCIES)
    result = nnas(*SEARCH, "--mutator", "random", "--latency-table", "table.json")
    assert (result.code, result.out) == (2, "")
    assert "error: the mutator 'random' takes no argument 'latency_table'\n" in result.err


def test_fbnet_without_a_table_says_which_option_is_missing(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "--mutator", "fbnet")
    assert (result.code, result.out) == (2, "")
    assert result.err == "nnas: error: fbnet needs a table of latencies\nhint: give --latency-table FILE\n"


def test_every_problem_of_a_table_is_listed(nnas: Cli, small_model: Path) -> None:
    write({"op": {"linear": 2, "skip": 1}, "link": {"": 1, "nothing": 2}, "more": {}})
    result = nnas(*FBNET)
    assert (result.code, result.out) == (3, "")
    assert [line.strip() for line in result.err.splitlines()] == [
        "nnas: error: table.json: the latency table is not one of this model",
        "more: no key of the model",
        "act: missing, with the candidates 'relu', 'tanh'",
        "link: 'nothing' is no candidate; there are '', 'op', 'act'",
        "op: no latency for 'deep'",
        "hint: `nnas ss-gen MODEL` prints the keys and candidates that are needed",
    ]


def test_a_file_that_is_missing_or_no_table_is_refused(nnas: Cli, small_model: Path) -> None:
    missing = nnas(*FBNET)
    assert (missing.code, missing.err) == (3, "nnas: error: table.json: no such file\nhint: check the path\n")
    write({"op": {"linear": -2}}, unit="minutes")
    broken = nnas(*FBNET)
    assert broken.code == 3
    assert [line.strip() for line in broken.err.splitlines()] == [
        "nnas: error: table.json: not a latency table",
        "$.latencies.op.linear: -2 is less than the minimum of 0",
        "$.unit: 'minutes' is not one of ['s', 'ms', 'us', 'ns']",
    ]


def test_a_run_is_not_gone_on_with_by_another_table(nnas: Cli, small_model: Path) -> None:
    write(LATENCIES)
    nnas.ok(*FBNET)
    write({**LATENCIES, "act": {"relu": 1.5, "tanh": 7}})
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert [line.strip() for line in result.err.splitlines()] == [
        "nnas: error: the latency table is not the one that the run was started with",
        "act, 'tanh': 2.5 before, 7.0 now",
        "hint: put the old table back, or start a new run",
    ]
    write(LATENCIES)
    nnas.ok("search", "--resume", "run")


def test_a_table_beside_resume_is_refused(nnas: Cli, small_model: Path) -> None:
    result = nnas("search", "--resume", "run", "--latency-table", "table.json")
    assert result.code == 2
    assert result.err.startswith("nnas: error: --latency-table does nothing with --resume")


def test_validate_compares_a_table_with_a_search_space(nnas: Cli, small_model: Path) -> None:
    nnas.ok("ss-gen", "model.py", "-o", "space.json")
    write(LATENCIES)
    assert nnas("validate", "table.json", "--space", "space.json").out == "table.json: valid (latency-table)\n"
    write({"op": LATENCIES["op"]})
    result = nnas("validate", "table.json", "--space", "space.json")
    assert (result.code, result.out.splitlines()) == (
        1,
        ["table.json: NOT VALID (latency-table)", "  act: missing, with the candidates 'relu', 'tanh'"],
    )


@pytest.mark.parametrize(
    "form", [["latency_weight=0.1"], ["update=reinforce", "latency_target=4", "samples=2"]], ids=["3.3.1", "3.3.2"]
)
def test_proxyless_searches_with_a_table_in_both_forms(nnas: Cli, small_model: Path, form: list[str]) -> None:
    write(LATENCIES)
    search = ["search", "model.py", "--mutator", "proxyless", "--latency-table", "table.json", "--epochs", "2"]
    search += ["--batch-size", "8", *(word for one in form for word in ("--mutator-arg", one)), "-o", "run"]
    nnas.ok(*search, "--mutator-arg", "warmup_epochs=0")
    nnas.ok("export", "run/checkpoint.pt")
    result = nnas(*search[:6], "--epochs", "1", "-o", "other")
    assert result.code == 2
    assert result.err.endswith("hint: give latency_table, update=gradient and latency_weight, or not latency_weight\n")
