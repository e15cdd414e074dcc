"""Each candidate runs once before a training, so that all mistakes in shapes are known before one of them ends it.

As few forward passes of a first batch as choose every candidate and every input. Where one fails, each decision of it
runs alone among others that work, and those that fail so are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nnas_core.errors import NnasError, UserCodeError
from nnas_core.mutables.naming import text_of
from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace

__all__ = ["try_candidates"]


def try_candidates(
    space: SearchSpace, attempt: Callable[[Mapping[str, Decision]], Exception | None], where: str
) -> None:
    """Refuse a model some of whose candidates fail where others work.

    Where nothing works, the mistake is not in the candidates, and nothing is said: the training will.

    Args:
        space: of the model.
        attempt: runs one architecture, given by indices of candidates; what it raised.
        where: the model is, for the error.

    Raises:
        UserCodeError: listing each candidate that fails, with the first line of its error.
    """
    choices = space.choices
    tried = [architecture.indices() for architecture in space.covering()]
    errors = [attempt(decisions) for decisions in tried]
    working = next((one for one, error in zip(tried, errors, strict=True) if error is None), None)
    if working is None:
        return
    problems: dict[str, None] = {}
    hints: dict[str, None] = {}
    for decisions, error in zip(tried, errors, strict=True):
        if error is None:
            continue
        alone = [{key: decision} for key, decision in decisions.items() if decision != working[key]]
        found = {text_of(choices, one): reason for one in alone if (reason := attempt({**working, **one})) is not None}
        for shown, reason in (found or {text_of(choices, decisions): error}).items():
            problems[f"with {shown}: {_line(reason)}"] = None
            if isinstance(reason, NnasError) and reason.hint:
                hints[reason.hint] = None
    if problems:
        raise UserCodeError(
            f"{len(problems)} candidate{'s fail' if len(problems) > 1 else ' fails'} on the first training batch",
            where=where,
            problems=list(problems),
            hint=next(iter(hints), "mend the candidates, or leave this trial out by `no_try_candidates`"),
        )


def _line(error: Exception) -> str:
    if isinstance(error, NnasError):
        return error.message
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
