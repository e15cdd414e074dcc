"""An assessor looks at what a trial reports on its way, and ends it early when it promises little.

The methods are those of NNI 1.x, so that an assessor written for it needs only another import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum

from nnas_core.errors import UserCodeError
from nnas_core.plugins.arguments import sign_of

__all__ = ["AssessResult", "Assessor"]


class AssessResult(IntEnum):
    """A verdict as NNI names it; ``assess_trial`` may return one instead of True or False."""

    Good = True
    Bad = False


class Assessor(ABC):
    """Base of all assessors; a subclass in one file of your own is named as ``file.py:Class``.

    An assessor keeps no files. A resumed study builds a fresh one and gives it what the trials that ended had reported.

    Args:
        optimize_mode: ``"maximize"`` or ``"minimize"``: which values of a trial are better.

    Attributes:
        sign: what a value is multiplied by, so that larger is better.

    Raises:
        UsageError: another mode.
    """

    def __init__(self, optimize_mode: str = "maximize") -> None:
        self.optimize_mode = optimize_mode
        self.sign = sign_of("assessor: optimize_mode", optimize_mode)

    @abstractmethod
    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool | AssessResult:
        """Judges a running trial after each value that it reports.

        A trial whose process died begins again, and so does its history. A resumed study asks again for all trials
        that ended, in order of their numbers, and heeds none of these answers.

        Args:
            trial_number: which.
            history: all that it has reported, the newest last. A value that was not finite is the worst there is:
                minus infinity, or infinity where smaller values are better.

        Returns:
            True if it may go on, False if it shall end now.
        """

    def trial_end(self, trial_number: int, success: bool) -> None:
        """Learns that a trial ended; ``success`` is False if it failed or was ended early."""

    def goes_on(self, trial_number: int, history: Sequence[float]) -> bool:
        """Returns the answer of ``assess_trial``, checked: one that is forgotten must not end every trial.

        Raises:
            UserCodeError: it is neither True nor False.
        """
        answer = self.assess_trial(trial_number, history)
        if answer not in (True, False):
            raise UserCodeError(
                f"{type(self).__name__}.assess_trial returned {answer!r} for trial {trial_number}",
                hint="return True if the trial may go on, False if it shall end",
            )
        return bool(answer)
