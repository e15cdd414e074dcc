"""Limits of what architectures cost, in every command that tries or hands out some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nnas_core.mutables.cost import parameter_table
from nnas_core.mutators import EnasMutator, RandomMutator, SposMutator
from nnas_core.plugins import registry
from nnas_core.space.goals import constraints_of
from nnas_core.space.region import Region, TableCosts
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.model import build_model
from tests.cli_support import MODEL, Cli, nnas, small_model, small_run

__all__ = ["nnas", "small_model", "small_run"]

STEM = 4 * 8 + 8 + 8 + 8 + 8 * 2 + 2
"""Parameters of every architecture of ``MODEL``; linear adds 72, deep 144."""

TUNE = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--trials", 12)

OWN_COSTS = """

def costs(model):
    if any(isinstance(module, nn.Tanh) for module in model.modules()):
        raise ValueError("no cost of this one is known")
    return {"size": sum(not list(module.children()) for module in model.modules())}
"""

REPORTING = '''"""A trial program that reports what its parameters say."""
import json, os

parameters = json.load(open(os.environ["NNAS_PARAMETERS"]))
index = sum(one["_idx"] for one in parameters.values())
json.dump({"value": index, "metrics": {"size": 10 * index}}, open(os.environ["NNAS_RESULT"], "w"))
'''


def parameters_of(masks: dict[str, Sequence[bool]]) -> int:
    """Parameters of an architecture of ``MODEL``, by hand."""
    return STEM + (0, 72, 144)[{0: 1, 1: 0, 2: 2}[masks["op"].index(True)]]


def trials(nnas: Cli, study: str) -> list[dict[str, Any]]:
    """All trials of a study."""
    found: list[dict[str, Any]] = nnas.ok("study", "trials", study, "--json").json["trials"]
    return found


def test_a_study_within_limits_tries_and_says_only_what_meets_them(nnas: Cli, small_run: Path) -> None:
    limit = ("--constraint", "parameters<=100")
    result = nnas.ok(*TUNE, *limit, "--study", "s", "--json")
    found = trials(nnas, "s")
    assert {parameters_of(trial["architecture"]) for trial in found} == {STEM}
    assert {trial["cost"]["parameters"] for trial in found} == {STEM}
    assert len(found) == 6  # two activations, three inputs
    assert result.json["constraints"] == ["parameters<=100"]
    assert (result.json["infeasible"], result.json["reason"]) == (0, "exhausted")
    other = nnas(*TUNE, "--study", "s", "--resume")
    assert (other.code, 'constraint: ["parameters<=100"] before, not set now' in other.err) == (3, True)


@pytest.mark.parametrize(
    ("limit", "code", "message", "hint"),
    [
        ("params<=5", 2, "--constraint: nothing reports 'params'", "did you mean parameters"),
        ("parameters<=5", 5, f"no architecture has parameters<=5: the smallest is {STEM}", "raise the bound"),
        ("macs>=1e6", 5, "no architecture has macs>=1000000: the largest is 176", "lower the bound"),
    ],
)  # fmt: skip
def test_limits_that_nobody_can_meet_are_refused_before_anything_is_written(
    nnas: Cli, small_run: Path, limit: str, code: int, message: str, hint: str
) -> None:
    for command in (TUNE, ("search", "model.py", "--mutator", "darts"), ("ss-gen", "model.py", "--count")):
        result = nnas(*command, "--constraint", limit)
        assert (result.code, result.out) == (code, "")
        assert result.err.splitlines()[-2:] == [f"nnas: error: {message}", f"hint: {hint}"]
    assert not Path("nnas.db").exists()
    assert not list(Path("runs").rglob("*.pt"))


def test_what_is_no_limit_is_refused_by_the_command_line(nnas: Cli, small_model: Path) -> None:
    result = nnas("tune", "model.py", "--train-epochs", 1, "--constraint", "parameters<5")
    assert result.code == 2
    assert "'parameters<5' is no limit; give NAME<=VALUE or NAME>=VALUE, as in 'parameters<=1e6'" in result.err


@pytest.mark.parametrize(
    "limit", ["memory_mib<=0.0003", "size<=6", "latency_ms<=1e6"], ids=["memory", "own costs", "measured latency"]
)
def test_costs_that_do_not_add_up_are_measured_before_a_trial(
    nnas: Cli, small_run: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model.py").write_text(MODEL + OWN_COSTS)
    monkeypatch.setattr("nnas_core.workflows.model_costs._SECONDS", 0.001)
    nnas.ok(*TUNE[:-1], 3, "--tuner", "random", "--constraint", limit, "--study", "s")
    name, bound = limit.split("<=")
    found = trials(nnas, "s")
    assert len(found) == 3
    assert all(trial["cost"][name] <= float(bound) for trial in found)
    assert all(("size" in trial["cost"]) == trial["architecture"]["act"][0] for trial in found)


def test_what_a_metric_says_is_known_afterwards_and_never_wins(nnas: Cli, small_run: Path) -> None:
    free = nnas.ok(*TUNE, "--tuner", "random", "--study", "free", "--json").json
    losses = sorted(trial["metrics"]["loss"] for trial in trials(nnas, "free"))
    limit = f"loss<={losses[3]}"
    result = nnas.ok(*TUNE, "--tuner", "random", "--study", "s", "--constraint", limit, "--json").json
    found = trials(nnas, "s")
    assert [trial["feasible"] for trial in found] == [trial["metrics"]["loss"] <= losses[3] for trial in found]
    assert (result["finished"], result["infeasible"]) == (12, sum(not trial["feasible"] for trial in found))
    assert result["infeasible"] >= 7
    assert all(one["metrics"]["loss"] <= losses[3] for one in [result["best"], *result["top"]])
    assert free["infeasible"] == 0
    shown = nnas.ok("study", "show", "s", "--json").json
    assert shown["best"]["number"] == result["best"]["number"]
    assert nnas.ok("study", "trials", "s").out.count("infeasible") == result["infeasible"]
    best = nnas.ok("study", "trials", "s", "--head", 1, "--json").json["trials"]
    assert [one["number"] for one in best] == [result["best"]["number"]]
    by_value = nnas.ok("study", "trials", "s", "--sort", "value", "--json").json["trials"]
    assert [one["feasible"] for one in by_value] == sorted((one["feasible"] for one in by_value), reverse=True)
    again = nnas(*TUNE[:-1], 3, "--tuner", "random", "--study", "t", "--constraint", limit)
    assert again.err.count(", beyond the constraints (") == sum(not trial["feasible"] for trial in found[:3]) > 0


def test_a_program_reports_what_is_limited(nnas: Cli) -> None:
    space = {key: {"_type": "layer_choice", "_value": [*names]} for key, names in (("x", "abc"), ("y", "ab"))}
    Path("space.json").write_text(json.dumps(space))
    Path("trial.py").write_text(REPORTING)
    command = ("tune", "space.json", "--trial-command", "python trial.py", "--tuner", "grid", "--trials")
    result = nnas.ok(*command, 6, "--constraint", "size<=10", "--json", "--concurrency", 3).json
    assert (result["best"]["value"], result["infeasible"]) == (1, 3)
    unknown = nnas(*command, 1, "--constraint", "sise<=20", "--study", "b")
    assert unknown.code == 2
    assert "--constraint: nothing reports 'sise'" in unknown.err
    assert "hint: did you mean size" in unknown.err
    nobody = nnas(*command, 2, "--constraint", "size<=-1", "--study", "c", "--concurrency", 2)
    assert nobody.code == 5
    assert "none of the 2 trials of study 'c' that succeeded has size<=-1" in nobody.err
    assert "size<=-1: nearest was 0, of trial 0" in nobody.err
    table = {
        "format": "nnas.latency-table/1",
        "unit": "us",
        "latencies": {"x": {"a": 1e3, "b": 2e3, "c": 3e3}, "y": {"a": 1e3, "b": 2e3}},
    }
    Path("table.json").write_text(json.dumps(table))
    within = ("--latency-table", "table.json", "--constraint", "latency_ms<=3", "--study", "d", "--concurrency", 3)
    nnas.ok(*command, 6, *within)
    assert [trial["cost"]["latency_ms"] for trial in trials(nnas, "d")] == [2, 3, 3]


LATENCIES = {"op": {"linear": 3, "skip": 1, "deep": 4}, "act": {"relu": 1, "tanh": 3}}
"""Milliseconds, of a table."""

NEEDS: dict[str, tuple[object, ...]] = {
    "fbnet": ("--latency-table", "table.json", "--constraint", "latency_ms<=2"),
    "pcdarts": ("--mutator-arg", 'whole=["op"]'),
    "pdarts": ("--epochs", 3),
}
"""What an algorithm cannot begin without."""


@pytest.mark.parametrize("mutator", sorted(registry.entries("mutators")))
def test_what_a_search_hands_out_is_within_the_limits(nnas: Cli, small_model: Path, mutator: str) -> None:
    table = {"format": "nnas.latency-table/1", "unit": "ms", "latencies": LATENCIES}
    Path("table.json").write_text(json.dumps(table))
    search = ("search", "model.py", "--mutator", mutator, "--epochs", 1, "--batch-size", 8, "-o", "run", "--json")
    report = nnas.ok(*search, "--constraint", "parameters<=100", *NEEDS.get(mutator, ())).json
    found = report["architecture"]
    assert parameters_of(found) == STEM
    assert mutator != "fbnet" or found["act"] == [True, False]
    assert json.loads(Path("run/architecture.json").read_text()) == found
    if mutator == "darts":
        derived = nnas.ok("search", "--resume", "run", "--derive", 3, "--json").json["architecture"]
        assert parameters_of(derived) == STEM


def test_single_paths_are_drawn_within_the_limits(small_model: Path) -> None:
    model, _ = build_model(str(small_model), {})
    costs = TableCosts({"parameters": parameter_table(model)})
    region = Region(SearchSpace.from_model(model), constraints_of(["parameters<=150"]), costs)
    for kind in (RandomMutator, SposMutator, EnasMutator):
        mutator = kind(model)
        mutator.keep_within(region)
        drawn = set()
        for _ in range(40):
            mutator.reset()
            drawn.add(mutator.space.parse(mutator.status()))
            drawn.add(mutator.final_architecture())
        assert all(parameters_of(one.masks()) <= 150 for one in drawn)
        assert len(drawn) > 6
        mutator.unbind()


def test_the_algorithm_s_own_choice_may_be_beyond_a_limit(nnas: Cli, small_model: Path) -> None:
    result = nnas("search", "model.py", "--mutator", "darts", "--derive", 0, "--constraint", "parameters<=100")
    assert result.code == 2
    assert "--derive 0 hands out what mutator 'darts' says, which may be beyond a --constraint" in result.err


def test_a_search_within_a_metric_hands_out_the_best_that_meets_it(nnas: Cli, small_model: Path) -> None:
    search = ("search", "model.py", "--mutator", "random", "--epochs", 1, "--json", "-o")
    nobody = nnas(*search, "none", "--constraint", "loss<=0")
    assert nobody.code == 5
    assert "architectures that were measured has loss<=" in json.loads(nobody.err)["error"]["message"]
    within = nnas.ok(*search, "some", "--constraint", "loss<=9").json["derived"]["metrics"]
    assert within["loss"] <= 9


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((), "18 architectures\n"),
        (("--constraint", "parameters<=150"), "12 of 18 architectures have parameters<=150\n"),
        (("--constraint", "macs<=50", "--constraint", "parameters<=150"), "6 of 18 architectures have macs<=50 and"),
        (("--constraint", "memory_mib<=1"), "18 of 18 architectures have memory_mib<=1\n"),
    ],
)
def test_architectures_within_limits_are_counted(
    nnas: Cli, small_model: Path, limits: tuple[str, ...], said: str
) -> None:
    assert nnas.ok("ss-gen", "model.py", "--count", *limits).out.startswith(said)


def test_a_count_is_a_report(nnas: Cli, small_model: Path) -> None:
    report = nnas.ok("ss-gen", "model.py", "--count", "--constraint", "parameters<=150", "--json").json
    del report["format"]
    assert report == {"space_size": 18, "architectures": 12, "exact": True, "constraints": ["parameters<=150"]}
    idle = nnas("ss-gen", "model.py", "--constraint", "parameters<=150")
    assert (idle.code, "--constraint does nothing without --count" in idle.err) == (2, True)


def test_a_file_is_refused_for_what_its_architecture_costs(nnas: Cli, small_run: Path) -> None:
    masks = {"op": [False, False, True], "act": [True, False], "link": [True, False, False]}
    Path("arch.json").write_text(json.dumps(masks))
    check = ("validate", "arch.json", "--model", "model.py")
    fine = nnas.ok(*check, "--max-parameters", 300, "--max-macs", "1e3", "--max-latency-ms", "1e6")
    assert fine.out.startswith(f"arch.json: valid (architecture); parameters {STEM + 144}, MACs 176, latency ms ")
    result = nnas(*check, "--max-parameters", 217, "--max-macs", 175)
    assert result.code == 1
    assert result.out.splitlines() == [
        f"arch.json: NOT VALID (architecture); parameters {STEM + 144}, MACs 176",
        "  macs<=175: it has 176",
        f"  parameters<=217: it has {STEM + 144}",
    ]
    report = nnas("validate", "-", "--model", "model.py", "--max-macs", 175, "--json", stdin=json.dumps(masks)).json
    assert report["files"][0]["cost"] == {"parameters": STEM + 144, "macs": 176}
    assert report["files"][0]["problems"] == ["macs<=175: it has 176"]


def test_a_gate_needs_a_model_a_known_name_and_decisions(nnas: Cli, small_model: Path) -> None:
    weights = {"op": [0.2, 0.3, 0.5], "act": [True, False], "link": [True, False, False]}
    Path("arch.json").write_text(json.dumps(weights))
    nnas.ok("ss-gen", "model.py", "-o", "space.json")
    idle = nnas("validate", "arch.json", "--max-macs", 3)
    assert (idle.code, "--max-macs does nothing without --model" in idle.err) == (2, True)
    soft = nnas("validate", "arch.json", "--model", "model.py", "--max-macs", 3)
    assert (soft.code, "has weights instead of decisions, and so no costs" in soft.out) == (1, True)
    nothing = nnas("validate", "space.json", "--model", "model.py", "--max-macs", 3)
    assert (nothing.code, "no architecture in the files (search-space)" in nothing.err) == (2, True)
    nnas.ok("validate", "space.json", "--model", "model.py")
    unknown = nnas("validate", "arch.json", "--model", "model.py", "--constraint", "accuracy>=1")
    assert (unknown.code, "--constraint: nothing reports 'accuracy'" in unknown.err) == (2, True)


def test_an_evaluation_says_what_the_architecture_costs(nnas: Cli, small_run: Path) -> None:
    evaluate = ("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "run/architecture.json")
    cost = nnas.ok(*evaluate, "--json").json["cost"]
    masks = json.loads(Path("run/architecture.json").read_text())
    assert cost["parameters"] == parameters_of(masks)
    assert cost["macs"] == 32 + 16 + cost["parameters"] - STEM - 8 * (cost["parameters"] - STEM) // 72


def test_several_objectives_have_a_pareto_set(nnas: Cli, small_run: Path) -> None:
    aims = ("--objective", "accuracy", "--objective", "macs:min")
    report = nnas.ok(*TUNE, *aims, "--tuner", "random", "--study", "s", "--json").json
    found = trials(nnas, "s")
    points = [(one["metrics"]["accuracy"], one["cost"]["macs"]) for one in found]
    best = {
        one["number"]
        for one, (a, m) in zip(found, points, strict=True)
        if not any((b, -n) != (a, -m) and b >= a and n <= m for b, n in points)
    }
    assert {one["number"] for one in report["pareto"]} == best
    assert [(one["name"], one["mode"]) for one in report["objectives"]] == [("accuracy", "max"), ("macs", "min")]
    assert "Pareto set" in nnas.ok("study", "show", "s").out
    assert nnas.ok("study", "show", "s", "--json").json["pareto"] == report["pareto"]
    exported = nnas.ok("study", "export", "s", "--pareto").json
    assert [int(one["id"]) for one in exported] == [one["number"] for one in report["pareto"]]


def test_one_objective_may_be_another_number_than_the_metric(nnas: Cli, small_run: Path) -> None:
    report = nnas.ok(*TUNE, "--objective", "macs", "--tuner", "local-search", "--json").json
    assert report["best"]["value"] == report["best"]["cost"]["macs"] == 48
    alone = nnas("study", "export", "--pareto")
    assert (alone.code, "has one objective" in alone.err) == (2, True)


def test_others_say_at_once_that_they_serve_one_objective(nnas: Cli, small_run: Path) -> None:
    result = nnas(*TUNE, "--objective", "accuracy", "--objective", "macs", "--tuner", "tpe")
    assert result.code == 2
    assert result.err.splitlines()[-2:] == [
        "nnas: error: tuner 'tpe' serves one objective, not 2",
        "hint: take bayes, evolution, nsga2 or random for several",
    ]
    own = nnas(*TUNE, "--objective", "accuracy", "--objective", "macs", "--tuner", "nsga2", "--tuner-arg",
               'objectives={"parameters": "minimize"}', "--study", "b")  # fmt: skip
    assert (own.code, "the study has objectives, and so has the tuner" in own.err) == (2, True)
    early = ("--assessor", "medianstop", "--objective", "macs", "--study", "d", "--train-epochs", 1)
    other = nnas("tune", "model.py", *early)
    assert (other.code, "goes by 'accuracy', which trials report on the way" in other.err) == (2, True)
    unknown = nnas(*TUNE, "--objective", "acuracy", "--study", "c")
    assert (unknown.code, "hint: did you mean accuracy" in unknown.err) == (2, True)
