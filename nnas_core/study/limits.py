"""When a run of a study ends, and what holds for each of its trials."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from nnas_core.assessors.base import Assessor
from nnas_core.errors import UsageError
from nnas_core.study.storage.session import TrialWriter

__all__ = ["Limits", "TrialRules"]

_LOOK_EVERY_S = 1.0
"""How often limits that others may change are read."""

_RENEW_EVERY_S = 60.0
"""How often the ownership is renewed while trials run and nothing is written."""


@dataclass(frozen=True)
class TrialRules:
    """What holds for each trial of a run.

    Attributes:
        attempts: how often a trial is begun whose process died, before it counts as failed.
        timeout_s: after how long a trial fails; None for no limit.
        max_failures: the run ends when so many of its trials have failed; None for no limit.
        assessor: ends trials early by what they report on their way.

    Raises:
        UsageError: one of them is out of range.
    """

    attempts: int = 3
    timeout_s: float | None = None
    max_failures: int | None = None
    assessor: Assessor | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"the number of attempts must be at least 1, not {self.attempts}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UsageError(f"the timeout of a trial must be positive, not {self.timeout_s:g} s")
        if self.max_failures is not None and self.max_failures < 1:
            raise UsageError(f"the number of failures must be at least 1, not {self.max_failures}")


class Limits:
    """When a run ends and how much it does at once; others may change that in the store.

    Args:
        owned: the study; its limits are stored there now. Where others work on it already, theirs stay: their number
            of trials holds.
        trials, duration_s, concurrency: as for ``run_study``.

    Attributes:
        stop: somebody has asked the study to stop.

    Raises:
        UsageError: a limit is not positive.
    """

    def __init__(self, owned: TrialWriter, trials: int | None, duration_s: float | None, concurrency: int) -> None:
        if trials is not None and trials < 1:
            raise UsageError(f"the number of trials must be at least 1, not {trials}")
        if duration_s is not None and not duration_s > 0:
            raise UsageError(f"the duration must be positive, not {duration_s:g} s")
        if concurrency < 1:
            raise UsageError(f"the concurrency must be at least 1, not {concurrency}")
        self.trials = trials
        self.duration_s = duration_s
        self.concurrency = concurrency
        self.stop = False
        self._owned = owned
        self._stored: dict[str, Any] = {}
        self._begin = self._looked = self._renewed = time.monotonic()
        owned.set_limits({"trials": trials, "duration_s": duration_s, "concurrency": concurrency})
        self._stored, _ = owned.control()
        self.read()

    def look(self) -> None:
        """Read the limits again, if that was not done just now."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        if now - self._renewed >= _RENEW_EVERY_S:
            self._renewed = now
            self._owned.renew()
        self.read()

    def read(self) -> None:
        """Read the limits again."""
        before = self._stored
        self._stored, self.stop = self._owned.control()
        self.trials = self._stored.get("trials")
        # the others are those of this process, until somebody changes them for all
        if self._stored.get("duration_s") != before.get("duration_s"):
            self.duration_s = self._stored.get("duration_s")
        if self._stored.get("concurrency") != before.get("concurrency"):
            self.concurrency = self._stored.get("concurrency") or 1

    def reached(self, begun: int) -> str | None:
        """The reason to begin nothing more, if there is one."""
        if self.stop:
            return "stopped"
        if self.trials is not None and begun >= self.trials:
            return "trials"
        if self.duration_s is not None and time.monotonic() - self._begin >= self.duration_s:
            return "duration"
        return None
