"""How tests of tuners run trials: one after the other, or several at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable

from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["distance", "run_trials", "tell"]


def distance(one: Architecture, other: Architecture) -> int:
    """At how many keys two architectures differ."""
    return sum(one[key] != other[key] for key in one)


def tell(tuner: Tuner, number: int, architecture: Architecture, value: float | None) -> None:
    """End trial ``number``; None is a failure."""
    if value is not None:
        tuner.receive_trial_result(number, architecture.parameters(), value)
    tuner.trial_end(number, value is not None)


def run_trials(
    tuner: Tuner,
    space: SearchSpace,
    value: Callable[[Architecture], float | None],
    trials: int = 10**6,
    at_a_time: int = 1,
) -> list[Architecture]:
    """What ``tuner``, which has its space, proposes until it has no more.

    Args:
        tuner: asked for the next proposal when ``at_a_time`` are running, after the oldest ended.
        space: what every proposal must fit.
        value: of an architecture; None for a trial that fails.
        trials: proposals at most.
        at_a_time: trials that run at the same time.
    """
    proposed: list[Architecture] = []
    running: collections.deque[tuple[int, Architecture]] = collections.deque()
    while len(proposed) < trials:
        try:
            architecture = space.parse(tuner.generate_parameters(len(proposed)))
        except NoMoreTrials:
            break
        space.validate(architecture)
        running.append((len(proposed), architecture))
        proposed.append(architecture)
        if len(running) == at_a_time:
            number, oldest = running.popleft()
            tell(tuner, number, oldest, value(oldest))
    return proposed
