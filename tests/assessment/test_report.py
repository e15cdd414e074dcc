"""What the numbers of an assessment say, and its forms: JSON, text, Markdown and JUnit's XML."""

from __future__ import annotations

import statistics
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from nnas_core import schema
from nnas_core.assessment.collapse import Collapse
from nnas_core.assessment.documents import junit, markdown, numbers
from nnas_core.assessment.report import Assessment, Budget, RandomOnes, Subject, TrainedAlone
from nnas_core.assessment.statistics import place_of

SUBJECT = Subject("search", "runs/net", {"op": [True, False]}, 18, [], "accuracy", "maximize")
RANDOM = RandomOnes("assess-net", "inherited", None, 4, False, 0, 0, 0.8, [0.7, 0.9, 0.8, 0.6], 1)
ALONE = TrainedAlone(["a", "b"], 5, [0, 1], 2, 0, [0.8, 0.9], [[0.6, 0.7], [0.61, 0.71], [0.62, 0.69]], 1)
BUDGET = Budget("epochs", 50.0, 25.0, [0.8, 0.9], [[0.7, 0.8], [0.75, 0.85], [0.6, 0.9]], 1)
COLLAPSE = Collapse(
    "modules", 4, 4, {"skip": 3, "zero": 0, "pool": 1}, 0.5, dict.fromkeys(("skip", "zero", "pool"), 0.2), 0.02, True
)
WHY_NOT = {"trained alone": "not asked for", "equal compute": "not recorded", "collapse": "no such choice"}


def report(
    subject: Subject = SUBJECT,
    random: RandomOnes = RANDOM,
    alone: TrainedAlone | None = ALONE,
    budget: Budget | None = BUDGET,
    collapse: Collapse | None = COLLAPSE,
    fail_under: float | None = None,
) -> Assessment:
    """A report in which some parts are others."""
    return Assessment(subject, random, alone, budget, collapse, fail_under, 0, WHY_NOT, ["validation data"])


def outcomes(one: Assessment) -> dict[str, str]:
    """What became of each criterion."""
    return {criterion.name: criterion.outcome for criterion in one.criteria}


def test_a_report_keeps_its_schema_with_all_its_parts_and_without() -> None:
    for one in (report(), report(alone=None, budget=None, collapse=None, fail_under=3.0)):
        assert schema.problems("assess-report", schema.tagged("assess-report", one.to_json())) == []


def test_only_the_gate_fails() -> None:
    assert outcomes(report()) == {
        "percentile": "passed",
        "trained alone": "passed",
        "equal compute": "passed",
        "collapse": "warned",
    }
    assert report().random.place.percentile == 62.5
    for asked, outcome in ((62.5, "passed"), (62.6, "failed")):
        one = report(fail_under=asked)
        assert (outcomes(one)["percentile"], one.passed) == (outcome, outcome == "passed")
    worst = report(random=replace(RANDOM, found=0.1))
    assert (outcomes(worst)["percentile"], worst.passed) == ("warned", True)


def test_parts_that_are_missing_are_skipped_with_the_reason() -> None:
    one = report(alone=None, budget=None, collapse=None)
    found = {criterion.name: (criterion.outcome, criterion.text) for criterion in one.criteria[1:]}
    assert found == {name: ("skipped", why) for name, why in WHY_NOT.items()}


def test_the_found_one_wins_only_if_the_whole_interval_is_above_nothing() -> None:
    assert ALONE.wins == (6, 0, 0)
    level = replace(ALONE, values=[[0.7, 0.8], [0.85, 0.95]])
    assert level.wins == (2, 0, 2)
    texts = {name: report(alone=ones).criteria[1].text for name, ones in (("wins", ALONE), ("level", level))}
    assert texts["wins"].startswith("it wins: mean advantage +0.195 (95 % interval ")
    assert texts["level"].startswith("not settled: mean advantage +0.025 (95 % interval -")
    assert (
        "better in 2 and worse in 2 of 4 pairs, with 2 random architectures and 2 seeds, 5 epochs each"
        in texts["level"]
    )


def test_where_smaller_is_better_every_advantage_turns() -> None:
    ones = replace(ALONE, sign=-1)
    assert ones.wins == (0, 0, 6)
    assert ones.interval.mean == pytest.approx(-0.195)
    assert report(alone=ones).criteria[1].text.startswith("it loses")
    assert replace(RANDOM, sign=-1).place == place_of(-0.8, [-0.7, -0.9, -0.8, -0.6], 1)
    assert replace(RANDOM, sign=-1).best == 0.6


