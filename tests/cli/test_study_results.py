"""``nnas study export`` and ``import``: results leave a study and enter another one, and the tuner learns from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli
from tests.study.known_studies import SPACE, make

URL = "sqlite:///nnas.db"

FIRST = {
    "act": {"_value": "relu", "_idx": 0},
    "link": {"_value": ["a", "b"], "_idx": [0, 1]},
    "op": {"_value": "conv", "_idx": 0},
}
POOL = {**FIRST, "op": {"_value": "pool", "_idx": 1}}
OTHER = {**POOL, "link": {"_value": ["a", "c"], "_idx": [0, 2]}}


@pytest.fixture
def store(nnas: Cli) -> Iterator[StudyStore]:
    """The default storage, with ``first``, and ``empty`` without trials."""
    with StudyStore.open(URL) as opened:
        make(opened, intermediate=True)
        make(opened, "empty", ())
        yield opened


def imported(nnas: Cli, document: Any, *options: object) -> Any:
    """Import a document into ``empty``."""
    return nnas("study", "import", "-", "empty", *options, stdin=json.dumps(document))


# ---- export


def test_export_is_the_json_of_nnictl(nnas: Cli, store: StudyStore) -> None:
    result = nnas.ok("study", "export", "first")
    assert result.err == ""
    assert result.json == [
        {"parameter": FIRST, "value": "0.5", "id": "0", "intermediate": [0.0], "cost": {"parameters": 10}},
        {"parameter": POOL, "value": "0.75", "id": "1", "intermediate": [0.1], "cost": {"parameters": 10}},
        {"parameter": OTHER, "value": "0.25", "id": "3", "intermediate": [0.3], "cost": {"parameters": 10}},
    ]


def test_export_keeps_its_schema(nnas: Cli, store: StudyStore) -> None:
    Path("space.json").write_text(json.dumps(SPACE.to_json()))
    assert nnas.ok("study", "export", "first", "-o", "results.json").err == "wrote results.json\n"
    assert nnas.ok("validate", "results.json", "--space", "space.json").out == "results.json: valid (results)\n"
    Path("results.json").write_text(json.dumps([{"parameter": {"op": "conv"}, "value": 1}]))
    result = nnas("validate", "results.json", "--space", "space.json")
    assert (result.code, result.out) == (
        1,
        "results.json: NOT VALID (results)\n  $[0].parameter: missing keys: 'act', 'link'\n",
    )


def test_export_as_csv_has_a_column_a_key_and_a_metric(nnas: Cli, store: StudyStore) -> None:
    result = nnas.ok("study", "export", "first", "--format", "csv")
    assert result.err == ""
    assert result.out == (
        "id,act,link,op,reward,accuracy,loss,parameters\n"
        '0,relu,"a,b",conv,0.5,0.5,0.5,10\n'
        '1,relu,"a,b",pool,0.75,0.75,0.25,10\n'
        '3,relu,"a,c",pool,0.25,0.25,0.75,10\n'
    )
    assert [row["id"] for row in csv.DictReader(result.out.splitlines())] == ["0", "1", "3"]


def test_export_takes_the_best_first(nnas: Cli, store: StudyStore) -> None:
    assert [one["id"] for one in nnas.ok("study", "export", "first", "--best", 2).json] == ["1", "0"]
    assert nnas.ok("study", "export", "first", "--best", 1, "--format", "csv").out.splitlines()[1][0] == "1"


def test_the_best_architecture_alone_is_what_other_commands_take(nnas: Cli, store: StudyStore) -> None:
    best = {"act": [True, False], "link": [True, True, False], "op": [False, True]}
    assert nnas.ok("study", "export", "first", "--as-architecture").json == best
    assert nnas.ok("study", "export", "first", "--as-architecture", "--best", 1).json == best
    second = {**best, "op": [True, False]}
    assert nnas.ok("study", "export", "first", "--as-architecture", "--best", 2).json == [best, second]
    Path("space.json").write_text(json.dumps(SPACE.to_json()))
    nnas.ok("study", "export", "first", "--as-architecture", "-o", "best.json")
    nnas.ok("validate", "best.json", "--space", "space.json")


@pytest.mark.parametrize("options", [(), ("--format", "csv"), ("--best", 1), ("--as-architecture",)])
def test_export_without_a_result_is_no_usable_result(nnas: Cli, store: StudyStore, options: tuple[object, ...]) -> None:
    make(store, "failed", (None,))
    for name in ("empty", "failed"):
        result = nnas("study", "export", name, *options, "-o", "none.json")
        assert (result.code, result.out) == (5, "")
        assert result.err == f"nnas: error: nnas.db: study {name!r} has no trial with a result\n"
    assert not Path("none.json").exists()


@pytest.mark.parametrize(
    ("options", "idle", "beside"),
    [
        (("--as-architecture", "--format", "csv"), "--format", "--as-architecture"),
        (("--optuna", "sqlite:///x.db", "--best", 1), "--best", "--optuna"),
        (("--optuna", "sqlite:///x.db", "-o", "x"), "-o", "--optuna"),
    ],
)
def test_export_refuses_options_that_would_do_nothing(
    nnas: Cli, store: StudyStore, options: tuple[object, ...], idle: str, beside: str
) -> None:
    result = nnas("study", "export", "first", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: {idle} does nothing with {beside}\nhint: leave it out\n"


# ---- optuna


def test_optuna_opens_what_is_written_for_it(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "export", "first", "--optuna", "sqlite:///optuna.db")
    assert (result.code, result.out, result.err) == (0, "", "wrote 4 trials of study 'first' for Optuna\n")
    study = optuna.load_study(study_name="first", storage="sqlite:///optuna.db")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == 0.75
    assert study.best_params == {"act": "relu", "link[a]": True, "link[b]": True, "link[c]": False, "op": "pool"}
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert [trial.value for trial in study.trials] == [0.5, 0.75, None, 0.25]
    assert study.trials[3].intermediate_values == {0: 0.3}
    assert study.trials[2].user_attrs["error"] == "out of memory"
    assert study.trials[1].user_attrs["metric accuracy"] == 0.75
    assert study.trials[0].distributions["act"] == optuna.distributions.CategoricalDistribution(("relu", "tanh"))


def test_a_study_that_optuna_has_is_not_written_again(nnas: Cli, store: StudyStore) -> None:
    nnas.ok("study", "export", "first", "--optuna", "sqlite:///optuna.db", "-q")
    result = nnas("study", "export", "first", "--optuna", "sqlite:///optuna.db")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: sqlite:///optuna.db: there is an Optuna study named 'first' already\n"
        "hint: give another database\n"
    )


def test_optunas_study_never_goes_into_our_database(nnas: Cli, store: StudyStore, tmp_path: Path) -> None:
    before = Path("nnas.db").read_bytes()
    result = nnas("study", "export", "first", "--optuna", f"sqlite:///{tmp_path}/nnas.db")
    assert (result.code, result.out) == (2, "")
    assert "Optuna's study needs a database of its own\nhint: give another one, as sqlite:///optuna.db" in result.err
    assert Path("nnas.db").read_bytes() == before


def test_a_place_where_optuna_cannot_write_is_the_environments_fault(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "export", "first", "--optuna", "sqlite:///none/optuna.db")
    assert (result.code, result.out) == (6, "")
    assert result.err == (
        "nnas: error: sqlite:///none/optuna.db: cannot write Optuna's study: unable to open database file\n"
        "hint: check the path or the server\n"
    )


def test_optuna_needs_trials(nnas: Cli, store: StudyStore) -> None:
    result = nnas("study", "export", "empty", "--optuna", "sqlite:///optuna.db")
    assert (result.code, result.err) == (5, "nnas: error: nnas.db: study 'empty' has no trials\n")


# ---- import


def test_import_adds_finished_trials(nnas: Cli, store: StudyStore) -> None:
    nnas.ok("study", "export", "first", "-o", "results.json")
    result = nnas("study", "import", "results.json", "empty")
    assert (result.code, result.out, result.err) == (0, "imported 3 trials into study 'empty'\n", "")
    theirs = {trial.architecture: trial.value for trial in store.trials(store.study("first"), state="succeeded")}
    study = store.study("empty")
    assert {trial.architecture: trial.value for trial in store.trials(study)} == theirs
    assert [(trial.state, trial.attempt, trial.started) for trial in store.trials(study)] == [
        ("succeeded", 0, None)
    ] * 3
    assert store.intermediates(study) == {0: [0.0], 1: [0.1], 2: [0.3]}
    assert study.state == "finished"


def test_import_leaves_out_what_is_known_and_what_has_no_value(nnas: Cli, store: StudyStore) -> None:
    entries = [{"parameter": FIRST, "value": 1}, {"parameter": FIRST, "value": 2}, {"parameter": POOL, "value": None}]
    result = imported(nnas, entries)
    assert (result.code, result.err) == (0, "")
    assert result.out == "imported 1 trials into study 'empty'; left out 1 known, 1 without a value\n"
    assert [trial.value for trial in store.trials(store.study("empty"))] == [1.0]
    counts = {"study": "empty", "imported": 0, "known": 2, "without_value": 1}
    assert imported(nnas, entries, "--json").json == {"format": "nnas.study-import-report/1", **counts}


@pytest.mark.parametrize(
    ("value", "metrics"),
    [
        (0.5, {}),
        (1, {}),
        ("0.5", {}),
        ('"0.5"', {}),
        ('{"default": 0.5, "loss": 2, "note": "x"}', {"loss": 2.0}),
        ({"default": 0.5, "loss": 2}, {"loss": 2.0}),
    ],
)
def test_import_reads_values_as_nni_writes_them(
    nnas: Cli, store: StudyStore, value: Any, metrics: dict[str, float]
) -> None:
    assert imported(nnas, [{"parameter": FIRST, "value": value}]).code == 0
    trial = store.trials(store.study("empty"))[0]
    assert (trial.value, trial.metrics) == (1.0 if value == 1 else 0.5, metrics)


def test_import_takes_complete_trials_with_metrics_and_costs(nnas: Cli, store: StudyStore) -> None:
    trials = nnas.ok("study", "trials", "first", "--json").out
    result = nnas.ok("study", "import", "-", "empty", stdin=trials)
    assert result.out == "imported 3 trials into study 'empty'; left out 1 without a value\n"
    best = store.best(store.study("empty"))
    assert best is not None
    assert (best.metrics, best.cost) == ({"accuracy": 0.75, "loss": 0.25}, {"parameters": 10})


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"value": 1}, "$[0]: 'parameter' is a required property"),
        ({"parameter": FIRST}, "$[0]: 'value' is a required property"),
        ({"parameter": FIRST, "value": True}, "$[0].value: True is not of type 'string', 'number', 'object', 'null'"),
        ({"parameter": {"op": "conv"}, "value": 1}, "$[0].parameter: missing keys: 'act', 'link'"),
        (
            {"parameter": {**FIRST, "act": {"_value": "tanh", "_idx": 0}}, "value": 1},
            "$[0].parameter: act: _idx 0 is 'relu', not 'tanh'",
        ),
        (
            {"parameter": {**FIRST, "act": [0.5, 0.5]}, "value": 1},
            "$[0].parameter: the decision weighs its candidates, so it has no names or indices",
        ),
        ({"parameter": FIRST, "value": "high"}, "$[0].value: the text 'high' is not JSON"),
        ({"parameter": FIRST, "value": "Infinity"}, '$[0].value: "Infinity" is not a finite number'),
        ({"parameter": FIRST, "value": "{}"}, '$[0].value: "{}" is not a finite number'),
        (
            {"parameter": FIRST, "value": 1, "intermediate": [1, "[2]"]},
            "$[0].intermediate[1]: not a number",
        ),
    ],
)
def test_import_refuses_what_does_not_fit_and_stores_nothing(
    nnas: Cli, store: StudyStore, entry: dict[str, Any], problem: str
) -> None:
    result = imported(nnas, [entry, {"parameter": POOL, "value": 1}])
    assert (result.code, result.out) == (3, "")
    assert f"\n  {problem}\n" in result.err
    assert result.err.startswith("nnas: error: standard input: not ")
    assert store.trials(store.study("empty")) == []


def test_import_lists_at_most_50_problems(nnas: Cli, store: StudyStore) -> None:
    result = imported(nnas, [{"parameter": FIRST, "value": "x"}] * 75)
    lines = result.err.splitlines()
    assert lines[0] == "nnas: error: standard input: not results of this study's search space"
    assert len(lines) == 1 + 50 + 1
    assert lines[-2:] == [
        "  ... and 26 more",
        "hint: nothing was imported; the JSON document of `nnas study show` has the search space",
    ]


@pytest.mark.parametrize("text", ["[{", '[{"parameter": {}, "value": NaN}]', ""])
def test_import_of_what_is_not_json_says_so(nnas: Cli, store: StudyStore, text: str) -> None:
    Path("bad.json").write_text(text)
    result = nnas("study", "import", "bad.json", "empty")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: bad.json")


def test_nothing_is_imported_while_somebody_works_on_the_study(nnas: Cli, store: StudyStore) -> None:
    study = store.study("empty")
    with store.acquire(study):
        result = imported(nnas, [{"parameter": FIRST, "value": 1}])
        assert (result.code, result.out) == (6, "")
        assert result.err.startswith(
            f"nnas: error: nnas.db: study 'empty' is in use by {store.in_use_by(study)}, heard of "
        )
    assert store.trials(study) == []
