"""What README and the page of troubles claim in numbers and quote from nnas is what the tables and the code say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import picture
from nnas_core.plugins import registry
from tests.docs.page_runner import ROOT

DEMO = (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8")
FOUND_BY_THE_DEMO = (18, 0, 9)
"""Numbers of the architectures that the three searches found when docs/demo.txt was recorded."""

SPACES = registry.measured()


def readme() -> str:
    """README.md without its blocks of code."""
    return re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def random_search(space: str) -> float:
    """The mean rank of what random search with the same compute finds, as docs/algorithms.md says."""
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8").partition(f"<!-- measured: {space} -->")[2]
    found = re.search(r"^\| random search, (?:[^|]*\|){4} *(\d+)", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1800


# ---- the demo


def test_the_picture_is_drawn_of_what_was_recorded() -> None:
    assert (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8") == picture.draw(DEMO)


def test_what_was_recorded_is_what_the_demo_says_of_these_architectures(tmp_path: Path) -> None:
    candidates = ["conv3", "dilated3", "skip"]
    space = {f"layer{i}": {"_type": "layer_choice", "_value": candidates} for i in range(1, 6)}
    runs = [tmp_path / f"search-{seed}" for seed in range(3)]
    for run, number in zip(runs, FOUND_BY_THE_DEMO, strict=True):
        run.mkdir()
        digits = [number // 3 ** (4 - place) % 3 for place in range(5)]
        names = {key: candidates[digit] for key, digit in zip(space, digits, strict=True)}
        (run / "search_space.json").write_text(json.dumps(space))
        (run / "architecture.json").write_text(json.dumps(names))
        (run / "config.json").write_text(json.dumps({"search": {"mutator": "snas"}}))
    program = ROOT / "benchmarks" / "groundtruth" / "compare.py"
    done = subprocess.run(
        [sys.executable, str(program), "mnist1d", *map(str, runs)], capture_output=True, text=True, check=True
    )
    assert DEMO.splitlines()[2:-2] == [line.rstrip() for line in done.stdout.splitlines()]


def test_the_recorded_step_is_one_of_the_demo() -> None:
    script = (ROOT / "scripts" / "demo").read_text(encoding="utf-8")
    first = DEMO.splitlines()[0].removeprefix("==> ")
    assert f'step "{first}"' in script


def test_the_demo_takes_as_long_as_the_texts_say() -> None:
    seconds = re.fullmatch(r"All of this took (\d+) seconds of computing, .*", DEMO.splitlines()[-1])
    assert seconds is not None
    words = {1: "one minute", 2: "two minutes", 3: "three minutes"}[round(int(seconds[1]) / 60)]
    for text in (readme(), (ROOT / "scripts" / "demo").read_text(encoding="utf-8")):
        assert f"about {words} of computing on one core" in re.sub(r"\n#? ?", " ", text).lower()


def test_the_demo_adds_up_the_times_of_its_steps_without_the_installation(tmp_path: Path) -> None:
    script = (ROOT / "scripts" / "demo").read_text(encoding="utf-8")
    end = script[script.index('times >"$out/times-after"') :]
    spin = f"{sys.executable} -Sc 'import time\nwhile time.process_time() < 1: pass'"
    steps = f"set -eu; out={tmp_path}; {spin}; times >$out/times-before; {spin}; {spin}; {end}"
    done = subprocess.run(["sh", "-c", steps], capture_output=True, text=True, check=True)
    assert "took 2 seconds of computing" in done.stdout


# ---- numbers


def test_numbers_of_the_readme_stand_in_the_tables() -> None:
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("algorithms.md", "tuners.md"))
    known = {*re.findall(r"\d+\.\d+", pages + DEMO)}
    known |= {f"{100 * float(number):.1f}" for number in re.findall(r"0\.\d{3}\b", pages)}
    claimed = re.findall(r"(\d+\.\d+) %", readme())
    assert claimed
    assert [number for number in claimed if number not in known] == []


def test_the_gap_to_the_first_candidate_is_smaller_than_the_noise_of_training() -> None:
    found, default = (
        re.search(rf"^{row} +([\d.]+) ± ([\d.]+)", DEMO, re.MULTILINE)
        for row in ("found by the search, 3 seeds", "the first candidate everywhere")
    )
    assert found is not None
    assert default is not None
    assert 0 < float(found[1]) - float(default[1]) < float(default[2])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("mutator", ["snas", "drnas", "proxyless", "fbnet", "fairnas"])
def test_what_the_readme_recommends_beats_random_search_on_both_spaces(mutator: str, space: str) -> None:
    assert SPACES[space][mutator]["rank"] < random_search(space)


def test_what_the_readme_warns_of_does_not() -> None:
    beaten = {
        space: {name for name, one in rows.items() if one["rank"] > random_search(space)}
        for space, rows in SPACES.items()
    }
    assert beaten["mnist1d"] == {"cdarts", "darts", "pcdarts", "gdas", "spos", "random"}
    assert beaten["digits"] == {"cdarts", "pdarts"}


@pytest.mark.parametrize("space", SPACES)
def test_snas_is_among_the_best_and_faster_than_drnas(space: str) -> None:
    rows = SPACES[space]
    assert rows["snas"]["accuracy"] > max(one["accuracy"] for one in rows.values()) - 0.005
    assert rows["snas"]["seconds"] < rows["drnas"]["seconds"]


def test_there_are_as_many_algorithms_as_the_readme_says() -> None:
    assert f"all {len(registry.entries('mutators'))} algorithms" in readme()


def test_the_readme_counts_the_networks_of_both_spaces() -> None:
    sizes = {str(next(iter(rows.values()))["architectures"]) for rows in SPACES.values()}
    assert {*re.findall(r"(\d+)\s+networks", readme())} == {*sizes, "27"}  # 27: of its own model, whose search says so


# ---- messages


def test_messages_of_the_page_of_troubles_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    code = [
        file.read_text(encoding="utf-8") for room in ("nnas_core", "nnas_cli") for file in (ROOT / room).rglob("*.py")
    ]
    assert len(quoted) > 5
    assert [text for text in quoted if not any(text in source for source in code)] == []
