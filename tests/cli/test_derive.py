"""What ``nnas search`` hands out: of several architectures, the one that inherits best."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from nnas_core import extract, schema
from nnas_core.errors import BindingError, EnvironmentFailure
from nnas_core.plugins import loading
from nnas_core.runs.checkpoint import read_checkpoint
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.evaluation import InheritedWeights
from nnas_core.training.model import build_model
from nnas_core.workflows.derive import DerivationState, derive
from tests.cli.test_search import MUTATOR, assert_same_result, events
from tests.cli_support import MODEL, Cli, ForkServer, wait_until
from tests.training.sample_trainings import DataSettings, build_trainer, numbers, task_of

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16)


ERROR = """

metric_mode = "min"


def metrics(output, target):
    return {"error": nn.functional.mse_loss(output[:, 0], target * 1.0)}
"""


LARGE = """

class Large(Net):
    def __init__(self):
        super().__init__()
        self.more = nn.ModuleList(LayerChoice([nn.Identity(), nn.Tanh()], key=f"more{n}") for n in range(4))

    def forward(self, x):
        a = self.norm(self.stem(x))
        b = self.op(a)
        c = self.link([a, b, self.act(b)])
        for layer in self.more:
            c = layer(c)
        return self.head(c)
"""

LONG = """

class Long(nn.Module):
    def __init__(self):
        super().__init__()
        names = ["a" * 40, "b" * 40]
        self.layers = nn.ModuleList(
            LayerChoice(OrderedDict((name, nn.Linear(4, 4)) for name in names[: 1 + (n > 0)]), key=f"key{n}")
            for n in range(25)
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x[:, :2]
"""

FRAGILE = """

class Picky(nn.Module):
    def forward(self, x):
        if x.mean() > 50:
            raise ValueError("too much")
        return x


class More(nn.Module):
    def forward(self, x):
        return x + 100


class Fragile(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.first = LayerChoice([nn.Identity(), More()], key="first")
        self.second = LayerChoice([nn.Identity(), Picky()], key="second")

    def forward(self, x):
        return self.head(self.second(self.first(x)))
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
    assert (derived["tried"], derived["whole"], derived["mode"]) == (18, True, mode)
    assert derived["metric"] == ("error" if mode == "min" else "accuracy")
    assert derived["metrics"] == evaluated(nnas, report["architecture"])
    values = [evaluated(nnas, one)[derived["metric"]] for one in every_architecture("run")]
    assert derived["metrics"][derived["metric"]] == (min if mode == "min" else max)(values)
    assert min(values) < max(values)


def test_it_becomes_the_architecture_of_the_run(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + ERROR)  # a metric in which no two are equal
    best = nnas.ok(*SEARCH, "--derive", 40, "-o", "run", "--json").json["architecture"]
    nnas.ok(*SEARCH, "--derive", 0, "-o", "first")
    assert best != json.loads(Path("first/architecture.json").read_text())
    assert json.loads(Path("run/architecture.json").read_text()) == best
    assert read_checkpoint("run/checkpoint.pt")["header"]["architecture"] == best
    nnas.ok("export", "run/checkpoint.pt", "-o", "exported.json")
    nnas.ok("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "exported.json")
    exported = SearchSpace.from_json(json.loads(Path("run/search_space.json").read_text()))
    assert exported.parse(json.loads(Path("exported.json").read_text())).masks() == best


def test_the_training_is_the_same_with_and_without(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 5, "-o", "run")
    nnas.ok(*SEARCH, "--derive", 0, "-o", "plain")
    with_it, without = (read_checkpoint(f"{run}/checkpoint.pt")["state"] for run in ("run", "plain"))
    assert all(with_it["model"][name].equal(value) for name, value in without["model"].items())
    assert with_it["random"]["generators"]["mutator"].equal(without["random"]["generators"]["mutator"])


def test_one_measured_is_what_the_mutator_would_have_exported(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 1, "-o", "run")
    nnas.ok(*SEARCH, "--derive", 0, "-o", "plain")
    assert_same_result("run", "plain")


def test_the_report_says_what_was_measured_and_how(nnas: Cli, small_model: Path) -> None:
    result = nnas.ok(*SEARCH, "--derive", 3, "-o", "run")
    lines = [line for line in result.out.splitlines() if " accuracy 0." in line]
    assert lines[1].startswith("best of 3 measured (validation, inherited weights: ")
    assert lines[2].startswith("what the algorithm says (likewise)  ")
    document = nnas.ok("search", "--resume", "run", "--json").json
    assert document["derived"]["measured_on"] == (
        "validation data, inherited weights (an estimate; of the best of those tried: optimistic)"
    )
    plain = nnas.ok(*SEARCH, "--derive", 0, "-o", "plain", "--json").json
    assert "derived" not in plain
    assert plain["architecture"] == plain["proposed"] == document["proposed"]


def test_events_have_it(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 3, "-o", "run")
    found = events("run")
    assert [event["event"] for event in found] == ["started", "epoch", "epoch", "derived", "finished"]
    assert (found[3]["tried"], found[3]["whole"], found[3]["metric"], found[3]["mode"]) == (3, False, "accuracy", "max")
    assert found[3]["value"] >= found[3]["proposed_value"]
    assert all(schema.problems("event", event) == [] for event in found)


def test_a_finished_run_derives_the_same_again(nnas: Cli, small_model: Path) -> None:
    first = nnas.ok(*SEARCH, "--derive", 12, "-o", "run", "--json").out
    kept = Path("run/architecture.json").read_bytes()
    assert nnas.ok("search", "--resume", "run", "--json").out == first
    assert Path("run/architecture.json").read_bytes() == kept


def test_a_run_that_finished_without_can_derive_later(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--derive", 0, "-o", "later")
    nnas.ok("search", "--resume", "later", "--derive", 12)
    nnas.ok(*SEARCH, "--derive", 12, "-o", "run")
    assert_same_result("run", "later")
    assert Path("later/config.json").read_bytes() == Path("run/config.json").read_bytes()


def test_a_mutator_of_the_users_hands_out_its_own_unless_asked(nnas: Cli, small_model: Path) -> None:
    Path("mine.py").write_text(MUTATOR)
    command = ("search", "model.py", "--epochs", 1, "--mutator", "mine.py:First")
    assert "derived" not in nnas.ok(*command, "-o", "run", "--json").json
    derived = nnas.ok("search", "--resume", "run", "--derive", 4, "--json").json["derived"]
    assert (derived["tried"], derived["whole"]) == (4, False)
    assert "best of 4 measured" in nnas.ok("search", "--resume", "run").out


@pytest.mark.parametrize("mutator", ["darts", "enas", "fairnas", "spos"])
def test_other_mutators(nnas: Cli, small_model: Path, mutator: str) -> None:
    options = ("--mutator-arg", "mutator_steps=2", "--mutator-arg", "aggregate=2") if mutator == "enas" else ()
    command = ("search", "model.py", "--mutator", mutator, "--epochs", 1, "--batch-size", 6, "--derive", 6, *options)
    report = nnas.ok(*command, "-o", "run", "--json").json
    assert report["derived"]["tried"] == 6
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
    message = "none of the 1 architectures has a finite score on the validation data"
    assert f"nnas: error: {message}\n" in result.err
    result = nnas.ok("search", "--resume", "run", "--derive", 0)  # as before: nothing was measured
    other = nnas.ok(*SEARCH, "-o", "other")
    assert "nnas: warning: none of the 18 architectures has a finite score" in other.err
    assert_same_result("run", "other")


def test_a_negative_number(nnas: Cli, small_model: Path) -> None:
    result = nnas(*SEARCH, "--derive", -1)
    assert (result.code, result.out) == (2, "")
    assert "-1 is not in the range x>=0" in result.err


def test_a_training_without_a_mutator() -> None:
    trainer = build_trainer(task_of(train_dataset=numbers), DataSettings(batch_size=8))
    trainer.mutator = None
    with pytest.raises(BindingError, match="there is no mutator to draw architectures from"):
        derive(trainer, 0, 3)


def test_whoever_follows_is_told_of_each_architecture() -> None:
    trainer = build_trainer(task_of(train_dataset=numbers), DataSettings(batch_size=8))
    states: list[DerivationState] = []
    found = derive(trainer, 0, 4, follow=states.append)
    assert [state.tried for state in states] == list(range(1, found.tried + 1))
    assert {(state.count, state.metric) for state in states} == {(min(4, trainer.mutator.space.size), found.metric)}
    values = [state.value for state in states]
    assert values == sorted(values, reverse=found.mode == "min")
    assert values[-1] == found.value


# ---- what happens without the option


def test_a_small_space_is_measured_whole(nnas: Cli, small_model: Path) -> None:
    default = nnas.ok(*SEARCH, "-o", "run", "--json").json
    asked = nnas.ok(*SEARCH, "--derive", 18, "-o", "asked", "--json").json
    assert default["derived"] == asked["derived"]
    assert (default["derived"]["tried"], default["derived"]["whole"]) == (18, True)


def test_a_larger_space_gets_a_fifth_of_the_passes_of_the_search(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + LARGE)
    steps, passes = 3 * 20, 1 + 3  # an architecture: one validation batch, and all three training batches for BatchNorm
    command = ("search", "model.py:Large", "--mutator", "random", "--epochs", 20, "--batch-size", 16)
    derived = nnas.ok(*command, "-o", "run", "--json").json["derived"]
    assert (derived["tried"], derived["whole"]) == (3 * steps // 5 // passes, False)


def test_the_architecture_is_shown_beside_that_of_the_algorithm(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + ERROR)
    result = nnas.ok(*SEARCH, "-o", "run").out
    shown = [line.split() for line in result.partition("\n\n")[2].splitlines()]
    assert shown[0] == ["key", "architecture", "the", "algorithm", "says"]
    report = nnas.ok("search", "--resume", "run", "--json").json
    space = SearchSpace.from_json(json.loads(Path("run/search_space.json").read_text()))
    names, proposed = (space.parse(report[which]).names() for which in ("architecture", "proposed"))
    assert [line[0] for line in shown[2:]] == list(names)
    key = next(key for key in names if isinstance(names[key], str) and isinstance(proposed[key], str))
    assert [key, names[key], proposed[key]] in shown
    alone = nnas.ok("search", "--resume", "run", "--derive", 0).out
    assert alone.partition("\n\n")[2].splitlines()[0].split() == ["key", "architecture"]
    assert json.loads(Path("run/architecture.json").read_text()) == report["proposed"]
    assert read_checkpoint("run/checkpoint.pt")["header"]["architecture"] == report["proposed"]


def test_long_names_and_many_keys_are_cut(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + LONG)
    lines = nnas.ok("search", "model.py:Long", "--mutator", "random", "--epochs", 1, "-o", "run").out.splitlines()
    assert lines[-1].strip() == "... and 5 more"
    assert any(line.split()[:2] == ["key0", "a" * 21 + "..."] for line in lines)
    assert max(map(len, lines[-22:])) <= 80


def test_bounds_hold_for_what_is_handed_out(nnas: Cli, small_model: Path) -> None:
    command = ("search", "model.py", "--mutator", "spos", "--epochs", 1, "--batch-size", 16, "--mutator-arg")
    whole = nnas.ok(*command, "params=[null, 1000000]", "-o", "whole", "--json").json
    assert whole["derived"]["tried"] == 18
    model, _ = build_model("model.py")
    space = SearchSpace.from_model(model)
    sizes = {one: sum(p.numel() for p in extract(model, one).parameters()) for one in map(space.at, range(space.size))}
    limit = sorted(sizes.values())[6]
    few = nnas.ok(*command, f"params=[0, {limit}]", "-o", "few", "--json").json
    assert few["derived"]["tried"] < 18
    assert few["derived"]["whole"] is False
    assert sizes[space.parse(few["architecture"])] <= limit


def test_a_latency_counts_more_than_an_estimate(nnas: Cli, small_model: Path) -> None:
    space = SearchSpace.from_model(build_model("model.py")[0])
    table = {one.key: dict.fromkeys(one.candidates, 1.0) for one in space if one.kind == "layer_choice"}
    command = ("search", "model.py", "--mutator", "fbnet", "--epochs", 1, "--batch-size", 6)
    report = nnas.ok(*command, "--mutator-arg", f"latency_table={json.dumps(table)}", "-o", "run", "--json").json
    assert "derived" not in report


def test_an_architecture_that_fails_is_left_out(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + FRAGILE)
    Path("mine.py").write_text(MUTATOR)
    command = (
        "search",
        "model.py:Fragile",
        "--mutator",
        "mine.py:First",
        "--epochs",
        1,
        "--derive",
        9,
        "--no-try-candidates",
    )
    derived = nnas.ok(*command, "-o", "run", "--json").json["derived"]
    assert (derived["tried"], derived["whole"]) == (3, False)


@pytest.mark.parametrize(
    ("error", "code"),
    [(EnvironmentFailure("no space left"), 6), (MemoryError(), 6), (RuntimeError("of nnas itself"), 70)],
    ids=["machine", "memory", "bug"],
)
def test_what_is_not_the_architecture_s_fault_ends_the_command(
    nnas: Cli, small_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    evaluate, calls = InheritedWeights.evaluate, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(loading, "_user_folders", set())  # another test may have loaded a model of this checkout
    monkeypatch.setattr(InheritedWeights, "evaluate", failing)
    result = nnas(*SEARCH, "--derive", 6, "-o", "run")
    assert (result.code, len(calls)) == (code, 3), result.err
    monkeypatch.undo()
    monkeypatch.chdir(small_model.parent)
    assert nnas("search", "--resume", "run").code == 0  # nothing of the training is lost
