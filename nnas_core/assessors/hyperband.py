"""Hyperband: several brackets of successive halving, from those that end trials early to one that ends none.

Source: Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18(185), 2018,
arXiv:1603.06560 (Algorithm 1; its brackets run asynchronously, as in arXiv:1810.05934).
"""

from __future__ import annotations

from collections.abc import Sequence

from nnas_core.assessors._rungs import Rungs
from nnas_core.assessors.base import Assessor
from nnas_core.plugins.arguments import check_count

__all__ = ["HyperbandAssessor"]


class HyperbandAssessor(Assessor):
    """Divides the trials among brackets, in each of which they are first compared at another rung, as by ``asha``.

    With s_max the largest integer with ``min_resource * reduction_factor**s_max <= max_resource``, bracket s = s_max,
    ..., 0 compares at the s rungs ``max_resource * reduction_factor**-k``, k = s, ..., 1, rounded to whole steps: at 1,
    4, 11 and 33 of 100 values with factor 3, at 1, 3, 9 and 27 of 81. Bracket 0 ends no trial. Its share of the trials
    is the paper's n_s = ceil((s_max + 1) / (s + 1) * reduction_factor**s): with 81 and 3 these are 81, 34, 15, 8 and 5
    of 143. Each trial, in order of its number, goes to the bracket that lacks most of its share so far, so short
    studies use all brackets too.

    Args:
        max_resource: values that a complete trial reports; the paper's R.
        min_resource: no rung is below it, in values reported; the paper's is 1.
        reduction_factor: one of so many trials goes on at a rung; the paper's eta, 3 in its examples.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        max_resource: int,
        min_resource: int = 1,
        reduction_factor: int = 3,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(optimize_mode)
        check_count("hyperband: min_resource", min_resource)
        check_count("hyperband: reduction_factor", reduction_factor, least=2)
        check_count("hyperband: max_resource", max_resource, least=min_resource * reduction_factor)
        deepest = 0
        while min_resource * reduction_factor ** (deepest + 1) <= max_resource:
            deepest += 1
        steps = [_rounded(max_resource, reduction_factor**power) for power in range(deepest, 0, -1)]
        self._brackets = [(Rungs(reduction_factor), frozenset(steps[place:])) for place in range(deepest + 1)]
        self._shares = [-(-(deepest + 1) * reduction_factor**s // (s + 1)) for s in range(deepest, -1, -1)]
        self._given = [0] * len(self._shares)
        self._bracket_of: list[int] = []  # by the trial's number

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        """Compares the newest value with those of the trial's bracket, if this step is one of its rungs."""
        rungs, steps = self._brackets[self._bracket(trial_number)]
        step = len(history)
        if step == 1:
            rungs.begin(trial_number)
        return step not in steps or rungs.goes_on(trial_number, step, self.sign * history[-1])

    def _bracket(self, trial_number: int) -> int:
        """Returns the place of its bracket in the order s_max, ..., 0."""
        total = sum(self._shares)
        while len(self._bracket_of) <= trial_number:
            count = len(self._bracket_of) + 1
            lacking = [share * count - total * given for share, given in zip(self._shares, self._given, strict=True)]
            bracket = lacking.index(max(lacking))
            self._given[bracket] += 1
            self._bracket_of.append(bracket)
        return self._bracket_of[trial_number]


def _rounded(number: int, by: int) -> int:
    """Returns the whole number that is nearest to ``number / by``, of two the larger."""
    return (2 * number + by) // (2 * by)
