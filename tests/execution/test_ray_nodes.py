"""What is said of a Ray cluster that cannot run a trial: too small from the start, or dead by now."""

from __future__ import annotations

import pytest

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.ray.driver import refuse_impossible

SMALL = {"CPU": 1.0, "memory": 1e9}
LARGE = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize("was_possible", [False, True])
def test_one_node_that_is_large_enough_is_enough(was_possible: bool) -> None:
    refuse_impossible([SMALL, LARGE, {}], {"CPU": 8, "GPU": 1}, was_possible)


@pytest.mark.parametrize(
    ("alive", "was_possible", "message"),
    [
        ([SMALL], False, "a trial needs 8 CPUs and a GPU, and no node .* has that; the largest has 1 CPU, and 0 GPUs"),
        ([], False, "no node of the Ray cluster lives"),
        ([{}], False, "no node of the Ray cluster lives"),
        ([], True, "no node of the Ray cluster lives"),
        ([SMALL], True, "the Ray cluster has lost every node that can run a trial"),
    ],
)
def test_a_dead_node_is_not_one_that_is_too_small(
    alive: list[dict[str, float]], was_possible: bool, message: str
) -> None:
    with pytest.raises(EnvironmentFailure, match=f"^{message}$"):
        refuse_impossible(alive, {"CPU": 8, "GPU": 1}, was_possible)
