"""``nnas retrain`` and ``nnas evaluate``: one architecture, alone or with the weights of a supernet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli_support import MODEL, Cli

ARCHITECTURE = {"op": "deep", "act": "tanh", "link": "act"}
FORMS: dict[str, Any] = {
    "names": ARCHITECTURE,
    "masks": {"op": [False, False, True], "act": [False, True], "link": [False, False, True]},
    "indices": {"op": 2, "act": [1], "link": [2]},
    "parameters": {
        "op": {"_value": "deep", "_idx": 2},
        "act": {"_value": "tanh", "_idex": 1},
        "link": {"_value": ["act"], "_idx": [2]},
    },
    "document": {
        "format": "nnas.architecture/1",
        "architecture": {"op": [False, False, True], "act": [False, True], "link": [False, False, True]},
        "space": {"fingerprint": "sha256:" + "0" * 64},
    },
}
RETRAIN = ("retrain", "model.py", "--epochs", 1, "--batch-size", 16)
EVALUATE = ("evaluate", "model.py", "--checkpoint", "run/checkpoint.pt", "--architecture", "a.json")


@pytest.fixture(autouse=True)
def files(small_run: Path, tmp_path: Path) -> None:
    """A supernet and an architecture of it."""
    (tmp_path / "a.json").write_text(json.dumps(ARCHITECTURE))


def test_retrain_reports_the_test_metric_and_the_size(nnas: Cli) -> None:
    result = nnas(*RETRAIN, "--architecture", "a.json", "-o", "final")
    assert result.code == 0
    number = r"\d+\.\d{4}"
    assert re.search(rf"^test +loss {number}, accuracy {number}$", result.out, re.MULTILINE)
    assert re.search(rf"^validation +loss {number}, accuracy {number}$", result.out, re.MULTILINE)
    # stem 4*8+8, norm 2*8, deep 2*(8*8+8), head 8*2+2
    assert re.search(r"^parameters +218$", result.out, re.MULTILINE)
    assert re.search(r"^weights +final/weights\.pt$", result.out, re.MULTILINE)
    assert result.err.startswith("epoch 1/1: train loss ")


def test_the_weights_are_there_though_the_test_data_have_no_value(nnas: Cli) -> None:
    with open("model.py", "a") as stream:
        stream.write("\n\ndef metrics(output, target):\n    return {'recall': output[target == 7].mean()}\n")
    result = nnas(*RETRAIN, "--architecture", "a.json", "-o", "final")
    assert result.code == 5
    assert "the recall has a value in no batch of the test data" in result.err
    assert torch.load("final/weights.pt", weights_only=True)


def test_the_weights_are_of_a_plain_model_and_load_with_weights_only(nnas: Cli) -> None:
    nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "final")
    state = torch.load("final/weights.pt", weights_only=True)
    numbers = [tensor.numel() for tensor in state.values() if tensor.is_floating_point()]
    assert sum(numbers) == 218 + 2 * 8  # and the statistics of norm
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_the_run_folder_holds_what_it_promises(nnas: Cli) -> None:
    nnas.ok(*RETRAIN, "--architecture", "a.json")
    names = {path.name for path in Path("runs/model-retrain").iterdir() if not path.name.startswith(".")}
    checkpoints = {"checkpoint.pt", "checkpoint.previous.pt"}
    assert names == {
        *checkpoints,
        "events.jsonl",
        "config.json",
        "search_space.json",
        "architecture.json",
        "weights.pt",
    }
    nnas.ok("validate", *(f"runs/model-retrain/{name}" for name in names))


@pytest.mark.parametrize("form", FORMS)
def test_retrain_takes_every_form_from_a_file_and_from_standard_input(nnas: Cli, form: str) -> None:
    text = json.dumps(FORMS[form])
    Path("form.json").write_text(text)
    expected = nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "run0", "--json").json["test"]
    assert nnas.ok(*RETRAIN, "--architecture", "form.json", "-o", "run1", "--json").json["test"] == expected
    assert nnas.ok(*RETRAIN, "--architecture", "-", "-o", "run2", "--json", stdin=text).json["test"] == expected


def test_checkpoint_starts_from_inherited_weights(nnas: Cli) -> None:
    slow = ("--learning-rate", 1e-12, "--min-learning-rate", 0, "--checkpoint", "run/checkpoint.pt")
    nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "final", *slow)
    trained = torch.load("final/weights.pt", weights_only=True)
    inherited = torch.load("run/checkpoint.pt", weights_only=True)["state"]["model"]
    assert torch.allclose(trained["stem.weight"], inherited["stem.weight"], atol=1e-9)
    nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "scratch", *slow[:-2])
    scratch = torch.load("scratch/weights.pt", weights_only=True)
    assert not torch.allclose(scratch["stem.weight"], inherited["stem.weight"], atol=1e-3)


def test_equal_command_lines_give_equal_bytes(nnas: Cli) -> None:
    first = nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "final", "--json").out
    weights = Path("final/weights.pt").read_bytes()
    assert nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "final", "--json", "--force").out == first
    assert Path("final/weights.pt").read_bytes() == weights


def test_config_json_of_a_retraining_is_accepted_back(nnas: Cli) -> None:
    first = nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "final", "--seed", 4, "--json").json
    again = nnas.ok("retrain", "--config", "final/config.json", "-o", "again", "--json").json
    assert again["test"] == first["test"]


def test_without_test_data_the_validation_data_is_used_and_that_is_said(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL.replace("def test_dataset", "def other_dataset"))
    result = nnas(*RETRAIN, "--architecture", "a.json", "-o", "final")
    assert result.code == 0
    assert result.err.endswith(
        "nnas: warning: the module has no test_dataset(), so the metric below is of the validation data\n"
    )
    assert re.search(r"^validation +loss", result.out, re.MULTILINE)
    assert not re.search(r"^test ", result.out, re.MULTILINE)
    again = nnas.ok(*RETRAIN, "--architecture", "a.json", "-o", "other", "--json")
    assert again.json["tested_on"] == "validation"


def test_a_test_metric_that_is_not_finite_is_no_result(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL.replace(
            "def test_dataset():\n    return data(20, 2)",
            "def test_dataset():\n    return TensorDataset(torch.full((4, 4), float('inf')), torch.zeros(4).long())",
        )
    )
    result = nnas(*RETRAIN, "--architecture", "a.json", "-o", "final")
    assert (result.code, result.out) == (5, "")
    assert "nnas: error: the loss on the test data is not finite (nan)\n" in result.err


def test_evaluate_reports_an_estimate_after_and_before_recalibration(nnas: Cli) -> None:
    result = nnas(*EVALUATE)
    assert (result.code, result.err) == (0, "")
    number = r"\d+\.\d{4}"
    assert re.search(rf"^validation, inherited weights +loss {number}, accuracy {number}$", result.out, re.MULTILINE)
    assert re.search(rf"^before recalibration +loss {number}, accuracy {number}$", result.out, re.MULTILINE)


def test_evaluate_as_json_has_equal_bytes_each_time(nnas: Cli) -> None:
    result = nnas(*EVALUATE, "--json")
    assert (result.code, result.err) == (0, "")
    assert nnas(*EVALUATE, "--json") == result
    assert result.json["architecture"] == FORMS["masks"]
    assert set(result.json["metrics"]) == set(result.json["before_recalibration"]) == {"loss", "accuracy"}
    assert result.json["measured_on"] == "validation data, inherited weights"


@pytest.mark.parametrize("form", FORMS)
def test_evaluate_takes_every_form(nnas: Cli, form: str) -> None:
    expected = nnas.ok(*EVALUATE, "--json").out
    found = nnas.ok(*EVALUATE[:-1], "-", "--json", stdin=json.dumps(FORMS[form]))
    assert found.out == expected


def test_recalibrate_0_measures_once(nnas: Cli) -> None:
    calibrated = nnas.ok(*EVALUATE, "--json").json
    plain = nnas.ok(*EVALUATE, "--recalibrate", 0, "--json").json
    assert plain["before_recalibration"] is None
    assert plain["metrics"] == calibrated["before_recalibration"]
    assert plain["metrics"]["loss"] != calibrated["metrics"]["loss"]


def test_evaluate_on_the_test_data(nnas: Cli) -> None:
    valid, test = (nnas.ok(*EVALUATE, "--json", "--on", data).json for data in ("valid", "test"))
    assert test["measured_on"] == "test data, inherited weights"
    assert test["metrics"] != valid["metrics"]


def test_evaluate_writes_its_report_to_a_file(nnas: Cli) -> None:
    result = nnas(*EVALUATE, "-o", "report.json")
    assert (result.code, result.out, result.err) == (0, "", "wrote report.json\n")
    assert Path("report.json").read_text() == nnas(*EVALUATE, "--json").out


def test_an_estimate_that_is_not_finite_is_no_result(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL.replace("return self.head(", "return float('nan') * self.head("))
    result = nnas(*EVALUATE, "--json")
    assert (result.code, result.out) == (5, "")
    assert result.error["message"] == "the loss on the validation data is not finite (nan)"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("retrain", "model.py"), "--architecture is missing\nhint: give it, or a --config that has it\n"),
        (("retrain", "--architecture", "a.json"), "MODEL is missing\nhint: give it, or a --config that has it\n"),
        (
            ("evaluate", "model.py", "--architecture", "a.json"),
            "missing option '--checkpoint'\nhint: see `nnas evaluate --help`\n",
        ),
    ],
)
def test_what_is_missing_is_named(nnas: Cli, command: tuple[str, ...], message: str) -> None:
    result = nnas(*command)
    assert (result.code, result.out, result.err) == (2, "", f"nnas: error: {message}")


@pytest.mark.parametrize("command", [(*RETRAIN, "-o", "final", "--architecture"), EVALUATE[:-1]])
def test_an_architecture_that_does_not_fit_is_refused_with_its_file(nnas: Cli, command: tuple[object, ...]) -> None:
    Path("b.json").write_text('{"op": "deap", "act": "tanh"}')
    result = nnas(*command, "b.json")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: b.json: the architecture does not fit the search space\n"
        "  missing keys: 'link'\n"
        "  op: no candidate is named 'deap'; "
        "expected a name among 'linear', 'skip', 'deep', an index below 3, or a mask of 3\n"
        "hint: compare it with the output of `nnas ss-gen`\n"
    )
