"""Every assessor passes these tests, to inherit: ``class TestMine(AssessorConformance): assessor = Mine``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from nnas_core.assessors.base import Assessor
from nnas_core.testing._global_state import under_other_states

__all__ = ["AssessorConformance"]

_Verdicts = list[tuple[int, int, bool]]
"""The number of a trial, the step, and whether it might go on; in the order in which they were asked for."""

_Ended = dict[int, tuple[int, bool]]
"""Holds the number of values that each trial reported, and True if it succeeded, by its number."""


class AssessorConformance:
    """Tests of an assessor, for pytest; set ``assessor``, and what else differs.

    They check that every answer is True or False, and that some trials end early and some do not; that equal calls
    give equal answers, whatever random numbers others draw; that what a resumed study repeats (the trials that ended,
    by number, the last attempt of each) leads to the same answers; that minimizing is maximizing negated values; and
    that trials that fail, or report nothing, are taken.

    An assessor that does not name ``optimize_mode`` in its constructor gets none, as in a study.
    """

    assessor: ClassVar[type[Assessor]]
    """The class to test."""

    arguments: ClassVar[Mapping[str, Any]] = {}
    """For its constructor, besides the mode."""

    trials: ClassVar[int] = 40
    """Counts the trials of each test."""

    steps: ClassVar[int] = 30
    """Counts the values that a complete trial reports."""

    # ---- running

    def make(self, optimize_mode: str = "maximize") -> Assessor:
        """Returns a new assessor."""
        given = {"optimize_mode": optimize_mode} if self._takes_mode() else {}
        return self.assessor(**self.arguments, **given)

    def _takes_mode(self) -> bool:
        return "optimize_mode" in inspect.signature(self.assessor).parameters

    def curves(self) -> list[list[float]]:
        """Learning curves of the trials: rising and saturating at different speeds and heights, with some noise."""
        rng = np.random.default_rng(7)
        height, speed = rng.uniform(0.3, 0.9, self.trials), rng.uniform(0.05, 0.5, self.trials)
        steps = np.arange(1, self.steps + 1)
        smooth = height[:, None] * (1 - np.exp(-speed[:, None] * steps))
        found: list[list[float]] = (smooth + rng.normal(0, 0.02, smooth.shape)).tolist()
        return found

    def run(
        self,
        assessor: Assessor,
        curves: list[list[float]],
        first: int = 0,
        *,
        at_a_time: int = 1,
        failing: int = 0,
    ) -> tuple[_Verdicts, _Ended]:
        """Runs trials, each of which reports one value in turn.

        Args:
            assessor: asked after each value.
            curves: what the trials report.
            first: the number of the first.
            at_a_time: trials that run at the same time.
            failing: each trial of this number fails half-way, 0: none.

        Returns:
            All answers, and how the trials ended.
        """
        verdicts: _Verdicts = []
        ended: _Ended = {}
        waiting = list(range(len(curves)))[::-1]
        running: dict[int, int] = {}
        while waiting or running:
            while waiting and len(running) < at_a_time:
                running[waiting.pop()] = 0
            for place in list(running):
                running[place] += 1
                step = running[place]
                number = first + place
                goes_on = assessor.goes_on(number, curves[place][:step])
                verdicts.append((number, step, goes_on))
                fails = failing > 0 and number % failing == failing - 1 and step == len(curves[place]) // 2
                if fails or not goes_on or step == len(curves[place]):
                    ended[number] = running.pop(place), goes_on and not fails
                    assessor.trial_end(number, ended[number][1])
        return verdicts, ended

    # ---- tests

    def test_some_trials_end_early_and_some_do_not(self) -> None:
        """Every answer is True or False, or NNI's name of one."""
        _, ended = self.run(self.make(), self.curves())
        complete = sum(succeeded for _, succeeded in ended.values())
        assert 0 < complete < self.trials, f"{complete} of {self.trials} trials were let run to their end"

    def test_equal_calls_give_equal_answers(self) -> None:
        """Whatever other assessors do meanwhile, and whatever the global random state is."""

        def found() -> list[object]:
            return [self.run(self.make(), self.curves(), at_a_time=count, failing=5) for count in (1, 4)]

        one, other = under_other_states(found)
        assert one == other, "equal calls gave other answers"

    def test_a_history_is_left_as_it_is(self) -> None:
        """It belongs to who asks."""
        assessor = self.make()
        for number, curve in enumerate(self.curves()):
            for step in range(1, len(curve) + 1):
                history = curve[:step]
                assessor.goes_on(number, history)
                assert history == curve[:step], "the history that was given was changed"
            assessor.trial_end(number, True)

    def test_a_resumed_study_gets_the_same_answers(self) -> None:
        """After one and four trials at a time, with failures: by the numbers of the trials, not in their old order."""
        curves = self.curves()
        half = self.trials // 2
        for at_a_time in (1, 4):
            whole = self.make()
            _, ended = self.run(whole, curves[:half], at_a_time=at_a_time, failing=5)
            resumed = self.make()
            for number, (steps, succeeded) in sorted(ended.items()):
                for step in range(1, steps + 1):
                    resumed.assess_trial(number, curves[number][:step])
                resumed.trial_end(number, succeeded)
            expected, _ = self.run(whole, curves[half:], half)
            found, _ = self.run(resumed, curves[half:], half)
            assert found == expected, f"{at_a_time} at a time: after its repetition it gave other answers"

    def test_an_attempt_that_was_given_up_does_not_count(self) -> None:
        """A trial whose process died begins again, with other values; the study keeps those only."""
        expected, _ = self.run(self.make(), self.curves())
        assessor = self.make()
        found: _Verdicts = []
        for number, curve in enumerate(self.curves()):
            for step in range(1, self.steps + 1):
                assessor.assess_trial(number, [value + 1 for value in curve[:step]])
            found += self.run(assessor, [curve], number)[0]
        assert found == expected, "values of an attempt that was given up changed the answers"

    def test_minimizing_is_maximizing_negated_values(self) -> None:
        """Both give the same answers."""
        if not self._takes_mode():
            return
        curves = self.curves()
        maximized = self.run(self.make(), curves, at_a_time=3)
        negated = [[-value for value in curve] for curve in curves]
        assert self.run(self.make("minimize"), negated, at_a_time=3) == maximized, "negated values gave other answers"

    def test_trials_that_report_nothing_are_taken(self) -> None:
        """They succeed or fail, and change no answer."""
        curves = self.curves()
        assessor = self.make()
        for number in range(self.trials, 2 * self.trials):
            assessor.trial_end(number, number % 2 == 0)
        found, _ = self.run(assessor, curves)
        expected, _ = self.run(self.make(), curves)
        assert found == expected, "trials that reported nothing changed the answers"
