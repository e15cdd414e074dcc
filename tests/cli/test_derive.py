"""``nnas search --derive K``: draw K architectures, and keep the one that inherits best."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from nnas_core import schema
from nnas_core.errors import BindingError
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.space.search_space import SearchSpace
from nnas_core.workflows.derive import derive
from tests.cli.test_search import MUTATOR, assert_same_result, events
from tests.cli_support import MODEL, Cli, ForkServer, wait_until
from tests.training.sample_trainings import DataSettings, build_trainer, numbers, task_of

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16)


ERROR = """

metric_mode = "min"


def metrics(output, target):
    return {"error": nn.functional.mse_loss(output[:, 0], target * 1.0)}
"""


def evaluated(nnas: Cli, document: Any) -> dict[str, float]:
    """What ``nnas evaluate`` measures of an architecture with the weights of ``run``."""
    Path("one.json").write_text(json.dumps(document))
    command = ("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "one.json")
    metrics: dict[str, float] = nnas.ok(*command, "--batch-size", 16, "--json").json["metrics"]
    return metrics


def every_architecture(run: str) -> list[Any]:
    """All 18, as masks."""
    space = SearchSpace.from_json(json.loads(Path(run, "search_space.json").read_text()))
    return [space.at(number).masks() for number in range(space.size)]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_of_all_is_that_of_evaluate(nnas: Cli, small_model: Path, mode: str) -> None:
    if mode == "min":
        small_model.write_text(MODEL + ERROR)
    report = nnas.ok(*SEARCH, "--derive", 200, "-o", "run", "--json").json
    derived = report["derived"]
    assert (derived["drawn"], derived["distinct"], derived["mode"]) == (200, 18, mode)
    assert derived["metric"] == ("error" if mode == "min" else "accuracy")
    assert derived["metrics"] == evaluated(nnas, report["architecture"])
    values = [evaluated(nnas, one)[derived["metric"]] for one in every_architecture("run")]
    assert derived["metrics"][derived["metric"]] == (min if mode == "min" else max)(values)
    assert min(values) < max(values)


def test_it_becomes_the_architecture_of_the_run(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + ERROR)  # a metric in which no two are equal
    best = nnas.ok(*SEARCH, "--derive", 40, "-o", "run", "--json").json["architecture"]
    nnas.ok(*SEARCH, "-o", "first")
    assert best != json.loads(Path("first/architecture.json").read_text())
    assert json.loads(Path("run/architecture.json").read_text()) == best
    assert read_checkpoint("run/checkpoint.pt")["header"]["architecture"] == best
    nnas.ok("export", "run/checkpoint.pt", "-o", "exported.json")
    nnas.ok("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "exported.json")
    exported = SearchSpace.from_json(json.loads(Path("run/search_space.json").read_text()))
    assert exported.parse(json.loads(Path("exported.json").read_text())).masks() == best


def test_the_training_is_the_same_with_and_without(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 5, "-o", "run")
    nnas.ok(*SEARCH, "-o", "plain")
    with_it, without = (read_checkpoint(f"{run}/checkpoint.pt")["state"] for run in ("run", "plain"))
    assert all(with_it["model"][name].equal(value) for name, value in without["model"].items())
    assert with_it["random"]["generators"]["mutator"].equal(without["random"]["generators"]["mutator"])


def test_one_drawn_is_what_the_mutator_would_have_exported(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 1, "-o", "run")
    nnas.ok(*SEARCH, "-o", "plain")
    assert_same_result("run", "plain")


def test_the_report_says_what_was_measured_and_how(nnas: Cli, small_model: Path) -> None:
    result = nnas.ok(*SEARCH, "--derive", 3, "-o", "run")
    line = next(line for line in result.out.splitlines() if "best of" in line)
    assert line.startswith("best of 3 drawn (validation, inherited weights: optimistic)   accuracy 0.")
    document = nnas.ok("search", "--resume", "run", "--json").json
    assert document["derived"]["measured_on"] == (
        "validation data, inherited weights (an estimate; of the best of those drawn: optimistic)"
    )
    assert "derived" not in nnas.ok(*SEARCH, "-o", "plain", "--json").json


def test_events_have_it(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 3, "-o", "run")
    found = events("run")
    assert [event["event"] for event in found] == ["started", "epoch", "epoch", "derived", "finished"]
    assert (found[3]["drawn"], found[3]["metric"], found[3]["mode"]) == (3, "accuracy", "max")
    assert all(schema.problems("event", event) == [] for event in found)


def test_a_finished_run_derives_the_same_again(nnas: Cli, small_model: Path) -> None:
    first = nnas.ok(*SEARCH, "--derive", 12, "-o", "run", "--json").out
    kept = Path("run/architecture.json").read_bytes()
    assert nnas.ok("search", "--resume", "run", "--json").out == first
    assert Path("run/architecture.json").read_bytes() == kept


def test_a_run_that_finished_without_can_derive_later(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "later")
    nnas.ok("search", "--resume", "later", "--derive", 12)
    nnas.ok(*SEARCH, "--derive", 12, "-o", "run")
    assert_same_result("run", "later")
    assert Path("later/config.json").read_bytes() == Path("run/config.json").read_bytes()


def test_a_mutator_without_randomness_gives_one_architecture(nnas: Cli, small_model: Path) -> None:
    Path("mine.py").write_text(MUTATOR)
    command = ("search", "model.py", "--epochs", 1, "--mutator", "mine.py:First", "--derive", 4)
    derived = nnas.ok(*command, "-o", "run", "--json").json["derived"]
    assert (derived["drawn"], derived["distinct"]) == (4, 1)
    assert "best of 4 drawn, 1 distinct" in nnas.ok("search", "--resume", "run").out


@pytest.mark.parametrize("mutator", ["darts", "enas", "fairnas", "spos"])
def test_other_mutators(nnas: Cli, small_model: Path, mutator: str) -> None:
    options = ("--mutator-arg", "mutator_steps=2", "--mutator-arg", "aggregate=2") if mutator == "enas" else ()
    command = ("search", "model.py", "--mutator", mutator, "--epochs", 1, "--batch-size", 6, "--derive", 6, *options)
    report = nnas.ok(*command, "-o", "run", "--json").json
    assert report["derived"]["distinct"] <= (1 if mutator == "darts" else 6)
    assert nnas.ok("search", "--resume", "run", "--json").json == report


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_it_measures_in_the_precision_of_the_search(nnas: Cli, small_model: Path, precision: str) -> None:
    derived = nnas.ok(*SEARCH, "--precision", precision, "--derive", 3, "-o", "run", "--json").json["derived"]
    assert 0 <= derived["metrics"]["accuracy"] <= 1


WAITING = """

