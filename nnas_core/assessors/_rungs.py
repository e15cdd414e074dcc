"""Successive halving as trials come: what each had at a rung, and which of them are good enough to go on.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, arXiv:1810.05934 (Algorithm 2).
"""

from __future__ import annotations

__all__ = ["Rungs"]


class Rungs:
    """The values of trials at some steps, larger is better.

    Args:
        factor: one of so many trials goes on.
    """

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self._reached: dict[int, dict[int, float]] = {}  # by step, what each trial had there

    def begin(self, trial_number: int) -> None:
        """Forgets what a trial had in an attempt that was given up."""
        for reached in self._reached.values():
            reached.pop(trial_number, None)

    def goes_on(self, trial_number: int, step: int, value: float) -> bool:
        """Takes a trial's value at a rung; returns true if it is among the best of those that came so far."""
        reached = self._reached.setdefault(step, {})
        reached[trial_number] = value
        better = sum(other > value for other in reached.values())
        return better < max(1, len(reached) // self._factor)
