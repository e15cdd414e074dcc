"""Every JSON document is checked here against its schema (``schemas/``, installed as ``nnas_core.schemas``)."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import itertools
import json
from typing import TYPE_CHECKING, Any

from nnas_core.errors import InputError, UsageError, listed, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

__all__ = ["check", "check_kind", "kind_of", "kinds", "load", "problems", "tagged"]


def kinds() -> tuple[str, ...]:
    """Returns the names of all schemas, sorted."""
    files = importlib.resources.files("nnas_core.schemas").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


@functools.cache
def load(kind: str) -> dict[str, Any]:
    """Returns the schema of one kind of document, as a dictionary."""
    text = importlib.resources.files("nnas_core.schemas").joinpath(f"{kind}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check_kind(kind: str) -> None:
    """Refuses what is no name of a schema.

    Raises:
        UsageError: with the nearest name, or all.
    """
    if kind in kinds():
        return
    near = difflib.get_close_matches(kind, kinds(), n=1)
    raise UsageError(
        f"no kind is named {kind!r}", hint=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(kinds())}"
    )


def tagged(kind: str, document: Mapping[str, object]) -> dict[str, object]:
    """Returns ``document`` with the tag of its kind, as in ``"format": "nnas.search-report/1"``."""
    return {"format": _tag(kind), **document}


def kind_of(document: Mapping[str, object]) -> str | None:
    """Returns the kind that the tag ``format`` of a document names; None without one, or if no kind has it."""
    tag = document.get("format")
    return None if tag is None else next((kind for kind in kinds() if _tag(kind) == tag), None)


def _tag(kind: str) -> str | None:
    found: str | None = load(kind).get("properties", {}).get("format", {}).get("const")
    return found


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # late: 90 ms that most commands never need

    return Draft202012Validator(load(kind))


_MOST_ERRORS = 1000
"""Errors that are looked at; whoever made as many will not read the others."""


def problems(kind: str, document: object) -> list[str]:
    """Lists what is wrong with ``document``, one line a problem with its JSON path, sorted; empty if valid.

    Of many problems it lists the first, and says how many more there are.
    """
    errors = _validator(kind).iter_errors(document)
    found = sorted({_line(_most_useful(error)) for error in itertools.islice(errors, _MOST_ERRORS)})
    return listed(found, and_more=next(errors, None) is not None)


def check(kind: str, document: object, where: str) -> None:
    """Refuses a document that breaks its schema.

    Raises:
        InputError: with every problem listed.
    """
    found = problems(kind, document)
    if found:
        article = "an" if kind[0] in "aeiou" else "a"
        raise InputError(f"not {article} {kind.replace('-', ' ')}", where=where, problems=found)


def _most_useful(error: ValidationError) -> ValidationError:
    """Returns the nearest branch of a failed ``oneOf``, instead of "is not valid under any of the schemas"."""
    while error.context:
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), inner.validator != "const"))
    return error


def _line(error: ValidationError) -> str:
    return f"{shortened(error.json_path, 200)}: {shortened(error.message, 200)}"