def test_the_search_pays_for_as_many_as_its_epochs_allow() -> None:
    assert BUDGET.count == 2
    best = [[0.75, 0.85], [0.7, 0.9], [0.75, 0.9]]  # of the pairs (0, 1), (0, 2), (1, 2), with each seed
    assert BUDGET.expected == pytest.approx(statistics.fmean(value for row in best for value in row))
    assert BUDGET.advantage == pytest.approx(0.85 - (0.75 + 0.7 + 0.75 + 0.85 + 0.9 + 0.9) / 6)
    assert replace(BUDGET, search=10.0).count == 1
    all_of_them = replace(BUDGET, search=75.0)
    assert (all_of_them.count, all_of_them.expected) == (3, pytest.approx((0.75 + 0.9) / 2))


def test_random_search_that_finds_as_much_or_more_is_a_warning() -> None:
    level = report(budget=replace(BUDGET, found=[0.75, 0.9], search=75.0))
    worse = report(budget=replace(BUDGET, found=[0.6, 0.7]))
    assert [one.criteria[2].outcome for one in (level, worse)] == ["warned", "warned"]
    assert "0.825, as good as 0.825, which the best of as many" in level.criteria[2].text
    assert "0.65, worse than 0.8083, which" in worse.criteria[2].text


def test_too_few_that_were_trained_say_nothing() -> None:
    one = report(budget=replace(BUDGET, search=100.0))
    assert one.to_json()["equal_compute"] == {
        "by": "epochs",
        "search": 100.0,
        "each": 25.0,
        "architectures": 4,
        "trained": 3,
        "found": pytest.approx(0.85),
        "expected_best": None,
        "advantage": None,
    }
    assert one.criteria[2].outcome == "skipped"
    assert one.criteria[2].text == (
        "the search costs as much as 4 random architectures (counted in epochs: 100 by 25), and 3 were trained: too "
        "few to say"
    )


def test_the_texts_of_criteria_say_the_numbers() -> None:
    found = [one.text for one in report(fail_under=50.0).criteria]
    assert found[0] == (
        "better than 62.5 % of 4 random architectures, asked for 50 % (rank 2.5 of 5, 1 of them equal), with inherited "
        "weights (an estimate), on validation data"
    )
    assert found[3] == (
        "4 of 4 choices have a skip, zero or pool (100 %; the space's mean is 50 %); 2 % of random architectures have "
        "as many, or more"
    )


def test_the_numbers_are_named() -> None:
    found = dict(numbers(report()))
    assert found["accuracy of the found one"] == "0.8"
    assert found["random ones, quartiles"] == "0.675 to 0.825"
    assert found["trained alone, found"] == "0.8 (seed 0), 0.9 (seed 1)"
    assert found["trained alone, random"] == "0.65, 0.66, 0.655"


HOSTILE = "n|<script>&\"'`*_[x](y)\\ \x1b[31m\x00\x0b\ud800\ufffe\n# new"


def test_whatever_is_in_names_the_xml_can_be_read() -> None:
    one = report(subject=replace(SUBJECT, name=HOSTILE), alone=None, budget=None, fail_under=90.0)
    text = junit(one)
    root = ElementTree.fromstring(text.encode())
    suite = root[0]
    assert suite.attrib == {
        "name": "nnas assess n|<script>&\"'`*_[x](y)\\ \\x1b[31m\\x00\\x0b\\ud800\\ufffe\\n# new",
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
    }
    cases = {case.attrib["name"]: [child.tag for child in case] for case in suite}
    assert cases == {
        "percentile": ["failure"],
        "trained alone": ["skipped"],
        "equal compute": ["skipped"],
        "collapse": ["system-err"],
    }
    assert suite[0][0].attrib["message"] == one.criteria[0].text


def test_whatever_is_in_names_the_markdown_is_text() -> None:
    page = markdown(report(subject=replace(SUBJECT, name=HOSTILE, metric="a|b\n# c")))
    assert page.splitlines()[0] == (
        "# Assessment of the architecture of the search n\\|\\<script\\>\\&\"'\\`\\*\\_\\[x\\](y)\\\\ \\\\x1b\\[31m"
        "\\\\x00\\\\x0b\\\\ud800\\\\ufffe\\\\n\\# new"
    )
    assert "| a\\|b\\\\n\\# c | maximize |" in page
    page.encode()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {3, 4}
