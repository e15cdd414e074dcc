"""Hyperband: several brackets of successive halving, from those that end trials early to one that ends none.

Source: Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18(185), 2018,
arXiv:1603.06560 (Algorithm 1; its brackets run asynchronously, as in arXiv:1810.05934).
"""

from __future__ import annotations

from collections.abc import Sequence

from nnas_core.assessors.asha import AshaAssessor
from nnas_core.assessors.base import Assessor
from nnas_core.plugins.arguments import check_count

__all__ = ["HyperbandAssessor"]


class HyperbandAssessor(Assessor):
    """Divides the trials among brackets, in each of which ``asha`` begins at another rung.

    With s_max the largest integer with ``min_resource * reduction_factor**s_max <= max_resource``, bracket s = s_max,
    ..., 0 compares at s rungs, from ``min_resource * reduction_factor**(s_max - s)`` on; bracket 0 ends no trial. Its
    share of the trials is the paper's n_s = ceil((s_max + 1) / (s + 1) * reduction_factor**s): with 81 and 3 these
    are 81, 34, 15, 8 and 5 of 143. Each trial, in order of its number, goes to the bracket that lacks most of its
    share so far, so short studies use all brackets too.

    Args:
        max_resource: values that a complete trial reports; the paper's R.
        min_resource: the first rung of the first bracket, in values reported; the paper's is 1.
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
        self._brackets: list[AshaAssessor] = []
        first = min_resource
        while first * reduction_factor <= max_resource:
            self._brackets.append(AshaAssessor(first, reduction_factor, max_resource, optimize_mode))
            first *= reduction_factor
        deepest = len(self._brackets)
        self._shares = [-(-(deepest + 1) * reduction_factor**s // (s + 1)) for s in range(deepest, -1, -1)]
        self._given = [0] * len(self._shares)
        self._bracket_of: list[int] = []  # by the trial's number

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        """Asks the bracket of this trial."""
        bracket = self._bracket(trial_number)
        return bracket == len(self._brackets) or self._brackets[bracket].assess_trial(trial_number, history)

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
