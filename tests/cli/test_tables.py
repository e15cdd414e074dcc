"""Tables know their width: numbers stay whole, texts are folded or cut, and what is not shown is said."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from nnas_cli.output import Output
from nnas_cli.tables import Shorter, Table, cut, folded
from tests.cli_support import Cli, nnas

__all__ = ["nnas"]

KEYS = 60

PROGRAM = (
    "import json, os; p = json.load(open(os.environ['NNAS_PARAMETERS']));"
    "json.dump(sum(v['_idx'] for v in p.values()) / 7, open(os.environ['NNAS_RESULT'], 'w'))"
)


def lines_of(table: Table, width: int) -> list[str]:
    """All lines, the head too."""
    drawn = table.drawn(width)
    return [*drawn.head, *drawn.lines]


LONG = Table(
    ["trial", "validation, inherited weights (an estimate)", "what it is"],
    [
        ["1", "0.4213", "some words that go on and on over many columns, and then on"],
        ["12", "-12.5e-10", "日本語の" * 20],
    ],
)


def test_a_table_that_fits_is_as_wide_as_it_needs() -> None:
    table = Table(["name", "value"], [["a", "1"], ["bcd", "22.5"]])
    assert lines_of(table, 80) == ["name   value", "────────────", "a          1", "bcd     22.5"]


@pytest.mark.parametrize("width", [100, 80, 60, 44, 30, 20])
def test_no_line_is_longer_than_the_width_and_no_number_is_broken(width: int) -> None:
    lines = lines_of(LONG, width)
    assert max(map(cell_len, lines)) <= width
    for number in ("0.4213", "-12.5e-10"):
        assert sum(number in line for line in lines) == 1
    text = "".join("".join(line.split()) for line in lines)
    assert text.count("語") == 20  # nothing is lost: it is folded, as it has no shorter form


def test_a_column_that_can_be_missed_goes_before_anything_else_is_broken() -> None:
    table = Table(["name", "made", "best"], [["n" * 15, "2026-11-28 04:45", "1.25"]], left_out=["made"])
    drawn = table.drawn(30)
    assert drawn.head == ["name              best"]
    assert drawn.notes == ["made: left out"]
    assert table.drawn(80).notes == []


def test_the_shorter_form_of_a_column_is_asked_for_a_width_and_cut() -> None:
    asked: list[int] = []

    def cells(width: int) -> list[str]:
        asked.append(width)
        return ["s" * 100]

    table = Table(["trial", "what"], [["1", "long " * 50]], {"what": Shorter(cells, "its beginning")})
    drawn = table.drawn(40)
    assert asked == [33]
    assert drawn.lines[1] == "    1  " + "s" * 32 + "…"
    assert drawn.notes == ["what: its beginning"]


def test_a_row_of_too_many_columns_becomes_lines_of_names_and_values() -> None:
    table = Table(["name", "count", "seconds"], [["some-name", "12345678", "87654321.5"]])
    rule = "─" * 20
    assert lines_of(table, 20) == [rule, "name: some-name", "count: 12345678", "seconds: 87654321.5", rule]


def test_texts_are_folded_at_spaces_and_long_words_where_they_must() -> None:
    assert list(folded("one two  three", 8)) == ["one two ", "three"]
    assert list(folded("abcdefghij kl", 4)) == ["abcd", "efgh", "ij", "kl"]
    assert list(folded("", 4)) == [""]
    assert cut("日本語日本語", 7) == "日本語…"
    assert cut("short", 5) == "short"


# ---- of commands


@pytest.fixture
def wide(nnas: Cli, tmp_path: Path) -> Path:
    """A finished study with 60 keys of long names, ``nnas.db`` in the current folder."""
    names = [f"candidate_operation_number_{index}_with_a_long_name" for index in range(4)]
    keys = [f"encoder.block{index}.attention.output.projection.choice_of_operation" for index in range(KEYS)]
    space = {key: {"_type": "layer_choice", "_value": names} for key in keys}
    (tmp_path / "space.json").write_text(json.dumps(space))
    program = shlex.join([sys.executable, "-I", "-S", "-c", PROGRAM])
    tuned = nnas.ok("tune", "space.json", "--trial-command", program, "--trials", 3, "--study", "long", "-o", "b.json")
    assert fits(tuned.err, 80)
    return tmp_path


def fits(text: str, width: int) -> bool:
    """Whether no line is longer, and there are any."""
    return bool(text) and max(map(cell_len, text.splitlines())) <= width


def test_a_study_of_many_keys_fits_the_width(nnas: Cli, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("trials", "top", "show", "list"):
        for width in (80, 120, 40):
            monkeypatch.setenv("COLUMNS", str(width))
            assert fits(nnas.ok("study", command).out, width), (command, width)
        monkeypatch.delenv("COLUMNS")
        assert fits(nnas.ok("study", command).out, 80)

    found = nnas.ok("study", "trials")
    assert len(found.out) < 1000
    assert "architecture: keys in which the best differ (--json has all)\n" in found.err
    for trial in nnas.ok("study", "trials", "--json").json["trials"]:
        assert len(trial["architecture"]) == KEYS
        assert sum(f"{trial['value']:.6g}" in line for line in found.out.splitlines()) == 1


def test_the_keys_of_a_narrow_table_are_those_in_which_the_best_differ(nnas: Cli, wide: Path) -> None:
    trials = nnas.ok("study", "trials", "--json").json["trials"]
    pairs = re.findall(r"block(\d+)=(\d)", nnas.ok("study", "trials", "--head", 2).out)
    assert len(pairs) > 4
    best = sorted(trials, key=lambda trial: -trial["value"])[:2]
    half = len(pairs) // 2
    for trial, shown in zip(best, (pairs[:half], pairs[half:]), strict=True):
        for block, name in shown:
            key = f"encoder.block{block}.attention.output.projection.choice_of_operation"
            assert trial["architecture"][key][int(name)]
            assert best[0]["architecture"][key] != best[1]["architecture"][key]


@pytest.mark.parametrize("group", ["mutators", "tuners", "assessors"])
@pytest.mark.parametrize("more", [(), ("--verbose",)])
def test_the_lists_of_algorithms_fit_the_width(nnas: Cli, group: str, more: tuple[str, ...]) -> None:
    assert fits(nnas.ok("list", group, *more).out, 80)


def test_info_fits_the_width(nnas: Cli) -> None:
    assert fits(nnas.ok("info").out, 80)


@pytest.mark.parametrize("columns", ["", "0", "-3", "many", "1e9", "999999999", "\uff14\uff10"])
def test_a_width_that_is_none_is_80(nnas: Cli, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = nnas.ok("list", "tuners").out
    monkeypatch.setenv("COLUMNS", columns)
    assert nnas.ok("list", "tuners").out == usual


def test_a_table_is_plain_where_the_encoding_has_no_more() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with Output(as_json=False, verbosity=1, color="never", progress=False, debug=False) as out:
            out.table(["name", "value"], [["a", "0.5 ± 0.1"]], answer=True)
    assert stream.buffer.getvalue() == b"name       value\n----------------\na      0.5 ~ 0.1\n"  # type: ignore[attr-defined]
