"""Ranks of values, worked out by hand."""

from __future__ import annotations

import pytest

from nnas_core.tuners._ranks import ranks


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], [0.0]),
        ([1e300, -2.0], [1.0, -1.0]),
        ([3.0, 1.0, 2.0, 10.0, 9.0], [0.0, -1.0, -0.5, 1.0, 0.5]),
        ([5.0, 5.0, 5.0], [0.0, 0.0, 0.0]),
        ([1.0, 4.0, 4.0, 4.0, 9.0], [-1.0, 0.0, 0.0, 0.0, 1.0]),
        ([2.0, 2.0, 3.0], [-0.5, -0.5, 1.0]),  # the places are 0, 1 and 2: the first two share 0.5
    ],
)
def test_ranks_run_from_minus_one_to_one_and_equal_values_share_theirs(
    values: list[float], expected: list[float]
) -> None:
    assert ranks(values).tolist() == expected
