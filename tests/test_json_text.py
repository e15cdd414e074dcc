"""JSON of others: what is refused, and that reading takes a time in proportion to the length."""

from __future__ import annotations

import json
import time

import pytest

from nnas_core.errors import InputError, listed, shortened
from nnas_core.files import dump_json, parse_json
from nnas_core.json_text import literal, nested_too_deeply


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 102 + "]" * 102, "nested too deeply"),
        ('{"a":' * 102 + "1" + "}" * 102, "nested too deeply"),
        ("[NaN]", "NaN is not a number that JSON knows"),
        ("[-Infinity]", "-Infinity is not a number that JSON knows"),
        ("[1e999]", "1e999 is too large a number"),
        ("[-1e999]", "-1e999 is too large a number"),
        ("9" * 5000, "a number is too long"),
        ('{"a": 1, "b": 2, "b": 3}', "the name 'b' stands twice in one object"),
        ('["\\ud800"]', r"\\ud800 is half a character, which UTF-8 does not have"),
        ('{"x\\udfff": 1}', r"\\udfff is half a character"),
    ],
)
def test_what_no_document_of_ours_is_gets_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_json(text.encode(), "a.json")
    assert caught.value.where == "a.json"
    with pytest.raises(InputError, match=message):
        literal(text if text.strip("[") else text + "1" + "]" * len(text))


def test_a_hundred_levels_and_whole_characters_are_taken() -> None:
    deep = parse_json(b"[" * 101 + b"]" * 101, "a.json")
    assert not nested_too_deeply(deep)
    assert nested_too_deeply([deep])
    assert parse_json(b'"\\ud83d\\ude00 \\\\ud800"', "a.json") == "\U0001f600 \\ud800"


def test_one_repeated_name_among_many_is_found_in_no_time() -> None:
    names = ",".join(f'"k{number}":1' for number in range(100_000))
    began = time.monotonic()
    with pytest.raises(InputError, match="the name 'k99999' stands twice"):
        parse_json(f'{{{names},"k99999":2}}'.encode(), "a.json")
    assert time.monotonic() - began < 5  # the square of the number takes minutes


def test_a_literal_that_is_no_json_stands_for_itself() -> None:
    assert [literal(text) for text in ("3", "[1, 2]", "conv", "", "1.5.2", "-0.0")] == [
        3,
        [1, 2],
        "conv",
        "",
        "1.5.2",
        0,
    ]


def test_what_would_move_a_terminal_is_escaped_and_the_document_stays_equal() -> None:
    document = {"\u009b31m\u202ek": ["\x7f", "\u2066\u2028", "\x1b[2J", "é \U0001f600"]}
    text = dump_json(document)
    assert json.loads(text) == document
    assert text.replace("\n", "").isprintable()
    assert "é \U0001f600" in text


def test_lists_are_cut_where_nobody_reads_on() -> None:
    assert listed(["a", "b"]) == ["a", "b"]
    assert listed([str(number) for number in range(40_000)])[-2:] == ["48", "... and 39951 more"]
    assert listed(["a"], and_more=True) == ["a", "... and at least 1 more"]
    assert listed(listed(["a"] * 60)) == listed(["a"] * 60)
    assert shortened("x" * 2000, 10) == "xxxxxxx..."
