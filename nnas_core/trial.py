"""Programs that a study runs as trials learn here what to try, and report how well it did.

    from nnas_core.trial import get_parameters, report_final, report_intermediate

    parameters = get_parameters()
    for epoch in range(10):
        ...
        report_intermediate(accuracy)
    report_final(accuracy)

It needs no torch. A program in another language reads the JSON file that ``NNAS_PARAMETERS`` names and writes one to
``NNAS_RESULT``: ``{"value": 0.93}``, and, if it likes, ``"metrics"`` and ``"cost"``, objects of numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnas_core.errors import InputError, UsageError
from nnas_core.files import append_json_line, finite, finite_only, not_finite, read_json, write_json

__all__ = ["get_parameters", "report_final", "report_intermediate"]


def get_parameters() -> dict[str, Any]:
    """Returns what this trial shall try: key -> ``{"_value": name, "_idx": index}``, as NNI's ``get_next_parameter``.

    Raises:
        UsageError: ``NNAS_PARAMETERS`` does not name a file of parameters.
        InputError: the file cannot be read.
    """
    path = os.environ.get("NNAS_PARAMETERS")
    if not path:
        raise UsageError(
            "this program was not started as a trial",
            hint="let `nnas tune` run it as a trial, or set NNAS_PARAMETERS to a file of parameters",
        )
    parameters = read_json(path)
    if not isinstance(parameters, dict):
        raise InputError("not an object of parameters", where=path)
    return parameters


def report_intermediate(value: object) -> None:
    """Reports how well the trial does so far, for example after each epoch.

    Args:
        value: a number, or a dict with one under ``"default"``. What is no finite number is not recorded. Without
            ``nnas tune`` nothing is.
    """
    path = os.environ.get("NNAS_INTERMEDIATE")
    number = finite(value.get("default") if isinstance(value, Mapping) else value)
    if path and number is not None:
        append_json_line(path, {"value": number})


def report_final(value: object) -> None:
    """Reports the result of the trial, once; without it the trial fails, whatever its exit status.

    Args:
        value: a number, or a dict with one under ``"default"``; its other numbers are kept as metrics. What is no
            finite number fails the trial. Without ``nnas tune`` nothing is recorded.

    Raises:
        UsageError: it is the second report; the trial fails.
        EnvironmentFailure: the file cannot be written.
    """
    path = os.environ.get("NNAS_RESULT")
    if not path:
        return
    result: dict[str, object] = {name: int(os.environ[f"NNAS_{name.upper()}"]) for name in ("trial", "attempt")}
    if Path(path).exists():
        error = "the final result was reported twice"
        write_json(path, {**result, "error": error})
        raise UsageError(error, hint="call report_final once, at the end")
    metrics = value if isinstance(value, Mapping) else {"default": value}
    number = finite(metrics.get("default"))
    if number is None:
        result["error"] = not_finite(metrics.get("default"))
    else:
        result.update(value=number, metrics=finite_only({str(name): one for name, one in metrics.items()}))
    write_json(path, result)
