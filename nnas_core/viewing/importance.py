"""How much each choice matters to the value of a trial: the main effects of an analysis of variance.

Source: R. A. Fisher, "Statistical Methods for Research Workers" (1925), the correlation ratio of one factor; T. L.
Kelley, "An unbiased correlation ratio measure", PNAS 21 (1935), its correction for groups of few trials. Where every
architecture of a space was measured once it is exact, and the first-order index of I. M. Sobol', "Sensitivity estimates
for nonlinear mathematical models" (1993), and what functional ANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014) estimates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.view import Importance

__all__ = ["importance_of"]


def importance_of(
    space: SearchSpace, decisions: Sequence[Sequence[Decision]], values: Sequence[float]
) -> tuple[list[Importance], bool]:
    """The share of the variance of the values that each choice alone explains, the largest first.

    Between the means of the trials that decide alike there is some variance by chance too; unless the trials are the
    whole space, it is taken off, so a choice that does nothing gets about 0 however many candidates it has. What only
    matters together with another choice is in no share. A tuner does not try all candidates equally often: then shares
    say what explains the trials there are.

    Args:
        space: of the study.
        decisions: of each trial, in the order of the keys.
        values: of each trial, finite.

    Returns:
        The shares, and true if they are exact. There are none of fewer than three trials, of values that are all
        equal, and of keys that have half as many decisions as there are trials.
    """
    count = len(values)
    exact = count == space.size and len({tuple(one) for one in decisions}) == count
    scaled = _scaled(np.asarray(values, dtype=np.float64))
    total = float((scaled**2).sum())
    if count < 3 or total == 0:
        return [], exact
    found = []
    for place, choice in enumerate(space):
        numbers: dict[Decision, int] = {}
        groups = np.array([numbers.setdefault(one[place], len(numbers)) for one in decisions])
        if not exact and 2 * len(numbers) > count:
            continue
        sizes = np.bincount(groups)
        between = float((np.bincount(groups, weights=scaled) ** 2 / sizes).sum())
        if not exact:
            within = (total - between) / (count - len(numbers))
            between -= (len(numbers) - 1) * within
        found.append(Importance(choice.key, min(1.0, max(0.0, between / total)), len(numbers)))
    return sorted(found, key=lambda one: -one.share), exact


def _scaled(values: np.ndarray) -> np.ndarray:
    """The values about their mean, in a scale whose squares neither overflow nor vanish."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values
    scaled = values / largest
    if float(np.ptp(scaled)) <= 1e-12:  # what rounding makes of equal values
        return np.zeros_like(scaled)
    centred: np.ndarray = scaled - scaled.mean()
    return centred / float(np.abs(centred).max())
