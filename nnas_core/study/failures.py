"""Trials that fail: one costs itself only, but many, or all in one way, end the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nnas_core.errors import NoResultError
from nnas_core.study.limits import TrialRules
from nnas_core.study.storage.records import StudyRecord, TrialRecord

__all__ = ["FailureWatch", "causes"]

_MOST_CAUSES = 10


def causes(failed: Sequence[TrialRecord]) -> list[str]:
    """Returns each cause once, with its first trial; those that differ by numbers only are one."""
    first: dict[str, TrialRecord] = {}
    for trial in sorted(failed, key=lambda trial: trial.number):
        first.setdefault(_kind(trial), trial)
    return [f"trial {trial.number}: {trial.error}" for trial in first.values()][:_MOST_CAUSES]


def _kind(trial: TrialRecord) -> str:
    """Returns why a trial failed, without what differs between trials: numbers, also those in paths and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", trial.error or "")


class FailureWatch:
    """Counts the failures of a run.

    Args:
        rules: how many are too many.
        study: which.
        go_on: the parameter of a command that goes on with the study.
    """

    def __init__(self, rules: TrialRules, study: StudyRecord, go_on: str) -> None:
        self._rules = rules
        self._study = study
        self._go_on = go_on
        self._failed = 0
        self._alike: list[TrialRecord] = []  # the latest in a row

    def ended(self, trial: TrialRecord) -> None:
        """Counts a trial that ended here."""
        if trial.state != "failed":
            self._alike.clear()
            return
        self._failed += 1
        if self._alike and _kind(self._alike[0]) != _kind(trial):
            self._alike.clear()
        self._alike.append(trial)

    def check(self, failed: Callable[[], list[TrialRecord]], any_success: bool) -> None:
        """Ends the run if there were too many.

        Args:
            failed: looks up all trials of the study that failed.
            any_success: whether a trial of the study has succeeded.

        Raises:
            NoResultError: there were.
        """
        most, alike = self._rules.max_failures, self._rules.max_alike
        name = self._study.name
        if most is not None and self._failed >= most:
            what = "1 trial" if most == 1 else f"{most} trials"
            raise NoResultError(
                f"study {name!r} ends: {what} of this run failed",
                problems=causes(failed()),
                hint=f"mend the trials, or raise `max_failures`, and go on with `{self._go_on}`; {self._again}",
            )
        if alike is not None and not any_success and len(self._alike) >= alike:
            raise NoResultError(
                f"study {name!r} ends: {len(self._alike)} trials failed alike, and none has succeeded",
                problems=causes(self._alike),
                hint=f"mend the trials and go on with `{self._go_on}`; {self._again}; `max_failures` allows for more",
            )

    @property
    def _again(self) -> str:
        return f"`nnas study retry {self._study.name}` tries those again that failed"
