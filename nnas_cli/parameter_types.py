"""The types that options are read with, beside those of click."""

from __future__ import annotations

import json
import re

import click

__all__ = ["ASSIGNMENT", "DURATION", "GPUS", "OrNone"]


class _Assignment(click.ParamType[tuple[str, object]]):
    """``KEY=VALUE``; the value is a JSON literal, or a text where it is none."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, object]:
        if isinstance(value, (tuple, list)):
            return (value[0], value[1])
        key, equals, text = str(value).partition("=")
        if not equals or not key.isidentifier():
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


ASSIGNMENT = _Assignment()


class _Duration(click.ParamType[float]):
    """Seconds, or with a unit: ``90s``, ``30m``, ``2h``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no duration; give 90s, 30m, 2h or 1d", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


DURATION = _Duration()


class _Gpus(click.ParamType[tuple[str, ...]]):
    """Numbers or UUIDs, between commas; also a list, as a configuration may have it."""

    name = "list"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        parts = list(value) if isinstance(value, (list, tuple)) else str(value).split(",")
        found = tuple(str(part).strip() for part in parts)
        if not found or not all(re.fullmatch(r"\w[\w/:.-]*", part) for part in found):
            self.fail(f"{value!r} is no list of GPUs; give their numbers: 0,1", param, ctx)
        return found


GPUS = _Gpus()


class OrNone(click.ParamType[object]):
    """Another type, or ``none``, which becomes the text ``none``."""

    def __init__(self, inner: click.ParamType[object]) -> None:
        self._inner = inner
        self.name = f"{inner.name} or none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return value if value == "none" else self._inner.convert(value, param, ctx)
