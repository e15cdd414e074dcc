"""The conformance class fails for assessors that break what it asks: each of these breaks one thing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from nnas_core import Assessor
from nnas_core.assessors.asha import AshaAssessor
from nnas_core.assessors.medianstop import MedianstopAssessor
from nnas_core.errors import UserCodeError
from nnas_core.testing import AssessorConformance


class Lenient(Assessor):
    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        return True


class Forgetful(MedianstopAssessor):
    """Forgets to answer."""

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> Any:
        super().assess_trial(trial_number, history)


class Wavering(MedianstopAssessor):
    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        return super().assess_trial(trial_number, history) or random.random() < 0.5


class Greedy(AshaAssessor):
    def assess_trial(self, trial_number: int, history: Any) -> bool:
        goes_on = super().assess_trial(trial_number, history)
        history.clear()
        return goes_on


class Ordered(MedianstopAssessor):
    """Ends others, depending on the order in which trials ended."""

    def __init__(self, optimize_mode: str = "maximize") -> None:
        super().__init__(optimize_mode=optimize_mode)
        self.ended: list[int] = []

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        lot = sum(place * number for place, number in enumerate(self.ended))
        return super().assess_trial(trial_number, history) and (len(history) < 20 or lot % 3 != 0)

    def trial_end(self, trial_number: int, success: bool) -> None:
        super().trial_end(trial_number, success)
        self.ended.append(trial_number)


class Faithful(AshaAssessor):
    """Keeps what attempts had reached that were given up."""

    def assess_trial(self, trial_number: int, history: Sequence[float]) -> bool:
        return len(history) == 1 or super().assess_trial(trial_number, history)


class Upwards(MedianstopAssessor):
    def __init__(self, optimize_mode: str = "maximize") -> None:
        super().__init__()


class Hasty(MedianstopAssessor):
    def trial_end(self, trial_number: int, success: bool) -> None:
        self._running[trial_number]
        super().trial_end(trial_number, success)


@pytest.mark.parametrize(
    ("kind", "test", "error", "message"),
    [
        (Lenient, "some_trials_end_early_and_some_do_not", AssertionError, "40 of 40 trials were let run to their end"),
        (Forgetful, "some_trials_end_early_and_some_do_not", UserCodeError, "assess_trial returned None for trial 0"),
        (Wavering, "equal_calls_give_equal_answers", AssertionError, "equal calls gave other answers"),
        (Greedy, "a_history_is_left_as_it_is", AssertionError, "the history that was given was changed"),
        (Ordered, "a_resumed_study_gets_the_same_answers", AssertionError, "4 at a time: after its repetition"),
        (
            Faithful,
            "an_attempt_that_was_given_up_does_not_count",
            AssertionError,
            "an attempt that was given up changed",
        ),
        (Upwards, "minimizing_is_maximizing_negated_values", AssertionError, "negated values gave other answers"),
        (Hasty, "trials_that_report_nothing_are_taken", KeyError, "40"),
    ],
)
def test_an_assessor_that_breaks_a_rule_is_found(
    kind: type[Assessor], test: str, error: type[Exception], message: str
) -> None:
    case = type("Case", (AssessorConformance,), {"assessor": kind})()
    with pytest.raises(error, match=message):
        getattr(case, f"test_{test}")()
