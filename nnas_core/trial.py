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

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from nnas_core.errors import InputError, UsageError
from nnas_core.files import append_json_line, finite_only, not_finite, read_json, write_json

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
        value: what ``float()`` takes, a tensor or array of one element too, or a dict with such a thing under
            ``"default"``. One that is not finite is recorded as the worst value, at its step. Without ``nnas tune``
            nothing is recorded.

    Raises:
        UsageError: it is something else, with or without ``nnas tune``.
        EnvironmentFailure: the file cannot be written.
    """
    number = _default_of(value, "report_intermediate")
    path = os.environ.get("NNAS_INTERMEDIATE")
    if path:
        append_json_line(path, {"value": number if math.isfinite(number) else None})


def report_final(value: object) -> None:
    """Reports the result of the trial, once; without it the trial fails, whatever its exit status.

    Args:
        value: what ``float()`` takes, a tensor or array of one element too, or a dict with such a thing under
            ``"default"``; its other numbers are kept as metrics. One that is not finite fails the trial. Without
            ``nnas tune`` nothing is recorded.

    Raises:
        UsageError: it is something else; or it is the second report, and the trial fails.
        EnvironmentFailure: the file cannot be written.
    """
    number = _default_of(value, "report_final")
    path = os.environ.get("NNAS_RESULT")
    if not path:
        return
    result: dict[str, object] = {name: int(os.environ[f"NNAS_{name.upper()}"]) for name in ("trial", "attempt")}
    if Path(path).exists():
        error = "the final result was reported twice"
        write_json(path, {**result, "error": error})
        raise UsageError(error, hint="call report_final once, at the end")
    if not math.isfinite(number):
        result["error"] = not_finite(number)
    else:
        others = value if isinstance(value, Mapping) else {}
        numbers = {str(name): _number(one) for name, one in others.items() if not isinstance(one, str)}
        result.update(value=number, metrics=finite_only({**numbers, "default": number}))
    write_json(path, result)


def _default_of(value: object, function: str) -> float:
    """Returns the number that is reported; ``function`` is what errors name."""
    given = value.get("default") if isinstance(value, Mapping) else value
    if given is None and isinstance(value, Mapping):
        names = ", ".join(map(repr, value)) or "nothing"
        _refuse(f'{function}: the dict has no number under "default", only {names[:200]}')
    number = _number(given)
    if number is None:
        _refuse(f"{function}: {_described(given)} is no number")
    return number


def _refuse(message: str) -> NoReturn:
    raise UsageError(message, hint='give what float() takes, or a dict with that under "default"')


def _number(value: object) -> float | None:
    """Returns what ``float()`` makes of a value; of a tensor or an array of one element, that element."""
    try:
        one = getattr(value, "item", None)
        return float(one() if callable(one) else value)  # type: ignore[arg-type]  # it says whether it takes it
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return f"{value!r:.80}" if value is None or isinstance(value, str) else f"a value of type {type(value).__name__}"
