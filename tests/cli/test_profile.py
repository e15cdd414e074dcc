"""``nnas profile``: numbers by hand, a table that fits its schema, and bad inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnas_core import schema
from nnas_core.space.latency_table import read_latencies
from nnas_core.space.search_space import SearchSpace
from tests.cli_support import Cli

QUICK = ("--seconds", "0.001", "--threads", 1)

FIXED = 4 * 8 + 8 + 2 * 8 + 8 * 2 + 2
"""Parameters of stem, normalisation and head of the model of these tests."""

LINEAR = 8 * 8 + 8

MACS = 4 * 8 + 8 * 2
"""Of stem and head."""


def test_the_smallest_and_the_largest_by_hand(nnas: Cli, small_model: Path) -> None:
    report = nnas.ok("profile", "model.py", *QUICK, "--json").json
    assert schema.problems("profile-report", report) == []
    small, large = report["architectures"]
    assert [one["name"] for one in report["architectures"]] == ["smallest", "largest"]
    assert (small["parameters"], small["macs"]) == (FIXED, MACS)
    assert (large["parameters"], large["macs"]) == (FIXED + 2 * LINEAR, MACS + 2 * 64)
    assert small["architecture"]["op"] == [False, True, False]
    assert large["architecture"]["op"] == [False, False, True]
    assert report["fixed"] == {"parameters": FIXED, "macs": MACS}
    rows = {(one["key"], one["candidate"]): (one["parameters"], one["macs"]) for one in report["candidates"]}
    assert rows == {
        ("op", "linear"): (LINEAR, 64),
        ("op", "skip"): (0, 0),
        ("op", "deep"): (2 * LINEAR, 128),
        ("act", "relu"): (0, 0),
        ("act", "tanh"): (0, 0),
    }
    assert report["measured_on"]["inputs"] == [[1, 4]]
    assert (report["measured_on"]["threads"], report["measured_on"]["batch_size"]) == (1, 1)
    assert small["latency_ms"]["lower_quartile"] <= small["latency_ms"]["median"] > 0
    assert not report["shares_parameters"]


def test_an_architecture_and_random_ones(nnas: Cli, small_run: Path) -> None:
    given = ("--architecture", "run/architecture.json", "--random", 3)
    report = nnas.ok("profile", "model.py", *QUICK, *given, "--batch-size", 5, "--json").json
    assert [one["name"] for one in report["architectures"]] == ["given", "random 1", "random 2", "random 3"]
    assert report["architectures"][0]["architecture"] == json.loads((small_run / "architecture.json").read_text())
    again = nnas.ok("profile", "model.py", *QUICK, *given, "--batch-size", 5, "--json").json
    for one in (*report["architectures"], *again["architectures"]):
        del one["latency_ms"]
    assert again == report  # all but the times
    assert (report["measured_on"]["batch_size"], report["measured_on"]["inputs"]) == (5, [[1, 4]])


def test_tables(nnas: Cli, small_model: Path) -> None:
    lines = nnas.ok("profile", "model.py", *QUICK).out.splitlines()
    assert lines[0].split() == ["parameters", "MACs", "activations", "KiB", "median", "ms", "quartiles"]
    assert lines[2].split()[:3] == ["smallest", str(FIXED), str(MACS)]
    assert "MACs and activations of 1 sample (1x4); latency of 1 sample on cpu, 1 thread, float32" in lines
    assert ["op", "linear", str(LINEAR), "64"] in [line.split() for line in lines]


def test_a_latency_table_that_a_search_takes(nnas: Cli, small_model: Path) -> None:
    report = nnas.ok("profile", "model.py", *QUICK, "--latency-table", "latency.json", "--json").json
    assert schema.problems("profile-report", report) == []
    table = report["latency_table"]
    assert (table["path"], table["architectures"]) == ("latency.json", 50)
    assert 0 <= table["median_error"] <= table["worst_error"]
    space = SearchSpace.from_json(json.loads(nnas.ok("ss-gen", "model.py").out))
    found = read_latencies("latency.json", space)
    assert {key: len(row) for key, row in found.items()} == {"op": 3, "act": 2, "link": 3}
    assert found["op"][2] > found["op"][1]
    assert json.loads(Path("latency.json").read_text())["fixed"] == table["fixed_ms"] >= 0
    Path("space.json").write_text(json.dumps(space.to_json()))
    nnas.ok("validate", "latency.json", "--space", "space.json")
    shown = nnas.ok("profile", "model.py", *QUICK, "--latency-table", "latency.json").out
    assert "the latency table predicts 50 random architectures with errors of " in shown


PLAIN = """
import torch.nn as nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x)
"""


def test_a_model_without_choices_on_random_numbers(nnas: Cli, tmp_path: Path) -> None:
    Path("plain.py").write_text(PLAIN)
    report = nnas.ok("profile", "plain.py:Plain", "--input-shape", "3,6,6", *QUICK, "--json").json
    (one,) = report["architectures"]
    assert (one["name"], one["architecture"], one["parameters"]) == ("the model", None, 4 * 27 + 4)
    assert (one["macs"], one["activation_bytes"]) == (16 * 4 * 27, 4 * (3 * 36 + 4 * 16))
    assert report["candidates"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--input-shape", "3,x"), 2, "'3,x' is no shape; give the sizes of one sample, as in 3,224,224"),
        (("--input-shape", "0,3"), 2, "'0,3' is no shape"),
        (("--input-shape", "65536,65536"), 2, "1x65536x65536 has 4,294,967,296 numbers, the most is 268,435,456"),
        (("--input-shape", "4", "--batch-size", 10**9), 2, "give a smaller --input-shape or --batch-size"),
        (("--latency-table", "-"), 2, "--latency-table needs a file, standard output has the report"),
        (("--batch-size", 49), 2, "the training data has 48 samples, fewer than a batch of 49"),
        (("--batch-size", 0), 2, "0 is not in the range x>=1"),
        (("--seconds", 0), 2, "0"),
        (("--random", -1), 2, "-1 is not in the range"),
        (("--architecture", "nowhere.json"), 3, "nowhere.json: "),
        (("--architecture", "other.json"), 3, "other.json: "),
        (("--latency-table", "no/folder/table.json"), 6, "no/folder/table.json: cannot write"),
        (("-o", "no/folder/report.json"), 6, "no/folder/report.json: cannot write"),
    ],
)
def test_bad_inputs(nnas: Cli, small_model: Path, arguments: tuple[object, ...], code: int, message: str) -> None:
    Path("other.json").write_text('{"op": [true, false]}')
    result = nnas("profile", "model.py", *QUICK, *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_model_without_choices_has_no_smallest(nnas: Cli, tmp_path: Path) -> None:
    Path("plain.py").write_text(PLAIN)
    for option in (("--smallest",), ("--latency-table", "table.json")):
        result = nnas("profile", "plain.py:Plain", "--input-shape", "3,6,6", *QUICK, *option)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("nnas: error: the model has no choices, and so one architecture\n")


def test_a_shape_that_the_model_does_not_take(nnas: Cli, small_model: Path) -> None:
    result = nnas("profile", "model.py", *QUICK, "--input-shape", "3,6,6")
    assert (result.code, result.out) == (4, "")
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in result.err.splitlines()[-1]


def test_a_model_without_data_needs_a_shape(nnas: Cli, tmp_path: Path) -> None:
    Path("plain.py").write_text(PLAIN)
    result = nnas("profile", "plain.py:Plain", *QUICK)
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        "nnas: error: plain.py: it defines no train_dataset(), whose samples the model could be given\n"
        "hint: give --input-shape, the shape of one sample, or name a file with data with --task FILE\n"
    )
