"""The checklist of runs and studies: every fact is one that is stored, and with its file gone it is open."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path

import pytest

from nnas_cli.main import cli
from nnas_cli.spelling import with_options
from nnas_core import __version__
from nnas_core.assessment.checklist import Checklist, Item
from nnas_core.runs.circumstances import read_circumstances
from nnas_core.study.storage.store import StudyStore
from nnas_core.workflows.run_checklist import run_checklist
from nnas_core.workflows.study_checklist import study_checklist
from tests.cli_support import MODEL, Cli, _searched, nnas, small_model, small_run

__all__ = ["_searched", "nnas", "small_model", "small_run"]

DIGEST = "sha256:" + hashlib.sha256(MODEL.encode()).hexdigest()


def item(found: Checklist, number: str) -> Item:
    """The item of a number."""
    return next(one for one in found.items if one.number == number)


def facts(found: Checklist, number: str) -> dict[str, str]:
    """Of an item."""
    return {fact.what: fact.value for fact in item(found, number).facts}


def command(found: Checklist, number: str) -> str:
    """Of an item, as it is pasted."""
    told = item(found, number).command
    return "" if told is None else told.line(lambda text: with_options(text, cli))


def of_study(name: str) -> Checklist:
    """The checklist of a study in ``nnas.db``."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        return study_checklist(store, store.study(name))


def test_a_run_says_on_what_it_ran_and_of_what_it_is_made(small_run: Path) -> None:
    found = facts(run_checklist(str(small_run)), "3.3")
    assert found["model.py"] == DIGEST
    assert found["samples"] == "48 training, 12 validation"
    assert found["split"].startswith("0.2 of the training data held out by seed 0")
    assert found["search space"].startswith("3 choices, 18 architectures, sha256:")
    assert f"Python {platform.python_version()}, nnas {__version__}" in found["machine"]
    assert found["machine"].endswith("1 thread, cpu")
    assert "torch " in found["machine"]
    assert "epochs=1" in found["options"]
    assert "seed=0" in found["options"]
    assert item(run_checklist(str(small_run)), "3.3").status == "answered"


