"""The document of the checklist: what is asked, how it is answered by what is stored, and how it is written."""

from __future__ import annotations

import dataclasses

import pytest

from nnas_core import schema
from nnas_core.assessment.checklist import Checklist, Command, Fact, Item
from nnas_core.assessment.experiment import Experiment, Rival, checklist_of

NOTHING = Experiment(
    kind="search",
    name="run",
    code=(),
    version=(),
    space=(),
    method=(),
    own_method=None,
    options=(),
    final=(),
    data=(),
    machines=(),
    time=(),
    untimed=("the search",),
    curve=(),
    rivals=(),
    seeds=(),
    variants=(),
    repeat=None,
    another_seed=None,
    retrain=Command("retrain", ["model.py"]),
    assess=Command("assess", ["run"]),
    watch=Command("view", ["run"]),
)

FACT = Fact("what", "value", "file")


def plain(text: str) -> str:
    """Writes no option."""
    return text


def statuses(checklist: Checklist) -> dict[str, str]:
    """By item."""
    return {item.number: item.status for item in checklist.items}


def test_it_has_the_three_blocks_of_the_paper() -> None:
    numbers = [item.number for item in checklist_of(NOTHING).items]
    assert numbers == [*(f"1.{n}" for n in range(1, 6)), *(f"2.{n}" for n in range(1, 9)), "3.1", "3.2", "3.3"]


def test_of_an_experiment_that_is_not_stored_nothing_is_answered() -> None:
    found = checklist_of(NOTHING)
    assert {item.number for item in found.items if item.status == "answered"} == set()
    assert [item for item in found.items if item.status == "open" and not item.left] == []


@pytest.mark.parametrize(
    ("item", "part"),
    [
        ("1.3", {"final": [FACT]}),
        ("1.4", {"version": [FACT]}),
        ("1.5", {"options": [FACT]}),
        ("2.5", {"curve": [FACT]}),
        ("2.7", {"seeds": [FACT, FACT]}),
        ("3.2", {"untimed": ()}),
        ("3.3", {"machines": [FACT], "data": [FACT], "code": [FACT], "options": [FACT]}),
    ],
)
def test_what_is_stored_answers_its_item(item: str, part: dict[str, object]) -> None:
    assert statuses(checklist_of(NOTHING))[item] == "open"
    assert statuses(checklist_of(dataclasses.replace(NOTHING, **part)))[item] == "answered"  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["machines", "data", "code", "options"])
def test_details_are_all_said_or_open(missing: str) -> None:
    known = {name: [FACT] for name in ("machines", "data", "code", "options") if name != missing}
    item = checklist_of(dataclasses.replace(NOTHING, **known)).items[-1]  # type: ignore[arg-type]
    assert item.status == "open"
    assert item.left is not None
    assert item.left.startswith("not stored, so say: ")
    assert "," not in item.left[20:]


def test_code_is_never_said_to_be_public() -> None:
    found = statuses(checklist_of(dataclasses.replace(NOTHING, code=[FACT], version=[FACT], own_method="mine.py")))
    assert [found[item] for item in ("1.1", "1.2", "1.4", "2.8")] == ["open"] * 4


@pytest.mark.parametrize(
    ("rival", "answered"),
    [
        (Rival([FACT], True, []), {"2.1", "2.2", "2.4", "2.6"}),
        (Rival([FACT], True, ["nnas 1 and 2"]), {"2.1", "2.4", "2.6"}),
        (Rival([FACT], True, None), {"2.1", "2.4", "2.6"}),
        (Rival([FACT], False, []), {"2.6"}),
    ],
    ids=["alike", "on another machine", "who knows where", "measured otherwise"],
)
def test_random_architectures_answer_what_they_are_alike_in(rival: Rival, answered: set[str]) -> None:
    found = statuses(checklist_of(dataclasses.replace(NOTHING, rivals=[rival], machines=[FACT])))
    assert {item for item, status in found.items() if status == "answered"} == answered


def test_a_training_of_one_architecture_has_no_method() -> None:
    found = statuses(checklist_of(dataclasses.replace(NOTHING, kind="retrain")))
    assert {item for item, status in found.items() if status == "not applicable"} == {"1.4", "1.5", "2.8"}


def test_who_spells_writes_the_options_of_commands_and_of_nothing_else() -> None:
    command = Command("tune", ["my model.py"], [("seed", "1"), ("drop_last", None), ("tuner_arg", "a=`seed`")])
    item = Item("2.7", "Seeds?", "open", [Fact("`seed`", "`seed`", "file")], "see `seed`", command)
    found = Checklist("study", "s", [item]).to_json(lambda text: text.replace("`seed`", "--seed"))
    assert found["items"] == [
        {
            "item": "2.7",
            "asked": "Seeds?",
            "status": "open",
            "facts": [{"what": "`seed`", "value": "`seed`", "where": "file"}],
            "left": "see --seed",
            "command": "nnas tune 'my model.py' --seed 1 `drop_last` `tuner_arg` 'a=`seed`'",
        }
    ]


def test_the_document_keeps_its_schema() -> None:
    document = schema.tagged("checklist-report", checklist_of(NOTHING).to_json(plain))
    assert schema.problems("checklist-report", document) == []
    assert document["counts"] == {"answered": 0, "open": 15, "not applicable": 1}


def test_markup_and_control_characters_of_users_are_escaped_in_markdown() -> None:
    hostile = "a`<b>|*_\x1b[31m\n# c"
    item = Item("1.1", "Code?", "open", [Fact(hostile, hostile, hostile)], None, Command("view", [hostile]))
    lines = Checklist("search", hostile, [item]).markdown(plain).splitlines()
    assert lines[0] == r"# NAS checklist of the search a\`\<b\>\|\*\_\\x1b\[31m\\n\# c"
    fact = next(line for line in lines if line.startswith("  - a"))
    assert fact.count(r"a\`\<b\>\|\*\_\\x1b\[31m\\n\# c") == 3
    assert "\x1b" not in "".join(lines)
    assert "  - `` nnas view 'a`<b>|*_\\x1b[31m\\n# c' ``" in lines


def test_lines_of_a_terminal_say_what_is_left_and_how() -> None:
    item = Item("2.6", "Random?", "open", [FACT], "compare", Command("assess", ["run"]))
    assert Checklist("search", "run", [item]).lines(plain)[3:] == [
        "1 Releasing code",
        "",
        "2 Comparing methods",
        "2.6 [ ] Random?",
        "        what: value (file)",
        "     -> compare",
        "     $  nnas assess run",
        "",
        "3 Reporting details",
    ]
