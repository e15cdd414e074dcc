"""Layouts, and what the drawing and the page are made of."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from nnas_core import schema
from nnas_core.errors import UsageError
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.drawing import asset, stand_alone
from nnas_core.viewing.layout import WIDTH, laid_out
from nnas_core.viewing.page import data_of, page_of
from nnas_core.viewing.view import View
from tests.viewing.sample_views import HOSTILE, SPACE, hostile_view, search_view, study_view

SVG = "{http://www.w3.org/2000/svg}"

VENDORED = {
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""Of the package uplot 1.6.32 in the npm registry."""


def test_what_is_of_others_is_as_they_published_it() -> None:
    assert {name: hashlib.sha256(asset(name).encode()).hexdigest() for name in VENDORED} == VENDORED
    assert "(v1.6.32)" in asset("uPlot.iife.min.js")[:100]


def chain(count: int) -> SearchSpace:
    """Layer choices of which a search space says no connection."""
    return SearchSpace(Choice(f"k{one}", "layer_choice", ("a", "b"), 1) for one in range(count))


def dense(count: int) -> SearchSpace:
    """Each choice takes one of all that come before."""
    keys = [f"k{one}" for one in range(count)]
    return SearchSpace(Choice(key, "input_choice", tuple(keys[:place]) or ("x",), 1) for place, key in enumerate(keys))


@pytest.mark.parametrize("space", [SPACE, chain(1), chain(40), dense(12)], ids=["small", "one", "chain", "dense"])
def test_no_two_choices_lie_on_each_other(space: SearchSpace) -> None:
    boxes = laid_out(space).boxes
    assert len(boxes) == len(space)
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            beside = abs(one.x - other.x) >= WIDTH
            above = one.y + one.height <= other.y or other.y + other.height <= one.y
            assert beside or above


def test_inputs_stand_above_what_takes_them() -> None:
    layout = laid_out(dense(12))
    assert len(layout.wires) == 12 * 11 // 2
    assert layout.left_out == 0
    for wire in layout.wires:
        source, target = layout.boxes[wire.source], layout.boxes[wire.target]
        assert source.y + source.height < target.y
        assert wire.points[0] == (source.x + WIDTH / 2, source.y + source.height)
        assert wire.points[-1] == (target.x + WIDTH / 2, target.y)
        assert list(wire.candidates) == [wire.source]


def test_what_is_chosen_is_drawn_where_not_all_can_be() -> None:
    space = dense(60)
    chosen = {choice.key: (0,) for choice in space}
    layout = laid_out(space, chosen)
    assert layout.left_out > 0
    assert layout.left_out + len(layout.wires) == 60 * 59 // 2
    drawn = {(wire.source, wire.target) for wire in layout.wires}
    assert {(0, target) for target in range(1, 60)} <= drawn


def test_inputs_that_go_in_a_circle_are_placed_in_order() -> None:
    space = SearchSpace(
        [Choice("a", "input_choice", ("b", "a"), 1), Choice("b", "input_choice", ("a", "c"), 1), *chain(1)]
    )
    assert [list(wire.candidates) for wire in laid_out(space).wires] == [[], []]


def test_a_layout_is_the_same_every_time() -> None:
    assert laid_out(dense(20)) == laid_out(dense(20))


def test_what_is_needed_for_a_layout_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="fast-sugiyama, which places the choices, is not installed") as caught:
        laid_out(SPACE)
    assert caught.value.hint == "pip install 'nnas[view]'"


def drawn(view: View) -> ElementTree.Element:
    """The drawing as XML, which it must be."""
    return ElementTree.fromstring(stand_alone(view)[0])


def test_a_drawing_has_every_candidate_with_its_weight_and_what_is_chosen() -> None:
    root = drawn(search_view())
    boxes = [one for one in root.iter(f"{SVG}g") if one.get("class") == "box"]
    assert [one.get("aria-label") for one in boxes] == [
        "a.op: 3 candidates, chosen skip",
        "b.in: 3 candidates, chosen a.op, b.op",
        "b.op: 2 candidates, chosen conv",
    ]
    texts = {one.text for one in boxes[0].iter(f"{SVG}text")}
    assert texts == {"a.op", "conv", "skip", "pool", "0.50", "0.00"}
    flows = {one.get("data-c"): one for one in boxes[0].iter(f"{SVG}path")}
    assert {place: one.get("class") for place, one in flows.items()} == {
        "0.0": "flow",
        "0.1": "flow chosen",
        "0.2": "flow",
    }
    widths = {place: float(one.get("stroke-width", "")) for place, one in flows.items()}
    assert widths["0.0"] == widths["0.1"] > widths["0.2"] > 0
    wires = [one for one in root.iter(f"{SVG}path") if one.get("data-c") in ("1.1", "1.2")]
    assert len(wires) == 4  # in the box and between boxes


def test_names_of_others_are_text_in_a_drawing() -> None:
    root = drawn(hostile_view())
    assert {one.tag.removeprefix(SVG) for one in root.iter()} == {"svg", "style", "g", "rect", "path", "text"}
    assert not [name for one in root.iter() for name in one.attrib if name.startswith("on")]
    content = "".join(root.itertext())
    assert "\\x1b[31mred\\x07" in content
    assert not {"\x1b", "\u202e", "\x00"} & set(content)


def test_the_data_of_a_page_keep_their_schema_and_their_element() -> None:
    for view in (search_view(), study_view(20), hostile_view(), View("space", "s", SPACE)):
        text = data_of(view)
        assert not set("<>&") & set(text)
        assert text.isascii()
        document = json.loads(text)
        if view.name != HOSTILE[0]:  # no study has states of such names
            assert schema.problems("view-report", document) == []
        assert document["name"] == view.name


def test_names_of_others_are_text_in_a_page() -> None:
    page = page_of(hostile_view()).encode("utf-8").decode()
    assert page.count("<script") == 5  # data, candidates, plots, page, trials
    assert page.count("</script") == 5
    assert "<img" not in page
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "\\x1b[31mred\\x07" in markup
    assert not {"\x1b", "\u202e", "\x00"} & set(markup)


def test_a_page_runs_nothing_but_its_own_scripts_and_loads_nothing() -> None:
    page = page_of(search_view())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    sums = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    assert rules["script-src"].split() == sums
    assert len(sums) == 3
    assert (rules["default-src"], rules["connect-src"], rules["base-uri"]) == ("'none'",) * 3
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert not re.findall(r"\beval\(|new Function|innerHTML|document\.write", "".join(asset(n) for n in ASSETS))


ASSETS = ("page.js", "page-trials.js")


def test_a_page_has_the_candidates_apart_from_the_choices() -> None:
    page = page_of(search_view())
    found = re.search(r'<script type="application/json" id="insides">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    insides = json.loads(found[1])
    assert [inside.count("<path") for inside in insides] == [3, 3, 2]
    svg = stand_alone(search_view())[0]
    assert all(inside in svg for inside in insides)
    assert "data-c" not in re.sub(r"<g class=.wires.>.*?</g>|<script.*?</script>", "", page, flags=re.DOTALL)
