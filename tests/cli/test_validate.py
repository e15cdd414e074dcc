"""``nnas validate``, and every kind of file against its examples in ``tests/schemas/{positive,negative}/KIND/``."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
import torch

from nnas_core import schema
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli
from tests.study.known_studies import make

EXAMPLES = Path(__file__).parents[1] / "schemas"

FINGERPRINT = "sha256:" + "0" * 64
SPACE = '{"op": {"_type": "layer_choice", "_value": ["a", "b"]}}'


def examples(side: str) -> list[Path]:
    """The example files of one side; a test comes with each."""
    return sorted((EXAMPLES / side).glob("*/*.json"))


def name(path: Path) -> str:
    """``KIND/example``."""
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_every_kind_has_examples(side: str) -> None:
    files = {kind for kind in schema.kinds() if not kind.endswith("-report")}  # tests/cli/test_reports.py has those
    assert {path.parent.name for path in examples(side)} == files


@pytest.mark.parametrize("path", examples("positive"), ids=name)
def test_a_positive_example_is_valid(nnas: Cli, path: Path) -> None:
    result = nnas("validate", path, "--kind", path.parent.name)
    assert (result.code, result.out, result.err) == (0, f"{path}: valid ({path.parent.name})\n", "")


@pytest.mark.parametrize("path", examples("negative"), ids=name)
def test_a_negative_example_has_exactly_the_problems_that_stand_in_it(nnas: Cli, path: Path) -> None:
    """An example is ``{"problems": [...], "document": ...}``."""
    example = json.loads(path.read_text())
    result = nnas("validate", "-", "--kind", path.parent.name, stdin=json.dumps(example["document"]))
    lines = [f"-: NOT VALID ({path.parent.name})", *(f"  {problem}" for problem in example["problems"])]
    assert (result.code, result.out.splitlines(), result.err) == (1, lines, "")


@pytest.mark.parametrize(
    "kind", ["search-space", "parameters", "architecture", "architecture-document", "config", "error", "latency-table"]
)
def test_kinds_that_differ_are_recognised(nnas: Cli, kind: str) -> None:
    for path in (EXAMPLES / "positive" / kind).glob("*.json"):
        assert nnas("validate", path).out == f"{path}: valid ({kind})\n"


def test_all_files_are_checked_and_one_that_is_not_valid_decides(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(SPACE)
    (tmp_path / "bad.json").write_text(
        '{"op": {"_type": "layer_choice", "_value": 3}, "x": {"_type": "what", "_value": []}}'
    )
    (tmp_path / "torn.json").write_text('{\n  "op": ')
    result = nnas("validate", "good.json", "bad.json", "torn.json", "none.json")
    assert (result.code, result.err) == (1, "")
    assert result.out == (
        "good.json: valid (search-space)\n"
        "bad.json: NOT VALID (search-space)\n"
        "  $.op['_value']: 3 is not of type 'array'\n"
        "  $.x['_type']: 'what' is not one of ['layer_choice', 'input_choice']\n"
        "torn.json: NOT VALID (unknown)\n"
        "  2:9: not JSON: expecting value\n"
        "none.json: NOT VALID (unknown)\n"
        "  no such file\n"
    )


def test_json_has_an_entry_a_file(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(SPACE)
    result = nnas("validate", "good.json", "none.json", "--json")
    assert (result.code, result.err) == (1, "")
    assert result.json == {
        "format": "nnas.validate-report/1",
        "valid": False,
        "files": [
            {"file": "good.json", "kind": "search-space", "valid": True, "problems": []},
            {"file": "none.json", "kind": "unknown", "valid": False, "problems": ["no such file"]},
        ],
    }


def test_standard_input_is_a_file(nnas: Cli) -> None:
    result = nnas("validate", "-", stdin=SPACE)
    assert (result.code, result.out, result.err) == (0, "-: valid (search-space)\n", "")


def test_an_architecture_is_held_against_a_space(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(SPACE)
    (tmp_path / "good.json").write_text('{"op": "b"}')
    (tmp_path / "bad.json").write_text('{"op": "c", "po": [true]}')
    assert nnas("validate", "good.json", "--space", "space.json").code == 0
    result = nnas("validate", "bad.json", "--space", "space.json")
    assert (result.code, result.err) == (1, "")
    assert result.out == (
        "bad.json: NOT VALID (architecture)\n"
        "  unexpected keys found: 'po'\n"
        "  op: no candidate is named 'c'; expected a name among 'a', 'b', an index below 2, or a mask of 2\n"
    )


def test_parameters_and_documents_are_held_against_a_space(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(SPACE)
    (tmp_path / "p.json").write_text('{"op": {"_value": "c", "_idx": 2}}')
    document = {"format": "nnas.architecture/1", "architecture": {"po": [True]}, "space": {"fingerprint": FINGERPRINT}}
    (tmp_path / "d.json").write_text(json.dumps(document))
    result = nnas("validate", "p.json", "d.json", "--space", "space.json")
    assert (result.code, result.err) == (1, "")
    assert "p.json: NOT VALID (parameters)\n  op: " in result.out
    assert (
        "d.json: NOT VALID (architecture-document)\n  unexpected keys found: 'po'\n  missing keys: 'op'\n" in result.out
    )


def test_a_checkpoint_is_held_against_a_space(nnas: Cli, small_run: Path) -> None:
    Path("space.json").write_text(SPACE)
    assert nnas("validate", "run/checkpoint.pt", "--space", "run/search_space.json").code == 0
    result = nnas("validate", "run/checkpoint.pt", "--space", "space.json")
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == "run/checkpoint.pt: NOT VALID (checkpoint)"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["act", "link", "op"]


def test_events_may_end_in_a_torn_line_and_only_there(nnas: Cli, tmp_path: Path) -> None:
    line = '{"event": "started", "time": 1.0}\n'
    (tmp_path / "good.jsonl").write_text(line + '{"event": "ep')
    (tmp_path / "bad.jsonl").write_text('{"event": "ep\n' + line + '{"event": "party", "time": 1.0}\n')
    result = nnas("validate", "good.jsonl", "bad.jsonl")
    assert result.code == 1
    assert result.out.startswith(
        "good.jsonl: valid (events)\nbad.jsonl: NOT VALID (events)\n"
        "  line 1: not JSON: unterminated string starting at\n  line 3: $.event: 'party' is not one of "
    )


def test_an_unknown_kind_is_refused_with_those_there_are(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(SPACE)
    result = nnas("validate", "space.json", "--kind", "spice")
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: no kind is named 'spice'\nhint: there are {', '.join(schema.kinds())}\n"


def test_a_space_that_is_none_is_bad_input_and_no_answer(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text("[]")
    result = nnas("validate", "space.json", "--space", "space.json")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: space.json: not a search space\n  $: [] is not of type 'object'\n"


def test_checkpoints_weights_and_databases_are_recognised(nnas: Cli, small_run: Path) -> None:
    chosen = ("--architecture", small_run / "architecture.json", "--epochs", 1, "-o", "alone")
    nnas.ok("retrain", "model.py", *chosen)
    nnas.ok("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--tuner", "random", "--trials", 2)
    before = Path("nnas.db").read_bytes()
    result = nnas("validate", "run/checkpoint.pt", "alone/checkpoint.pt", "alone/weights.pt", "nnas.db")
    assert (result.code, result.out.splitlines()) == (
        0,
        [
            "run/checkpoint.pt: valid (checkpoint)",
            "alone/checkpoint.pt: valid (checkpoint)",
            "alone/weights.pt: valid (weights)",
            "nnas.db: valid (study-database)",
        ],
    )
    assert Path("nnas.db").read_bytes() == before
    assert sorted(path.name for path in Path().glob("nnas.db*")) == ["nnas.db"]


def test_damaged_weights_and_databases_are_not_valid(nnas: Cli, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "what": "text"}, tmp_path / "weights.pt")
    torch.save({}, tmp_path / "empty.pt")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("create table t (x)")
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store)
    with contextlib.closing(sqlite3.connect("nnas.db")) as connection, connection:
        connection.execute("update trials set value = 0.76 where number = 1")
    result = nnas("validate", "weights.pt", "empty.pt", "other.db", "nnas.db")
    assert result.code == 1
    assert result.out.splitlines() == [
        "weights.pt: NOT VALID (weights)",
        "  'what' is no tensor by name",
        "empty.pt: NOT VALID (weights)",
        "  holds nothing",
        "other.db: NOT VALID (study-database)",
        "  not a study database: an SQLite file of another program",
        "nnas.db: NOT VALID (study-database)",
        "  the study database is damaged: rows are not as they were written",
        "  study 'first', trial 1: its checksum is that of other values: one of them was changed since it was written",
    ]


def test_a_schema_is_printed(nnas: Cli) -> None:
    for kind in schema.kinds():
        assert nnas.ok("validate", "--print-schema", kind).json == schema.load(kind)
    unknown = nnas("validate", "--print-schema", "serch-report")
    assert (unknown.code, unknown.err) == (
        2,
        "nnas: error: no kind is named 'serch-report'\nhint: did you mean 'search-report'?\n",
    )
    beside = nnas("validate", "x.json", "--print-schema", "error")
    assert (beside.code, beside.err) == (
        2,
        "nnas: error: FILE does nothing with --print-schema\nhint: leave it out\n",
    )
    nothing = nnas("validate")
    assert (nothing.code, nothing.err) == (
        2,
        "nnas: error: FILE is missing\nhint: give it, or a --config that has it\n",
    )


def test_what_is_no_line_of_ours_cannot_look_like_one(nnas: Cli, tmp_path: Path) -> None:
    text = '{"op": {"_type": "choice", "_value": [1], "\\nother.json: valid (x)\\u001b[2J": 1}}'
    (tmp_path / "bad.json").write_text(text)
    result = nnas("validate", "bad.json")
    assert result.code == 1
    assert all(line.startswith(("bad.json: NOT VALID (", "  ")) for line in result.out.splitlines())
    assert "\x1b" not in result.out


def test_a_database_of_an_older_nnas_is_checked_and_stays(nnas: Cli, tmp_path: Path) -> None:
    old = (Path(__file__).parents[1] / "study" / "old_databases" / "v3.db").read_bytes()
    (tmp_path / "old.db").write_bytes(old)
    result = nnas("validate", "old.db")
    assert (result.code, result.out, result.err) == (0, "old.db: valid (study-database)\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["old.db"]
    assert (tmp_path / "old.db").read_bytes() == old


def test_weights_on_standard_input_are_said_to_need_a_path(nnas: Cli, small_run: Path) -> None:
    result = nnas("validate", "-", stdin=Path("run/checkpoint.pt").read_bytes())
    assert result.code == 1
    assert "which are not read from standard input: give the path of the file" in result.out


def test_a_tag_that_no_kind_has_is_not_valid(nnas: Cli) -> None:
    result = nnas("validate", "-", stdin='{"format": "nnas.search-report/9"}')
    assert (result.code, result.out.splitlines()) == (
        1,
        ["-: NOT VALID (unknown)", "  $.format: no kind of file is tagged 'nnas.search-report/9'"],
    )
