"""A worker of ``WorkerPool`` for tests of studies: says what it begins, then takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nnas_core.execution.engine import TrialResult
from nnas_core.execution.worker import EvaluateInSteps, serve
from nnas_core.space.architecture import Architecture
from tests.study.trial_objective import TRIAL_S, Log, evaluate, space_of_all_kinds


def main(jobs: int, reports: int) -> None:
    """Work until nobody listens."""
    serve(jobs, reports, prepare)


def prepare(setting: dict[str, Any]) -> EvaluateInSteps:
    """Evaluate as ``objective.evaluate`` does."""
    choices = space_of_all_kinds().choices
    log = Log(setting["log"])

    def evaluation(canonical: str, poll: Callable[[], None], report: Callable[[float], None]) -> TrialResult:
        log.write("begin", canonical)
        time.sleep(TRIAL_S)
        return evaluate(Architecture.from_canonical(canonical, choices))

    return evaluation
