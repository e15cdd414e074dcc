"""Median stopping: a trial ends whose best value is worse than what is usual at its step.

Source: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
doi:10.1145/3097983.3098043 (section 3.2.2); as in NNI 1.x.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Sequence

from nnas_core.assessors.base import Assessor
from nnas_core.plugins.arguments import check_count

__all__ = ["MedianstopAssessor"]


class MedianstopAssessor(Assessor):
    """Ends a trial whose best value up to step ``S`` is strictly worse than the median of running averages.

    The averages are those of the values 1 to ``S`` of each trial that succeeded and reported so many. Of an even
    number of them the worse of the middle two is the median. Without any, every trial goes on.

    Args:
        start_step: the first step at which a trial may end; 0 and 1 are the same.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, start_step: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(optimize_mode)
        check_count("medianstop: start_step", start_step, least=0)
        self._start_step = start_step
        self._running: dict[int, list[float]] = {}
        self._averages: list[list[float]] = []  # by step those of all trials, larger is better, ascending

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        """Compares the best value with the median at this step."""
        self._running[trial_number] = list(history)
        step = len(history)
        if step < self._start_step or step > len(self._averages):
            return True
        averages = self._averages[step - 1]
        best = max(history) if self.sign > 0 else -min(history)
        return best >= averages[(len(averages) - 1) // 2]

    def trial_end(self, trial_number: int, success: bool) -> None:
        """Lets the averages of a trial that succeeded count from now on."""
        values = self._running.pop(trial_number, [])
        if not success:
            return
        for step, total in enumerate(itertools.accumulate(values), start=1):
            if step > len(self._averages):
                self._averages.append([])
            insort(self._averages[step - 1], self.sign * total / step)
