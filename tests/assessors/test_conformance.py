"""Every registered assessor keeps to what ``nnas_core.testing`` asks of all, and so does one written for NNI."""

from __future__ import annotations

from typing import Any

from nnas_core import Assessor, AssessResult
from nnas_core.plugins import registry
from nnas_core.testing import AssessorConformance

_ARGUMENTS: dict[str, dict[str, Any]] = {"hyperband": {"max_resource": 27}}

for _name in registry.entries("assessors"):
    _case = f"Test{_name.title().replace('-', '')}"
    globals()[_case] = type(
        _case,
        (AssessorConformance,),
        {"assessor": registry.find("assessors", _name), "arguments": _ARGUMENTS.get(_name, {})},
    )


class TestAshaWithItsEnd(AssessorConformance):
    """Where the complete length is known."""

    assessor = registry.find("assessors", "asha")
    arguments = {"min_resource": 2, "reduction_factor": 3, "max_resource": 30}  # noqa: RUF012


class BestSoFar(Assessor):
    """As NNI's documentation writes them: ends what has not come near the best of all after ten values."""

    def __init__(self, optimize_mode: str) -> None:
        self.high_better = optimize_mode == "maximize"
        self.best: dict[int, float] = {}

    def assess_trial(self, trial_job_id: int, trial_history: Any) -> AssessResult:
        values = trial_history if self.high_better else [-value for value in trial_history]
        if len(values) < 10:
            return AssessResult.Good
        self.best[trial_job_id] = max(values[:10])
        if values[-1] < 0.6 * max(self.best.values()):
            return AssessResult.Bad
        return AssessResult.Good

    def trial_end(self, trial_job_id: int, success: bool) -> None:
        if not success:
            self.best.setdefault(trial_job_id, 0.0)


class TestOneOfNni(AssessorConformance):
    """Its verdicts have names."""

    assessor = BestSoFar
