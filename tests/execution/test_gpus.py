"""Which GPUs are meant by ``--gpus``: those that are visible, counted from 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnas_core.errors import UsageError
from nnas_core.execution.gpus import visible_gpus


@pytest.mark.parametrize(
    ("shown", "given", "expected"),
    [
        ("2,3", "0,1", "2,3"),
        ("2,3", "1", "3"),
        (" 4 , 7 ", "1,1", "7,7"),
        ("GPU-8a,GPU-9b", "1", "GPU-9b"),
        ("GPU-8a,GPU-9b", "GPU-9b,0", "GPU-9b,GPU-8a"),
        ("0,1", "GPU-9b", "GPU-9b"),
        ("0,-1,2", "0", "0"),
    ],
)
def test_numbers_count_the_visible_ones(shown: str, given: str, expected: str, tmp_path: Path) -> None:
    found = visible_gpus(given.split(","), {"CUDA_VISIBLE_DEVICES": shown}, tmp_path)
    assert ",".join(found) == expected


@pytest.mark.parametrize(
    ("shown", "given", "message"),
    [
        ("2,3", "0,2", "`gpus` 2 is not there: CUDA_VISIBLE_DEVICES=2,3 shows 2, 0 to 1"),
        ("5", "1", "`gpus` 1 is not there: CUDA_VISIBLE_DEVICES=5 shows one, 0"),
        ("0,-1,2", "1", "`gpus` 1 is not there: CUDA_VISIBLE_DEVICES=0,-1,2 shows one, 0"),
        ("GPU-8a", "GPU-9b", "`gpus` GPU-9b is not there: CUDA_VISIBLE_DEVICES=GPU-8a shows one, 0"),
        ("", "0,1", "`gpus` 0,1: CUDA_VISIBLE_DEVICES= shows no GPU"),
        ("-1", "0", "`gpus` 0: CUDA_VISIBLE_DEVICES=-1 shows no GPU"),
    ],
)
def test_what_is_not_visible_is_refused(shown: str, given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        visible_gpus(given.split(","), {"CUDA_VISIBLE_DEVICES": shown}, tmp_path)
    assert caught.value.message == message


def test_where_nothing_says_what_is_visible_the_machine_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^`gpus` 0: this machine has no GPU$"):
        visible_gpus(["0"], {}, tmp_path)
    for number in range(2):
        (tmp_path / "proc/driver/nvidia/gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
    assert visible_gpus(["1", "0"], {}, tmp_path) == ("1", "0")
    with pytest.raises(UsageError, match=r"^`gpus` 2 is not there: this machine has 2, 0 to 1$"):
        visible_gpus(["2"], {}, tmp_path)


def test_gpus_of_another_maker_cannot_be_counted_here(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    assert visible_gpus(["3"], {}, tmp_path) == ("3",)
