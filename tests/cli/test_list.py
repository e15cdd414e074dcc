"""``nnas list``: options read from source, the measured column, and the same as JSON."""

from __future__ import annotations

import json
import re

import pytest

from nnas_core.plugins import registry
from tests.cli_support import Cli, nnas

__all__ = ["nnas"]

DARTS = {
    "kendall_tau": 0.1234,
    "kendall_tau_std": 0.05,
    "accuracy": 0.9,
    "rank": 7.4,
    "proposed_rank": 8,
    "seeds": 5,
    "architectures": 81,
}

SECOND = {**DARTS, "rank": 41, "architectures": 243}

MEASURED = {
    "spaces": {
        "first": {"mutators": {"darts": DARTS, "gone": {}}},
        "second": {"mutators": {"darts": SECOND, "spos": {**SECOND, "rank": 3}}},
    }
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Rows of one line."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measurements of one mutator."""
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(MEASURED))
    monkeypatch.setattr(registry, "_MEASURED", path)


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """No measurements."""
    monkeypatch.setattr(registry, "_MEASURED", tmp_path / "none.json")


def row(result, *cells):
    """Whether there is a row of these cells."""
    pattern = r" {2,}".join(map(re.escape, cells))
    return re.search(rf"^{pattern}( |$)", result.out, re.MULTILINE) is not None


def test_without_verbose_there_are_no_options(nnas: Cli, unmeasured) -> None:
    result = nnas("list", "mutators")
    assert (result.code, result.err) == (0, "")
    assert "learning_rate" not in result.out


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose_lists_options_with_defaults_types_and_meanings(nnas: Cli, flag: str) -> None:
    result = nnas("list", "mutators", flag)
    assert (result.code, result.err) == (0, "")
    assert row(result, "name", "option", "default", "type", "meaning")
    assert row(result, "spos", "bins", "7", "int", "into which the bounds are divided, each equally likely; 1 to")
    assert row(result, "spos", "flops", "null", "Sequence[float | None] | None", "lowest and highest FLOPs of one")
    assert row(result, "darts", "learning_rate", "0.0003", "float", "of Adam, for the logits.")


def test_an_algorithm_without_options_says_so(nnas: Cli) -> None:
    assert row(nnas("list", "mutators", "-v"), "random", "none")


def test_options_of_tuners_are_those_that_users_give(nnas: Cli) -> None:
    result = nnas("list", "tuners", "-v")
    assert row(result, "evolution", "population", "20", "int", "members that live at a time; the paper's searches on")
    assert not re.search(r"^evolution +seed ", result.out, re.MULTILINE)


def test_options_of_assessors_are_those_that_users_give(nnas: Cli) -> None:
    result = nnas("list", "assessors", "-v")
    assert (result.code, result.err) == (0, "")
    assert row(result, "hyperband", "max_resource", "(required)", "int", "values that a complete trial reports; the")
    assert row(result, "medianstop", "start_step", "0", "int", "the first step at which a trial may end; 0 and 1 are")
    assert not re.search(r"^medianstop +optimize_mode ", result.out, re.MULTILINE)


def test_assessors_are_listed_as_json_too(nnas: Cli) -> None:
    found = {entry["name"]: entry for entry in nnas("list", "assessors", "--json").json["assessors"]}
    assert found["asha"]["class"] == "nnas_core.assessors.asha:AshaAssessor"
    assert "arXiv:1810.05934" in found["asha"]["source"]
    assert {"name", "summary", "source", "class", "options"} == set(found["asha"])


def test_options_that_cannot_be_read_are_not_known(nnas: Cli, monkeypatch) -> None:
    entry = registry.Entry("far", "far.away:Far", "from the package far", "", "tuners")
    monkeypatch.setattr(registry, "entries", lambda group: {"far": entry})
    assert row(nnas("list", "tuners", "-v"), "far", "not known")
    assert nnas("list", "tuners", "--json").json["tuners"][0]["options"] is None


def test_an_option_without_a_default_is_required(nnas: Cli, monkeypatch) -> None:
    text = "class Far:\n    def __init__(self, depth: int, seed: int = 0): ..."
    entry = registry.Entry("far", "far:Far", "", "", "tuners", {"far": text}.get)
    monkeypatch.setattr(registry, "entries", lambda group: {"far": entry})
    assert row(nnas("list", "tuners", "-v"), "far", "depth", "(required)", "int")
    assert nnas("list", "tuners", "--json").json["tuners"][0]["options"][0]["default"] is None


def test_what_was_measured_is_a_column_a_space(nnas: Cli, measured) -> None:
    result = nnas("list", "mutators")
    assert row(result, "name", "first", "second", "summary", "source")
    assert row(result, "darts", "7/81", "41/243")
    assert row(result, "spos", "-", "3/243")
    assert row(result, "random", "-", "-")
    assert "gone" not in result.out


def test_without_measurements_there_is_no_column(nnas: Cli, unmeasured) -> None:
    assert row(nnas("list", "mutators"), "name", "summary", "source")


def test_tuners_are_not_measured(nnas: Cli, measured) -> None:
    assert row(nnas("list", "tuners"), "name", "summary", "source")
    assert "measured" not in nnas("list", "tuners", "--json").json["tuners"][0]


def test_json_has_all_of_it(nnas: Cli, measured) -> None:
    found = {entry["name"]: entry for entry in nnas("list", "mutators", "--json").json["mutators"]}
    assert found["darts"]["measured"] == {
        "first": DARTS,
        "second": SECOND,
    }
    assert list(found["spos"]["measured"]) == ["second"]
    assert found["random"]["measured"] is None
    assert found["random"]["options"] == []
    assert found["spos"]["options"][2] == {
        "name": "bins",
        "default": "7",
        "type": "int",
        "summary": "into which the bounds are divided, each equally likely; 1 to ignore how costs are distributed.",
    }


def test_the_list_shows_the_committed_measurements(nnas: Cli) -> None:
    spaces = json.loads(registry._MEASURED.read_text(encoding="utf-8"))["spaces"]
    assert list(spaces) == ["mnist1d", "digits"]
    listed = {entry["name"]: entry["measured"] for entry in nnas("list", "mutators", "--json").json["mutators"]}
    out = nnas("list", "mutators").out
    for mutator, measured in listed.items():
        assert measured == {name: space["mutators"][mutator] for name, space in spaces.items()}
        ranks = (f"{measured[name]['rank']:.0f}/{measured[name]['architectures']}" for name in spaces)
        assert re.search(rf"^{mutator} +{' +'.join(ranks)} ", out, re.MULTILINE), mutator
