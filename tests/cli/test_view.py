"""``nnas view``: what it shows of each kind, where it writes, widths, and bad inputs."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import json
import re
import sqlite3
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from nnas_cli.main import entry
from nnas_core import schema
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.importing import GivenResult
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, ForkServer, _fork_server, _searched, forks, nnas, small_model, small_run, wait_until

__all__ = ["_fork_server", "_searched", "forks", "nnas", "small_model", "small_run"]

SPACE = {
    "stem.op": {"_type": "layer_choice", "_value": ["conv", "skip"]},
    "body.0.op": {"_type": "layer_choice", "_value": ["conv", "pool", "skip"]},
    "body.0.in": {"_type": "input_choice", "_value": {"candidates": ["stem.op", "body.0.op"], "n_chosen": None}},
}

CHOSEN = {"stem.op": [True, False], "body.0.op": [False, False, True], "body.0.in": [True, True]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """``space.json`` and ``best.json`` in ``tmp_path``."""
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "best.json").write_text(json.dumps(CHOSEN))
    return tmp_path


@pytest.fixture
def study(tmp_path: Path) -> StudySettings:
    """A study in ``nnas.db`` of all 24 architectures, whose value only ``body.0.op`` decides, and its parameters."""
    space = SearchSpace.from_json(SPACE)
    settings = StudySettings("net-bayes", space, "bayes")
    results = []
    for index in range(space.size):
        architecture = space.at(index)
        value = float(architecture.indices()["body.0.op"][0])
        results.append(GivenResult(architecture, value, {"accuracy": value}, {"parameters": float(100 - index)}))
    with StudyStore.open(f"sqlite:///{tmp_path / 'nnas.db'}") as store:
        store.import_results(store.create_study(settings), results)
    return settings


def test_a_space_is_a_tree_of_scopes(nnas: Cli, files: Path) -> None:
    assert nnas.ok("view", "space.json").out == (
        "space  space.json\n"
        "  choices: 3\n"
        "  candidates: 7\n"
        "  architectures: 24\n"
        "\n"
        "choices\n"
        "├── body\n"
        "│   └── 0\n"
        "│       ├── in  (any number)\n"
        "│       │   ├──   stem.op  \n"
        "│       │   └──   body.0.op\n"
        "│       └── op\n"
        "│           ├──   conv\n"
        "│           ├──   pool\n"
        "│           └──   skip\n"
        "└── stem\n"
        "    └── op\n"
        "        ├──   conv\n"
        "        └──   skip\n"
    )


def test_an_architecture_says_what_is_chosen(nnas: Cli, files: Path) -> None:
    lines = nnas.ok("view", "best.json", "--space", "space.json").out.splitlines()
    assert [line.split("* ")[1].strip() for line in lines if "* " in line] == ["stem.op", "body.0.op", "skip", "conv"]
    names = json.dumps({"stem.op": "conv", "body.0.op": "skip", "body.0.in": ["stem.op", "body.0.op"]})
    assert nnas.ok("view", "-", "--space", "space.json", stdin=names).out.splitlines()[1:] == lines[1:]


def test_masks_alone_have_numbers_for_names(nnas: Cli, files: Path) -> None:
    report = nnas.ok("view", "best.json", "--json").json
    assert schema.problems("view-report", report) == []
    assert {one["key"]: one["candidates"] for one in report["choices"]}["body.0.op"] == ["0", "1", "2"]
    assert report["architecture"] == CHOSEN


def test_an_architecture_that_weighs_shows_its_weights(nnas: Cli, tmp_path: Path) -> None:
    out = nnas.ok("view", "-", stdin='{"op": [0.25, 0.75, 0.0], "act": [true, false]}').out
    assert "choices, with the weights of the architecture\n" in out
    assert re.findall(r"([*]?) (\d) (\d\.\d\d)", out) == [
        ("*", "0", "1.00"),
        ("", "1", "0.00"),
        ("*", "0", "0.25"),
        ("*", "1", "0.75"),
        ("", "2", "0.00"),
    ]
    report = nnas.ok("view", "-", "--json", stdin='{"op": [0.25, 0.75, 0.0], "act": [true, false]}').json
    assert schema.problems("view-report", report) == []
    assert report["weights"] == {"act": [1.0, 0.0], "op": [0.25, 0.75, 0.0]}


def test_a_run_shows_curves_and_the_weights_of_each_epoch(nnas: Cli, small_model: Path) -> None:
    common = ("--epochs", 2, "--derive", 0, "--batch-size", 6, "-q", "-o", "run")
    nnas.ok("search", "model.py", "--mutator", "gdas", *common)
    report = nnas.ok("view", "run", "--json").json
    assert schema.problems("view-report", report) == []
    events = [json.loads(line) for line in Path("run/events.jsonl").read_text().splitlines()]
    written = [one for one in events if one["event"] == "epoch"]
    assert [one["weights"] for one in report["epochs"]] == [one["decision_weights"] for one in written]
    assert [one["valid"] for one in report["epochs"]] == [one["valid"] for one in written]
    assert report["weights"] == written[-1]["decision_weights"]
    assert report["meaning"] == "decision weights after epoch 2"
    assert report["architecture"] == json.loads(Path("run/architecture.json").read_text())
    out = nnas.ok("view", "run").out
    first, last = (one["valid"]["loss"] for one in written)
    assert f"{first:.4g} to {last:.4g}" in out
    assert f" {report['weights']['op'][0]:.2f} " in out


def test_a_run_of_a_uniform_sampler_says_why_it_has_no_weights(nnas: Cli, small_run: Path) -> None:
    report = nnas.ok("view", "run", "--json").json
    assert report["notes"] == ["no decision weights are recorded: random learns none"]
    assert report["weights"] is None


def test_parts_that_a_run_lacks_are_named_and_the_rest_is_shown(nnas: Cli, small_run: Path) -> None:
    for name in ("events.jsonl", "architecture.json", "search_space.json"):
        Path("run", name).unlink()
        report = nnas.ok("view", "run", "--json").json
        assert any(note.startswith(name) for note in report["notes"]), name
        nnas.ok("view", "run", "--html", "page.html")
    result = nnas("view", "run", "--costs", "profile.json")
    message = "nnas: error: run: without search_space.json, there are no candidates that have costs\n"
    assert (result.code, result.err) == (3, f"{message}hint: leave out --costs\n")
    result = nnas("view", "run", "--svg", "net.svg")
    assert (result.code, result.err) == (3, "nnas: error: run: has no choices that could be drawn\n")


def test_values_of_any_size_are_a_curve(nnas: Cli, small_run: Path) -> None:
    rows = [{"far": -1.7e308, "near": 0.0, "none": 0.0}, {"far": 1.7e308, "near": 5e-324, "none": 0.0}]
    events = [{"event": "epoch", "epoch": number, "train": row} for number, row in enumerate(rows, 1)]
    odd = [{"event": "epoch", "epoch": number, "train": rows[0]} for number in (0, -1, True, 10**30)]
    Path("run/events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (*odd, *events)))
    out = nnas.ok("view", "run").out
    lines = [line.split()[:3] for line in out.split("curves")[1].splitlines()[1:]]
    assert lines == [["train", "far", "▁█"], ["train", "near", "▁█"], ["train", "none", "▁▁"]]
    report = nnas.ok("view", "run", "--json").json
    assert schema.problems("view-report", report) == []
    assert [one["epoch"] for one in report["epochs"]] == [1, 2]


def test_weights_that_fit_no_choice_are_left_out(nnas: Cli, small_run: Path) -> None:
    lines = Path("run/events.jsonl").read_text().splitlines()
    for odd in ({"op": [1.0]}, {"nowhere": [1.0]}, {"op": ["a", "b", "c"]}, {"op": 3}, [1]):
        changed = [json.loads(line) for line in lines]
        changed[1]["decision_weights"] = odd
        Path("run/events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in changed))
        report = nnas.ok("view", "run", "--json").json
        assert report["epochs"][0]["weights"] is None
        assert report["notes"][0].startswith("events.jsonl: decision weights of 1 epochs do not fit"), odd


def test_a_study_shows_what_matters_and_its_fronts(nnas: Cli, study: StudySettings) -> None:
    report = nnas.ok("view", "--study", "net", "--json").json
    assert schema.problems("view-report", report) == []
    trials = report["trials"]
    assert (trials["count"], trials["importance"]["exact"]) == (24, True)
    shares = {one["key"]: one["share"] for one in trials["importance"]["choices"]}
    assert shares == {"body.0.op": pytest.approx(1.0), "stem.op": pytest.approx(0.0), "body.0.in": pytest.approx(0.0)}
    values = {one["number"]: one["value"] for one in trials["shown"]}
    (front,) = trials["fronts"]  # accuracy is the value itself
    assert (front["of"], front["smaller_is_better"]) == ("parameters", True)
    last = {value: max(number for number in values if values[number] == value) for value in (0.0, 1.0, 2.0)}
    assert front["trials"] == [last[2.0], *(last[one] for one in (1.0, 0.0) if last[one] > last[2.0])]
    assert report["architecture"]["body.0.op"] == [False, False, True]
    out = nnas.ok("view", "--storage", "sqlite:///nnas.db").out  # the only one
    assert "importance: share of the variance that a choice explains alone, exact" in out
    assert "  body.0.op 100.0 %" in out
    assert "Pareto front of value and parameters (smaller is better)" in out


def test_what_does_not_meet_the_constraints_never_wins(nnas: Cli, study: StudySettings) -> None:
    made = replace(
        study, name="limited", config={"constraint": ["parameters<=90"], "objective": ["accuracy", "parameters"]}
    )
    space = study.space
    results = []
    for index in range(space.size):
        value = float(space.at(index).indices()["body.0.op"][0])
        results.append(GivenResult(space.at(index), value, {"accuracy": value}, {"parameters": 100 - 5.0 * value}))
    with StudyStore.open("sqlite:///nnas.db") as store:
        store.import_results(store.create_study(made), results)
    report = nnas.ok("view", "--study", "limited", "--json").json
    assert schema.problems("view-report", report) == []
    trials = report["trials"]
    assert trials["counts"] == {"infeasible": 16, "succeeded": 8}
    assert {one["value"] for one in trials["shown"] if one["feasible"]} == {2.0}
    assert trials["curve"] == [[trials["best"], 2.0]]
    front = trials["fronts"][0]
    assert (front["of"], len(front["trials"])) == ("parameters", 8)
    assert trials["importance"]["trials"] == 24
    facts = {one["name"]: one["value"] for one in report["facts"]}
    assert (facts["constraints"], facts["objectives"]) == ("parameters<=90", "accuracy, parameters")


def test_a_study_of_many_trials_says_what_it_leaves_out(
    nnas: Cli, study: StudySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnas_core.viewing.studies._MOST_TRIALS", 6)
    monkeypatch.setattr("nnas_core.viewing.studies._LEAST_TRIALS", 6)
    report = nnas.ok("view", "--study", "net", "--json").json
    shown = [one["number"] for one in report["trials"]["shown"]]
    assert set(shown) >= {22, 23}
    assert len(shown) <= 6
    assert report["trials"]["count"] == 24
    assert report["notes"][0].startswith(f"of 24 trials {len(shown)} are listed, the best, the newest and fronts")


def test_what_is_on_a_front_is_listed_though_others_are_better_and_newer(
    nnas: Cli, study: StudySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = study.space
    results = [  # only the one with index 8 is small
        GivenResult(space.at(index), -float(abs(index - 12)), {}, {"parameters": 1.0 if index == 8 else 5.0})
        for index in range(space.size)
    ]
    with StudyStore.open("sqlite:///nnas.db") as store:
        store.import_results(store.create_study(replace(study, name="fronts")), results)
    monkeypatch.setattr("nnas_core.viewing.studies._MOST_TRIALS", 8)
    monkeypatch.setattr("nnas_core.viewing.studies._LEAST_TRIALS", 8)
    trials = nnas.ok("view", "--study", "fronts", "--json").json["trials"]
    assert trials["fronts"] == [{"of": "parameters", "smaller_is_better": True, "trials": [12, 8]}]
    assert {one["number"] for one in trials["shown"]} == {8, 12, 11, 13, 21, 22, 23}
    monkeypatch.setattr("nnas_core.viewing.studies._spread", lambda numbers, most: numbers[:1])
    assert "trial 12     0            5\n  ... and 1 more\n" in nnas.ok("view", "--study", "fronts").out


def test_rows_of_a_study_that_are_damaged_are_named_and_left_out(nnas: Cli, study: StudySettings) -> None:
    with contextlib.closing(sqlite3.connect("nnas.db")) as database, database:
        database.execute("UPDATE trials SET value = 7 WHERE number = 3")
    report = nnas.ok("view", "--study", "net", "--json").json
    assert report["trials"]["count"] == 23
    assert [note for note in report["notes"] if "trial 3" in note and note.endswith(": left out")]


def test_costs_of_candidates(nnas: Cli, small_run: Path) -> None:
    nnas.ok("profile", "model.py", "--seconds", 0.001, "-o", "profile.json", "--json", "-q")
    table = {"op": [500, 250, 1000], "act": [100, 200]}
    document = json.dumps({"format": "nnas.latency-table/1", "unit": "us", "latencies": table})
    report = nnas.ok("view", "run", "--costs", "profile.json", "--costs", "-", "--json", stdin=document).json
    assert schema.problems("view-report", report) == []
    costs = {one["key"]: one["costs"] for one in report["choices"]}
    assert costs["op"][0] == {"parameters": 72, "macs": 64, "latency_ms": 0.5, "output": [8]}
    assert costs["act"][1] == {"parameters": 0, "macs": 0, "latency_ms": 0.2, "output": [8]}
    assert {one["latency_ms"] for one in costs["link"]} == {None}  # nobody measured it
    assert "72 p, 64 MACs, gives 8" in nnas.ok("view", "run", "--costs", "profile.json").out


def test_pictures_are_written_beside_each_other(nnas: Cli, files: Path) -> None:
    result = nnas.ok("view", "best.json", "--space", "space.json", "--html", "a.html", "--svg", "a.svg", "-o", "a.json")
    assert (result.out, result.err) == ("", "wrote a.html\nwrote a.svg\nwrote a.json\n")
    assert Path("a.html").read_text().startswith("<!DOCTYPE html>")
    assert ElementTree.parse("a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert schema.problems("view-report", json.loads(Path("a.json").read_text())) == []
    assert nnas.ok("view", "best.json", "--space", "space.json", "--svg", "-").out == Path("a.svg").read_text()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(
    nnas: Cli, study: StudySettings, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = nnas.ok("view", "--study", "net").out
    assert max(map(cell_len, out.splitlines())) <= width
    assert "\x1b" not in out


def test_a_study_is_shown_by_its_name_too(nnas: Cli, study: StudySettings) -> None:
    assert nnas.ok("view", "net-bayes", "--json").json == nnas.ok("view", "--study", "net", "--json").json
    assert "--space does nothing with a study" in nnas("view", "net-bayes", "--space", "space.json").err
    Path("net-bayes").mkdir()  # what there is comes first
    assert "net-bayes: holds no run" in nnas("view", "net-bayes").err


def test_names_of_others_cannot_move_the_terminal(nnas: Cli, tmp_path: Path) -> None:
    names = ["\x1b[31mred", "[bold]x[/bold]", "\u202eright to left", "a\nb", "漢字" * 30, ""]
    space = {f"{name}.k": {"_type": "layer_choice", "_value": names} for name in names}
    Path("space.json").write_text(json.dumps(space))
    out = nnas.ok("view", "space.json", "--color", "always").out
    plain = out.replace("\x1b[", "")
    assert "\x1b" not in plain
    assert "\\x1b[31mred" in out
    assert "[bold]x[/bold]" in out
    assert "\\u202eright" in out
    assert "(unnamed)" in out


def test_a_key_of_any_depth_and_a_choice_of_any_size_is_shown(nnas: Cli, tmp_path: Path) -> None:
    many = {"_type": "layer_choice", "_value": [f"c{one}" for one in range(5000)]}
    space = {".".join("a" * 5000): many, "....": many, **{f"k{one}": many | {"_value": ["x"]} for one in range(100)}}
    Path("space.json").write_text(json.dumps(space))
    lines = nnas.ok("view", "space.json", "--html", "page.html", "-o", "-").out.splitlines()
    assert lines == []  # the page was asked for
    lines = nnas.ok("view", "space.json").out.splitlines()
    assert len([line for line in lines if line.endswith("... and 4,980 more")]) == 2
    assert lines[-1] == "... and 42 more choices: --html has them all"


@pytest.mark.global_random  # rich draws numbers when it is first imported
def test_a_terminal_without_blocks_gets_plain_characters(
    nnas: Cli, study: StudySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert entry(["view", "--study", "net"]) == 0
    assert "* skip 1.00 ##############################" in buffer.getvalue().decode("ascii")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing to look at is named\nhint: give FILE, or --study, and where it is by --storage"),
        (("space.json", "--study", "x"), 2, "FILE and --study are two things to look at"),
        (("space.json", "--storage", "sqlite:///x.db"), 2, "--storage does nothing with FILE"),
        (("--space", "space.json"), 2, "--space does nothing with a study"),
        (("space.json", "--space", "space.json"), 3, "space.json: is a search space itself"),
        (("nowhere",), 3, "nowhere: no such file, folder or study"),
        (("empty",), 3, "empty: holds no run of `nnas search` or `nnas retrain`"),
        (("other.json", "--space", "space.json"), 3, "other.json: the architecture does not fit the search space"),
        (("names.json",), 3, "names.json: without its search space, only masks can be shown"),
        (("indices.json",), 3, "indices.json: without its search space, only masks can be shown"),
        (("report.json",), 3, "report.json: is no search space and no architecture"),
        (("broken.json",), 3, "broken.json:1:2: "),
        (("space.json", "--costs", "best.json"), 3, "best.json: is neither a report of a profile nor a latency table"),
        (("space.json", "--html", "-", "--json"), 2, "standard output can have one of them"),
        (("space.json", "--serve", "--svg", "x.svg"), 2, "--serve shows the page in a browser and writes no file"),
        (("-", "--serve"), 2, "--serve reads again and again, which - cannot be\nhint: give a file"),
        (("space.json", "--serve", "--costs", "-"), 2, "--serve reads again and again, which - cannot be"),
        (("space.json", "--html", "x", "-o", "x"), 2, "several outputs are to be written to one file"),
        (("space.json", "--html", "no/folder/x.html"), 6, "no/folder/x.html: cannot write"),
        (("--study", "net", "--storage", "sqlite:///none.db"), 3, "none.db"),
        (("net", "--storage", "sqlite:///none.db"), 3, "none.db"),
    ],
)
def test_bad_inputs(nnas: Cli, files: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    Path("empty").mkdir()
    Path("other.json").write_text('{"op": [true, false]}')
    Path("names.json").write_text('{"op": "conv"}')
    Path("indices.json").write_text('{"op": [0, 0], "link": [true, false]}')
    Path("report.json").write_text('{"format": "nnas.error-report/1"}')
    Path("broken.json").write_text("{")
    result = nnas("view", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "Traceback" not in result.err


def test_what_a_page_needs_is_said_before_it_is_served(nnas: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "sugiyama" in name else find(name, *more)
    )
    result = nnas("view", "space.json", "--serve")
    assert (result.code, result.out) == (2, "")
    assert "fast-sugiyama, which places the choices, is not installed" in result.err


def test_it_serves_until_ctrl_c(forks: ForkServer, small_run: Path) -> None:
    process = forks.start(small_run.parent, "view", "run", "--serve")
    wait_until(lambda: process.out.endswith("\n"))
    address = process.out.strip()
    host, path = address.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    assert (answer.status, b"data-served" in answer.read()) == (200, True)
    connection.close()
    process.signal(2)
    assert process.wait().code == 130
    assert process.err.endswith("nnas: error: interrupted\n")
    assert process.out == f"{address}\n"