def test_what_an_older_run_does_not_say_is_open(small_run: Path) -> None:
    events = [json.loads(line) for line in (small_run / "events.jsonl").read_text().splitlines()]
    for event in events:
        for name in ("machine", "code", "samples", "split"):
            event.pop(name, None)
        if event["event"] == "epoch":
            del event["seconds"]
    (small_run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    found = run_checklist(str(small_run))
    left = "not stored, so say: machine and versions, sizes and split of the data, files of the model"
    assert item(found, "3.3").left == left
    assert item(found, "1.4").left == "the version of nnas is not stored: say it"
    assert item(found, "1.1").left == "the files are not stored: name and publish them"


@pytest.mark.parametrize(
    "line",
    [
        {"event": "started", "machine": 3, "code": [1], "samples": {"a": "x"}, "split": 7},
        {"event": "started", "machine": {"nnas": 1, "cpus": -3}, "code": {"a": 3}, "split": {"seed": "x"}},
        {"event": "finished", "seconds": "x", "tested_samples": []},
        {"event": "derived", "tried": "many"},
    ],
)
def test_events_of_other_forms_are_not_believed(small_run: Path, line: dict[str, object]) -> None:
    (small_run / "events.jsonl").write_text(json.dumps(line) + "\n")
    found = run_checklist(str(small_run))
    assert item(found, "3.3").status == item(found, "3.2").status == "open"


def test_a_run_that_is_done_again_with_another_seed_has_two(nnas: Cli, small_run: Path) -> None:
    first = run_checklist("run")
    assert item(first, "2.7").left == "one seed is stored: repeat it with others"
    line = command(first, "2.7")
    assert line == "nnas search --config run/config.json --seed 1 -o run-seed-1"
    nnas.ok(*line.split()[1:], "-q")
    found = run_checklist("run")
    assert item(found, "2.7").status == "answered"
    assert list(facts(found, "2.7")) == ["seed 0", "seed 1"]
    nnas.ok("search", "--config", "run/config.json", "--learning-rate", "0.5", "-o", "other", "-q")
    found = run_checklist("run")
    assert list(facts(found, "2.7")) == ["seed 0", "seed 1"]
    assert facts(found, "2.3")["other"].startswith("learning_rate=0.5; finished, validation ")
    assert item(found, "2.3").status == "open"


def test_a_training_of_what_was_found_is_recognised(nnas: Cli, small_run: Path) -> None:
    before = run_checklist("run")
    assert item(before, "1.3").status == "open"
    assert "the training of what was found" in (item(before, "3.2").left or "")
    line = command(before, "1.3")
    assert line == "nnas retrain model.py --architecture run/architecture.json --seeds 3"
    nnas.ok(*line.split()[1:-1], "2", "--epochs", 1, "-o", "final", "-q")
    nnas.ok("retrain", "model.py", "--architecture", "-", "--epochs", 1, "-o", "x", "-q", stdin=other("run"))
    found = run_checklist("run")
    assert facts(found, "1.3")["seeds"] == "0, 1"
    assert facts(found, "1.3")["result with seed 1"].startswith("test ")
    assert [fact.where for fact in item(found, "1.3").facts][:1] == ["final/config.json"]
    assert item(found, "3.2").status == "answered"
    alone = run_checklist("final")
    assert facts(alone, "3.3")["samples"] == "48 training, 12 validation, 20 test"
    assert list(facts(alone, "2.7")) == ["seed 0", "seed 1"]
    assert item(alone, "3.2").left == "not stored: the search"


def other(run: str) -> str:
    """Another architecture than that of a run."""
    masks = json.loads(Path(run, "architecture.json").read_text())
    masks["act"] = masks["act"][::-1]
    return json.dumps(masks)


def test_seconds_of_all_processes_count(small_run: Path) -> None:
    events = small_run / "events.jsonl"
    lines = events.read_text().splitlines()
    machine = json.loads(lines[0])["machine"]
    once = read_circumstances(small_run)
    more = [
        {"event": "resumed", "time": 1.0, "machine": machine, "code": {"model.py": "sha256:0"}},
        {"event": "interrupted", "time": 2.0, "seconds": 100.0},
        {"event": "resumed", "time": 3.0, "machine": {**machine, "threads": 7}},
        {"event": "finished", "time": 4.0, "seconds": 10.0},
    ]
    events.write_text("\n".join([*lines, *map(json.dumps, more)]) + "\n")
    found = read_circumstances(small_run)
    assert once.seconds is not None
    assert found.seconds == pytest.approx(once.seconds + 110)
    assert (once.processes, found.processes, found.training_s) == (1, 3, once.training_s)
    assert [one.threads for one in found.machines] == [1, 7]
    assert found.changed == ["model.py"]
    events.write_text("\n".join([*lines, json.dumps(more[0])]) + "\n")  # killed, or it still runs
    assert read_circumstances(small_run).seconds is None


def test_a_study_knows_its_random_ones(nnas: Cli, small_run: Path) -> None:
    inherit = ["tune", "model.py", "--checkpoint", "run/checkpoint.pt", "-q", "-o", "best.json"]
    nnas.ok(*inherit, "--tuner", "evolution", "--trials", 3, "--study", "found")
    alone = of_study("found")
    assert [item(alone, number).status for number in ("2.1", "2.4", "2.6")] == ["open"] * 3
    assert facts(alone, "3.3")["model.py"] == DIGEST
    assert facts(alone, "3.3")["samples"] == "48 training, 12 validation"
    assert "population=20" in facts(alone, "1.5")["tuner"]
    assert "weights that trials inherit" in (item(alone, "3.2").left or "")
    line = command(alone, "1.5")
    assert line == (
        "nnas tune model.py --tuner evolution --batch-size 64 --recalibrate 10 --checkpoint run/checkpoint.pt --seed 0 "
        "--trials 3 --study found-again"
    )
    nnas.ok(*line.split()[1:], "-q", "-o", "again.json")
    assert Path("again.json").read_bytes() == Path("best.json").read_bytes()
    nnas.ok(*inherit, "--tuner", "random", "--trials", 9, "--study", "chance")
    nnas.ok("tune", "model.py", "--train-epochs", 1, "--tuner", "random", "--trials", 2, "--study", "trained", "-q")
    found = of_study("found")
    assert [item(found, number).status for number in ("2.1", "2.2", "2.4", "2.6")] == ["answered"] * 4
    assert "random architectures, with inherited weights" in facts(found, "2.4")["chance"]
    assert "trained" in facts(found, "2.6")
    assert "trained" not in facts(found, "2.4")
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        of_run = run_checklist("run", store)
    assert item(of_run, "2.6").status == "answered"
    assert "chance" in facts(of_run, "2.6")


def test_a_study_of_a_program_has_no_data_of_its_own(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text('{"op": {"_type": "layer_choice", "_value": ["a", "b"]}}')
    (tmp_path / "run.sh").write_text('#!/bin/sh\necho \'{"value": 1}\' > "$NNAS_RESULT"\n')
    (tmp_path / "run.sh").chmod(0o755)
    nnas("tune", "space.json", "--trial-command", "./run.sh", "--trials", 1, "--study", "s", "-q")
    found = of_study("s")
    assert item(found, "3.3").left == "not stored, so say: sizes and split of the data of the program"
    assert item(found, "2.8").left == "say if ./run.sh looks results up in a table"
    assert "torch" not in facts(found, "3.3")["machine"]
    assert command(found, "1.5").startswith("nnas tune SPACE.json --tuner bayes --trial-command ./run.sh")


def test_a_damaged_run_beside_it_is_left_out(small_run: Path) -> None:
    shutil.copytree(small_run, small_run.parent / "broken")
    (small_run.parent / "broken" / "config.json").write_text("{")
    assert list(facts(run_checklist(str(small_run)), "2.7")) == ["seed 0"]
