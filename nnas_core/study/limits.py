"""When the work of a process on a study ends, what holds for each of its trials, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnas_core.assessors.base import Assessor
from nnas_core.errors import Interrupted, UsageError
from nnas_core.space.region import KnownCosts, Region
from nnas_core.study.storage.records import LimitsDocument, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from nnas_core.study.storage.session import StudySession

__all__ = ["MOST_REPEATS", "REASONS", "LimitWatch", "Limits", "RunSettings", "TrialRules", "interrupted"]

MOST_REPEATS = 1000
"""Known architectures that a tuner may propose one after the other before the study ends."""

REASONS = {
    "trials": "the number of trials is reached",
    "duration": "the time is used up",
    "exhausted": "there are no more architectures to try",
    "repeats": f"the tuner proposed {MOST_REPEATS} known architectures one after the other",
    "stopped": "it was asked to stop",
}

_LOOK_EVERY_S = 1.0
"""How often limits that others may change are read."""


@dataclass(frozen=True)
class Limits:
    """Says when a run of a study ends, and how much it does at once; others may change that in the store.

    Attributes:
        trials: the number of finished trials that the study shall have; None for no limit.
        duration_s: no trial begins after so many seconds of the run.
        concurrency: trials that run at once, as far as the engine has slots.

    Raises:
        UsageError: one of them is not positive.
    """

    trials: int | None = None
    duration_s: float | None = None
    concurrency: int = 1

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"the number of trials must be at least 1, not {self.trials}")
        if self.duration_s is not None and not self.duration_s > 0:
            raise UsageError(f"the duration must be positive, not {self.duration_s:g} s")
        if self.concurrency < 1:
            raise UsageError(f"the concurrency must be at least 1, not {self.concurrency}")

    def to_json(self) -> LimitsDocument:
        """Returns the limits as they are stored."""
        return {"trials": self.trials, "duration_s": self.duration_s, "concurrency": self.concurrency}


@dataclass(frozen=True)
class TrialRules:
    """Holds for each trial of a run.

    Attributes:
        attempts: how often a trial is begun whose process died, before it counts as failed.
        timeout_s: after how long a trial fails; None for no limit.
        max_failures: the run ends when so many of its trials have failed; None for no limit.
        max_alike: the run ends when so many of its trials in a row have failed for one reason, before any trial of the
            study has succeeded: then the reason is not the architecture. None for no limit.
        assessor: ends trials early by what they report on their way.

    Raises:
        UsageError: one of them is out of range.
    """

    attempts: int = 3
    timeout_s: float | None = None
    max_failures: int | None = None
    max_alike: int | None = 3
    assessor: Assessor | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"the number of attempts must be at least 1, not {self.attempts}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UsageError(f"the timeout of a trial must be positive, not {self.timeout_s:g} s")
        for most in (self.max_failures, self.max_alike):
            if most is not None and most < 1:
                raise UsageError(f"the number of failures must be at least 1, not {most}")


@dataclass(frozen=True)
class RunSettings:
    """Says how a process works on a study.

    Attributes:
        limits: until when, and how much at once.
        rules: for each trial.
        costs: what architectures cost, as far as that is known without a trial; it is stored with each.
        region: of the architectures that may be tried, by those of the study's constraints that are on such costs.
        wait: until a study is free that another process has.
        retry_failed: the trials of the study that failed are tried again; only where nobody shares it.
        should_stop: asked before every trial and several times a second; a signal's number ends the run.
        at_once: entered where the tuner may think for long and nothing can be lost: a signal raises
            ``KeyboardInterrupt`` there, and ``should_stop`` has its number.
        on_start: called once with the numbers of finished and of recovered trials.
        on_begin: called with each trial that begins here, before it runs; also when it begins again.
        on_trial: called with each trial that ended here, after it is stored.
        on_retry: called with a trial that begins again, and with what ended the attempt before.
    """

    limits: Limits = field(default_factory=Limits)
    rules: TrialRules = field(default_factory=TrialRules)
    costs: KnownCosts | None = None
    region: Region | None = None
    wait: bool = False
    retry_failed: bool = False
    should_stop: Callable[[], int | None] = field(default_factory=lambda: _ignored)
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext
    on_start: Callable[[int, int], None] = field(default_factory=lambda: _ignored)
    on_begin: Callable[[TrialRecord], None] = field(default_factory=lambda: _ignored)
    on_trial: Callable[[TrialRecord], None] = field(default_factory=lambda: _ignored)
    on_retry: Callable[[TrialRecord, str], None] = field(default_factory=lambda: _ignored)


def _ignored(*_told: object) -> None:
    """Stands for a callback that nobody has given."""


def interrupted(study: StudyRecord, finished: int, signal_number: int, go_on: str) -> Interrupted:
    """Describes the end of a run by a signal; ``go_on`` is the parameter that goes on."""
    return Interrupted(
        signal_number,
        f"study {study.name!r} was interrupted; its {finished} finished trials are stored",
        hint=f"run the command again with `{go_on}` to go on",
    )


class LimitWatch:
    """Follows the limits of a run, which others may change in the store.

    Args:
        session: of the study; the limits are stored there now. Where others work on it already, theirs stay: their
            number of trials holds.
        limits: those that the run begins with.
    """

    def __init__(self, session: StudySession, limits: Limits) -> None:
        self._session = session
        self._trials, self._duration_s = limits.trials, limits.duration_s
        self._concurrency = limits.concurrency
        self._begin = self._looked = time.monotonic()
        session.set_limits(limits.to_json())
        self._known = session.read_control()
        self._trials = self._known.limits["trials"]

    @property
    def concurrency(self) -> int:
        """Holds how many trials run at once."""
        return self._concurrency

    def look(self) -> None:
        """Reads the limits again, if that was not done just now."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        self._session.read_control()

    def reached(self) -> str | None:
        """Returns the reason to begin nothing more, if there is one, by what the session has read last."""
        self._heed()
        if self._known.stop:
            return "stopped"
        if self._trials is not None and self._session.begun >= self._trials:
            return "trials"
        if self._duration_s is not None and time.monotonic() - self._begin >= self._duration_s:
            return "duration"
        return None

    def _heed(self) -> None:
        before, now = self._known.limits, self._session.control.limits
        self._known = self._session.control
        self._trials = now["trials"]
        # the others are those of this process, until somebody changes them for all
        if now["duration_s"] != before["duration_s"]:
            self._duration_s = now["duration_s"]
        if now["concurrency"] != before["concurrency"]:
            self._concurrency = now["concurrency"] or 1
