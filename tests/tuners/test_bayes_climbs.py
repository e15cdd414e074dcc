"""``bayes`` in a space that it does not list, when next to nothing of it is left."""

from __future__ import annotations

import pytest

from tests.tuners.test_bayes_tuner import layers, objective, tuner_of
from tests.tuners.trial_loops import run_trials


def test_what_is_left_is_proposed_where_climbs_end_at_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine architectures, one draw and 2 x 2 neighbours do not show all."""
    monkeypatch.setattr("nnas_core.tuners.bayes._MOST_LISTED", 0)
    monkeypatch.setattr("nnas_core.tuners.bayes._DRAWN", 1)
    monkeypatch.setattr("nnas_core.tuners.bayes._TOPS", 0)
    space = layers(2, 3)
    tried = run_trials(tuner_of(space, num_init=1), space, objective(0, 2, 3, 0.0), 9)
    assert len({one.canonical for one in tried}) == 9
