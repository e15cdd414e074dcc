"""Jobs, reports and errors as JSON objects, for processes that do not share a memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnas_core.errors import NnasError, UserCodeError
from nnas_core.execution.engine import Failed, Finished, Intermediate, Job, Report, TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Choice

__all__ = [
    "error_from_json",
    "error_to_json",
    "job_from_json",
    "job_to_json",
    "report_from_json",
    "report_to_json",
]


def job_to_json(job: Job) -> dict[str, Any]:
    """A job; what its architecture means, the choices of its space say."""
    return {
        "number": job.number,
        "attempt": job.attempt,
        "architecture": job.architecture.canonical,
        "timeout_s": job.timeout_s,
    }


def job_from_json(message: Mapping[str, Any], choices: Mapping[str, Choice]) -> Job:
    """Read what ``job_to_json`` wrote, for the same space."""
    architecture = Architecture.from_canonical(message["architecture"], choices)
    return Job(message["number"], message["attempt"], architecture, message["timeout_s"])


def report_to_json(report: Report) -> dict[str, Any]:
    """A report; its numbers are finite, and come back to the bit."""
    message: dict[str, Any] = {"number": report.number, "attempt": report.attempt}
    if isinstance(report, Intermediate):
        return {**message, "sequence": report.sequence, "intermediate": report.value}
    message["seconds"] = report.seconds
    if isinstance(report, Finished):
        result = report.result
        return {**message, "value": result.value, "metrics": dict(result.metrics), "cost": dict(result.cost)}
    message.update(failed=report.message, lost=report.lost)
    return message if report.error is None else {**message, "error": error_to_json(report.error)}


def report_from_json(message: Mapping[str, Any]) -> Report:
    """Read what ``report_to_json`` wrote."""
    number, attempt = message["number"], message["attempt"]
    if "intermediate" in message:
        return Intermediate(number, attempt, message["sequence"], message["intermediate"])
    if "failed" in message:
        error = error_from_json(message["error"]) if "error" in message else None
        return Failed(number, attempt, message["failed"], message["seconds"], message["lost"], error)
    result = TrialResult(message["value"], message["metrics"], message["cost"])
    return Finished(number, attempt, result, message["seconds"])


def error_to_json(error: NnasError) -> dict[str, Any]:
    """An error, with what its user needs to see of it."""
    trace = error.user_traceback if isinstance(error, UserCodeError) else ""
    return {
        "of_user": isinstance(error, UserCodeError),
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "problems": list(error.problems),
        "user_traceback": trace,
    }


def error_from_json(described: Mapping[str, Any]) -> UserCodeError | None:
    """The error of a user's code that ``error_to_json`` described; None for one of another kind."""
    if not described["of_user"]:
        return None
    return UserCodeError(
        described["message"],
        where=described["where"],
        hint=described["hint"],
        problems=described["problems"],
        user_traceback=described["user_traceback"],
    )
