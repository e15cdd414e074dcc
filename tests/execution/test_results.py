"""What a trial's program may leave as its result, and what ``nnas_core.trial`` writes."""

from __future__ import annotations

import json
import math
import os
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnas_core.errors import EnvironmentFailure, InputError, UsageError
from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.execution.results import LONGEST_RESULT, Reported, read_result
from nnas_core.trial import get_parameters, report_final, report_intermediate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


# ---- reading


def test_without_a_file_there_is_no_result(path: Path) -> None:
    assert read_result(path, 3, 1) is None


@pytest.mark.parametrize(
    ("content", "result"),
    [
        ("0.5", TrialResult(0.5)),
        ("1", TrialResult(1.0)),
        ('{"value": 0.5}', TrialResult(0.5)),
        ('{"trial": 3, "attempt": 1, "value": 2}', TrialResult(2.0)),
        ('{"value": 2, "default": 3}', TrialResult(2.0)),
        ('{"default": 0.5, "loss": 2, "name": "x", "bad": NaN}', TrialResult(0.5, {"loss": 2.0})),
        (
            '{"value": 1, "metrics": {"a": 1, "b": null, "c": Infinity}, "cost": {"s": 2}}',
            TrialResult(1.0, {"a": 1.0}, {"s": 2.0}),
        ),
        ('{"value": 1, "metrics": [1], "cost": "much"}', TrialResult(1.0)),
        ('{"value": 1, "metrics": {"\\ud800": 1}}', TrialResult(1.0, {"\\ud800": 1.0})),
    ],
)
def test_a_result_is_a_number_or_an_object_with_one(path: Path, content: str, result: TrialResult) -> None:
    path.write_text(content)
    assert read_result(path, 3, 1) == result


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the result is not JSON"),
        (b'{"value": 0.', "the result is not JSON"),
        (b"\xff\xfe", "the result is not JSON"),
        (b"[" * 100_000, "the result is not JSON"),
        (b"9" * 5000, "the result is not JSON"),
        (b"{}", 'the result has no "value"'),
        (b'{"value": NaN}', "metric is not a finite number: nan"),
        (b'{"value": -Infinity}', "metric is not a finite number: -inf"),
        (b'{"default": null}', "metric is not a finite number: None"),
        (b"true", "metric is not a finite number: True"),
        (b'"good"', "metric is not a finite number: 'good'"),
        (b'{"value": 1, "trial": 4}', "the result is that of trial 4"),
        (b'{"value": 1, "trial": "%s"}' % (b"x" * 100), "the result is that of trial " + "x" * 20),
        (b'{"value": 1, "trial": 3, "attempt": 2}', "the result is that of attempt 2"),
        (b'{"error": "out of paper", "value": 1}', "out of paper"),
        (b'{"error": "%s"}' % (b"x" * 2000), "x" * 1000),
        (b" " * LONGEST_RESULT + b"1", f"the result is larger than {LONGEST_RESULT} bytes"),
    ],
)
def test_everything_else_fails_the_trial(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(TrialFailed) as caught:
        read_result(path, 3, 1)
    assert caught.value.message == message


def test_a_result_of_the_largest_size_is_read(path: Path) -> None:
    path.write_bytes(b" " * (LONGEST_RESULT - 1) + b"1")
    assert read_result(path, 3, 1) == TrialResult(1.0)


def test_a_link_is_followed_to_a_file_and_never_to_what_has_no_end(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("0.25")
    path.symlink_to(other)
    assert read_result(path, 3, 1) == TrialResult(0.25)
    other.unlink()
    assert read_result(path, 3, 1) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(TrialFailed, match=r"^the result is not a file$"):
        read_result(path, 3, 1)


def test_a_pipe_or_a_folder_in_its_place_fails_the_trial_and_holds_up_nothing(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(TrialFailed, match=r"^the result is not a file$"):
        read_result(path, 3, 1)
    path.unlink()
    path.mkdir()
    with pytest.raises(TrialFailed, match=r"^the result cannot be read: is a directory$"):
        read_result(path, 3, 1)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(TrialFailed, match=r"^the result cannot be read: too many levels of symbolic links$"):
        read_result(path, 3, 1)


# ---- intermediate values


def test_values_come_once_and_a_line_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "intermediate.jsonl"
    reported = Reported(path)
    assert reported.new() == []
    with open(path, "w") as stream:
        for piece, expected in [
            ('{"value": 1}\n{"value": 2}\n{"val', [1.0, 2.0]),
            ('ue": 3}', []),
            ("\n", [3.0]),
            ("4\n", [4.0]),
            ('{"value": "x"}\n{}\n[1]\nnull\nnonsense\n\n{"value": true}\n{"value": 5}\r\n', [5.0]),
        ]:
            stream.write(piece)
            stream.flush()
            assert reported.new() == expected
    assert reported.new() == []


@pytest.mark.parametrize("said", ["NaN", "null", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_a_value_that_is_not_finite_keeps_its_place(tmp_path: Path, said: str) -> None:
    path = tmp_path / "intermediate.jsonl"
    path.write_text(f'{{"value": 1}}\n{{"value": {said}}}\n{{"value": 2}}\n')
    first, unknown, last = Reported(path).new()
    assert (first, math.isnan(unknown), last) == (1.0, True, 2.0)


def test_a_line_that_is_too_long_is_passed_over_with_its_end(tmp_path: Path) -> None:
    path = tmp_path / "intermediate.jsonl"
    reported = Reported(path)
    with open(path, "w") as stream:
        for piece, expected in [
            ("1\n" + "x" * 2000, [1.0]),
            ("1" * 10, []),
            ("7\n8\n", [8.0]),
            ("x" * 2000 + "\n9\n", [9.0]),
            (" " * 999 + "6\n" + " " * 1000 + "7\n", [6.0]),
        ]:
            stream.write(piece)
            stream.flush()
            assert reported.new() == expected


def test_all_that_is_left_comes_at_the_end_however_much(tmp_path: Path) -> None:
    path = tmp_path / "intermediate.jsonl"
    line = json.dumps({"value": 0.5, "note": "x" * 100})
    path.write_text("".join(f"{line}\n" for _ in range(5000)) + "x" * 600_000 + "\n0.25\n0.125")
    reported = Reported(path)
    first = reported.new()
    assert 0 < len(first) < 5000
    assert first + reported.new(to_the_end=True) == [0.5] * 5000 + [0.25]
    assert reported.new(to_the_end=True) == []


def test_a_trial_that_reports_without_end_is_not_heard_after_100000_lines(tmp_path: Path) -> None:
    path = tmp_path / "intermediate.jsonl"
    path.write_text("\n" * 99_999 + "1\n2\n")
    assert Reported(path).new(to_the_end=True) == [1.0]


def test_what_is_no_file_reports_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert Reported(tmp_path / "pipe").new(to_the_end=True) == []
    assert Reported(tmp_path).new(to_the_end=True) == []


# ---- what programs call


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of attempt 2 of trial 7, whose folder this is."""
    monkeypatch.setenv("NNAS_TRIAL", "7")
    monkeypatch.setenv("NNAS_ATTEMPT", "2")
    for name in ("parameters.json", "result.json", "intermediate.jsonl"):
        monkeypatch.setenv(f"NNAS_{name.partition('.')[0].upper()}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (0.5, TrialResult(0.5, {"default": 0.5})),
        (np.float32(0.25), TrialResult(0.25, {"default": 0.25})),
        ({"default": 1, "loss": np.int64(2), "none": None}, TrialResult(1.0, {"default": 1.0, "loss": 2.0})),
        ({"default": 1, 3: 4}, TrialResult(1.0, {"default": 1.0, "3": 4.0})),
        (np.array(0.5), TrialResult(0.5, {"default": 0.5})),
        (np.array([[0.5]]), TrialResult(0.5, {"default": 0.5})),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), TrialResult(0.5, {"default": 0.5})),
        (torch.tensor([3]), TrialResult(3.0, {"default": 3.0})),
        (Fraction(1, 4), TrialResult(0.25, {"default": 0.25})),
        (Decimal("0.75"), TrialResult(0.75, {"default": 0.75})),
        ("0.5", TrialResult(0.5, {"default": 0.5})),
        (
            {"default": torch.tensor(1.0), "loss": torch.tensor(2.0), "note": "3", "all": np.zeros(2)},
            TrialResult(1.0, {"default": 1.0, "loss": 2.0}),
        ),
    ],
)
def test_a_final_result_is_read_as_it_was_reported(tuned: Path, given: Any, result: TrialResult) -> None:
    report_final(given)
    assert read_result(tuned / "result.json", 7, 2) == result
    with pytest.raises(TrialFailed, match=r"^the result is that of attempt 2$"):
        read_result(tuned / "result.json", 7, 3)


@pytest.mark.parametrize(("given", "shown"), [(float("nan"), "nan"), (torch.tensor(-torch.inf), "-inf")])
def test_a_final_result_that_is_not_finite_fails_the_trial(tuned: Path, given: Any, shown: str) -> None:
    report_final(given)
    with pytest.raises(TrialFailed, match=rf"^metric is not a finite number: {shown}$"):
        read_result(tuned / "result.json", 7, 2)


@pytest.mark.parametrize("report", [report_final, report_intermediate])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "None is no number"),
        ("good", "'good' is no number"),
        (1j, "a value of type complex is no number"),
        ([0.5], "a value of type list is no number"),
        (10**400, "a value of type int is no number"),
        (np.zeros(2), "ndarray of shape (2,) is no number"),
        (torch.zeros(1, 2), "Tensor of shape (1, 2) is no number"),
        ({"default": [1]}, "a value of type list is no number"),
        ({"loss": 1.0, "top5": 2.0}, "the dict has no number under \"default\", only 'loss', 'top5'"),
        ({}, 'the dict has no number under "default", only nothing'),
    ],
)
@pytest.mark.parametrize("by_nnas", [True, False])
def test_what_is_no_number_is_refused_where_it_is_reported(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, report: Any, given: Any, said: str, by_nnas: bool
) -> None:
    if not by_nnas:
        monkeypatch.delenv("NNAS_RESULT")
        monkeypatch.delenv("NNAS_INTERMEDIATE")
    with pytest.raises(UsageError, match=f"^{report.__name__}: {re.escape(said)}$") as caught:
        report(given)
    assert caught.value.hint == 'give what float() takes, or a dict with that under "default"'
    assert list(tuned.iterdir()) == []


def test_a_final_result_counts_once(tuned: Path) -> None:
    report_final(0.5)
    with pytest.raises(UsageError, match=r"^the final result was reported twice$") as caught:
        report_final(0.5)
    assert caught.value.hint == "call report_final once, at the end"
    with pytest.raises(TrialFailed, match=r"^the final result was reported twice$"):
        read_result(tuned / "result.json", 7, 2)


def test_a_final_result_that_cannot_be_written_is_told(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNAS_RESULT", str(tuned / "nowhere" / "result.json"))
    with pytest.raises(EnvironmentFailure, match="cannot write: no such directory"):
        report_final(0.5)


def test_intermediate_values_are_read_as_they_were_reported(tuned: Path) -> None:
    values = (1, np.float64(0.1), {"default": 0.25, "loss": 3}, torch.tensor(0.5), np.array(np.nan), 0.1 + 0.2)
    for value in values:
        report_intermediate(value)
    *before, unknown, last = Reported(tuned / "intermediate.jsonl").new()
    assert (before, math.isnan(unknown), last) == ([1.0, 0.1, 0.25, 0.5], True, 0.1 + 0.2)


def test_an_intermediate_value_after_a_torn_line_is_not_lost(tuned: Path) -> None:
    (tuned / "intermediate.jsonl").write_text('{"value": 0.')
    report_intermediate(0.5)
    assert Reported(tuned / "intermediate.jsonl").new() == [0.5]


def test_without_nnas_tune_reports_go_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report_intermediate(0.5)
    report_final(0.5)
    report_final(0.5)
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_those_of_the_file(tuned: Path) -> None:
    parameters = {"op": {"_value": "conv", "_idx": 0}}
    (tuned / "parameters.json").write_text(json.dumps(parameters))
    assert get_parameters() == parameters
    (tuned / "parameters.json").write_text("[1]")
    with pytest.raises(InputError, match=r"parameters.json: not an object of parameters$"):
        get_parameters()


def test_parameters_without_nnas_tune_say_how_to_run_the_program() -> None:
    with pytest.raises(UsageError, match=r"^this program was not started as a trial$") as caught:
        get_parameters()
    assert caught.value.hint == "let `nnas tune` run it as a trial, or set NNAS_PARAMETERS to a file of parameters"
