"""``nnas runs`` and ``nnas compare``: what there is, and in what it differs; nobody needs torch for that."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nnas_core import schema
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, ForkServer, Process, wait_until
from tests.study.known_studies import make


def fake_run(folder: Path, *events: dict[str, object], command: str = "search", **options: object) -> Path:
    """A run folder as ``nnas search`` leaves it, without a checkpoint."""
    folder.mkdir(parents=True)
    given = {"model": "net.py", "epochs": 2, **({"mutator": "darts"} if command == "search" else {}), **options}
    (folder / "config.json").write_text(json.dumps({command: given}))
    lines = [json.dumps({"time": 1_700_000_000 + place, **event}) for place, event in enumerate(events)]
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def epoch(number: int, accuracy: float) -> dict[str, object]:
    """The event of an epoch."""
    valid = {"accuracy": accuracy, "loss": 1.0}
    return {"event": "epoch", "epoch": number, "step": number, "train": {}, "valid": valid}


STARTED, FINISHED = {"event": "started"}, {"event": "finished"}


def listed(nnas: Cli, *arguments: object) -> dict[str, dict[str, object]]:
    """The runs by their folders."""
    found = nnas.ok("runs", *arguments, "--json")
    assert schema.problems("runs-report", found.json) == []
    return {run["run"]: run for run in found.json["runs"]}


def test_runs_are_found_with_their_states_and_last_metrics(
    nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    fake_run(tmp_path / "runs/a", STARTED, epoch(1, 0.5), epoch(2, 0.75), FINISHED)
    fake_run(tmp_path / "runs/b", STARTED, epoch(1, 0.5), {"event": "interrupted"})
    tested = {**FINISHED, "test": {"accuracy": 0.25}, "tested_on": "test"}
    fake_run(tmp_path / "runs/deep/c", STARTED, epoch(1, 0.5), tested, command="retrain", epochs=1)
    found = listed(nnas)
    assert list(found) == ["runs/a", "runs/b", "runs/deep/c"]
    assert [run["state"] for run in found.values()] == ["finished", "interrupted", "finished"]
    assert [run["metrics"] for run in found.values()] == [
        {"accuracy": 0.75, "loss": 1.0},
        {"accuracy": 0.5, "loss": 1.0},
        {"accuracy": 0.25},
    ]
    assert [run["measured_on"] for run in found.values()] == ["validation", "validation", "test"]
    assert [run["epochs"] for run in found.values()] == [
        {"done": 2, "wanted": 2},
        {"done": 1, "wanted": 2},
        {"done": 1, "wanted": 1},
    ]
    assert found["runs/a"]["changed"] == "2023-11-14T22:13:23+00:00"
    shown = nnas.ok("runs")
    assert [line.split() for line in shown.out.splitlines()[2:4]] == [
        ["runs/a", "search", "darts", "finished", "2/2", "accuracy", "0.75", "2023-11-14", "22:13"],
        ["runs/b", "search", "darts", "interrupted", "1/2", "accuracy", "0.5", "2023-11-14", "22:13"],
    ]


def test_a_run_of_search_is_one(nnas: Cli, small_run: Path) -> None:
    events = [json.loads(line) for line in (small_run / "events.jsonl").read_text().splitlines()]
    found = listed(nnas)["run"]
    assert (found["state"], found["mutator"], found["epochs"]) == ("finished", "random", {"done": 1, "wanted": 1})
    assert found["metrics"] == next(event["valid"] for event in events if event["event"] == "epoch")


def test_a_run_that_goes_on_is_running(nnas: Cli, forks: ForkServer, small_model: Path, tmp_path: Path) -> None:
    arguments = ("search", "model.py", "--mutator", "random", "--epochs", 9999, "-o", "run")
    process: Process = forks.start(tmp_path, *arguments)
    wait_until(lambda: (tmp_path / "run/config.json").exists(), process)
    assert listed(nnas)["run"]["state"] == "running"
    process.signal(9)
    process.wait()
    assert listed(nnas)["run"]["state"] == "interrupted"


def test_what_is_no_run_is_not_listed(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"hidden_size": 768}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    fake_run(tmp_path / ".hidden/a", STARTED)
    result = nnas("runs")
    assert (result.code, result.out, result.err) == (0, "", "there are no runs below here\n")
    assert nnas.ok("runs", "--json").json["runs"] == []
    assert nnas.ok("runs", "other").err == "there are no runs below other\n"


def test_a_damaged_run_is_listed_as_such(nnas: Cli, tmp_path: Path) -> None:
    fake_run(tmp_path / "a", STARTED)
    (tmp_path / "a/config.json").write_text("{")
    run = listed(nnas)["a"]
    assert run["state"] == "damaged"
    assert str(run["problem"]).startswith("a/config.json:1:2: not JSON")
    assert "a/config.json:1:2" in "".join(nnas.ok("runs").out.split())


@pytest.mark.parametrize(
    "event",
    [
        {"event": "epoch", "epoch": "many", "valid": []},
        {"event": "epoch", "epoch": 10**400, "valid": {"accuracy": "x"}},
        {"event": "epoch", "time": 1e300},
        {"event": ["finished"], "time": "noon"},
        {"event": "finished", "test": 3, "tested_on": 5},
    ],
)
def test_events_that_nobody_wrote_break_nothing(nnas: Cli, tmp_path: Path, event: dict[str, object]) -> None:
    run = fake_run(tmp_path / "a", STARTED, event)
    with open(run / "events.jsonl", "a") as file:
        file.write('[1]\n{"event": "ep')
    assert listed(nnas)["a"]["metrics"] == {}


def test_links_in_a_circle_are_followed_once(nnas: Cli, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    fake_run(elsewhere / "a", STARTED)
    (tmp_path / "runs").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tmp_path)
    (elsewhere / "a/itself").symlink_to(".")
    (tmp_path / "nowhere").symlink_to("nowhere")
    assert list(listed(nnas)) == ["runs/a"]


def test_a_folder_that_cannot_be_read_is_told_of(nnas: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(tmp_path / "a", STARTED)
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = nnas.ok("runs")
    assert result.err == "nnas: warning: locked: cannot be read: Permission denied\n"
    assert "interrupted" in result.out


def test_thousands_of_folders_are_looked_at(nnas: Cli, tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"data/{number}").mkdir(parents=True)
    deep = tmp_path.joinpath(*["d"] * 300)
    fake_run(deep, STARTED)
    assert len(listed(nnas)) == 1


def test_a_folder_that_is_none_is_refused(nnas: Cli, tmp_path: Path) -> None:
    result = nnas("runs", "nowhere")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nowhere: no such folder\nhint: check the path\n"


# ---- compare


def test_runs_and_studies_stand_in_one_table(nnas: Cli, small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    config["search"]["seed"] = 7
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store)
    found = nnas.ok("compare", "run", "other", "first", "--json")
    assert schema.problems("compare-report", found.json) == []
    assert [one["kind"] for one in found.json["compared"]] == ["search", "search", "study"]
    assert [one["algorithm"] for one in found.json["compared"]] == ["random"] * 3
    assert found.json["differing_options"] == ["epochs", "seed"] or found.json["differing_options"] == ["seed"]
    architecture = json.loads((small_run / "architecture.json").read_text())
    assert [one["architecture"] for one in found.json["compared"]][:2] == [architecture] * 2
    assert found.json["compared"][2]["metrics"]["value"] == 0.75
    assert (found.json["compared"][2]["done"], found.json["compared"][2]["wanted"]) == (4, 4)
    shown = nnas.ok("compare", "run", "other", "fir").out
    assert "seed=7" in shown
    assert "seed=0" in shown
    assert "value 0.75" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("empty", "nnas: error: empty: holds no run of `nnas search` or `nnas retrain`\nhint: check the path\n"),
        ("file", "nnas: error: file: is no run: a folder is needed\nhint: see `nnas runs`\n"),
        (
            "nothing",
            "nnas: error: nothing: is neither a run folder nor a study\nhint: see `nnas runs`, or give --storage\n",
        ),
        ("foreign", "nnas: error: foreign/config.json: is no configuration of `nnas search` or `nnas retrain`\n"),
        ("list", "nnas: error: list/config.json: is no configuration of `nnas search` or `nnas retrain`\n"),
    ],
)
def test_what_cannot_be_compared_is_refused(nnas: Cli, tmp_path: Path, name: str, error: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, text in (("foreign", "{}"), ("list", '{"search": [1]}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(text)
    fake_run(tmp_path / "good", STARTED)
    result = nnas("compare", "good", name)
    assert (result.code, result.out, result.err) == (3, "", error)


def test_a_study_that_is_none_is_named(nnas: Cli) -> None:
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store)
    result = nnas("compare", "second")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nnas.db: no study is named 'second'\nhint: there are first\n"


@pytest.mark.parametrize("file", ["architecture.json", "search_space.json"])
def test_a_damaged_architecture_is_named(nnas: Cli, small_run: Path, file: str) -> None:
    (small_run / file).write_text('{"op": 3')
    result = nnas("compare", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"nnas: error: run/{file}:1:9: not JSON")


def test_nothing_to_compare_is_a_usage_error(nnas: Cli) -> None:
    result = nnas("compare")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: missing argument")


def test_a_storage_without_a_study_to_look_for_is_refused(nnas: Cli, small_run: Path) -> None:
    result = nnas("compare", "run", "--storage", "sqlite:///other.db")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: --storage does nothing with run folders alone\n")
