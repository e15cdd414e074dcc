"""A choice of 10,000 among 20,000: each tuner proposes within seconds, or refuses such a space."""

from __future__ import annotations

import itertools
import math
import time

import pytest

from nnas_core.errors import UsageError
from nnas_core.plugins import registry
from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.opening import create_tuner
from nnas_core.study.proposals import Proposer
from nnas_core.study.storage.records import StudySettings, digest_of
from nnas_core.study.storage.tuner_log import Stored
from nnas_core.tuners.base import Tuner
from nnas_core.tuners.ppo import PpoTuner

SECONDS = 10.0
"""Of a proposal, its checks and its result, on a slow machine; it was a minute and more."""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """2^19995 architectures, or so."""
    names = tuple(f"c{index}" for index in range(20_000))
    return SearchSpace([Choice("in", "input_choice", names, 10_000)])


@pytest.mark.parametrize("name", ["random", "grid", "evolution", "spos-evolution", "local-search", "bananas"])
def test_a_proposal_takes_seconds(name: str, space: SearchSpace) -> None:
    kind = registry.find_subclass("tuners", name, Tuner)
    tuner = create_tuner(kind, {}, name=name, seed=0, optimize_mode="maximize")
    tuner.update_search_space(space.to_json())
    proposer = Proposer(tuner, StudySettings("study", space, name))
    begin = time.process_time()
    parameter_id, parameters, architecture = proposer.propose()
    proposer.untold[0] = parameter_id, parameters
    digest = digest_of(architecture.canonical)
    proposer.tell(Stored(0, "succeeded", digest, 0.5), lambda number: architecture)
    assert sum(architecture.masks()["in"]) == 10_000
    assert time.process_time() - begin < SECONDS


def test_a_policy_of_20_000_steps_is_refused(space: SearchSpace) -> None:
    with pytest.raises(UsageError, match="tuner 'ppo' decides in at most 2000 steps, and this search space takes 2000"):
        PpoTuner().update_search_space(space.to_json())


def test_numbers_and_subsets_are_in_lexicographic_order() -> None:
    for count, chosen in itertools.product(range(8), range(8)):
        choice = Choice("in", "input_choice", tuple(map(str, range(count))), chosen)
        expected = list(itertools.combinations(range(count), chosen))
        assert choice.size == math.comb(count, chosen) == len(expected)
        assert [choice.decision(number) for number in range(choice.size)] == expected
        assert [choice.number(decision) for decision in expected] == list(range(choice.size))