import time
from pathlib import Path

measured = []


def metrics(output, target):
    measured.append(1)
    if len(measured) == 9 and not Path("go").exists():  # 2 epochs of 3 + 1 batches, then the first of the derivation
        Path("here").touch()
        while not Path("go").exists():
            time.sleep(0.001)
    return {"accuracy": (output.argmax(1) == target).float().mean()}
"""


def test_it_is_interrupted_and_done_again(forks: ForkServer, nnas: Cli, small_model: Path, tmp_path: Path) -> None:
    small_model.write_text(MODEL + WAITING)
    process = forks.start(tmp_path, *SEARCH, "--derive", 8, "-o", "run")
    wait_until((tmp_path / "here").exists, process)
    process.signal(signal.SIGINT)
    Path("go").touch()
    result = process.wait()
    assert (result.code, result.out) == (130, "")
    assert result.err.endswith(
        "nnas: error: interrupted; checkpoint at step 6: run/checkpoint.pt\nhint: nnas search --resume run\n"
    )
    assert [event["event"] for event in events("run")] == ["started", "epoch", "epoch"]
    nnas.ok("search", "--resume", "run")
    nnas.ok(*SEARCH, "--derive", 8, "-o", "whole")
    assert_same_result("run", "whole")


def test_metrics_that_are_never_finite(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + "\n\ndef metrics(output, target):\n    return {'score': float('nan')}\n")
    result = nnas(*SEARCH, "--derive", 1, "-o", "run")
    assert (result.code, result.out) == (5, "")
    message = "nnas: error: none of the 1 derived architectures has a finite score on the validation data\n"
    assert message in result.err


def test_a_negative_number(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "--derive", -1)
    assert (result.code, result.out) == (2, "")
    assert "-1 is not in the range x>=0" in result.err


def test_a_training_without_a_mutator() -> None:
    trainer = build_trainer(task_of(train_dataset=numbers), DataSettings(batch_size=8))
    trainer.mutator = None
    with pytest.raises(BindingError, match="there is no mutator to draw architectures from"):
        derive(trainer, 3)
