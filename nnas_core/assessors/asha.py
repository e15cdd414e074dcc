"""Asynchronous successive halving: at each rung only the best part of the trials goes on.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, arXiv:1810.05934
(rungs of Algorithm 2; a trial that is not promoted when it reaches a rung ends, as in Optuna and Ray Tune).
"""

from __future__ import annotations

from collections.abc import Sequence

from nnas_core.assessors._rungs import Rungs
from nnas_core.assessors.base import Assessor
from nnas_core.plugins.arguments import check_count

__all__ = ["AshaAssessor"]


class AshaAssessor(Assessor):
    """Ends a trial at a rung if it is not among the best ``1 / reduction_factor`` of those that came so far.

    Rungs are at the steps ``min_resource * reduction_factor**k``, k = 0, 1, ... The value at this very step counts.
    Of ``n`` trials that reached a rung, itself included, a trial must be among the best
    ``max(1, n // reduction_factor)``; equal values go on. Nobody waits, so the first trials always go on.

    Args:
        min_resource: the first rung, in values reported; the paper's r.
        reduction_factor: one of so many trials goes on; the paper's eta, 4 in its experiments.
        max_resource: values that a complete trial reports, the paper's R. The highest rung that it includes compares
            nothing, trials run from there to their end; null: every rung compares.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        min_resource: int = 1,
        reduction_factor: int = 4,
        max_resource: int | None = None,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(optimize_mode)
        check_count("asha: min_resource", min_resource)
        check_count("asha: reduction_factor", reduction_factor, least=2)
        if max_resource is not None:  # less has no rung that compares
            check_count("asha: max_resource", max_resource, least=min_resource * reduction_factor)
        self._first = min_resource
        self._factor = reduction_factor
        self._most = max_resource
        self._rungs = Rungs(reduction_factor)

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        """Compares the newest value with those that others had at this step, if it is a rung."""
        step = len(history)
        if step == 1:
            self._rungs.begin(trial_number)
        return not self._compares(step) or self._rungs.goes_on(trial_number, step, self.sign * history[-1])

    def _compares(self, step: int) -> bool:
        if self._most is not None and step * self._factor > self._most:
            return False
        rung = self._first
        while rung < step:
            rung *= self._factor
        return rung == step
