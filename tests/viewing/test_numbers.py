"""Importance of choices: against numbers by hand, and what it is on average."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnas_core.space.choice import Choice, Decision
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.importance import importance_of

SPACE = SearchSpace(
    [
        Choice("a", "layer_choice", ("x", "y"), 1),
        Choice("b", "layer_choice", ("x", "y", "z"), 1),
        Choice("c", "layer_choice", ("x", "y", "z", "w"), 1),
    ]
)


def every_architecture() -> list[tuple[Decision, ...]]:
    """All 24 of ``SPACE``."""
    return [((a,), (b,), (c,)) for a, b, c in itertools.product(range(2), range(3), range(4))]


def test_shares_of_a_whole_space_are_exact() -> None:
    # 4 a + b: variances 4 and 2/3 of uniform decisions; c does nothing
    values = [4.0 * a[0] + b[0] for a, b, _ in every_architecture()]
    found, exact = importance_of(SPACE, every_architecture(), values)
    assert exact
    shares = {one.key: (one.share, one.groups) for one in found}
    assert shares == {
        "a": (pytest.approx(4 / (4 + 2 / 3)), 2),
        "b": (pytest.approx(2 / 3 / (4 + 2 / 3)), 3),
        "c": (pytest.approx(0.0), 4),
    }
    assert [one.key for one in found] == ["a", "b", "c"]


def test_what_matters_only_together_is_in_no_share() -> None:
    values = [float(a[0] ^ (c[0] % 2)) for a, _, c in every_architecture()]
    found, _ = importance_of(SPACE, every_architecture(), values)
    assert [one.share for one in found] == pytest.approx([0.0, 0.0, 0.0])


def test_noise_alone_gives_no_choice_a_share_on_average() -> None:
    rng = np.random.default_rng(0)
    means = []
    for _ in range(200):
        decisions = [((int(a),), (int(b),), (int(c),)) for a, b, c in rng.integers(0, (2, 3, 4), (20, 3))]
        found, _ = importance_of(SPACE, decisions, rng.normal(size=20).tolist())
        means.append({one.key: one.share for one in found}.get("c", 0.0))
    # uncorrected it would be 3/19; what is below zero is cut off, so a little is left
    assert np.mean(means) < 0.07


def test_many_random_trials_come_near_the_exact_shares() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, (2, 3, 4), (3000, 3))
    decisions = [((int(a),), (int(b),), (int(c),)) for a, b, c in drawn]
    values = 4.0 * drawn[:, 0] + drawn[:, 1] + rng.normal(size=3000)  # variances 4, 2/3, 1
    shares = {one.key: one.share for one in importance_of(SPACE, decisions, values.tolist())[0]}
    assert shares["a"] == pytest.approx(4 / (5 + 2 / 3), abs=0.03)
    assert shares["b"] == pytest.approx(2 / 3 / (5 + 2 / 3), abs=0.03)


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.7] * 24, [0.1 + 0.2, 0.3] * 12], ids=["two", "equal", "rounding"])
def test_too_few_or_equal_values_say_nothing(values: list[float]) -> None:
    assert importance_of(SPACE, every_architecture()[: len(values)], values)[0] == []


def test_a_key_with_nearly_as_many_decisions_as_trials_is_left_out() -> None:
    found, exact = importance_of(SPACE, every_architecture()[:6], [1.0, 2.0, 3.0, 1.0, 2.0, 4.0])
    assert not exact
    assert [one.key for one in found] == ["b", "a"]  # six trials have all four decisions of c


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_values_of_any_size_have_the_same_shares(scale: float) -> None:
    values = [scale * (4.0 * a[0] + b[0]) for a, b, _ in every_architecture()]
    found, _ = importance_of(SPACE, every_architecture(), values)
    assert found[0].share == pytest.approx(4 / (4 + 2 / 3))
